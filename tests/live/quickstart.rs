//! The whole of it with nothing configured: `deploy/quickstart`, and a server with embedded engines that is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{engines, lemnos};

/// Command lines that hold `needle`.
fn running(needle: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned());
    lines.filter(|line| line.contains(needle)).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn quickstart_pushes_the_examples_one_of_them_twice_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let quickstart = |more: &[&str]| {
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/quickstart"))
            .args(["--once", "--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args(more)
            .env("LEMNOS", lemnos())
            .env("LEMNOS_TOOLS", engines().buildkitd.parent().unwrap())
            .current_dir("/")
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        for (what, shown) in [
            ("a step with its time", "    push: "),
            ("the index", "application/vnd.oci.image.index.v1+json"),
            ("one platform", r#""architecture":"amd64""#),
            ("the other", r#""architecture":"arm64""#),
        ] {
            assert!(said.contains(shown), "{what}: {said}");
        }
        said
    };
    let first = quickstart(&["--all"]);
    assert!(first.contains("[linux/arm64 build 4/4] RUN"), "{first}");
    for (what, shown) in [
        ("the Go module", "Build kind: ko ("),
        ("its image", "/hello-go:main"),
        ("the Spin application", "Build kind: spin ("),
        ("its artifact", "/greeting:main"),
        ("one manifest", "application/vnd.wasm.content.layer.v1+wasm"),
    ] {
        assert!(first.contains(shown), "{what}: {first}");
    }
    let second = quickstart(&[]);
    assert!(second.contains("Nothing to build") && !second.contains("Build kind: ko"), "{second}");
    assert_eq!(running(data.to_str().unwrap()), [""; 0]);
}

/// A server with nothing configured but ports, a mirror of Docker Hub and where its engines' programs are.
struct Server(Child);

impl Server {
    fn start(data: &Path) -> Self {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
        let server = Command::new(lemnos())
            .args([
                "serve",
                "--ssh",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--registry-listen",
                "127.0.0.1:0",
            ])
            .args(["--mirror", &format!("docker.io={}", engines().base_registry)])
            .arg("--buildkitd")
            .arg(&engines().buildkitd)
            .arg("--registry-program")
            .arg(&engines().registry_program)
            .arg("--data")
            .arg(data)
            .env_remove("BUILDKIT_HOST")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(server)
    }

    /// What lemnos.json says of this very server.
    fn ready(&mut self, data: &Path) -> serde_json::Value {
        let file = data.join("lemnos.json");
        eventually("the server is ready", || {
            let ended = self.0.try_wait().unwrap();
            let log = || std::fs::read_to_string(data.with_extension("log")).unwrap();
            assert!(ended.is_none(), "the server ended: {}", log());
            file.exists()
        });
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_server_leaves_no_engine_and_no_container_and_can_be_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data);
    let facts = server.ready(&data);
    let builder = facts["builders"][0].as_str().unwrap().to_owned();
    let registry = facts["registry"].as_str().unwrap().to_owned();

    let context = dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let step = format!("sleep 32{:05}", std::process::id());
    std::fs::write(context.join("Dockerfile"), format!("FROM busybox\nRUN {step}\n")).unwrap();
    let mut build = Command::new(&engines().buildctl)
        .args(["--addr", &builder, "build", "--frontend=dockerfile.v0", "--local"])
        .arg(format!("context={}", context.display()))
        .arg("--local")
        .arg(format!("dockerfile={}", context.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the step runs", || running(&step).contains(&step));
    let engines_of = |data: &Path| running(&data.join("engine").display().to_string());
    assert!(engines_of(&data).len() >= 4, "two engines, each with a keeper: {:?}", engines_of(&data));

    server.0.kill().unwrap();
    server.0.wait().unwrap();
    eventually("no engine and no container is left", || {
        engines_of(&data).is_empty() && !running(&step).contains(&step)
    });
    assert!(!build.wait().unwrap().success());
    std::fs::remove_file(data.join("lemnos.json")).unwrap();

    let mut again = Server::start(&data);
    assert_eq!(again.ready(&data)["registry"], registry.as_str(), "image names hold it");
    assert!(Command::new("kill").arg(again.0.id().to_string()).status().unwrap().success());
    assert!(again.0.wait().unwrap().success());
    assert_eq!(running(data.to_str().unwrap()), [""; 0]);
}
