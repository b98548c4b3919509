//! Many at once: pushes, writers of one ref, connections that say nothing.

use std::path::PathBuf;
use std::time::Duration;

use super::{QUICK, leaves_nothing, shop, small_app};
use crate::house::{House, Said};

#[test]
fn twenty_pushes_at_once_all_end_right() {
    let house = House::start("many");
    let apps = ["a0", "a1", "a2", "a3"];
    let mut clients = Vec::new();
    for app in apps {
        small_app(&house, app);
        house.lemnos(&["apps", "set", app, "branches=*"]).succeeded();
        let dir = house.repository(app, &[("Dockerfile", QUICK), ("greeting", app)]);
        for n in 0..5 {
            let branch = format!("b{n}");
            house.git(&dir, &["checkout", "-q", "-b", &branch, "main"]).succeeded();
            let text = format!("{app} {branch}\n");
            let dockerfile = if n == 4 { "FROM busybox\nRUN false\n" } else { QUICK };
            let commit = house.commit(&dir, &[("greeting", &text), ("Dockerfile", dockerfile)], &branch);
            clients.push((app, dir.clone(), branch, commit, n != 4));
        }
    }
    let said: Vec<Said> = std::thread::scope(|scope| {
        let push = |(_, dir, branch, _, _): &(_, PathBuf, String, _, _)| house.push(dir, &[branch]);
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(move || push(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ((app, dir, branch, commit, good), said) in clients.iter().zip(said) {
        let refs = house.remote_refs(dir);
        let reference = refs.get(&format!("refs/heads/{branch}"));
        let manifest = house.manifest(app, branch);
        if *good {
            said.succeeded();
            assert_eq!(reference, Some(commit));
            let revision = &manifest.unwrap()["annotations"]["org.opencontainers.image.revision"];
            assert_eq!(revision, commit.as_str());
        } else {
            said.failed().shows("build failed: Dockerfile:2");
            assert_eq!((reference, manifest), (None, None));
        }
    }
    for app in apps {
        let states: Vec<_> =
            house.builds(app).iter().map(|b| b["state"].as_str().unwrap().to_owned()).collect();
        assert_eq!(states.iter().filter(|s| *s == "succeeded").count(), 4, "{states:?}");
        assert_eq!(states.iter().filter(|s| *s == "failed").count(), 1, "{states:?}");
    }
    leaves_nothing(&house);
}

#[test]
fn many_writers_of_one_ref_leave_it_at_one_of_them() {
    let house = House::start("writers");
    let dir = shop(&house);
    house.push(&dir, &["main"]).succeeded();
    let commits: Vec<String> = (0..6)
        .map(|n| {
            house.git(&dir, &["checkout", "-q", "-B", &format!("w{n}"), "main"]).succeeded();
            house.commit(&dir, &[("greeting", &format!("writer {n}\n"))], "mine")
        })
        .collect();
    // each overwrites what it saw, and one takes the ref away in the middle of it
    let mut specs: Vec<String> = commits.iter().map(|commit| format!("+{commit}:refs/heads/main")).collect();
    specs.push(":refs/heads/main".to_owned());
    let said: Vec<Said> = std::thread::scope(|scope| {
        let push = |spec: &str| house.git(&dir, &["push", &house.url("shop"), spec]);
        let threads: Vec<_> = specs.iter().map(|spec| scope.spawn(move || push(spec))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(said.iter().any(|said| said.ok), "{said:?}");
    for said in said.iter().filter(|said| !said.ok) {
        let remedy = said.stderr.contains("hint: ") || said.stderr.contains("(superseded by ");
        assert!(said.stderr.contains("rejected]") && remedy, "{}", said.stderr);
    }
    if let Some(head) = house.remote_refs(&dir).get("refs/heads/main") {
        for tag in ["main", "latest"] {
            let revision =
                &house.manifest("shop", tag).unwrap()["annotations"]["org.opencontainers.image.revision"];
            assert_eq!(revision, head.as_str(), "{tag}");
        }
    }
    assert!(house.builds("shop").iter().all(|build| build["state"] != "running"));
    leaves_nothing(&house);
}

#[test]
fn idle_http_connections_take_nothing_from_a_push() {
    let house = House::start("idle");
    let dir = shop(&house);
    let address = house.ready()["http"].as_str().unwrap().parse().unwrap();
    // what the door does not take waits in the kernel; what the kernel does not take times out
    let open = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3));
    let idle: Vec<_> = (0..600).map_while(|n| open(n).ok()).collect();
    assert!(idle.len() >= 256, "{}", idle.len());
    house.push(&dir, &["main"]).succeeded();
    let held = std::fs::read_dir(format!("/proc/{}/fd", house.server_pid())).unwrap().count();
    assert!(held < 400, "{held} descriptors are open");
}
