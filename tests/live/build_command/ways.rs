//! Builders behind other commands: `docker exec`, `podman exec`, `kubectl exec` and `ssh`, with stand-ins that run here what
//! they are told to run there; and two daemons for one build.

use super::*;
use crate::buildkit::dial::{alive, stand_ins};
use crate::buildkit::{Buildkitd, connect_when_ready};

/// The command is killed at the latest when the build's process ends, and gone a moment later.
fn gone(pids: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive(pids) {
        assert!(Instant::now() < deadline, "{}: its command outlives the build", pids.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn builders_behind_commands_build_and_leave_no_process() {
    let (dir, programs) = stand_ins();
    let path = programs.path.unwrap().into_string().unwrap();
    let socket = engines().buildkit.strip_prefix("unix://").unwrap();
    let bench =
        Bench::new("FROM busybox AS base\nRUN echo WORD >/word\nFROM scratch\nCOPY --from=base /word /\n");
    for (name, address) in [
        ("docker", "docker-container://buildkitd".to_owned()),
        ("podman", "podman-container://buildkitd".to_owned()),
        ("kubectl", "kube-pod://buildkitd-0?context=far&namespace=ci".to_owned()),
        ("ssh", format!("ssh://me@far{socket}")),
    ] {
        let pids = dir.path().join(format!("{name}.pids"));
        let build = |args: &[&str]| bench.run_with(&[args, &["."]].concat(), &[("PATH", &path)], b"");
        build(&["--builder", &address, "-o", name]).good();
        assert_eq!(std::fs::read_to_string(bench.path(name).join("word")).unwrap().trim(), bench.word);
        gone(&pids);
        // a push goes out from the builder, a failure comes back from it
        build(&["--builder", &address, "--push", "-t", &format!("{}-{name}", bench.image())]).good();
        assert!(crane(&["digest", &format!("{}-{name}", bench.image())]).starts_with("sha256:"));
        build(&["--builder", &address, "--target", "none"]).fails(1, &["none"]);
    }
    // an instance of buildx's is its container
    let instance = r#"{"Driver":"docker-container","Nodes":[{"Name":"mine0","Endpoint":"default"}]}"#;
    bench.write(".docker/buildx/instances/mine", instance);
    bench.run_with(&["--builder", "mine", "-o", "mine", "."], &[("PATH", &path)], b"").good();
    assert!(bench.path("mine/word").exists());
    // and where the command is not there, it is what is missing
    let without = [("PATH", "/nowhere")];
    bench.run_with(&["--builder", "podman-container://b", "."], &without, b"").fails(6, &["`podman`"]);
}

#[tokio::test]
async fn a_context_that_comes_once_is_read_by_two_daemons() {
    let second = Buildkitd::start();
    connect_when_ready(&second.socket()).await;
    let bench = Bench::new("");
    // a layer that differs, because the registry stumbles over one that two push to it at a time
    let dockerfile =
        "FROM busybox AS b\nCOPY file /file\nRUN uname -m >>/file\nFROM scratch\nCOPY --from=b /file /\n";
    let tar = tar_of(&[("Dockerfile", dockerfile), ("file", &format!("{}\n", bench.word))]);
    let amd64 = format!("{},platform=linux/amd64,name=a", engines().buildkit);
    let arm64 = format!("unix://{},platform=linux/arm64,name=b", second.socket().display());
    let builders = ["--builder", &amd64, "--builder", &arm64, "--platform", "linux/arm64,linux/amd64"];
    let image = bench.image();
    let args = [&builders[..], &["--push", "--provenance=false", "-t", &image, "-"]].concat();
    bench.run_with(&args, &[], &tar).good();
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        let args = ["export", "--insecure", "--platform", platform, &image, "-"];
        let files = Command::new(&engines().crane).args(args).output().unwrap().stdout;
        let mut archive = tar::Archive::new(&files[..]);
        let mut text = String::new();
        archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{}\n{machine}\n", bench.word));
    }
}
