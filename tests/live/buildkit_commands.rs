//! `lemnos buildkit du`, `prune`, `history`, `dump-llb`, `info` and `workers` against a real buildkitd, with `buildctl` beside them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lemnos::buildkit::llb::{Constraints, Run, State};
use lemnos::buildkit::{Client, Exporter, SolveError};
use serde_json::Value;

use super::buildkit::queries::{blob, buildctl, json, text, unpacked, without_nulls};
use super::buildkit::{BUILD, Buildkitd, connect_when_ready, request, unique};
use super::house::House;
use super::support::{engines, lemnos};

/// A buildkitd of the test's own, and `lemnos` that is told of it.
struct Place {
    daemon: Buildkitd,
    dir: tempfile::TempDir,
}

/// What a command printed, and how it ended.
struct Said {
    out: String,
    err: String,
    status: i32,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status.code().unwrap(),
        }
    }

    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(json).collect()
    }
}

impl Place {
    async fn new() -> (Self, Client) {
        let place = Self { daemon: Buildkitd::start(), dir: tempfile::tempdir().unwrap() };
        let client = connect_when_ready(&place.daemon.socket()).await;
        (place, client)
    }

    fn socket(&self) -> PathBuf {
        self.daemon.socket()
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Told of the daemon by the environment.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(lemnos());
        command.arg("buildkit").args(words).stdin(Stdio::null());
        command.env("BUILDKIT_HOST", self.address()).env("LEMNOS_DATA", self.dir.path().join("data"));
        command
    }

    fn said(&self, words: &[&str]) -> Said {
        Said::of(self.command(words).output().unwrap())
    }

    /// What it printed; it must end well.
    fn well(&self, words: &[&str]) -> Said {
        let said = self.said(words);
        assert_eq!(said.status, 0, "{words:?}: {}{}", said.out, said.err);
        said
    }

    fn buildctl(&self, words: &[&str]) -> String {
        buildctl(&self.socket(), words)
    }
}

/// Builds, with a record in the history under that reference.
async fn build(client: &Client, reference: &str, dockerfile: &str) -> Result<(), SolveError> {
    let (_dir, mut request) = request(dockerfile, "linux/amd64");
    request.internal = false;
    request.reference = Some(reference.to_owned());
    request.frontend_attrs.insert("build-arg:WORD".into(), "given".into());
    tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.expect("in time").map(drop)
}

/// A program that would lead into a container or to another machine: it runs the `buildctl dial-stdio` that it is told to,
/// here.
fn stand_in(program: &Path, address: &str) {
    let script = format!(
        "#!/bin/bash\nwhile [ \"$1\" != buildctl ]; do shift; done; shift\nexec {} --addr {address} \"$@\"\n",
        engines().buildctl.display(),
    );
    std::fs::write(program, script).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Without what ours says more.
fn of_daemon(mut lines: Vec<Value>) -> Value {
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("builder").unwrap();
    }
    without_nulls(Value::Array(lines))
}

/// The first three columns: the last is an age, which buildctl leaves out.
fn columns(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().take(3).collect()).collect()
}

