//! What `tests/run` has prepared: addresses and tools, read from the environment.
//!
//! Absence is a failure with the remedy, never a skip.
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::OnceLock;

/// The engines all live tests share, and the programs for tests that start their own.
#[derive(Debug)]
pub struct Engines {
    /// `unix:///…`: a buildkitd that finds `busybox` (docker.io) for linux/amd64 and linux/arm64, and runs arm64.
    pub buildkit: String,
    /// `127.0.0.1:PORT`: plain http; the buildkitd above pushes to it.
    pub registry: String,
    /// `127.0.0.1:PORT`: plain http; holds `library/busybox:latest`, to be named as a mirror of docker.io.
    pub base_registry: String,
    pub buildkitd: PathBuf,
    pub buildctl: PathBuf,
    pub crane: PathBuf,
    /// A Python with pygit2, dulwich and paramiko.
    pub clients_python: PathBuf,
    /// tests/tools/go-git, built.
    pub go_git: PathBuf,
    /// A Go that compiles without the network.
    pub go: PathBuf,
    /// ko v0.19.1.
    pub ko: PathBuf,
    /// `docker-registry` or `registry`.
    pub registry_program: PathBuf,
}

pub fn engines() -> &'static Engines {
    static ENGINES: OnceLock<Engines> = OnceLock::new();
    ENGINES.get_or_init(|| Engines {
        buildkit: prepared("LEMNOS_TEST_BUILDKIT_ADDR"),
        registry: prepared("LEMNOS_TEST_REGISTRY_ADDR"),
        base_registry: prepared("LEMNOS_TEST_BASE_REGISTRY"),
        buildkitd: prepared("LEMNOS_TEST_BUILDKITD").into(),
        buildctl: prepared("LEMNOS_TEST_BUILDCTL").into(),
        crane: prepared("LEMNOS_TEST_CRANE").into(),
        clients_python: prepared("LEMNOS_TEST_CLIENTS_PYTHON").into(),
        go_git: prepared("LEMNOS_TEST_GO_GIT").into(),
        go: prepared("LEMNOS_TEST_GO").into(),
        ko: prepared("LEMNOS_TEST_KO").into(),
        registry_program: prepared("LEMNOS_TEST_REGISTRY").into(),
    })
}

/// Puts an image that few tests need into the base registry, once: what deploy/base-image calls it.
pub fn image(name: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines");
    let mut command = Command::new(script);
    command.args(["image", &prepared("LEMNOS_TEST_ENGINES"), name]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "making the image {name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn prepared(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run tests/run (or eval \"$(tests/engines up DIR)\")"))
}

/// The binary under test.
pub fn lemnos() -> PathBuf {
    env!("CARGO_BIN_EXE_lemnos").into()
}

/// A process that ends with its test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command says that must succeed.
pub fn good(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
