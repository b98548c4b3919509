//! The builds under way, each in the lane of its ref: who supersedes whom, who waits, and how one is stopped.
//!
//! The refs of one push enter their lanes together, so that whoever waits waits for an earlier push only, and nobody in a
//! circle. Whether a build is stopped or comes to its commit point is decided once. Tries and plans are in nobody's way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::model::{Build, BuildId, RefName, Sha, UserName};
use crate::receive::refs;

/// Why a build ends before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    Cancelled {
        by: String,
    },
    Superseded {
        by: BuildId,
        commit: Sha,
        user: UserName,
    },
    /// Its ref went elsewhere, so that it cannot win any more.
    Moved {
        at: Sha,
    },
    Deleted,
    ClientGone,
    Shutdown,
}

/// A build cannot be stopped any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLate {
    Committing,
    Stopping,
}

#[derive(Debug)]
enum Phase {
    Open,
    Committing,
    Stopped(Stop),
}

/// One build under way.
#[derive(Debug)]
pub struct Entry {
    pub build: BuildId,
    pub app_id: String,
    pub reference: RefName,
    pub commit: Sha,
    pub old: Sha,
    pub user: UserName,
    /// A try or a plan.
    aside: bool,
    order: u64,
    /// The ref has moved for it; 0: not.
    generation: AtomicI64,
    running: AtomicBool,
    phase: Mutex<Phase>,
    stopped: CancellationToken,
    ended: CancellationToken,
}

impl Entry {
    /// Stops it, unless it is past that.
    pub fn stop(&self, why: Stop) -> Result<(), TooLate> {
        let mut phase = self.phase();
        match *phase {
            Phase::Open => *phase = Phase::Stopped(why),
            Phase::Committing => return Err(TooLate::Committing),
            Phase::Stopped(_) => return Err(TooLate::Stopping),
        }
        self.stopped.cancel();
        Ok(())
    }

    /// From here on it goes to its end; or it was stopped before.
    pub fn begin_commit(&self) -> Result<(), Stop> {
        let mut phase = self.phase();
        if let Phase::Stopped(why) = &*phase {
            return Err(why.clone());
        }
        *phase = Phase::Committing;
        Ok(())
    }