#[tokio::test]
async fn du_workers_and_info_say_what_buildctl_says() {
    let (place, client) = Place::new().await;
    let dockerfile = format!(
        "FROM busybox\nRUN head -c 2000000 /dev/zero >/{}\nRUN --mount=type=cache,target=/c :\n",
        unique()
    );
    build(&client, "one", &dockerfile).await.unwrap();
    let format = ["--format", "{{json .}}"];
    let ask = |words: &[&str]| without_nulls(json(&place.buildctl(&[words, &format].concat())));

    // the daemon lets go of a build's mounts a little after its end
    let deadline = Instant::now() + BUILD;
    loop {
        let (theirs, table) = (ask(&["du"]), place.buildctl(&["du"]));
        let ours = of_daemon(place.well(&["du", "--format", "json"]).lines());
        let shown = place.well(&["du"]).out;
        if ours == theirs && columns(&shown) == columns(&table) {
            assert!(shown.contains("\nTotal:") && ours.as_array().unwrap().len() > 3, "{shown}");
            break;
        }
        assert!(Instant::now() < deadline, "ours: {ours}\ntheirs: {theirs}\n{shown}\n{table}");
    }
    let filter = ["du", "--filter", "type==exec.cachemount"];
    let ours = of_daemon(place.well(&[&filter[..], &["--format", "json"]].concat()).lines());
    assert_eq!((ours.as_array().unwrap().len(), &ours), (1, &ask(&filter)));
    let pretty = place.well(&[&filter[..], &["--verbose"]].concat()).out;
    assert!(pretty.contains("Type:         exec.cachemount") && !pretty.contains("Total:"), "{pretty}");
    assert_eq!(place.well(&["du", "--until", "1h"]).out.lines().count(), 1);
    let refused = place.said(&["du", "--filter", "type="]);
    assert!(refused.status == 2 && refused.err.contains("hint: a filter is NAME==VALUE"), "{}", refused.err);

    let info = of_daemon(place.well(&["info", "--format", "json"]).lines());
    let told = ask(&["debug", "info"]);
    assert_eq!(
        (&info[0]["buildkitVersion"], &info[0]["address"]),
        (&told["buildkitVersion"], &place.address().into())
    );
    let version = told["buildkitVersion"]["version"].as_str().unwrap();
    let shown = place.well(&["info"]).out;
    assert!(
        shown.contains(&format!("BuildKit:    {version}\n")) && shown.contains("org.mobyproject"),
        "{shown}"
    );

    let ours = of_daemon(place.well(&["workers", "--format", "json"]).lines());
    let theirs = ask(&["debug", "workers"]);
    for field in ["id", "labels", "gcPolicy", "buildkitVersion"] {
        assert!(
            !theirs[0][field].is_null() && ours[0][field] == theirs[0][field],
            "{field}: {ours}\n{theirs}"
        );
    }
    assert_eq!(columns(&place.well(&["workers"]).out), columns(&place.buildctl(&["debug", "workers"])));
    let verbose = place.well(&["workers", "-v"]).out;
    assert!(verbose.contains("GC policy rule 0:\n") && verbose.contains("Labels:\n"), "{verbose}");
    assert_eq!(place.well(&["workers", "--filter", "id==nobody"]).out, "ID  PLATFORMS\n");
}

#[tokio::test]
async fn builders_are_named_in_every_form_and_several_are_asked_one_by_one() {
    let (place, _client) = Place::new().await;
    let bin = place.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let there = place.well(&["workers", "--format", "json"]).lines()[0]["id"].clone();
    for (program, address) in [
        ("docker", "docker-container://buildkitd"),
        ("podman", "podman-container://buildkitd"),
        ("kubectl", "kube-pod://buildkitd-0?namespace=ci"),
        ("ssh", "ssh://me@far"),
    ] {
        stand_in(&bin.join(program), &place.address());
        let mut command = place.command(&["workers", "--format", "json", "--builder", address]);
        let said = Said::of(command.env("PATH", &path).output().unwrap());
        assert_eq!(said.status, 0, "{address}: {}", said.err);
        assert_eq!((&said.lines()[0]["id"], &said.lines()[0]["builder"]), (&there, &address.into()));
    }
    let (good, bad) = (format!("{},name=good", place.address()), "unix:///nowhere/b.sock,name=bad");
    let both = place.said(&["workers", "--builder", bad, "--builder", &good]);
    assert!(both.status == 6 && both.err.contains("builder bad: no buildkitd at"), "{}", both.err);
    assert!(both.out.starts_with("builder good\nID"), "{}", both.out);
    let wrong = place.said(&["du", "--builder", "nerdctl-container://x"]);
    assert!(wrong.status == 2 && wrong.err.contains("podman-container://NAME"), "{}", wrong.err);
    let mut nobody = place.command(&["du"]);
    let nobody = Said::of(nobody.env_remove("BUILDKIT_HOST").output().unwrap());
    assert!(nobody.status == 3 && nobody.err.contains("hint: give --builder"), "{}", nobody.err);
    // a server that runs tells where its builders are
    std::fs::create_dir(place.dir.path().join("data")).unwrap();
    let ready =
        serde_json::json!({"ssh": "", "http": "", "registry": "", "builders": [place.address()], "pid": 1});
    std::fs::write(place.dir.path().join("data/lemnos.json"), ready.to_string()).unwrap();
    let mut served = place.command(&["workers", "--format", "json"]);
    let served = Said::of(served.env_remove("BUILDKIT_HOST").output().unwrap());
    assert_eq!((served.status, &served.lines()[0]["id"]), (0, &there), "{}", served.err);
}

