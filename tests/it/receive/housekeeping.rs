//! Repositories are packed and swept while real clients push.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lemnos::housekeeping::{Collected, Housekeeper, Kept, KeptGit, Settings, Thresholds};
use lemnos::receive::{Repositories, refs};
use lemnos::store::Store;
use tokio_util::sync::CancellationToken;

use super::fixture::{Clone, Gate, Handler, PATIENCE, Server, git_path};

struct Keeper {
    _dir: tempfile::TempDir,
    housekeeper: Housekeeper,
}

impl Keeper {
    /// One for whom everything is worth it, and nothing is to be kept.
    async fn of(repositories: &Repositories) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let thresholds = Thresholds {
            loose_objects: 1,
            pause: Duration::ZERO,
            at_least_every: Duration::ZERO,
            keep_unreachable: Duration::ZERO,
            keep_temporary: Duration::ZERO,
            ..Thresholds::default()
        };
        let git = KeptGit {
            program: git_path(),
            lemnos: env!("CARGO_BIN_EXE_lemnos").into(),
            lock: dir.path().join("lock"),
            timeout: PATIENCE,
        };
        let kept = Kept {
            builds_per_app: 10,
            builds_days: 1,
            logs_days: 1,
            logs_bytes: 1 << 30,
            audit: Duration::from_secs(86_400),
            audit_entries: 1_000,
        };
        let settings = Settings { every: PATIENCE, thresholds, kept, git };
        Self { _dir: dir, housekeeper: Housekeeper::new(store, repositories.clone(), settings) }
    }

    async fn work(&mut self) -> Collected {
        let done = self.housekeeper.repository("app1", &CancellationToken::new()).await;
        done.unwrap_or_else(|error| panic!("{error}"))
    }
}

async fn on(repository: &Path, args: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(git_path());
    command.arg("--git-dir").arg(repository).args(args).env_clear().env("LC_ALL", "C");
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("git hangs").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
}

async fn assert_whole(repository: &Path) {
    let (ok, said) = on(repository, &["fsck", "--full", "--strict", "--no-dangling"]).await;
    assert!(ok && !said.contains("missing") && !said.contains("error"), "{said}");
}