    pub fn why(&self) -> Option<Stop> {
        match &*self.phase() {
            Phase::Stopped(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Returns when it was stopped, with why.
    pub async fn stopped(&self) -> Stop {
        self.stopped.cancelled().await;
        self.why().unwrap_or(Stop::Shutdown)
    }

    /// Returns when its end is written.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub fn accept(&self, generation: i64) {
        self.generation.store(generation, Ordering::SeqCst);
    }

    pub fn is_accepted(&self) -> bool {
        self.generation.load(Ordering::SeqCst) > 0
    }

    /// It has its place on a builder.
    pub fn run(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    pub fn is_aside(&self) -> bool {
        self.aside
    }

    fn superseding(&self) -> Stop {
        let (by, commit, user) = (self.build.clone(), self.commit.clone(), self.user.clone());
        Stop::Superseded { by, commit, user }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        // nothing panics while it is held
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All builds under way. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    closed: bool,
    live: BTreeMap<u64, Arc<Entry>>,
}

/// A build's place in its lane, until it is dropped: after its end is written.
#[derive(Debug)]
pub struct Lane {
    lanes: Lanes,
    entry: Arc<Entry>,
}

impl std::ops::Deref for Lane {
    type Target = Arc<Entry>;
    fn deref(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.inner().live.remove(&self.entry.order);
        self.entry.ended.cancel();
    }
}

impl Lanes {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // nothing panics while it is held
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The builds of one push enter together; none once the lanes are closed.
    pub fn enter(&self, app_id: &str, builds: &[Build]) -> Option<Vec<Lane>> {
        let mut inner = self.inner();
        if inner.closed {
            return None;
        }
        let mut lanes = Vec::with_capacity(builds.len());
        for build in builds {
            let order = inner.next;
            inner.next += 1;
            let entry = Arc::new(Entry {
                build: build.id.clone(),
                app_id: app_id.to_owned(),
                reference: build.reference.clone(),
                commit: build.commit.clone(),
                old: build.old.clone(),
                user: build.user.clone(),
                aside: build.options.plan || build.options.dry_try,
                order,
                generation: AtomicI64::new(build.generation.unwrap_or(0)),
                running: AtomicBool::new(false),
                phase: Mutex::new(Phase::Open),
                stopped: CancellationToken::new(),
                ended: CancellationToken::new(),
            });
            inner.live.insert(order, entry.clone());
            lanes.push(Lane { lanes: self.clone(), entry });
        }
        Some(lanes)
    }

    /// Nothing enters any more.
    pub fn close(&self) {
        self.inner().closed = true;
    }

    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.inner().live.values().cloned().collect()
    }

    pub fn find(&self, build: &BuildId) -> Option<Arc<Entry>> {
        self.inner().live.values().find(|entry| entry.build == *build).cloned()
    }

    /// The others of the same ref, the oldest first.
    fn others(&self, app_id: &str, reference: &RefName, but: Option<u64>) -> Vec<Arc<Entry>> {
        let same = |entry: &&Arc<Entry>| {
            !entry.aside
                && entry.app_id == app_id
                && entry.reference == *reference
                && Some(entry.order) != but
        };
        self.inner().live.values().filter(same).cloned().collect()
    }

    /// Waits until nothing older of its ref is in its way; what it supersedes is stopped. `tell` hears whom it waits for.
    pub async fn turn(&self, entry: &Entry, repository: &Path, tell: impl Fn(&Entry)) -> Result<(), Stop> {
        if entry.aside {
            return Ok(());
        }
        let older = self.others(&entry.app_id, &entry.reference, Some(entry.order));
        for other in older.into_iter().filter(|other| other.order < entry.order) {
            if supersedes(entry, &other, repository).await {
                // an accepted one loses to an accepted one only: else it would be lost if this one fails
                if other.is_accepted() && !entry.is_accepted() {
                    continue;
                }
                if other.stop(entry.superseding()) != Err(TooLate::Committing) {
                    continue;
                }
            }
            tell(&other);
            tokio::select! {
                biased;
                why = entry.stopped() => return Err(why),
                () = other.ended() => {}
            }
        }
        entry.why().map_or(Ok(()), Err)
    }

    /// A ref went to `at`: what cannot win any more is stopped, and when `published` (or deleted) also what was accepted
    /// before the move that is the ref's `generation`-th.
    pub fn moved(&self, app_id: &str, reference: &RefName, at: &Sha, generation: i64, by: Option<&Entry>) {
        for other in self.others(app_id, reference, by.map(|entry| entry.order)) {
            let accepted = other.generation.load(Ordering::SeqCst);
            let why = match by {
                _ if accepted == 0 && other.old != *at => Stop::Moved { at: at.clone() },
                _ if accepted == 0 || accepted >= generation => continue,
                _ if at.is_zero() => Stop::Deleted,
                Some(by) => by.superseding(),
                None => continue,
            };
            // one at its commit point finds out there
            let _ = other.stop(why);
        }
    }
}

/// Of the same user, or on top of it.
async fn supersedes(newer: &Entry, older: &Entry, repository: &Path) -> bool {
    if newer.user == older.user {
        return true;
    }
    let (repository, new, old): (PathBuf, _, _) =
        (repository.to_owned(), newer.commit.clone(), older.commit.clone());
    let found = tokio::task::spawn_blocking(move || refs::descends(&repository, &new, &old)).await;
    match found {
        Ok(Ok(descends)) => descends,
        Ok(Err(error)) => {
            tracing::warn!(%error, "comparing two commits: the newer push waits");
            false
        }
        Err(_) => false,
    }
}
