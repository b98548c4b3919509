//! The embedded engines, real ones: they start, build, survive a kill, stop without a trace, and wall RUN steps in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lemnos::engine::{self, EngineConfig, EngineState, Network, Supervised};
use lemnos::error::Report;

use crate::support::{engines, lemnos};

fn config(dir: &Path) -> EngineConfig {
    let path = std::env::var_os("PATH").unwrap();
    let mut config = EngineConfig::new(dir.join("data"), dir.join("run"), lemnos(), path);
    config.buildkitd = Some(engines().buildkitd.clone());
    config.registry = Some(engines().registry_program.clone());
    config.registry_listen = "127.0.0.1:0".parse().unwrap();
    config.mirrors.insert("docker.io".to_owned(), vec![engines().base_registry.clone()]);
    config
}

/// buildctl with this Dockerfile for linux/amd64 or whatever the machine is; not waited for.
fn solve(buildkit: &str, dockerfile: &str, output: &str) -> Command {
    let context = tempfile::tempdir().unwrap().keep();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let mut command = Command::new(&engines().buildctl);
    command.args(["--addr", buildkit, "build", "--progress=plain", "--frontend=dockerfile.v0", "--no-cache"]);
    for name in ["context", "dockerfile"] {
        command.arg("--local").arg(format!("{name}={}", context.display()));
    }
    if !output.is_empty() {
        command.args(["--output", output]);
    }
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every process whose command line holds `needle`.
fn processes(needle: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(needle) {
            found.push((pid, line));
        }
    }
    found
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn until(engine: &mut Supervised, wanted: fn(&EngineState) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), engine.state.wait_for(wanted)).await;
    waited.expect("within a minute").expect("the engine is still supervised");
}

fn bridges() -> Vec<String> {
    let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    links.filter_map(|l| l.file_name().into_string().ok()).filter(|n| n.starts_with("lmn-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_start_build_push_and_stop_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let registry = engine::start_registry(&config).await.unwrap();
    let buildkitd = engine::start_buildkitd(&config, Some(&registry.address)).await.unwrap();

    let conflist = std::fs::read_to_string(dir.path().join("data/engine/cni.conflist")).unwrap();
    let there = bridges();
    let bridge = there.iter().find(|name| conflist.contains(name.as_str())).cloned();
    let bridge = bridge.unwrap_or_else(|| panic!("no bridge of {conflist} among {there:?}"));

    let image = format!("{}/team/shop:main", registry.address);
    let push = format!("type=image,name={image},push=true");
    let built = solve(&buildkitd.address, "FROM busybox\nRUN echo hi > /hi\n", &push).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let digest = Command::new(&engines().crane).args(["digest", "--insecure", &image]).output().unwrap();
    assert!(text(&digest).starts_with("sha256:"), "{}", text(&digest));

    let second = engine::start_buildkitd(&config, None).await.unwrap_err();
    assert!(
        second.to_string().starts_with("another lemnos runs its engines in this data directory"),
        "{second}"
    );

    buildkitd.stop().await;
    registry.stop().await;
    let ours = dir.path().to_str().unwrap();
    assert_eq!(processes(ours), []);
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(ours));
    assert!(!bridges().contains(&bridge));
    let rules = Command::new("iptables-save").output().unwrap();
    assert!(!text(&rules).to_lowercase().contains(&bridge), "{}", text(&rules));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_buildkitd_comes_back_and_its_containers_do_not_linger() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut buildkitd = engine::start_buildkitd(&config, None).await.unwrap();
    let mark = format!("31{:05}", std::process::id());
    let mut build = solve(&buildkitd.address, &format!("FROM busybox\nRUN sleep {mark}\n"), "");
    let mut build = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let container = format!("sleep {mark}");
    let steps = || processes(&container).into_iter().filter(|(_, line)| line.trim() == container).count();
    eventually("the step runs", || steps() == 1);

    let toml = dir.path().join("data/engine/buildkitd.toml");
    let daemon = format!("{} --config {}", engines().buildkitd.display(), toml.display());
    let (pid, _) = processes(&daemon).into_iter().find(|(_, line)| line.starts_with(&daemon)).unwrap();
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    until(&mut buildkitd, |state| matches!(state, EngineState::Restarting { .. })).await;
    eventually("the step's container is gone", || steps() == 0);
    until(&mut buildkitd, |state| *state == EngineState::Ready).await;
    assert!(!build.wait().unwrap().success());

    let again = solve(&buildkitd.address, "FROM busybox\nRUN echo again\n", "").output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
    let listed = Command::new("runc").arg("list").output().unwrap();
    assert!(!text(&listed).contains(dir.path().to_str().unwrap()), "{}", text(&listed));
    buildkitd.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.cache_limit = "a lot".to_owned();
    let error = engine::start_buildkitd(&config, None).await.unwrap_err().to_string();
    assert!(
        error.starts_with("buildkitd ended while it was starting (exit status: 1); it said:\n"),
        "{error}"
    );
    assert!(error.contains("a lot"), "{error}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    config.registry_listen = taken.local_addr().unwrap();
    let report = Report::from(engine::start_registry(&config).await.unwrap_err()).to_string();
    assert!(report.contains("Address already in use"), "{report}");

    config.path = dir.path().into();
    config.buildkitd = None;
    let report = Report::from(engine::start_buildkitd(&config, None).await.unwrap_err()).to_string();
    assert!(
        report.starts_with("error: there is no buildkitd on PATH") && report.contains("deploy/quickstart"),
        "{report}"
    );
    config.registry = None;
    let report = Report::from(engine::start_registry(&config).await.unwrap_err()).to_string();
    assert!(report.contains("install the package docker-registry"), "{report}");
}

/// Answers every request with `reached`, on a thread that ends with the test process.
fn serve(listener: TcpListener) -> SocketAddr {
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nreached\n");
        }
    });
    addr
}

