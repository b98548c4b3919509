//! Builders behind other commands: `docker exec`, `podman exec`, `kubectl exec` and `ssh`, with stand-ins that run here what
//! they are told to run there.

use super::*;
use crate::buildkit::dial::{alive, stand_ins};

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