#[tokio::test]
async fn prune_frees_what_it_says_and_asks_before() {
    let (place, client) = Place::new().await;
    let mount = "RUN --mount=type=cache,target=/c head -c 3000000 /dev/zero >/c/x";
    build(&client, "one", &format!("FROM busybox\nRUN head -c 2000000 /dev/zero >/{}\n{mount}\n", unique()))
        .await
        .unwrap();
    let records = || place.buildctl(&["du", "--format", "{{len .}}"]).trim().parse::<usize>().unwrap();
    let before = records();
    let unasked = place.said(&["prune", "--all"]);
    assert!(unasked.status == 2 && unasked.err.contains("hint: give --force"), "{}", unasked.err);
    let typed = |answer: &str| {
        let inside = format!("exec {} buildkit prune --all", lemnos().display());
        let mut script = Command::new("script");
        script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        script.env("BUILDKIT_HOST", place.address()).env("LEMNOS_DATA", place.dir.path());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        Said::of(child.wait_with_output().unwrap())
    };
    let asked = typed("n\n");
    assert!(asked.status == 0 && asked.out.contains("throw away all of the build cache"), "{}", asked.out);
    assert_eq!(records(), before);

    let none = place.well(&["prune", "-f", "--until", "1h"]);
    assert_eq!((none.out.as_str(), records()), ("Total: 0B\n", before));
    let kept = place.well(&["prune", "-f", "--reserved-space", "1t", "--max-used-space", "1t"]);
    assert_eq!((kept.out.as_str(), records()), ("Total: 0B\n", before));
    // the daemon lets go of a build's mounts a little after its end
    let deadline = Instant::now() + BUILD;
    let mounts = loop {
        let mounts = place.well(&["prune", "--force", "--filter", "type==exec.cachemount"]).out;
        if mounts != "Total: 0B\n" {
            break mounts;
        }
        assert!(Instant::now() < deadline, "{}", place.buildctl(&["du", "--verbose"]));
    };
    assert!(mounts.starts_with("ID ") && mounts.contains("\nTotal: 3.0"), "{mounts}");
    assert_eq!((mounts.lines().count(), records()), (3, before - 1));
    let most = place.well(&["prune", "-f", "--format", "json", "--all", "--max-used-space", "1m"]).lines();
    let freed: i64 = most.iter().map(|record| record["size"].as_i64().unwrap()).sum();
    assert!(freed >= 2_000_000 && records() < before - 1, "{most:?}");
    if records() > 0 {
        assert!(typed("yes\n").out.contains("Total: "));
    }
    assert_eq!(records(), 0);
    let refused = place.said(&["prune", "-f", "--filter", "type="]);
    assert!(refused.status == 2 && refused.err.contains("hint: a filter is"), "{}", refused.err);
}

