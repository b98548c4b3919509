//! Ref transactions against real repositories.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::*;
use crate::tag::testing::Repository;

fn update(name: &str, old: &Sha, new: &Sha) -> RefUpdate {
    RefUpdate { name: name.parse().unwrap(), old: old.clone(), new: new.clone() }
}

async fn at(repository: &Repository, name: &str) -> Sha {
    read(&repository.git, &repository.path, &[&name.parse().unwrap()]).await.unwrap().remove(0)
}

fn locks(repository: &Repository) -> Vec<PathBuf> {
    lock_files(&repository.path).unwrap()
}

#[tokio::test]
async fn create_update_delete_and_abort() {
    let repository = Repository::new();
    let [a, b] = [repository.commit("a"), repository.commit("b")];
    let zero = Sha::zero();
    let main = "refs/heads/main";
    let go = async |update: RefUpdate| {
        RefTransaction::prepare(&repository.git, &repository.path, &[update])
            .await
            .unwrap()
            .commit()
            .await
            .unwrap();
    };
    go(update(main, &zero, &a)).await;
    assert_eq!(at(&repository, main).await, a);
    assert_eq!(at(&repository, "refs/heads/mai").await, zero);
    go(update(main, &a, &b)).await;
    assert_eq!(at(&repository, main).await, b);

    let held =
        RefTransaction::prepare(&repository.git, &repository.path, &[update(main, &b, &a)]).await.unwrap();
    assert_eq!(locks(&repository), [repository.path.join("refs/heads/main.lock")]);
    held.abort().await;
    assert_eq!(at(&repository, main).await, b);
    assert_eq!(locks(&repository), [] as [PathBuf; 0]);

    go(update(main, &b, &zero)).await;
    assert_eq!(at(&repository, main).await, zero);
}

