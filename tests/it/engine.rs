//! `lemnos engine-child`: an engine ends with its server, however that ended, and takes along what it started.
//! The engine is a shell here; tests/live/engines.rs has the real ones.

use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A stand-in for the server: a shell that starts a keeper and waits. It prints the pids that the engine prints.
fn server(dir: &Path, engine: &str) -> Child {
    let script = format!(
        "{} engine-child --parent $$ --lock {}/lock --grace 1 -- sh -c '{engine}' & echo keeper $!; wait",
        env!("CARGO_BIN_EXE_lemnos"),
        dir.display()
    );
    Command::new("bash").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap()
}

/// Reads `NAME PID` lines until all names have come.
fn pids(server: &mut Child, names: &[&str]) -> Vec<u32> {
    let mut seen: Vec<(String, u32)> = Vec::new();
    for line in std::io::BufReader::new(server.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((name, pid)) = line.split_once(' ').filter(|(name, _)| names.contains(name)) {
            seen.push((name.to_owned(), pid.parse().unwrap()));
        }
        if seen.len() == names.len() {
            break;
        }
    }
    names
        .iter()
        .map(|n| seen.iter().find(|(s, _)| s == n).unwrap_or_else(|| panic!("no {n}: {seen:?}")).1)
        .collect()
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

fn assert_gone(all: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while all.iter().any(|pid| alive(*pid)) {
        assert!(
            Instant::now() < deadline,
            "still there: {:?}",
            all.iter().filter(|p| alive(**p)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// The engine starts a helper in a session of its own, whose parent ends at once: what runc's containers are to buildkitd.
const WITH_ORPHAN: &str = r#"(setsid sh -c "echo orphan \$\$; exec sleep 300" &); echo engine $$; trap : TERM; while :; do sleep 300; done"#;

#[test]
fn a_killed_server_takes_a_stubborn_engine_and_its_orphans_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), WITH_ORPHAN);
    let all = pids(&mut server, &["keeper", "engine", "orphan"]);
    assert!(all.iter().all(|pid| alive(*pid)));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_gone(&all);
}

#[test]
fn a_killed_engine_leaves_no_orphans_and_its_status_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), WITH_ORPHAN);
    let all = pids(&mut server, &["keeper", "engine", "orphan"]);
    kill(all[1], "-KILL");
    assert_gone(&all);
    assert!(server.wait().unwrap().success(), "the server itself was not harmed");
}

#[test]
fn a_killed_keeper_takes_the_engine_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), "echo engine $$; exec sleep 300");
    let all = pids(&mut server, &["keeper", "engine"]);
    kill(all[0], "-KILL");
    assert_gone(&all);
    server.wait().unwrap();
}

#[test]
fn a_keeper_whose_server_has_gone_already_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("started");
    let output = Command::new(env!("CARGO_BIN_EXE_lemnos"))
        .args(["engine-child", "--parent", "1", "--lock"])
        .arg(dir.path().join("lock"))
        .arg("--")
        .arg("touch")
        .arg(&marker)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), None);
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the server that started this has ended"),
        "{output:?}"
    );
    assert!(!marker.exists());
}

#[test]
fn the_exit_status_is_the_engines() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_lemnos"))
        .args(["engine-child", "--parent", &std::process::id().to_string(), "--lock"])
        .arg(dir.path().join("lock"))
        .args(["--", "sh", "-c", "echo said; exit 42"])
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(42));
    assert_eq!(String::from_utf8_lossy(&status.stdout), "lemnos-engine-child: started\nsaid\n");
}