async fn has(repository: &Path, object: &str) -> bool {
    on(repository, &["cat-file", "-e", object]).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forced_push_leaves_goes_and_all_else_stays() {
    let server = Server::start(Handler::accepting()).await;
    let repository = server.repository();
    let clone = Clone::with_commit().await;
    let base = clone.ok(&["rev-parse", "HEAD"]).await;
    for n in 0..5 {
        clone.commit("file", &format!("content {n}\n")).await;
        assert!(clone.push(&server, &["main"]).await.0);
    }
    let away = clone.ok(&["rev-parse", "HEAD"]).await;
    let held = clone.ok(&["rev-parse", "HEAD~1"]).await;
    clone.ok(&["reset", "-q", "--hard", &base]).await;
    let kept = clone.commit("file", "after all\n").await;
    assert!(clone.push(&server, &["--force", "main"]).await.0);
    // a record of its own holds this one; its build is not in the store, so it is let go
    refs::keep(&repository, &lemnos::model::BuildId::generate(), &held.parse().unwrap()).unwrap();

    let mut keeper = Keeper::of(&server.repositories).await;
    let done = keeper.work().await;
    assert!(done.packed && done.swept, "{done:?}");
    assert!(!has(&repository, &away).await && !has(&repository, &held).await);
    assert!(has(&repository, &kept).await && has(&repository, &base).await);
    assert!(refs::kept(&repository).unwrap().is_empty());
    assert_whole(&repository).await;
    let packs = std::fs::read_dir(repository.join("objects/pack")).unwrap();
    let ends: Vec<_> =
        packs.map(|e| e.unwrap().path().extension().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(ends.iter().filter(|end| *end == "pack").count(), 1, "{ends:?}");
    assert!(ends.contains(&"bitmap".to_owned()), "{ends:?}");
    assert!(repository.join("objects/info/commit-graph").exists());
    assert_eq!(keeper.work().await, Collected::default(), "nothing is left to do");

    // what went can come back
    clone.ok(&["reset", "-q", "--hard", &away]).await;
    assert!(clone.push(&server, &["--force", "main"]).await.0);
    assert_whole(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crowd_of_pushes_leaves_is_gathered_at_once() {
    let server = Server::start(Handler::accepting()).await;
    let repository = server.repository();
    let clone = Clone::with_commit().await;
    let mut keeper = Keeper::of(&server.repositories).await;
    keeper.housekeeper.thresholds_mut().pushes = 3;
    let (stop, mut gathered) = (CancellationToken::new(), keeper.housekeeper.gathered());
    let running = tokio::spawn(keeper.housekeeper.run(stop.clone()));

    let loose = |repository: &Path| {
        let fan_outs = std::fs::read_dir(repository.join("objects")).unwrap();
        fan_outs.filter(|entry| entry.as_ref().unwrap().file_name().len() == 2).count()
    };
    for branch in ["one", "two", "three"] {
        assert!(loose(&repository) > 0 || branch == "one", "{branch}: too early");
        clone.commit("file", branch).await;
        assert!(clone.push(&server, &[&format!("HEAD:refs/heads/{branch}")]).await.0);
    }
    tokio::time::timeout(PATIENCE, gathered.changed()).await.expect("it is not gathered").unwrap();
    assert_eq!(loose(&repository), 0);
    assert!(!repository.join("refs/heads/three").exists());
    assert_whole(&repository).await;
    let refs = on(&repository, &["for-each-ref", "--format=%(refname)", "refs/heads"]).await.1;
    assert_eq!(refs, "refs/heads/one\nrefs/heads/three\nrefs/heads/two");

    clone.commit("file", "after it").await;
    assert!(clone.push(&server, &["HEAD:refs/heads/three"]).await.0);
    assert_whole(&repository).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn young_unreachable_objects_stay() {
    let server = Server::start(Handler::accepting()).await;
    let clone = Clone::with_commit().await;
    let away = clone.commit("file", "away\n").await;
    assert!(clone.push(&server, &["main"]).await.0);
    clone.ok(&["reset", "-q", "--hard", "HEAD~1"]).await;
    assert!(clone.push(&server, &["--force", "main"]).await.0);
    let mut keeper = Keeper::of(&server.repositories).await;
    keeper.housekeeper.thresholds_mut().keep_unreachable = Duration::from_secs(3600);
    let done = keeper.work().await;
    assert!(done.packed && !done.swept, "{done:?}");
    assert!(has(&server.repository(), &away).await);
    assert_whole(&server.repository()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_away_while_a_push_is_under_way() {
    let gate = Gate::new();
    let server = Server::start(Handler::gated(&gate)).await;
    let repository = server.repository();
    let clone = Clone::with_commit().await;
    // a tip that is gone by the time the next push, which builds upon it, is at its end
    gate.go.add_permits(1);
    let tip = clone.commit("file", "tip\n").await;
    assert!(clone.push(&server, &["main"]).await.0);
    gate.reached().await;
    let next = clone.commit("file", "next\n").await;
    let url = server.url();
    let mut pushing = clone.command(&["push", &url, "main:other"]).spawn().unwrap();
    gate.reached().await;
    git2::Repository::open_bare(&repository)
        .unwrap()
        .find_reference("refs/heads/main")
        .unwrap()
        .delete()
        .unwrap();

    let mut keeper = Keeper::of(&server.repositories).await;
    let done = keeper.work().await;
    assert!(done.packed && !done.swept, "{done:?}");
    assert!(has(&repository, &tip).await && has(&repository, &next).await);
    gate.go.add_permits(1);
    assert!(tokio::time::timeout(PATIENCE, pushing.wait()).await.unwrap().unwrap().success());
    assert_eq!(server.reference("refs/heads/other"), Some(next));
    assert_whole(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_clones_during_housekeeping_succeed() {
    const PUSHES: usize = 40;
    let server = Server::start(Handler::accepting()).await;
    let repository = server.repository();
    let clone = Clone::with_commit().await;
    assert!(clone.push(&server, &["main"]).await.0);
    let stop = Arc::new(AtomicBool::new(false));
    let working = {
        let (repositories, stop) = (server.repositories.clone(), stop.clone());
        tokio::spawn(async move {
            let mut keeper = Keeper::of(&repositories).await;
            let (mut rounds, mut swept) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                // a round that a push ends is as good as another
                let done = keeper.housekeeper.repository("app1", &CancellationToken::new()).await.unwrap();
                rounds += usize::from(done.packed);
                swept += usize::from(done.swept);
            }
            (rounds, swept)
        })
    };
    let root = clone.ok(&["rev-parse", "HEAD"]).await;
    for n in 0..PUSHES {
        // every third throws the ones before away, and git counts on what it was told of
        if n % 3 == 2 {
            clone.ok(&["reset", "-q", "--hard", &root]).await;
        }
        clone.commit("file", &format!("content {n}\n")).await;
        let (ok, said) = clone.push(&server, &["--force", "main"]).await;
        assert!(ok, "push {n}: {said}");
        if n % 5 == 0 {
            let dir = tempfile::tempdir().unwrap();
            let copy = dir.path().join("copy");
            clone.ok(&["clone", "-q", &server.url(), copy.to_str().unwrap()]).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (rounds, swept) = tokio::time::timeout(PATIENCE, working).await.unwrap().unwrap();
    assert!(rounds > 3, "{rounds} rounds");
    println!("{rounds} rounds, {swept} of them swept");
    assert_whole(&repository).await;
    let mut keeper = Keeper::of(&server.repositories).await;
    keeper.work().await;
    assert_whole(&repository).await;
    assert_eq!(server.reference("refs/heads/main"), Some(clone.ok(&["rev-parse", "HEAD"]).await));
}

/// libgit2 opens packs when it needs them: one that is replaced meanwhile must not end a build.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_began_before_reads_on() {
    let server = Server::start(Handler::accepting()).await;
    let clone = Clone::with_commit().await;
    for n in 0..3 {
        clone.commit(&format!("file{n}"), &format!("content {n}\n")).await;
        assert!(clone.push(&server, &["main"]).await.0);
        Keeper::of(&server.repositories).await.work().await;
    }
    let reader = git2::Repository::open_bare(server.repository()).unwrap();
    let tip = reader.refname_to_id("refs/heads/main").unwrap();
    // loads the index of the pack that is there now, but not the pack
    assert!(reader.odb().unwrap().exists(tip));
    clone.commit("file9", "more\n").await;
    assert!(clone.push(&server, &["main"]).await.0);
    Keeper::of(&server.repositories).await.work().await;
    let tree = reader.find_commit(tip).unwrap().tree().unwrap();
    assert_eq!(tree.len(), 4);
    for entry in tree.iter() {
        assert!(!reader.find_blob(entry.id()).unwrap().content().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_or_killed_child_leaves_nothing_for_good() {
    let server = Server::start(Handler::accepting()).await;
    let repository = server.repository();
    let clone = Clone::with_commit().await;
    assert!(clone.push(&server, &["main"]).await.0);
    for name in ["pack/tmp_pack_Ab12", "pack/.tmp-77-pack-1.idx", "info/commit-graph.lock"] {
        std::fs::create_dir_all(repository.join("objects/info")).unwrap();
        std::fs::write(repository.join("objects").join(name), "half").unwrap();
    }
    let mut keeper = Keeper::of(&server.repositories).await;
    let stopped = CancellationToken::new();
    stopped.cancel();
    let error = keeper.housekeeper.repository("app1", &stopped).await.unwrap_err();
    assert!(error.to_string().contains("was stopped"), "{error}");
    assert!(server.children().is_empty());
    let done = keeper.work().await;
    assert!(done.packed, "{done:?}");
    let left: Vec<_> = std::fs::read_dir(repository.join("objects/pack"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_whole(&repository).await;
}