#[tokio::test]
async fn what_cannot_win_is_told_apart_and_leaves_no_lock() {
    let repository = Repository::new();
    let [a, b] = [repository.commit("a"), repository.commit("b")];
    let zero = Sha::zero();
    repository.set("refs/heads/main", &a);
    let refuse = async |updates: &[RefUpdate]| {
        RefTransaction::prepare(&repository.git, &repository.path, updates).await.err().unwrap()
    };
    let moved =
        |error: &RefError, name: &str| matches!(error, RefError::Moved { names, .. } if names == &[name]);
    let error = refuse(&[update("refs/heads/main", &b, &a)]).await;
    assert!(moved(&error, "refs/heads/main"), "{error}");
    let error = refuse(&[update("refs/heads/main", &zero, &b)]).await;
    assert!(moved(&error, "refs/heads/main"), "{error}");
    let error = refuse(&[update("refs/heads/gone", &a, &b)]).await;
    assert!(moved(&error, "refs/heads/gone"), "{error}");
    let error = refuse(&[update("refs/heads/gone", &a, &zero)]).await;
    assert!(moved(&error, "refs/heads/gone"), "{error}");
    // of several, the one that moved is named, and none moves
    let error = refuse(&[update("refs/heads/new", &zero, &a), update("refs/heads/main", &b, &a)]).await;
    assert!(moved(&error, "refs/heads/main"), "{error}");
    assert_eq!(at(&repository, "refs/heads/new").await, zero);
    let error = refuse(&[update("refs/heads/main/sub", &zero, &a)]).await;
    assert!(matches!(error, RefError::Clash { .. }), "{error}");
    let error = refuse(&[update("refs/heads/x", &zero, &a), update("refs/heads/x/y", &zero, &a)]).await;
    assert!(matches!(error, RefError::Clash { .. }), "{error}");
    let nothing: Sha = "1".repeat(40).parse().unwrap();
    let error = refuse(&[update("refs/heads/main", &a, &nothing)]).await;
    assert!(matches!(error, RefError::Git { .. }), "{error}");

    let held =
        RefTransaction::prepare(&repository.git, &repository.path, &[update("refs/heads/main", &a, &b)])
            .await
            .unwrap();
    let error = refuse(&[update("refs/heads/main", &a, &b)]).await;
    assert!(matches!(error, RefError::Locked { .. }), "{error}");
    held.abort().await;
    assert_eq!(locks(&repository), [] as [PathBuf; 0]);
    assert_eq!(at(&repository, "refs/heads/main").await, a);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_goes_away_with_its_locks() {
    let repository = Repository::new();
    let a = repository.commit("a");
    let held = RefTransaction::prepare(
        &repository.git,
        &repository.path,
        &[update("refs/heads/main", &Sha::zero(), &a)],
    )
    .await
    .unwrap();
    assert_eq!(locks(&repository).len(), 1);
    drop(held);
    let removed = clear_stale_locks(&repository.path, Duration::from_secs(20)).await.unwrap();
    assert_eq!(removed, [] as [PathBuf; 0], "git took its own lock away");
    assert_eq!(at(&repository, "refs/heads/main").await, Sha::zero());
}

#[tokio::test]
async fn a_git_that_was_killed_leaves_a_lock_that_the_start_clears() {
    let repository = Repository::new();
    let a = repository.commit("a");
    let create = update("refs/heads/main", &Sha::zero(), &a);
    let mut held = RefTransaction::prepare(&repository.git, &repository.path, std::slice::from_ref(&create))
        .await
        .unwrap();
    held.keeper.child.start_kill().unwrap();
    assert!(held.commit().await.is_err());
    let lock = repository.path.join("refs/heads/main.lock");
    assert_eq!(locks(&repository), std::slice::from_ref(&lock), "the case is real");
    assert_eq!(clear_stale_locks(&repository.path, Duration::from_millis(50)).await.unwrap(), [lock]);
    RefTransaction::prepare(&repository.git, &repository.path, &[create])
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(at(&repository, "refs/heads/main").await, a);
}

#[tokio::test]
async fn a_missing_git_is_said() {
    let repository = Repository::new();
    let git = Git::new("/nonexistent/git".into(), Duration::from_secs(1));
    let a = repository.commit("a");
    let error =
        RefTransaction::prepare(&git, &repository.path, &[update("refs/heads/main", &Sha::zero(), &a)])
            .await
            .err()
            .unwrap();
    assert!(error.to_string().starts_with("/nonexistent/git: "), "{error}");
}

#[tokio::test]
async fn a_child_that_did_well_serves_the_next_transaction_and_sees_what_others_did_meanwhile() {
    let repository = Repository::new();
    let [a, b] = [repository.commit("a"), repository.commit("b")];
    let zero = Sha::zero();
    let waiting = || repository.git.idle.count(&repository.path);
    let prepare =
        async |update: RefUpdate| RefTransaction::prepare(&repository.git, &repository.path, &[update]).await;
    prepare(update("refs/heads/one", &zero, &a)).await.unwrap().commit().await.unwrap();
    assert_eq!(waiting(), 1);
    let first = prepare(update("refs/heads/two", &zero, &a)).await.unwrap();
    let id = first.keeper.child.id();
    assert_eq!(waiting(), 0, "one child, one transaction");
    // at the same time another: each has its own
    let second = prepare(update("refs/heads/three", &zero, &a)).await.unwrap();
    assert_ne!(second.keeper.child.id(), id);
    first.abort().await;
    second.abort().await;
    assert_eq!(waiting(), 2);
    // refs, packed refs and objects that it has not made itself
    repository.set("refs/heads/main", &a);
    let c = repository.commit("c");
    repository.run(&["pack-refs", "--all"]);
    repository.run(&["repack", "-a", "-d", "-q"]);
    let error = prepare(update("refs/heads/main", &zero, &b)).await.err().unwrap();
    assert!(matches!(error, RefError::Moved { .. }), "{error}");
    assert_eq!(waiting(), 1, "the child of a transaction that failed is gone");
    let error = prepare(update("refs/heads/one/below", &zero, &b)).await.err().unwrap();
    assert!(matches!(error, RefError::Clash { .. }), "{error}");
    prepare(update("refs/heads/four", &zero, &a)).await.unwrap().commit().await.unwrap();
    repository.run(&["update-ref", "-d", "refs/heads/one"]);
    prepare(update("refs/heads/one/below", &zero, &c)).await.unwrap().commit().await.unwrap();
    assert_eq!(at(&repository, "refs/heads/one/below").await, c);
}

/// A transaction's child, and its end.
fn end_of(transaction: &RefTransaction) -> (rustix::process::Pid, impl Future<Output = ()> + use<>) {
    let id = i32::try_from(transaction.keeper.child.id().unwrap()).unwrap();
    let id = rustix::process::Pid::from_raw(id).unwrap();
    let handle = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).unwrap();
    let wait = move || {
        // Seen, not reaped: that is its owner's, who may have been before us.
        let seen = waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        assert!(matches!(seen, Ok(_) | Err(rustix::io::Errno::CHILD)), "{seen:?}");
    };
    (id, async move { tokio::task::spawn_blocking(wait).await.unwrap() })
}

#[tokio::test]
async fn a_child_that_died_while_it_waited_is_not_asked() {
    let repository = Repository::new();
    let a = repository.commit("a");
    let go = async |name: &str| {
        let update = update(name, &Sha::zero(), &a);
        RefTransaction::prepare(&repository.git, &repository.path, &[update]).await.unwrap()
    };
    let transaction = go("refs/heads/one").await;
    let (id, end) = end_of(&transaction);
    transaction.commit().await.unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    end.await;
    go("refs/heads/two").await.commit().await.unwrap();
    assert_eq!(at(&repository, "refs/heads/two").await, a);
}

#[tokio::test]
async fn nobody_waits_for_long() {
    let repository = Repository::new();
    let a = repository.commit("a");
    let transaction = RefTransaction::prepare(
        &repository.git,
        &repository.path,
        &[update("refs/heads/main", &Sha::zero(), &a)],
    )
    .await
    .unwrap();
    let (_, end) = end_of(&transaction);
    transaction.commit().await.unwrap();
    assert_eq!(repository.git.idle.count(&repository.path), 1);
    end.await;
    assert_eq!(repository.git.idle.count(&repository.path), 0);
}
