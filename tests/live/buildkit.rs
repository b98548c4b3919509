//! The BuildKit client against a real buildkitd: two platforms pushed, failures typed, cancellation, death.

pub(crate) mod dial;
pub(crate) mod docker;
pub(crate) mod queries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use lemnos::buildkit::session::filesync::LocalDir;
use lemnos::buildkit::{
    Address, Client, Endpoint, Exporter, Session, SolveError, SolveErrorKind, SolveEvent, SolveRequest,
    SolveResult,
};
use rustix::process::{Pid, Signal};
use tokio::sync::Notify;

use super::support::engines;

/// The bound for a build of busybox, arm64 under qemu included.
pub(crate) const BUILD: Duration = Duration::from_secs(120);

pub(crate) async fn connect(address: &str) -> Client {
    let endpoint = Endpoint { address: address.parse().unwrap(), tls: None };
    Client::connect(&endpoint, Duration::from_secs(10)).await.unwrap()
}

/// A word that no other test, and no earlier run of this one, has put into a Dockerfile.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{}{:09}{}", since.as_secs(), since.subsec_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory with `dockerfile` in it, and a request to build it.
pub(crate) fn request(dockerfile: &str, platforms: &str) -> (tempfile::TempDir, SolveRequest) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let source = || Arc::new(LocalDir::open(dir.path()).unwrap());
    let session = Session {
        shared_key: format!("live:{}", unique()),
        dirs: BTreeMap::from([("context".into(), source() as _), ("dockerfile".into(), source() as _)]),
        ..Default::default()
    };
    let attrs = [("platform", platforms), ("filename", "Dockerfile")];
    let request = SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_attrs: attrs.map(|(k, v)| (k.into(), v.into())).into(),
        internal: true,
        session,
        ..Default::default()
    };
    (dir, request)
}

pub(crate) async fn build(client: &Client, request: SolveRequest) -> (SolveResult, Vec<SolveEvent>) {
    let mut events = Vec::new();
    let solved = client.solve(request, |event| events.push(event));
    let result = tokio::time::timeout(BUILD, solved).await.expect("in time").unwrap();
    (result, events)
}

pub(crate) fn cached(events: &[SolveEvent], name: &str) -> bool {
    let is = |event: &SolveEvent| matches!(event, SolveEvent::Vertex(v) if v.name.contains(name) && v.cached);
    events.iter().any(is)
}

#[tokio::test]
async fn two_platforms_are_built_and_pushed_and_cached() {
    let client = connect(&engines().buildkit).await;
    assert!(client.info().await.unwrap().version.starts_with('v'));
    let platforms = &client.workers().await.unwrap()[0].platforms;
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(platforms.iter().any(|p| p == platform), "{platforms:?}");
    }

    let word = unique();
    let dockerfile = format!("FROM busybox\nRUN echo {word} $(uname -m) | tee /word\n");
    let image = format!("{}/live/{word}", engines().registry);
    let push = |mut request: SolveRequest| {
        let attrs = [
            ("name", image.as_str()),
            ("push", "true"),
            ("push-by-digest", "true"),
            ("registry.insecure", "true"),
        ];
        let attrs = attrs.map(|(k, v)| (k.into(), v.into())).into();
        request.exporters = vec![Exporter { kind: "image".into(), attrs }];
        request
    };
    let (_dir, first) = request(&dockerfile, "linux/amd64,linux/arm64");
    let first = push(first);
    let (result, events) = build(&client, first.clone()).await;
    let logs: String = events
        .iter()
        .filter_map(|event| match event {
            SolveEvent::Log(log) => Some(String::from_utf8_lossy(&log.data).into_owned()),
            _ => None,
        })
        .collect();
    assert!(logs.contains(&format!("{word} x86_64")) && logs.contains(&format!("{word} aarch64")), "{logs}");
    assert!(!cached(&events, "RUN echo"));

    let digest = &result.attrs["containerimage.digest"];
    let manifest = Command::new(&engines().crane)
        .args(["manifest", "--insecure", &format!("{image}@{digest}")])
        .output()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.stdout).unwrap();
    let built: Vec<&str> = manifest["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["platform"]["architecture"].as_str())
        .filter(|a| *a != "unknown")
        .collect();
    assert_eq!(built, ["amd64", "arm64"], "{manifest}");

    let (again, events) = build(&connect(&engines().buildkit).await, first).await;
    assert!(cached(&events, "RUN echo"));
    assert_eq!(&again.attrs["containerimage.digest"], digest);
}

#[tokio::test]
async fn a_failing_step_is_typed_with_exit_code_line_and_name() {
    let client = connect(&engines().buildkit).await;
    let text = format!("FROM busybox\n\nRUN echo {} && exit 7\n", unique());
    let (_dir, request) = request(&text, "linux/amd64,linux/arm64");
    let error = tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind, error.exit_code, error.temporary),
        (SolveErrorKind::Build, Some(7), false),
        "{error:?}"
    );
    let vertex = error.vertex.unwrap();
    assert!(vertex.name.starts_with("[linux/a") && vertex.name.contains("RUN echo"), "{vertex:?}");
    let source = error.source.unwrap();
    assert_eq!((source.filename.as_str(), source.lines()), ("Dockerfile", Some((3, 3))));
    assert_eq!(source.text, text);
}

