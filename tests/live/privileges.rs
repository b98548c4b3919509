//! Whom things run as: git's children are not root where the server is, and the server need not be root.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::house::House;
use crate::support::engines;

const GIT: u32 = 64_097;
const SERVER: u32 = 64_098;
const DOCKERFILE: &str = "FROM busybox\nRUN echo building && sleep 2\nCOPY greeting /\n";

fn open_home(house: &mut House) {
    let home = house.home.path().to_owned();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
    // where other users reach it, whatever the test was built in
    let program = home.join("lemnos");
    // by another process: a program that is open for writing here, or in a child forked meanwhile, does not start
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_lemnos")).arg(&program).status().unwrap();
    assert!(copied.success());
    house.program = Some(program);
}

fn shop(house: &House) -> std::path::PathBuf {
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    house.repository("shop", &[("Dockerfile", DOCKERFILE), ("greeting", "hello\n")])
}

/// Names and users of the processes below `parent`.
fn below(parent: u32) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut parents = vec![parent];
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    while let Some(parent) = parents.pop() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
            if field(&status, "PPid:") == parent.to_string() {
                parents.push(field(&status, "Pid:").parse().unwrap());
                found.push((field(&status, "Name:"), field(&status, "Uid:").parse().unwrap()));
            }
        }
    }
    found
}

/// Whether user `id` can read a file or list a directory.
fn can_read(path: &Path, id: u32) -> bool {
    let mut command = Command::new(if path.is_dir() { "ls" } else { "cat" });
    command.arg(path).uid(id).gid(id);
    command.output().unwrap().status.success()
}

/// Who owns what is in the repositories, their own directories left out.
fn owners(dir: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            found.push(entry.metadata().unwrap().uid());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn b14_git_runs_as_a_user_that_reads_repositories_and_nothing_else() {
    // repositories of an earlier server, which ran git as root
    let mut house = House::start_changed("gituser", &[("LEMNOS_GIT_UID", "0")], open_home);
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    assert_eq!(owners(&house.data().join("repositories")), [0]);
    house
        .lemnos_reading(&["registry", "login", "r.example.com", "-u", "x", "--password-stdin"], "secret\n")
        .succeeded();
    assert!(house.stop_server().success());

    house.set_env(&[("LEMNOS_GIT_UID", "64097")]);
    house.serve();
    house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
    assert_eq!(owners(&house.data().join("repositories")), [GIT]);
    house.commit(&dir, &[("greeting", "two\n")], "two");
    let pushing = house.begin_push(&dir, &["main"]).until("building");
    let running = below(house.server_pid());
    let gits: Vec<_> = running.iter().filter(|(name, _)| name.starts_with("git")).collect();
    assert!(!gits.is_empty() && gits.iter().all(|(_, user)| *user == GIT), "{running:?}");
    assert!(running.iter().any(|(name, user)| name == "lemnos" && *user == GIT), "the hook: {running:?}");
    // while everything is open
    let data = house.data();
    for name in ["lemnos.db", "lemnos.db-wal", "secret.key", "lemnos.lock", "ssh", "", "run"] {
        let path = data.join(name);
        assert!(path.exists() && !can_read(&path, GIT), "{name} can be read by git's user");
    }
    for entry in std::fs::read_dir(data.join("ssh")).unwrap().map(Result::unwrap) {
        assert!(!can_read(&entry.path(), GIT), "{:?}", entry.path());
    }
    let mut knock = Command::new(env!("CARGO_BIN_EXE_lemnos"));
    knock.args(["keys", "list", "--data", data.to_str().unwrap()]).uid(GIT).gid(GIT);
    assert!(!knock.output().unwrap().status.success(), "the control socket answers git's user");
    let repositories = data.join("repositories");
    assert!(can_read(&repositories, GIT) && !can_read(&repositories, SERVER));
    pushing.finish().succeeded();

    // what it cannot do: choose another owner, by standing in for a repository
    let moved = Command::new("mv")
        .arg(repositories.join("x"))
        .arg(repositories.join("y"))
        .uid(GIT)
        .gid(GIT)
        .output()
        .unwrap();
    assert!(!moved.status.success());
    let touched =
        Command::new("touch").arg(repositories.join("mine.git")).uid(GIT).gid(GIT).output().unwrap();
    assert!(!touched.status.success());

    // an app made now, deletions, clones, and a large file that git streams
    house.app("blog");
    let large = "x".repeat(20 << 20);
    let blog = house.repository("blog", &[("Dockerfile", "FROM scratch\nCOPY large /\n"), ("large", &large)]);
    house.lemnos(&["apps", "set", "blog", "platforms=linux/amd64"]).succeeded();
    house.push(&blog, &["main"]).succeeded();
    house.push(&blog, &["main:refs/heads/side"]).succeeded();
    house.push(&blog, &[":refs/heads/side"]).succeeded();
    let clone = house.home.path().join("clone");
    house.git(house.home.path(), &["clone", "-q", &house.url("blog"), clone.to_str().unwrap()]).succeeded();
    assert_eq!(owners(&repositories), [GIT]);

    // and back
    assert!(house.stop_server().success());
    house.set_env(&[("LEMNOS_GIT_UID", "0")]);
    house.serve();
    house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
    house.commit(&dir, &[("greeting", "three\n")], "three");
    house.push(&dir, &["main"]).succeeded();
    assert_eq!(owners(&repositories), [0]);
}

/// A `git` that writes down who runs it, and what for, before it is the real one.
fn recorded_git(house: &House) -> (std::path::PathBuf, std::path::PathBuf) {
    let (dir, log) = (house.home.path().join("bin"), house.home.path().join("git.log"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&log, "").unwrap();
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).unwrap();
    let real = Command::new("sh").args(["-c", "command -v git"]).output().unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let text = format!(
        "#!/bin/sh\necho \"$(/usr/bin/id -u):$(/usr/bin/id -g) $*\" >>{}\nexec {} \"$@\"\n",
        log.display(),
        real.trim()
    );
    let script = dir.join("git");
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, log)
}

