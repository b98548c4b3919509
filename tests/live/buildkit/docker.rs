//! dockerd's own BuildKit, in a dockerd of the test's own: everything of it ends with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lemnos::buildkit::{Client, Endpoint, Error, Exporter, SolveError, SolveEvent};

use super::{BUILD, request, unique};
use crate::support::engines;

/// dockerd and its containerd, in mount and process namespaces of their own.
pub(crate) struct Dockerd {
    children: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // `unshare` takes all of its namespace with it
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Dockerd {
    pub(crate) fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn launch(&mut self, program: &str, arguments: &[String]) {
        let log = std::fs::File::create(self.at(&format!("{program}.log"))).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--mount-proc", "--kill-child", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("unshare for {program}: {error}"));
        self.children.push(child);
    }

    pub(crate) async fn start() -> (Self, Client) {
        Self::start_with("").await
    }

    /// With more of dockerd's own arguments.
    pub(crate) async fn start_with(more: &str) -> (Self, Client) {
        let mut dockerd = Self { children: Vec::new(), dir: tempfile::tempdir().unwrap() };
        let at = |name: &str| dockerd.dir.path().join(name).display().to_string();
        let (containerd, socket) = (at("containerd.sock"), at("docker.sock"));
        let script = format!(
            "containerd --address {containerd} --root {root} --state {state} --config /dev/null & \
             for try in $(seq 600); do [ -S {containerd} ] && break; sleep 0.05; done; \
             exec dockerd --containerd {containerd} --host unix://{socket} --data-root {data} --exec-root {exec} \
             --pidfile {pid} --iptables=false --ip6tables=false --bridge=none --storage-driver overlay2 {more}",
            root = at("containerd"),
            state = at("state"),
            data = at("data"),
            exec = at("exec"),
            pid = at("pid"),
        );
        dockerd.launch("bash", &["-c".to_owned(), script]);
        let endpoint = Endpoint { address: format!("docker://{socket}").parse().unwrap(), tls: None };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match Client::connect(&endpoint, Duration::from_secs(5)).await {
                Ok(client) => return (dockerd, client),
                Err(error) => {
                    let log =
                        std::fs::read_to_string(PathBuf::from(dockerd.at("bash.log"))).unwrap_or_default();
                    assert!(Instant::now() < deadline, "{error}: docker.io and containerd are needed: {log}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn build(client: &Client, dockerfile: &str) -> (Result<(), SolveError>, String, usize) {
        let (dir, mut request) = request(dockerfile, "linux/amd64");
        std::fs::write(dir.path().join("file"), "from the context\n").unwrap();
        request.frontend_attrs.insert("force-network-mode".into(), "host".into());
        request.entitlements.push("network.host".into());
        let (mut logs, mut cached) = (String::new(), 0);
        let solved = client.solve(request, |event| match event {
            SolveEvent::Log(log) => logs.push_str(&String::from_utf8_lossy(&log.data)),
            SolveEvent::Vertex(vertex) if vertex.cached && vertex.name.contains("RUN") => cached += 1,
            _ => {}
        });
        let result = tokio::time::timeout(BUILD, solved).await.expect("in time");
        (result.map(drop), logs, cached)
    }
}

#[tokio::test]
async fn dockerd_builds_from_our_files_and_tells_of_it_and_fails_as_buildkitd_does() {
    let (_dockerd, client) = Dockerd::start().await;
    assert!(client.workers().await.unwrap()[0].platforms.iter().any(|p| p == "linux/amd64"));
    // dockerd trusts a registry on loopback without TLS
    let (base, word) = (&engines().base_registry, unique());
    let dockerfile = format!("FROM {base}/library/busybox\nCOPY file /\nRUN cat /file && echo {word}\n");
    let (result, logs, cached) = Dockerd::build(&client, &dockerfile).await;
    result.unwrap();
    assert!(logs.contains(&word) && logs.contains("from the context") && cached == 0, "{logs}");
    let (result, _, cached) = Dockerd::build(&client, &dockerfile).await;
    result.unwrap();
    assert!(cached > 0, "the second time it is cached");

    let (result, ..) = Dockerd::build(&client, &format!("FROM {base}/library/busybox\nRUN exit 7\n")).await;
    let error = result.unwrap_err();
    assert!(error.message.contains("exit code: 7"), "{error:?}");

    // which is why a server takes no builder of this kind: its images are pushed by digest
    let (_dir, mut asked) = request(&format!("FROM {base}/library/busybox\n"), "linux/amd64");
    let exporter = Exporter { kind: "image".into(), ..Exporter::default() };
    asked.exporters = vec![exporter.with("name", "localhost/shop").with("push", "true")];
    let error = client.solve(asked, |_| {}).await.unwrap_err();
    assert!(error.message.contains("exporter \"image\" could not be found"), "{error:?}");

    let usage = client.disk_usage(&[], Duration::ZERO).await.unwrap();
    assert!(usage.iter().any(|record| record.description.contains(&word)), "{usage:?}");
    // this dockerd is older than histories, and says so
    let history = client.history(&Default::default()).await.unwrap_err();
    assert!(matches!(history, Error::Refused { code: tonic::Code::Unimplemented, .. }), "{history:?}");
}