#[test]
fn llb_is_dumped_as_buildctl_dumps_it() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        State::image("busybox").run(Run::args(["/bin/sh", "-c", "echo '<a & b>' \u{e9} >/word"])).root();
    let bytes = run.marshal(&Constraints::default()).unwrap().to_bytes();
    let file = dir.path().join("graph");
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    let ran = |program: &Path, words: &[&str], input: &[u8]| {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Said::of(child.wait_with_output().unwrap())
    };
    let (ours, theirs) = (lemnos(), &engines().buildctl);
    for flags in [&[][..], &["--dot"]] {
        let want = ran(theirs, &[&["debug", "dump-llb"], flags, &[file]].concat(), &[]).out;
        assert!(want.contains("echo"), "{want}");
        assert_eq!(ran(&ours, &[&["buildkit", "dump-llb"], flags, &[file]].concat(), &[]).out, want);
        assert_eq!(ran(&ours, &[&["buildkit", "dump-llb"], flags].concat(), &bytes).out, want);
        assert_eq!(ran(&ours, &[&["buildkit", "dump-llb"], flags, &["-"]].concat(), &bytes).out, want);
    }
    let refused = |words: &[&str], input: &[u8]| {
        let said = ran(&ours, &[&["buildkit"], words].concat(), input);
        (said.status, said.err)
    };
    let (status, err) = refused(&["dump-llb"], b"\x0a\x03not a graph");
    assert!(
        status == 2 && err.contains("standard input") && err.contains("hint: give what an LLB client"),
        "{err}"
    );
    let (status, err) = refused(&["dump-llb", "/nowhere/graph"], &[]);
    assert!(status == 3 && err.contains("/nowhere/graph"), "{err}");
    assert_eq!(refused(&["dump-llb", "--jsn"], &[]).0, 2);
}

#[tokio::test]
async fn history_is_listed_told_and_removed() {
    let (place, client) = Place::new().await;
    let word = unique();
    build(&client, "aagood", &format!("FROM busybox AS b\nARG WORD\nRUN echo {word} $WORD\n")).await.unwrap();
    build(&client, "abbad", &format!("FROM busybox\nRUN echo {word} && exit 3\n")).await.unwrap_err();

    let listed = place.well(&["history", "ls", "--format", "json"]).lines();
    let told: Vec<_> =
        listed.iter().map(|one| (one["ref"].as_str().unwrap(), one["status"].as_str().unwrap())).collect();
    assert_eq!(told, [("abbad", "Error"), ("aagood", "Completed")]);
    assert!(listed[1]["total_steps"].as_i64().unwrap() >= 2, "{listed:?}");
    let table = place.well(&["history", "ls"]).out;
    assert!(table.starts_with("BUILD ID  NAME"), "{table}");
    for (filter, count) in [
        ("status=error", 1),
        ("status==completed", 1),
        ("ref=a", 2),
        ("startedAt<=1h", 0),
        ("status=canceled", 0),
    ] {
        let some = place.well(&["history", "ls", "--format", "json", "--filter", filter]).lines();
        assert_eq!(some.len(), count, "{filter}: {some:?}");
    }
    let both = place.well(&[
        "history",
        "ls",
        "--format",
        "json",
        "--filter",
        "status=error",
        "--filter",
        "ref=good",
    ]);
    assert_eq!(both.out, "");
    assert_eq!(place.said(&["history", "ls", "--filter", "color=red"]).status, 2);
    let refused = place.said(&["history", "ls", "--filter", "duration>long"]);
    assert!(refused.status == 2 && refused.err.contains("hint: for example status=error"), "{}", refused.err);

    for reference in ["aagood", "abbad"] {
        let plain = place.well(&["history", "logs", reference]).out;
        assert_eq!(plain, place.buildctl(&["debug", "logs", "--progress=plain", reference]));
        assert!(plain.contains(&word));
        let raw = place.well(&["history", "logs", "--progress", "rawjson", reference]).out;
        let theirs = place.buildctl(&["debug", "logs", "--progress=rawjson", reference]);
        assert_eq!(raw.lines().map(json).collect::<Vec<_>>(), theirs.lines().map(json).collect::<Vec<_>>());
    }
    let bad = place.well(&["history", "logs", "abbad"]).out;
    let good = place.well(&["history", "logs", "aagood"]).out;
    for (given, is) in [("^0", &bad), ("^1", &good), ("aa", &good), ("default/default0/abbad", &bad)] {
        assert_eq!(&place.well(&["history", "logs", given]).out, is, "{given}");
    }
    assert_eq!(place.well(&["history", "logs"]).out, bad);
    let blind = place.said(&["history", "logs", "--progress", "tty", "aagood"]);
    assert!(blind.status == 2 && blind.err.contains("needs a terminal"), "{}", blind.err);
    let inside = format!("exec {} buildkit history logs --progress tty aagood", lemnos().display());
    let mut script = Command::new("script");
    script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::null());
    script.env("BUILDKIT_HOST", place.address()).env("LEMNOS_DATA", place.dir.path());
    let seen = Said::of(script.output().unwrap());
    assert!(seen.status == 0 && seen.out.contains("FINISHED"), "{}", seen.out);
    for (given, status, says) in [
        ("a", 2, "begins the references of 2 builds: abbad, aagood"),
        ("nobody", 3, "no build \"nobody\""),
        ("^2", 3, "^0 to ^1"),
        ("^x", 2, "^0 is the newest"),
    ] {
        let refused = place.said(&["history", "logs", given]);
        assert!(refused.status == status && refused.err.contains(says), "{given}: {}", refused.err);
    }

    let pinned = || {
        let listed = place.buildctl(&["debug", "histories"]);
        let marked = listed.lines().filter(|line| line.trim_end().ends_with('*'));
        marked.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(place.said(&["history", "pin", "aagood", "nobody"]).status, 3);
    assert!(pinned().is_empty(), "nothing is pinned where a word is not understood");
    assert_eq!(place.well(&["history", "pin", "aagood"]).out, "aagood\n");
    assert_eq!(pinned(), ["aagood"]);
    assert_eq!(place.well(&["history", "unpin", "^1"]).out, "aagood\n");
    assert!(pinned().is_empty());

    assert!(
        place.said(&["history", "rm"]).status == 2
            && place.said(&["history", "rm", "--all", "aa"]).status == 2
    );
    assert_eq!(place.said(&["history", "rm", "aagood", "nobody"]).status, 3);
    assert_eq!(
        place.buildctl(&["debug", "histories"]).lines().count(),
        3,
        "nothing goes where a word is not understood"
    );
    assert_eq!(place.well(&["history", "rm", "aagood", "^1"]).out, "aagood\n");
    let left = place.buildctl(&["debug", "histories"]);
    assert!(left.contains("abbad") && !left.contains("aagood"), "{left}");
    assert_eq!(place.well(&["history", "rm", "--all"]).out, "abbad\n");
    assert_eq!(place.buildctl(&["debug", "histories"]).lines().count(), 1);
    let empty = place.said(&["history", "inspect"]);
    assert!(empty.status == 3 && empty.err.contains("it is empty"), "{}", empty.err);
}