#[test]
fn b14_housekeeping_runs_git_as_its_user_and_leaves_it_what_it_packed() {
    let mut log = None;
    let mut house = House::start_changed("housekeeper", &[], |house| {
        open_home(house);
        let (dir, written) = recorded_git(house);
        log = Some(written);
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
        house.set_env(&[("LEMNOS_GIT_UID", "64097"), ("LEMNOS_HOUSEKEEPING_SECONDS", "1"), ("PATH", &path)]);
    });
    let log = log.unwrap();
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let repositories = house.data().join("repositories");
    let repository = std::fs::read_dir(&repositories)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "git"))
        .unwrap();
    house.until("the repository is packed", |_| repository.join("lemnos-packed").exists());
    let lines = std::fs::read_to_string(&log).unwrap();
    for command in ["pack-refs", "repack", "commit-graph"] {
        let of: Vec<&str> = lines.lines().filter(|line| line.contains(&format!(" {command} "))).collect();
        assert!(!of.is_empty(), "{command} was not run: {lines}");
        assert!(of.iter().all(|line| line.starts_with("64097:64097 ")), "{of:#?}");
    }
    let packs = std::fs::read_dir(repository.join("objects/pack")).unwrap().count();
    assert!(packs > 0, "nothing is packed");
    // the mark itself is made and then given away
    house.until("all of it is git's", |_| owners(&repositories) == [GIT]);
    // and what was packed is written to, cloned and packed again
    house.commit(&dir, &[("greeting", "two\n")], "two");
    house.push(&dir, &["--force", "main"]).succeeded();
    let clone = house.home.path().join("clone");
    house.git(house.home.path(), &["clone", "-q", &house.url("shop"), clone.to_str().unwrap()]).succeeded();
    assert!(house.stop_server().success());
    assert_eq!(owners(&repositories), [GIT]);
}

#[test]
fn a_git_user_that_cannot_reach_its_repositories_is_said_at_start() {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("LEMNOS_GIT_UID", "64097");
    let data = home.path().join("data");
    command.args(["serve", "--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data);
    command.args(["--builder", &engines().buildkit, "--registry", &format!("{}/x", engines().registry)]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot pass") && said.contains("chmod o+x"), "{said}");
}

/// A TCP way to the shared builder, whose socket is root's: as if it were elsewhere.
fn builder_elsewhere() -> String {
    let socket = engines().buildkit.trim_start_matches("unix://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&socket).unwrap();
            let (client2, server2): (TcpStream, UnixStream) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                pipe(client, server, |server| drop(server.shutdown(std::net::Shutdown::Write)))
            });
            std::thread::spawn(move || {
                pipe(server2, client2, |client| drop(client.shutdown(std::net::Shutdown::Write)))
            });
        }
    });
    address
}

fn pipe<W: std::io::Write>(mut from: impl std::io::Read, mut to: W, end: impl FnOnce(&W)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.by_ref().read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    end(&to);
}

#[test]
fn a_server_without_root_serves_with_a_builder_elsewhere() {
    let mut house = House::start_changed("rootless", &[], |house| {
        open_home(house);
        chown(house.home.path(), Some(SERVER), Some(SERVER)).unwrap();
        // the log is opened for it before it starts
        house.run_as = Some(SERVER);
        house.builder = Some(builder_elsewhere());
    });
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    assert!(house.manifest("shop", "main").is_some());
    let running = below(house.server_pid());
    assert!(running.iter().all(|(_, user)| *user == SERVER), "{running:?}");
    let files = owners(&house.data().join("repositories"));
    assert!(files.iter().all(|user| *user == SERVER || *user == 0), "{files:?}");
    house
        .lemnos_reading(&["registry", "login", "r.example.com", "-u", "x", "--password-stdin"], "secret\n")
        .succeeded();
    let key = std::fs::metadata(house.data().join("secret.key")).unwrap();
    assert_eq!((key.uid(), key.mode() & 0o777), (SERVER, 0o600));
    assert!(house.stop_server().success());
}
