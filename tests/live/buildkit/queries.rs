//! Questions about a real buildkitd, answered as `buildctl` answers them: workers, version, disk, history, logs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lemnos::buildkit::{
    Client, Display, HistoryEvent, HistoryQuery, Mode, Moment, Rule, Size, SolveError, State, Sum,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{BUILD, Buildkitd, connect_when_ready, request, unique};
use crate::support::engines;

/// What `buildctl` prints.
pub(crate) fn buildctl(socket: &Path, arguments: &[&str]) -> String {
    let address = format!("unix://{}", socket.display());
    let output =
        Command::new(&engines().buildctl).args(["--addr", &address]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Go prints an empty list as null, and no field of ours as nothing.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().map(|(name, value)| (name, without_nulls(value)));
            Value::Object(kept.filter(|(_, value)| *value != Value::Null && *value != json("[]")).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Builds, with a record in the history; its reference.
async fn build(client: &Client, dockerfile: &str) -> Result<String, SolveError> {
    let (_dir, mut request) = request(dockerfile, "linux/amd64");
    request.internal = false;
    let result = tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.expect("in time");
    result.map(|result| result.reference)
}

#[tokio::test]
async fn workers_version_and_disk_are_what_buildctl_says() {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let socket = daemon.socket();
    let format = ["--format", "{{json .}}"];
    let ask = |words: &[&str]| without_nulls(json(&buildctl(&socket, &[words, &format].concat())));

    let info = serde_json::to_value(client.info().await.unwrap()).unwrap();
    assert_eq!(ask(&["debug", "info"]), serde_json::json!({ "buildkitVersion": info }));

    let ours = client.workers().await.unwrap();
    let mut theirs = ask(&["debug", "workers"]);
    for worker in theirs.as_array_mut().unwrap() {
        for platform in worker["platforms"].as_array_mut().unwrap() {
            let part = |name: &str| platform[name].as_str().map(str::to_owned);
            let parts = [part("os"), part("architecture"), part("variant")];
            *platform = Value::from(parts.into_iter().flatten().collect::<Vec<_>>().join("/"));
        }
    }
    assert!(!ours[0].gc_policy.is_empty(), "{ours:?}");
    assert_eq!(theirs, without_nulls(serde_json::to_value(&ours).unwrap()));
    let id = format!("id=={}", ours[0].id);
    assert_eq!(client.workers_matching(&[id]).await.unwrap(), ours);
    assert_eq!(client.workers_matching(&["id==nobody".into()]).await.unwrap(), []);

    build(
        &client,
        &format!("FROM busybox\nRUN echo {} >/word\nRUN --mount=type=cache,target=/c :\n", unique()),
    )
    .await
    .unwrap();
    // the daemon lets go of a build's mounts a little after its end
    let deadline = Instant::now() + BUILD;
    let usage = loop {
        let usage = client.disk_usage(&[], Duration::ZERO).await.unwrap();
        let (ours, theirs) = (without_nulls(serde_json::to_value(&usage).unwrap()), ask(&["du"]));
        if ours == theirs {
            break usage;
        }
        assert!(Instant::now() < deadline, "ours: {ours}\ntheirs: {theirs}");
    };
    let sum = Sum::of(&usage);
    assert!(sum.total > 0 && sum.reclaimable <= sum.total, "{sum:?}");
    for filter in ["type==exec.cachemount", "type==source.local", "mutable", "description~=word"] {
        let some = client.disk_usage(&[filter.to_owned()], Duration::ZERO).await.unwrap();
        let theirs = ask(&["du", "--filter", filter]);
        assert_eq!(theirs, without_nulls(serde_json::to_value(&some).unwrap()), "{filter}");
        assert!(!some.is_empty() && some.len() < usage.len(), "{filter}: {some:?}");
    }
    assert_eq!(client.disk_usage(&[], Duration::from_secs(3600)).await.unwrap(), []);
}

#[tokio::test]
async fn prune_takes_what_its_rule_says() {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let mount = "RUN --mount=type=cache,target=/c head -c 3000000 /dev/zero >/c/x";
    build(&client, &format!("FROM busybox\nRUN head -c 2000000 /dev/zero >/{}\n{mount}\n", unique()))
        .await
        .unwrap();
    let before = client.disk_usage(&[], Duration::ZERO).await.unwrap();

    let mut gone = Vec::new();
    let kept_by = [
        Rule { keep_duration: Duration::from_secs(3600), ..Rule::default() },
        Rule { reserved_space: 1 << 40, max_used_space: 1 << 40, ..Rule::default() },
        Rule { filters: vec!["id==nothing".into()], ..Rule::default() },
    ];
    for rule in kept_by {
        assert_eq!(
            client.prune(&rule, |record| gone.push(record)).await.unwrap(),
            Sum::default(),
            "{rule:?}"
        );
    }
    assert_eq!(client.disk_usage(&[], Duration::ZERO).await.unwrap().len(), before.len());

    let mounts = Rule { filters: vec!["type==exec.cachemount".into()], ..Rule::default() };
    let sum = client.prune(&mounts, |record| gone.push(record)).await.unwrap();
    assert!(sum.total >= 3_000_000, "{sum:?}");
    assert!(gone.iter().all(|record| record.description.starts_with("cached mount")), "{gone:?}");
    // down to a bound, and no further than it must
    let bound = Rule { all: true, max_used_space: 1_000_000, ..Rule::default() };
    let sum = client.prune(&bound, |_| {}).await.unwrap();
    assert!(sum.total >= 2_000_000, "{sum:?}");
    assert!(Sum::of(&client.disk_usage(&[], Duration::ZERO).await.unwrap()).total <= 1_000_000);
    client.prune(&Rule { all: true, ..Rule::default() }, |_| {}).await.unwrap();
    assert_eq!(client.disk_usage(&[], Duration::ZERO).await.unwrap(), []);
    assert_eq!(buildctl(&daemon.socket(), &["du", "--format", "{{len .}}"]).trim(), "0");
}

/// Each line of rawjson, without the steps by which a definition file got to the daemon: no event keeps them.
fn told(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

#[tokio::test]
async fn past_builds_are_listed_pinned_told_again_and_deleted() {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let socket = daemon.socket();
    let word = unique();
    let good = build(&client, &format!("FROM busybox as b\nRUN echo {word}; echo '<&>' >&2; sleep 0.3\n"))
        .await
        .unwrap();
    let error = build(&client, &format!("FROM busybox\nRUN echo {word} && exit 3\n")).await.unwrap_err();
    assert_eq!(error.exit_code, Some(3));

    let records = client.history(&HistoryQuery::default()).await.unwrap();
    let states: Vec<_> = records.iter().map(|record| record.state()).collect();
    assert_eq!(states, [State::Failed, State::Completed]);
    assert_eq!(records[1].reference, good);
    let events = buildctl(&socket, &["debug", "histories", "--format", "{{json .}}"]);
    let theirs: BTreeMap<String, Value> = events
        .lines()
        .map(|line| json(line)["record"].clone())
        .map(|record| (record["Ref"].as_str().unwrap().to_owned(), record))
        .collect();
    for record in &records {
        assert_eq!(theirs[&record.reference], serde_json::to_value(record).unwrap());
    }
    let failed = HistoryQuery { filters: vec!["status==error".into()], ..HistoryQuery::default() };
    assert_eq!(client.history(&failed).await.unwrap(), records[..1]);
    let newest = HistoryQuery { limit: 1, ..HistoryQuery::default() };
    assert_eq!(client.history(&newest).await.unwrap(), records[..1]);

    for record in &records {
        let reference = record.reference.as_str();
        let mut displays = [Mode::RawJson, Mode::Plain]
            .map(|mode| (Display::new(mode, false, false).unwrap(), String::new()));
        let now = Moment::now();
        client
            .build_logs(reference, |events| {
                displays.iter_mut().for_each(|(display, text)| text.push_str(&display.update(&events, now)));
            })
            .await
            .unwrap();
        displays.iter_mut().for_each(|(display, text)| text.push_str(&display.finish(now, Size::default())));
        let [(_, rawjson), (_, plain)] = displays;
        let theirs = buildctl(&socket, &["debug", "logs", "--progress=rawjson", reference]);
        assert!(theirs.contains("echo"), "{theirs}");
        assert!(told(&rawjson) == told(&theirs), "ours:\n{rawjson}\ntheirs:\n{theirs}");
        let theirs = buildctl(&socket, &["debug", "logs", "--progress=plain", reference]);
        assert_eq!(plain, theirs);
    }

    client.pin_history(&good, true).await.unwrap();
    assert!(client.history_record(&good).await.unwrap().pinned);
    let listed = buildctl(&socket, &["debug", "histories"]);
    assert!(listed.lines().any(|line| line.contains(&good) && line.trim_end().ends_with('*')), "{listed}");
    client.pin_history(&good, false).await.unwrap();
    client.delete_history(&records[0].reference).await.unwrap();
    let left: Vec<_> =
        client.history(&HistoryQuery::default()).await.unwrap().into_iter().map(|r| r.reference).collect();
    assert_eq!(left, [good]);
    assert!(client.history_record(&records[0].reference).await.is_err());
}

#[tokio::test]
async fn history_is_followed_as_it_happens() {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let watcher = connect_when_ready(&daemon.socket()).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        watcher.follow_history(&HistoryQuery::default(), |event| drop(tell.send(event))).await
    });
    let reference = build(&client, &format!("FROM busybox\nRUN echo {}\n", unique())).await.unwrap();
    client.delete_history(&reference).await.unwrap();
    let mut seen = Vec::new();
    let last = |event: &HistoryEvent| matches!(event, HistoryEvent::Deleted(_));
    while !seen.last().is_some_and(last) {
        seen.push(tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap());
    }
    assert!(matches!(&seen[0], HistoryEvent::Started(record) if record.reference == reference), "{seen:?}");
    assert!(
        seen.iter().any(|event| matches!(event, HistoryEvent::Complete(r) if r.state() == State::Completed))
    );
    drop(daemon);
    let ended = tokio::time::timeout(Duration::from_secs(20), following).await.unwrap().unwrap();
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn exported_records_are_an_oci_layout_with_all_blobs() {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let word = unique();
    let first = build(&client, &format!("FROM busybox\nRUN echo {word}\n")).await.unwrap();
    build(&client, &format!("FROM busybox\nRUN echo {word} && exit 3\n")).await.unwrap_err();
    client.finalize_history(&first).await.unwrap();
    let records = client.history(&HistoryQuery::default()).await.unwrap();
    let packed = client.export_history(records.clone(), Vec::new()).await.unwrap();
    let files = unpacked(&packed);
    assert_eq!(json(&text(&files, "oci-layout"))["imageLayoutVersion"], "1.0.0");
    let root = json(&text(&files, "index.json"));
    let index = blob(&files, &root["manifests"][0]);
    let manifests = json(&index)["manifests"].as_array().unwrap().clone();
    assert_eq!(manifests.len(), 2);
    for (manifest, record) in manifests.iter().zip(&records) {
        assert_eq!(manifest["annotations"]["vnd.buildkit.history.reference"], record.reference);
        let manifest = json(&blob(&files, manifest));
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.historyrecord.v0");
        let config = json(&blob(&files, &manifest["config"]));
        assert_eq!(
            (&config["Ref"], &config["DefaultPlatform"]),
            (&record.reference.clone().into(), &"linux/amd64".into())
        );
        let layers = manifest["layers"].as_array().unwrap();
        let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
        assert!(digests.contains(&record.logs.as_ref().unwrap().digest.as_str()), "{manifest}");
        for layer in layers {
            blob(&files, layer);
        }
        let failed = record.external_error.as_ref().map(|error| digests.contains(&error.digest.as_str()));
        assert_eq!(failed.is_some(), record.state() == State::Failed);
        assert_ne!(failed, Some(false));
    }
    let one =
        client.export_history(vec![client.history_record(&first).await.unwrap()], Vec::new()).await.unwrap();
    let files = unpacked(&one);
    let manifest = json(&blob(&files, &json(&text(&files, "index.json"))["manifests"][0]));
    assert_eq!(json(&blob(&files, &manifest["config"]))["Ref"], first);
}

pub(crate) fn unpacked(packed: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    files.collect()
}

pub(crate) fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

/// The blob of a descriptor, if it is what its digest and size say.
pub(crate) fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap();
    let content = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(content))), digest);
    assert_eq!(descriptor["size"], content.len());
    String::from_utf8_lossy(content).into_owned()
}