// the build's session answers while the test waits for lines
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_a_running_build_are_followed_to_its_end() {
    let (place, client) = Place::new().await;
    let word = unique();
    // the step ends with the build, which is cancelled
    let dockerfile = format!("FROM busybox\nRUN echo begun {word}; sleep 600\n");
    let building = tokio::spawn(async move { build(&client, "running", &dockerfile).await });
    let deadline = Instant::now() + BUILD;
    while !place.well(&["history", "ls"]).out.contains("Running") {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = place.said(&["history", "rm", "running"]);
    assert!(refused.status == 5 && refused.err.contains("runs still"), "{}", refused.err);
    let told = json(&place.well(&["history", "inspect", "--format", "json"]).out);
    assert_eq!((&told["Status"], &told["CompletedAt"]), (&"running".into(), &Value::Null));
    let mut following =
        place.command(&["history", "logs", "running"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following.stdout.take().unwrap()));
    let begun = format!("begun {word}");
    assert!(lines.any(|line| {
        let line = line.unwrap();
        line.contains(&begun) && !line.contains("RUN")
    }));
    assert!(following.try_wait().unwrap().is_none(), "the build runs, and so do its logs");
    building.abort();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("CANCELED") || line.contains("canceled")), "{rest:?}");
    following.wait().unwrap();
    // the record is written a little after the last word
    let listed = || place.well(&["history", "ls", "--format", "json"]).lines()[0]["status"].clone();
    while listed() == "Running" {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(listed(), "Canceled");
}

