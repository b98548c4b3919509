//! Solves by us and by `buildctl` on one buildkitd: the same image, the same cache, the same attestations.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lemnos::buildkit::solve::{
    Annotation, AnnotationLevel, CacheMode, Dockerfile, ImageOptions, Provenance, ProvenanceMode,
};
use lemnos::buildkit::{CacheEntry, Exporter, SolveEvent, SolveRequest, SolveResult};
use lemnos_proto::pb;
use prost::Message;
use serde_json::Value;

use super::buildkit::{build, cached, connect, request, unique};
use super::support::engines;

/// A Dockerfile build of `buildctl`; what it printed, and what the daemon answered.
fn buildctl(dir: &Path, args: &[&str]) -> (String, BTreeMap<String, Value>) {
    let metadata = dir.join("buildctl.json");
    let place = dir.display().to_string();
    let out = Command::new(&engines().buildctl)
        .args(["--addr", &engines().buildkit, "build", "--progress", "plain"])
        .args(["--metadata-file", metadata.to_str().unwrap()])
        .args(["--frontend", "dockerfile.v0", "--opt", "platform=linux/amd64"])
        .args(["--local", &format!("context={place}"), "--local", &format!("dockerfile={place}")])
        .args(args)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{printed}");
    // without an exporter there is none
    let answer = std::fs::read(&metadata).unwrap_or_else(|_| b"{}".to_vec());
    (printed, serde_json::from_slice(&answer).unwrap())
}

fn image(word: &str) -> String {
    format!("{}/live/solve-{word}", engines().registry)
}

