//! A backup of a whole lemnos at work, and a server on what is restored of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::house::House;

/// Every repository of a data directory is whole, says git.
fn assert_whole(house: &House, data: &Path) {
    for entry in std::fs::read_dir(data.join("repositories")).unwrap() {
        let path = entry.unwrap().path();
        house.git(&path, &["--git-dir", ".", "fsck", "--full", "--strict"]).succeeded().hides("missing");
    }
}

#[test]
fn a_backup_taken_while_pushes_run_serves_on() {
    let mut house = House::start_with(
        "backup",
        &[],
        &[("LEMNOS_KEEP_UNREACHABLE_DAYS", "0"), ("LEMNOS_HOUSEKEEPING_SECONDS", "1")],
    );
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "0")]);
    house.push(&dir, &["main"]).succeeded();
    let backup = house.home.path().join("backup");
    let backup = backup.to_str().unwrap().to_owned();

    // pushes go on, every other one forced, while backups are taken
    let (stop, pushed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let tips = std::thread::scope(|scope| {
        let (house, dir, stop, pushed) = (&house, &dir, &stop, &pushed);
        let pushing = scope.spawn(move || {
            let mut tips = vec![house.git(dir, &["rev-parse", "HEAD"]).stdout.trim().to_owned()];
            while !stop.load(Ordering::Relaxed) {
                if tips.len() % 2 == 0 {
                    house.git(dir, &["reset", "-q", "--hard", &tips[0]]).succeeded();
                }
                tips.push(house.commit(dir, &[("file", &tips.len().to_string())], "next"));
                house.push(dir, &["--force", "main"]).succeeded();
                pushed.fetch_add(1, Ordering::Relaxed);
            }
            tips
        });
        while pushed.load(Ordering::Relaxed) < 6 && !pushing.is_finished() {
            house.lemnos(&["backup", &backup, "--with-secrets"]).succeeded().shows("Backed up 1 apps");
        }
        stop.store(true, Ordering::Relaxed);
        pushing.join().unwrap()
    });

    // what was there is lost, and comes back from the backup
    house.kill_server();
    std::fs::rename(house.data(), house.home.path().join("lost")).unwrap();
    house.lemnos(&["restore", &backup]).succeeded().shows("Restored 1 apps").hides("no secrets");
    assert_whole(&house, &house.data());
    house.serve();
    house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
    let tip = house.remote_refs(&dir)["refs/heads/main"].clone();
    assert!(tips.contains(&tip), "{tip} was never pushed");
    // a build that the store has as succeeded has its commit in the repository
    let repository =
        std::fs::read_dir(house.data().join("repositories")).unwrap().next().unwrap().unwrap().path();
    let builds = house.builds("shop");
    assert!(!builds.is_empty());
    let last = builds.iter().find(|build| build["state"] == "succeeded").unwrap();
    let commit = last["commit"].as_str().unwrap();
    house.git(&repository, &["--git-dir", ".", "cat-file", "-e", commit]).succeeded();

    // the known host key still holds, and clone, fetch and push work
    let copy = house.home.path().join("copy");
    house.git(&dir, &["clone", "-q", &house.url("shop"), copy.to_str().unwrap()]).succeeded();
    assert_eq!(house.git(&copy, &["rev-parse", "HEAD"]).stdout.trim(), tip);
    house.git(&dir, &["fetch", "-q", "builder"]).succeeded();
    let next = house.commit(&dir, &[("file", "after the restore")], "after");
    house.push(&dir, &["--force", "main"]).succeeded();
    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], next);
    let index = house.manifest("shop", "main").unwrap();
    assert_eq!(house.digest("shop", "main"), house.digest("shop", &format!("git-{}", &next[..12])));
    assert!(index.to_string().contains(&next), "the tag stands at the last push");
    assert_whole(&house, &house.data());

    // without secrets that is said, and nothing is ever restored over what is there
    house.lemnos(&["backup", &backup]).succeeded().shows("Left out: the SSH host keys");
    house.lemnos(&["restore", &backup]).failed().shows("is not empty");
    let elsewhere = house.home.path().join("elsewhere");
    let mut command = house.command(env!("CARGO_BIN_EXE_lemnos"));
    let said = command.args(["restore", &backup, "--data", elsewhere.to_str().unwrap()]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("The backup has no secrets"));
}
