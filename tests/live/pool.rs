//! Two real buildkitd: what becomes of a push when the one that builds it is killed, stopped or drained.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::House;
use crate::support::engines;

/// A buildkitd of this test, beside the one that all live tests share.
struct Second {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Second {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("lemnos-second-").tempdir().unwrap();
        let mut second = Self { dir, daemon: None };
        second.run();
        second
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("b.sock")
    }

    fn run(&mut self) {
        assert!(self.daemon.is_none(), "one at a time");
        let (dir, base, registry) =
            (self.dir.path().display(), &engines().base_registry, &engines().registry);
        let http: String = [base, registry]
            .map(|host| format!("[registry.\"{host}\"]\nhttp = true\n"))
            .into_iter()
            .take(if base == registry { 1 } else { 2 })
            .collect();
        let config = format!(
            "root = \"{dir}/root\"\n[grpc]\naddress = [\"unix://{dir}/b.sock\"]\n[worker.oci]\nenabled = true\n\
             binary = \"runc\"\nnetworkMode = \"host\"\n[worker.containerd]\nenabled = false\n\
             [registry.\"docker.io\"]\nmirrors = [\"{base}\"]\n{http}"
        );
        std::fs::write(self.dir.path().join("b.toml"), config).unwrap();
        let log = std::fs::File::create(self.dir.path().join("b.log")).unwrap();
        let daemon = Command::new(&engines().buildkitd)
            .args([
                "--config",
                self.file("b.toml").as_str(),
                "--otel-socket-path",
                self.file("o.sock").as_str(),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn signal(&self, name: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // also when it is stopped
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.end();
        // what it had mounted when it was killed would keep its directory, and the disk, for ever
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let inside =
            |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at).starts_with(self.dir.path()));
        for line in mounts.lines().filter(inside) {
            let at = line.split(' ').nth(1).unwrap_or_default();
            let _ = Command::new("umount").args(["-l", at]).status();
        }
    }
}

fn state(house: &House, name: &str) -> String {
    let list = house.lemnos(&["builders", "list", "--json"]).succeeded();
    let builders: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let found = builders.as_array().unwrap().iter().find(|b| b["name"] == name);
    found.map_or("absent", |b| b["state"].as_str().unwrap()).to_owned()
}

/// A step that takes long where it is run first, and says that it has begun; a new one for each round.
fn dockerfile(round: &str) -> String {
    format!("FROM busybox\nRUN echo {round} && echo begun-{round} && sleep 25 && echo {round} >/done\n")
}

fn begin(house: &House, dir: &Path, round: &str) -> crate::house::Pushing {
    house.commit(dir, &[("Dockerfile", &dockerfile(round))], round);
    // git pads lines with blanks
    house.begin_push(dir, &["main"]).until("on builder second").until(&format!("begun-{round}  "))
}

#[test]
fn a_push_outlives_the_builder_that_builds_it() {
    let mut second = Second::start();
    let spec = format!("unix://{},name=second", second.socket().display());
    let mut house = House::start("pool");
    let shared = house.engines.buildkit.clone();
    house.lemnos(&["builders", "add", &spec]).succeeded();
    house.until("the second builder is up", |house| state(house, "second") == "up");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);

    // killed
    house.lemnos(&["builders", "drain", &shared]).succeeded().shows("is drained");
    let push = begin(&house, &dir, "killed");
    house.lemnos(&["builders", "resume", &shared]).succeeded();
    let began = Instant::now();
    second.end();
    let said = push.finish().succeeded();
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
    said.shows("builder second lost: another builder takes over").shows("abandoned: builder second lost");
    assert_eq!(state(&house, "second"), "down");
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "done").as_deref(), Some("killed\n"));

    // back by itself, and stopped without a word
    second.run();
    house.until("the second builder is back", |house| state(house, "second") == "up");
    house.lemnos(&["builders", "drain", &shared]).succeeded();
    let push = begin(&house, &dir, "stopped");
    house.lemnos(&["builders", "resume", &shared]).succeeded();
    let began = Instant::now();
    second.signal("-STOP");
    let push = push.until("builder second lost: another builder takes over");
    assert!(began.elapsed() < Duration::from_secs(20), "noticed after {:?}", began.elapsed());
    push.finish().succeeded();
    assert_eq!(state(&house, "second"), "down");

    // told to stop, as an upgrade would
    second.signal("-CONT");
    house.until("the second builder is back", |house| state(house, "second") == "up");
    house.lemnos(&["builders", "drain", &shared]).succeeded();
    let push = begin(&house, &dir, "told");
    house.lemnos(&["builders", "drain", "second"]).succeeded().shows("1 still at work");
    assert_eq!(state(&house, "second"), "draining");
    push.finish().succeeded();
    house.until("it is drained", |house| state(house, "second") == "drained");
    // nobody is left
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo nobody\n")], "nobody");
    house.push(&dir, &["main"]).failed().shows("a builder is drained");
    house.lemnos(&["builders", "remove", "second"]).succeeded();
    assert_eq!(state(&house, "second"), "absent");
}