fn json(reference: &str, verb: &str) -> Value {
    let out = Command::new(&engines().crane).args([verb, "--insecure", reference]).output().unwrap();
    assert!(out.status.success(), "{reference}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

async fn ours(request: &SolveRequest, options: &ImageOptions) -> (SolveResult, Vec<SolveEvent>) {
    let exporters = vec![Exporter::image(options)];
    let request = SolveRequest { exporters, ..request.clone() };
    build(&connect(&engines().buildkit).await, request).await
}

#[tokio::test]
async fn the_same_dockerfile_and_epoch_are_the_same_digest_as_buildctls() {
    let word = unique();
    let (dir, mut request) = request(&format!("FROM busybox\nRUN echo {word} >/word\n"), "linux/amd64");
    Dockerfile {
        platforms: vec!["linux/amd64".parse().unwrap()],
        source_date_epoch: Some(1_700_000_000),
        ..Default::default()
    }
    .apply(&mut request)
    .unwrap();
    let name = image(&word);
    let options = ImageOptions {
        names: vec![name.clone()],
        push: true,
        insecure: true,
        rewrite_timestamp: true,
        annotations: vec![Annotation {
            level: AnnotationLevel::Manifest,
            platform: None,
            key: "team".into(),
            value: "shop".into(),
        }],
        ..Default::default()
    };
    let (result, _) = ours(&request, &options).await;
    let output = format!(
        "type=image,name={name}-go,push=true,registry.insecure=true,rewrite-timestamp=true,annotation-manifest.team=shop"
    );
    // built anew, a second or more later: without clamped times the digests would differ
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let epoch = ["--opt", "build-arg:SOURCE_DATE_EPOCH=1700000000", "--no-cache", "--output", &output];
    let (_, metadata) = buildctl(dir.path(), &epoch);
    assert_eq!(metadata["containerimage.digest"], result.attrs["containerimage.digest"].as_str());
    let manifest = json(&name, "manifest");
    assert_eq!(manifest["annotations"]["team"], "shop", "{manifest}");
    assert!(json(&name, "config")["created"].as_str().unwrap().starts_with("2023-11-14"));
}

#[tokio::test]
async fn what_one_client_built_the_other_finds_cached() {
    for we_first in [true, false] {
        let (dir, request) =
            request(&format!("FROM busybox\nCOPY f /f\nRUN echo {} >/word\n", unique()), "linux/amd64");
        std::fs::write(dir.path().join("f"), unique()).unwrap();
        if we_first {
            build(&connect(&engines().buildkit).await, request).await;
            let (printed, _) = buildctl(dir.path(), &[]);
            assert!(printed.matches("CACHED").count() >= 2, "{printed}");
        } else {
            buildctl(dir.path(), &[]);
            let (_, events) = build(&connect(&engines().buildkit).await, request).await;
            assert!(cached(&events, "RUN echo") && cached(&events, "COPY f"), "{events:?}");
        }
    }
}

/// The statement of an image's provenance, without what differs between any two builds.
fn provenance(reference: &str) -> Value {
    let index = json(reference, "manifest");
    let manifests = index["manifests"].as_array().unwrap();
    let attested = |m: &&Value| m["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
    let digest = manifests.iter().find(attested).expect("an attestation")["digest"].as_str().unwrap();
    let repository = reference.split('@').next().unwrap();
    let manifest = json(&format!("{repository}@{digest}"), "manifest");
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let mut statement = json(&format!("{repository}@{layer}"), "blob");
    // the image's own name and digest, and a build's times and ids
    statement.as_object_mut().unwrap().remove("subject");
    let details = &mut statement["predicate"]["runDetails"];
    assert!(details["metadata"]["startedOn"].is_string(), "{details}");
    details["metadata"] = Value::Null;
    statement
}

#[tokio::test]
async fn attestations_are_those_of_buildctl() {
    let word = unique();
    let (dir, mut request) = request(&format!("FROM busybox\nRUN echo {word} >/word\n"), "linux/amd64");
    let max = Provenance {
        mode: Some(ProvenanceMode::Max),
        builder_id: Some("https://builder.example/1".into()),
        ..Default::default()
    };
    Dockerfile {
        platforms: vec!["linux/amd64".parse().unwrap()],
        attestations: vec![max.into()],
        ..Default::default()
    }
    .apply(&mut request)
    .unwrap();
    let name = image(&word);
    let options =
        ImageOptions { names: vec![name.clone()], push: true, insecure: true, ..Default::default() };
    let (result, _) = ours(&request, &options).await;
    let output = format!("type=image,name={name}-go,push=true,registry.insecure=true");
    // the value as we write it, and the type in it, are in the provenance's own list of arguments
    let attest = "attest:provenance=type=provenance,builder-id=https://builder.example/1,mode=max";
    let (_, metadata) =
        buildctl(dir.path(), &["--opt", attest, "--opt", "filename=Dockerfile", "--output", &output]);
    let theirs = metadata["containerimage.digest"].as_str().unwrap();
    let ours = provenance(&format!("{name}@{}", result.attrs["containerimage.digest"]));
    assert_eq!(ours, provenance(&format!("{name}-go@{theirs}")));
    assert_eq!(ours["predicate"]["runDetails"]["builder"]["id"], "https://builder.example/1", "{ours}");
}

#[tokio::test]
async fn a_cache_in_a_registry_serves_a_build_whose_steps_were_forgotten() {
    let word = unique();
    let (_dir, request) = request(&format!("FROM busybox\nRUN echo {word} >/word\n"), "linux/amd64");
    let cache = CacheEntry::registry(&image(&format!("{word}-cache"))).with("registry.insecure", "true");
    let export = SolveRequest { cache_exports: vec![cache.clone().mode(CacheMode::Max)], ..request.clone() };
    let (result, _) = build(&connect(&engines().buildkit).await, export).await;
    assert!(result.attrs["cache.manifest"].contains("sha256:"), "{:?}", result.attrs);
    // a daemon that has forgotten is another daemon; here the import must at least be found and read
    let import = SolveRequest { cache_imports: vec![cache], ..request };
    let (_, events) = build(&connect(&engines().buildkit).await, import).await;
    let imported = |e: &SolveEvent| matches!(e, SolveEvent::Vertex(v) if v.name.starts_with("importing cache manifest") && v.completed.is_some() && v.error.is_none());
    assert!(events.iter().any(imported), "{events:?}");
    assert!(cached(&events, "RUN echo"));
}

#[tokio::test]
async fn one_solve_serves_several_exporters() {
    let word = unique();
    let (_dir, request) = request(&format!("FROM busybox\nRUN echo {word} >/word\n"), "linux/amd64");
    let push = |suffix: &str| {
        Exporter::image(&ImageOptions {
            names: vec![format!("{}{suffix}", image(&word))],
            push: true,
            insecure: true,
            ..Default::default()
        })
    };
    let request = SolveRequest { exporters: vec![push("-a"), push("-b")], ..request };
    build(&connect(&engines().buildkit).await, request).await;
    let (a, b) = (format!("{}-a", image(&word)), format!("{}-b", image(&word)));
    assert_eq!(json(&a, "manifest"), json(&b, "manifest"));
}

/// An image source with one step on it, made by hand.
fn definition(word: &str) -> pb::Definition {
    use pb::op::Op as Kind;
    let source = pb::SourceOp {
        identifier: "docker-image://docker.io/library/busybox:latest".into(),
        attrs: BTreeMap::new(),
    };
    let platform = pb::Platform { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
    let source =
        pb::Op { op: Some(Kind::Source(source)), platform: Some(platform.clone()), ..Default::default() };
    let digest = |bytes: &[u8]| {
        use sha2::Digest;
        format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
    };
    let input = |bytes: &[u8]| pb::Input { digest: digest(bytes), index: 0 };
    let source = source.encode_to_vec();
    let meta = pb::Meta {
        args: ["sh", "-c", &format!("echo {word} >/word")].map(str::to_owned).into(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        ..Default::default()
    };
    let mount = pb::Mount { dest: "/".into(), ..Default::default() };
    let exec = pb::ExecOp { meta: Some(meta), mounts: vec![mount], ..Default::default() };
    let exec = pb::Op {
        inputs: vec![input(&source)],
        op: Some(Kind::Exec(exec)),
        platform: Some(platform),
        ..Default::default()
    };
    let exec = exec.encode_to_vec();
    let last = pb::Op { inputs: vec![input(&exec)], ..Default::default() }.encode_to_vec();
    pb::Definition { def: vec![source, exec, last], ..Default::default() }
}

#[tokio::test]
async fn a_definition_made_by_hand_is_solved_as_it_is() {
    let word = unique();
    let name = image(&word);
    let options =
        ImageOptions { names: vec![name.clone()], push: true, insecure: true, ..Default::default() };
    let raw = SolveRequest {
        definition: Some(definition(&word)),
        exporters: vec![Exporter::image(&options)],
        internal: true,
        ..Default::default()
    };
    build(&connect(&engines().buildkit).await, raw).await;
    let export = Command::new(&engines().crane).args(["export", "--insecure", &name, "-"]).output().unwrap();
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let mut archive = tar::Archive::new(&export.stdout[..]);
    let mut found =
        archive.entries().unwrap().map(Result::unwrap).find(|e| e.path().unwrap().ends_with("word"));
    let mut text = String::new();
    std::io::Read::read_to_string(found.as_mut().expect("the file"), &mut text).unwrap();
    assert_eq!(text, format!("{word}\n"));
}