#[tokio::test]
async fn a_build_is_inspected_with_its_materials_attachments_and_failure() {
    let (place, client) = Place::new().await;
    let word = unique();
    let (_dir, mut request) =
        request(&format!("FROM busybox\nARG WORD\nRUN echo {word} $WORD >/word\n"), "linux/amd64");
    request.internal = false;
    request.reference = Some("good".to_owned());
    request.frontend_attrs.insert("build-arg:WORD".into(), "given\u{1b}[2J".into());
    request.frontend_attrs.insert("label:of".into(), "mine".into());
    request.frontend_attrs.insert("attest:provenance".into(), "mode=max".into());
    let image = format!("{}/live/inspected-{word}", engines().registry);
    let attrs = [("name", image.as_str()), ("push", "true"), ("registry.insecure", "true")];
    let attrs = attrs.map(|(k, v)| (k.into(), v.into())).into();
    request.exporters = vec![Exporter { kind: "image".into(), attrs }];
    tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.unwrap().unwrap();
    let step = format!("RUN echo {word}; printf '\\033[31mlast words'; exit 3");
    build(&client, "bad", &format!("FROM busybox\n\n{step}\n")).await.unwrap_err();

    let good = json(&place.well(&["history", "inspect", "good", "--format", "json"]).out);
    assert_eq!((&good["Status"], &good["Ref"]), (&"completed".into(), &"good".into()), "{good}");
    assert_eq!(good["BuildArgs"], json(r#"[{"Name":"WORD","Value":"given\u001b[2J"}]"#));
    assert_eq!((&good["Labels"][0]["Name"], &good["Platform"][0]), (&"of".into(), &"linux/amd64".into()));
    let material = &good["Materials"][0];
    assert!(material["URI"].as_str().unwrap().starts_with("pkg:docker/busybox"), "{good}");
    assert!(material["Digests"][0].as_str().unwrap().starts_with("sha256:"), "{good}");
    let attached: Vec<_> =
        good["Attachments"].as_array().unwrap().iter().map(|one| one["Type"].as_str().unwrap()).collect();
    assert!(attached.iter().any(|kind| kind.starts_with("https://slsa.dev/provenance/")), "{attached:?}");
    let shown = place.well(&["history", "inspect", "good"]).out;
    assert!(
        shown.contains("MATERIAL") && shown.contains("WORD       given\n") && !shown.contains('\u{1b}'),
        "{shown}"
    );

    let attachment = ["history", "inspect", "attachment", "good"];
    let by_type = place.well(&[&attachment[..], &["--type", "provenance"]].concat()).out;
    assert!(by_type.contains("busybox"), "{by_type}");
    let digest = good["Attachments"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["Type"].as_str().unwrap().starts_with("https://slsa"));
    let digest = digest.unwrap()["Digest"].as_str().unwrap();
    assert_eq!(place.well(&[&attachment[..], &[digest]].concat()).out, by_type);
    let index = place.well(&[&attachment[..], &["--type", "index"]].concat()).out;
    assert_eq!(json(&index)["manifests"].as_array().unwrap().len(), 2, "image and attestation: {index}");
    let none = format!("sha256:{}", "0".repeat(64));
    for (words, status) in [(&["--type", "sbom"][..], 3), (&[&none], 3), (&["md5:1"], 2), (&[], 2)] {
        let said = place.said(&[&attachment[..], words].concat());
        assert_eq!(said.status, status, "{words:?}: {}", said.err);
    }

    let bad = json(&place.well(&["history", "inspect", "--format", "json"]).out);
    let error = &bad["Error"];
    assert_eq!((&bad["Status"], &error["Code"]), (&"failed".into(), &2.into()), "{bad}");
    assert!(error["Sources"].as_str().unwrap().contains(&format!("   3 | >>> {step}\n")), "{error}");
    assert_eq!(error["Logs"][0], word);
    assert!(error["Logs"][1].as_str().unwrap().ends_with("last words"), "{error}");
    let shown = place.well(&["history", "inspect", "^0"]).out;
    assert!(
        shown.contains("Error:     process")
            && shown.contains("\n> last words\n")
            && !shown.contains('\u{1b}'),
        "{shown}"
    );
}

#[tokio::test]
async fn exported_records_are_whole_files() {
    let (place, client) = Place::new().await;
    let word = unique();
    build(&client, "first", &format!("FROM busybox\nRUN echo {word}\n")).await.unwrap();
    build(&client, "second", &format!("FROM busybox\nRUN echo {word} && exit 3\n")).await.unwrap_err();
    let file = place.dir.path().join("of.dockerbuild");
    let config = |packed: &[u8], at: usize| {
        let files = unpacked(packed);
        let mut root = json(&text(&files, "index.json"))["manifests"].clone();
        if root[0]["mediaType"].as_str().unwrap().contains("index") {
            root = json(&blob(&files, &root[0]))["manifests"].clone();
        }
        let manifest = json(&blob(&files, &root[at]));
        let traced = manifest["layers"].as_array().unwrap().iter().any(|layer| {
            blob(&files, layer);
            layer["mediaType"].as_str().unwrap().contains("otlp")
        });
        (json(&blob(&files, &manifest["config"]))["Ref"].as_str().unwrap().to_owned(), traced)
    };
    let name = file.to_str().unwrap();
    place.well(&["history", "export", "-o", name]);
    assert_eq!(config(&std::fs::read(&file).unwrap(), 0).0, "second", "the newest");
    place.well(&["history", "export", "fir", "--finalize", "--output", name]);
    let kept = std::fs::read(&file).unwrap();
    assert_eq!(config(&kept, 0), ("first".to_owned(), true));
    let output = place.command(&["history", "export", "first", "^0"]).output().unwrap();
    assert_eq!(
        (config(&output.stdout, 0).0, config(&output.stdout, 1).0),
        ("first".to_owned(), "second".to_owned())
    );
    place.well(&["history", "export", "--all", "-o", name]);
    assert_eq!(config(&std::fs::read(&file).unwrap(), 1).0, "first");
    let refused = place.said(&["history", "export", "third", "-o", name]);
    assert!(refused.status == 3 && config(&std::fs::read(&file).unwrap(), 1).0 == "first", "{}", refused.err);
    let nowhere = place.said(&["history", "export", "-o", "/nowhere/x.dockerbuild"]);
    assert!(nowhere.status == 2 && nowhere.err.contains("/nowhere/x.dockerbuild"), "{}", nowhere.err);
}

#[test]
fn a_server_builds_on_a_builder_behind_a_command_and_refuses_dockerds() {
    let bin = tempfile::tempdir().unwrap();
    stand_in(&bin.path().join("ssh"), &engines().buildkit);
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    // localhost, because the tests' registry is on this machine's loopback
    let house = House::start_changed("behind", &[("PATH", &path)], |house| {
        house.builder = Some("ssh://me@localhost,name=behind".to_owned());
    });
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir =
        house.repository("shop", &[("Dockerfile", &format!("FROM busybox\nRUN echo {} >/done\n", unique()))]);
    house.push(&dir, &["main"]).succeeded();
    assert!(house.image_file("shop", "main", "linux/amd64", "done").is_some());
    let listed = house.lemnos(&["builders", "list"]).succeeded();
    listed.shows("behind").shows("ssh://me@localhost");
    for (refused, says) in
        [("docker://,name=d", "the BuildKit inside dockerd"), ("podman-container://b", "cannot push to")]
    {
        let said = house.lemnos(&["builders", "add", refused]);
        assert!(!said.ok && said.stderr.contains(says), "{refused}: {}", said.stderr);
    }
    let mut serve = house.command(lemnos());
    serve.args([
        "serve",
        "--ssh",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--builder",
        "docker://",
        "--data",
    ]);
    let said = Said::of(serve.arg(house.home.path().join("other")).output().unwrap());
    assert!(said.status == 2 && said.err.contains("hint: run BuildKit in a container"), "{}", said.err);
}