/// Another machine: a network namespace behind a veth pair, with a web server at a metadata address and at an ordinary one.
struct Elsewhere {
    name: String,
    server: std::process::Child,
}

const METADATA: &str = "169.254.169.254";
const ORDINARY: &str = "198.51.100.2";

impl Elsewhere {
    fn new(root: &Path) -> Self {
        std::fs::write(root.join("index.html"), "reached\n").unwrap();
        remove_stale_namespaces();
        let name = format!("lmt{}", std::process::id());
        let sh = |line: &str| {
            let line = line.replace("NS", &name);
            let out = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(out.status.success(), "{line}: {}", text(&out));
        };
        sh("ip netns add NS");
        sh("ip link add NSa type veth peer name NSb netns NS");
        sh("ip addr add 198.51.100.1/30 dev NSa && ip link set NSa up");
        sh("ip addr add 169.254.169.253/30 dev NSa");
        sh("ip -n NS link set lo up && ip -n NS link set NSb up");
        sh("ip -n NS addr add 198.51.100.2/30 dev NSb && ip -n NS addr add 169.254.169.254/30 dev NSb");
        let server = Command::new("ip")
            .args(["netns", "exec", &name, "busybox", "httpd", "-f", "-p", "80", "-h"])
            .arg(root)
            .spawn()
            .unwrap();
        let this = Self { name, server };
        for address in [METADATA, ORDINARY] {
            let addr: SocketAddr = format!("{address}:80").parse().unwrap();
            eventually(address, || {
                std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok()
            });
        }
        this
    }
}

/// Those of test runs that were killed: their addresses would be this one's too.
fn remove_stale_namespaces() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix("lmt").and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// What a RUN step reaches of `targets`, each `HOST:PORT/PATH`, and of `ports` at its own gateway. (`timeout`, because
/// `wget -T` crashes in Debian's static busybox.)
fn reached(buildkit: &str, targets: &[String], ports: &[u16]) -> Vec<String> {
    let tries: String = targets.iter().map(|t| format!("try {t} {t}; ")).collect();
    let gateway: String = ports.iter().map(|p| format!("try gateway:{p} $gw:{p}; ")).collect();
    let dockerfile = format!(
        "FROM busybox\nRUN try() {{ timeout 3 wget -q -O /dev/null http://$2 && echo \"GOT $1.\" || echo \"NOT $1.\"; }}; \
         gw=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); {tries}{gateway}\n"
    );
    let out = solve(buildkit, &dockerfile, "").output().unwrap();
    let said = text(&out);
    assert!(out.status.success(), "{said}");
    let answers = said.lines().filter_map(|l| l.split_once(" GOT ").or_else(|| l.split_once(" NOT ")));
    assert!(answers.count() >= targets.len() + ports.len(), "not every try was made: {said}");
    said.lines()
        .filter_map(|l| l.split_once(" GOT "))
        .map(|(_, t)| t.trim_end_matches('.').to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_step_reaches_the_outside_and_neither_this_machine_nor_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    let _elsewhere = Elsewhere::new(&pages);
    let mut config = config(dir.path());
    let registry = engine::start_registry(&config).await.unwrap();
    let loopback = serve(TcpListener::bind("127.0.0.1:0").unwrap());
    let everywhere = serve(TcpListener::bind("0.0.0.0:0").unwrap()).port();

    let outside = format!("{ORDINARY}:80/");
    let walled = vec![
        format!("{}/v2/", registry.address),
        format!("{loopback}/"),
        // the same machine under an address that is not loopback
        format!("198.51.100.1:{everywhere}/"),
        format!("{METADATA}:80/"),
    ];
    let targets = [walled.clone(), vec![outside.clone()]].concat();

    let isolated = engine::start_buildkitd(&config, None).await.unwrap();
    let from_bridge = reached(&isolated.address, &targets, &[everywhere, loopback.port()]);
    isolated.stop().await;
    assert_eq!(from_bridge, [outside], "only the outside");

    // the same step on this machine's own network sees all of it: the walls are what stopped it
    config.network = Network::Host;
    let host = engine::start_buildkitd(&config, None).await.unwrap();
    let from_host = reached(&host.address, &targets, &[]);
    host.stop().await;
    assert_eq!(from_host, targets);
    registry.stop().await;
}

/// Two servers on one machine have two bridges, and one stopping leaves the other's network alone.
#[tokio::test(flavor = "multi_thread")]
async fn two_data_directories_do_not_clash() {
    let dirs: Vec<PathBuf> = (0..2).map(|_| tempfile::tempdir().unwrap().keep()).collect();
    let one = engine::start_buildkitd(&config(&dirs[0]), None).await.unwrap();
    let two = engine::start_buildkitd(&config(&dirs[1]), None).await.unwrap();
    one.stop().await;
    // `default via 10.x.y.1 dev eth1`
    let gateway = "FROM busybox\nRUN set -- $(ip route | grep ^default); arping -c 1 -I $5 $3\n";
    let out = solve(&two.address, gateway, "").output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    two.stop().await;
    for dir in dirs {
        std::fs::remove_dir_all(dir).unwrap();
    }
}
