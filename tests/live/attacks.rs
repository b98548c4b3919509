//! Attacks on a whole server, by those who push: what each door refuses alone is in `tests/it`, here is what only shows
//! end to end, on the disk, in the registry and on the screens of others.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::house::{House, Said};

mod build;
mod git;
mod load;
mod registry;
mod ssh;

const QUICK: &str = "FROM busybox\nCOPY greeting /greeting\n";

/// An app that ada may push to and that builds for one platform.
pub fn small_app(house: &House, name: &str) {
    house.app(name);
    house.lemnos(&["apps", "set", name, "platforms=linux/amd64"]).succeeded();
}

fn shop(house: &House) -> PathBuf {
    small_app(house, "shop");
    house.repository("shop", &[("Dockerfile", QUICK), ("greeting", "hello\n")])
}

/// What no ended push may leave in the repositories: quarantines, locks, and hidden refs but those by which builds that did not
/// succeed can be done again.
fn leftovers(house: &House) -> Vec<String> {
    let said = house.lemnos(&["builds", "list", "--limit", "1000", "--json"]).succeeded();
    let builds: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let ended = |build: &&serde_json::Value| {
        !["queued", "running", "succeeded"].contains(&build["state"].as_str().unwrap())
    };
    let kept: Vec<&str> =
        builds.as_array().unwrap().iter().filter(ended).map(|b| b["id"].as_str().unwrap()).collect();
    let mut found = Vec::new();
    let mut waiting = vec![house.data().join("repositories")];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let hidden =
                path.parent().unwrap().ends_with("refs/lemnos/builds") && !kept.contains(&name.as_str());
            let temporary = ["tmp_", "incoming-", ".removed-"].iter().any(|prefix| name.starts_with(prefix));
            if temporary || hidden || name.ends_with(".lock") {
                found.push(path.display().to_string());
            }
            if name == "packed-refs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let ids = text.lines().filter_map(|line| line.rsplit_once("refs/lemnos/builds/"));
                found.extend(ids.filter(|(_, id)| !kept.contains(id)).map(|(_, id)| id.to_owned()));
            }
            if entry.file_type().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found
}

#[track_caller]
pub fn leaves_nothing(house: &House) {
    assert_eq!(leftovers(house), Vec::<String>::new());
}

/// Objects of all repositories, packed or loose.
pub fn objects(house: &House) -> usize {
    let mut count = 0;
    let mut waiting = vec![house.data().join("repositories")];
    while let Some(dir) = waiting.pop() {
        assert!(
            dir.extension().is_none_or(|end| end != "git") || dir.join("odb").is_dir(),
            "{dir:?}: where are its objects?"
        );
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else if entry.path().components().any(|part| part.as_os_str() == "odb") {
                count += 1;
            }
        }
    }
    count
}

pub fn peak_memory_kib(house: &House) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.server_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Fails where the text could steer a terminal or show itself in another order than its bytes.
#[track_caller]
fn harmless(what: &str, text: &str) {
    let steers = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let bad: Vec<&str> = text.lines().filter(|line| line.chars().any(steers)).collect();
    assert!(bad.is_empty(), "{what}: {bad:?}");
}

/// Writes an object of `content` into the clone's store and returns its id.
fn object(house: &House, dir: &Path, args: &[&str], content: &[u8]) -> String {
    let mut child =
        house.git_command(dir).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit_of(house: &House, dir: &Path, tree: &str) -> String {
    object(house, dir, &["commit-tree", tree, "-m", "crafted"], b"")
}

/// `ssh` to the server with one exec request.
fn ssh(house: &House, key: &str, exec: &[&str]) -> Said {
    let output = ssh_command(house, key).args(exec).output().unwrap();
    Said {
        ok: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn ssh_command(house: &House, key: &str) -> std::process::Command {
    let ready = house.ready();
    let (host, port) = ready["ssh"].as_str().unwrap().split_once(':').unwrap();
    let words = house.ssh_command(key);
    let mut words = words.split_whitespace();
    let mut command = house.command(words.next().unwrap());
    command.args(words).args(["-p", port, &format!("git@{host}")]).stdin(Stdio::null());
    command
}