#[tokio::test]
async fn what_a_dockerfile_gets_wrong_is_the_builds_fault() {
    let client = connect(&engines().buildkit).await;
    for (dockerfile, line, words) in [
        ("FROM busybox\nCOPPY a b\n", Some((2, 2)), "COPPY"),
        ("FROM busybox\nCOPY absent /\n", Some((2, 2)), "absent"),
        ("FROM busybox/that-does-not-exist\n", Some((1, 1)), "busybox/that-does-not-exist"),
    ] {
        let (_dir, request) = request(dockerfile, "linux/amd64");
        let error = tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.unwrap().unwrap_err();
        assert_eq!(error.kind, SolveErrorKind::Build, "{error:?}");
        assert!(error.message.contains(words), "{error}");
        assert_eq!(error.source.and_then(|source| source.lines()), line, "{dockerfile}");
    }
}

#[tokio::test]
async fn a_check_is_told_with_its_line() {
    let client = connect(&engines().buildkit).await;
    let (_dir, request) = request("FROM busybox as base\n", "linux/amd64");
    let (_, events) = build(&client, request).await;
    let warning = events.iter().find_map(|event| match event {
        SolveEvent::Warning(warning) => Some(warning),
        _ => None,
    });
    let warning = warning.expect("a warning about casing");
    assert!(warning.short.contains("FromAsCasing") && warning.url.is_some(), "{warning:?}");
    assert_eq!(warning.source.as_ref().unwrap().lines(), Some((1, 1)));
}

/// Longer than any health check or probe may be missed, and than pings that would annoy the daemon.
#[tokio::test]
async fn a_step_that_works_in_silence_is_left_in_peace() {
    let client = connect(&engines().buildkit).await;
    let (_dir, request) = request(&format!("FROM busybox\nRUN sleep 20 && : {}\n", unique()), "linux/amd64");
    build(&client, request).await;
}

/// Whether a process with `word` among its arguments runs, in whatever container.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|p| std::fs::read(p.path().join("cmdline")).ok())
        .any(|arguments| arguments.split(|b| *b == 0).any(|argument| argument == word.as_bytes()))
}

async fn until(what: &str, limit: Duration, done: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_dropped_build_is_stopped() {
    let client = connect(&engines().buildkit).await;
    let seconds = format!("300.{}", unique());
    let (_dir, request) = request(&format!("FROM busybox\nRUN exec sleep {seconds}\n"), "linux/amd64");
    tokio::select! {
        result = client.solve(request, |_| {}) => panic!("ended: {result:?}"),
        () = until("the step starts", BUILD, || runs(&seconds)) => {}
    }
    until("the step ends", Duration::from_secs(10), || !runs(&seconds)).await;
}

/// A buildkitd of the test's own, in mount and process namespaces of its own: whatever it runs or mounts ends with it.
pub struct Buildkitd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Buildkitd {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments.
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let base = &engines().base_registry;
        let config = format!(
            "[worker.oci]\nnetworkMode = \"host\"\n[worker.containerd]\nenabled = false\n\
             [registry.\"docker.io\"]\nmirrors = [\"{base}\"]\n[registry.\"{base}\"]\nhttp = true\n"
        );
        std::fs::write(at("buildkitd.toml"), config).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--mount-proc", "--kill-child"])
            .arg(&engines().buildkitd)
            .args(["--config", &at("buildkitd.toml"), "--root", &at("root")])
            .args(["--otel-socket-path", &at("otel.sock"), "--addr", &format!("unix://{}", at("sock"))])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// To the daemon, which is the one child of `unshare`.
    fn signal(&self, signal: Signal) {
        let pid = self.child.id();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(child, signal);
        }
    }
}

/// Connects once the daemon answers.
pub async fn connect_when_ready(socket: &Path) -> Client {
    let endpoint = Endpoint { address: Address::Unix(socket.to_owned()), tls: None };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let client = Client::connect(&endpoint, Duration::from_secs(5)).await;
        match client {
            Ok(client) if client.workers().await.is_ok() => return client,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Signals a daemon in the middle of a step of `seconds`; how the build ended, and how long after.
async fn signalled(signal: Signal, seconds: u32) -> (Result<SolveResult, SolveError>, Duration) {
    let daemon = Buildkitd::start();
    let client = connect_when_ready(&daemon.socket()).await;
    let dockerfile = format!("FROM busybox\nRUN echo {} && sleep {seconds}\n", unique());
    let (_dir, request) = request(&dockerfile, "linux/amd64");
    let began = Notify::new();
    let solved = client.solve(request, |event| {
        if matches!(event, SolveEvent::Log(_)) {
            began.notify_one();
        }
    });
    let (result, at) = tokio::join!(tokio::time::timeout(BUILD, solved), async {
        began.notified().await;
        daemon.signal(signal);
        Instant::now()
    });
    (result.unwrap(), at.elapsed())
}

#[tokio::test]
async fn a_killed_daemon_is_the_machinerys_fault() {
    let (result, after) = signalled(Signal::KILL, 100).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.temporary), (SolveErrorKind::Infrastructure, true), "{error:?}");
    assert!(after < Duration::from_secs(5), "{after:?}");
}

#[tokio::test]
async fn a_stopped_daemon_is_noticed() {
    let (result, after) = signalled(Signal::STOP, 100).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.temporary), (SolveErrorKind::Infrastructure, true), "{error:?}");
    assert!(after < Duration::from_secs(15), "{after:?}");
}

/// It takes no new call then, and lets the running ones end.
#[tokio::test]
async fn a_daemon_told_to_end_finishes_the_build() {
    let (result, after) = signalled(Signal::TERM, 9).await;
    result.unwrap();
    assert!(after >= Duration::from_secs(5), "the signal came in the middle: {after:?}");
}
