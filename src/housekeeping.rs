//! Housekeeping: what nobody waits for. Repositories are repacked and swept, old builds and logs dropped, the database shrunk.
//!
//! One thing at a time, at low priority, off the path of every push: a push never waits for more than the end of a child that
//! was told to stop. Objects of a push under way are never taken away (`receive::Leases`). A failure is logged, and tried again
//! at a later round. Must not move a ref that clients see, nor decide what a build is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::receive::{Repositories, refs};
use crate::store::{Store, StoreError, now_ms};

mod git;
mod look;
mod records;
mod repository;
mod temporary;

pub use git::{GitError, KeptGit};
pub use records::Kept;
pub use repository::{Collected, Upkeep};

/// When a repository is worth the work.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Loose objects from which on a repository is repacked.
    pub loose_objects: usize,
    /// Packs from which on it is.
    pub packs: usize,
    /// Pushes after which what they left loose is gathered, without waiting for a round.
    pub pushes: usize,
    /// Between two repacks of one repository.
    pub pause: Duration,
    /// A repository in which anything is loose or unreachable is repacked this often.
    pub at_least_every: Duration,
    /// Unreachable objects younger than this stay: of refused builds and forced pushes.
    pub keep_unreachable: Duration,
    /// Half-written files older than this are a killed child's.
    pub keep_temporary: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            loose_objects: 2_000,
            packs: 20,
            pushes: 64,
            pause: HOUR,
            at_least_every: 24 * HOUR,
            keep_unreachable: 14 * 24 * HOUR,
            keep_temporary: 24 * HOUR,
        }
    }
}

/// What the housekeeper works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the end of one round to the next.
    pub every: Duration,
    pub thresholds: Thresholds,
    pub kept: Kept,
    pub git: KeptGit,
}

/// Keeps one data directory in order.
pub struct Housekeeper {
    store: Store,
    repositories: Repositories,
    settings: Settings,
    /// When a repository was last worked on, well or not: one that fails is not tried at every round.
    tried: HashMap<String, Instant>,
    /// Counts the crowds after whom it was tidied.
    gathered: watch::Sender<u64>,
}

impl Housekeeper {
    pub fn new(store: Store, repositories: Repositories, settings: Settings) -> Self {
        Self { store, repositories, settings, tried: HashMap::new(), gathered: watch::Sender::new(0) }
    }

    /// Wakes whenever what a crowd of pushes left was looked after, well or not.
    pub fn gathered(&self) -> watch::Receiver<u64> {
        self.gathered.subscribe()
    }

    pub fn thresholds_mut(&mut self) -> &mut Thresholds {
        &mut self.settings.thresholds
    }

    /// Works round by round until `stop`; children are ended then.
    pub async fn run(mut self, stop: CancellationToken) {
        let leases = self.repositories.leases().clone();
        let mut next = tokio::time::Instant::now() + self.settings.every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ids = leases.crowded(self.settings.thresholds.pushes) => self.gather(&ids, &stop).await,
                () = tokio::time::sleep_until(next) => {
                    self.round(&stop).await;
                    next = tokio::time::Instant::now() + self.settings.every;
                }
            }
        }
    }

    /// Where many have pushed, every later push would look at each of their refs and objects.
    async fn gather(&self, ids: &[String], stop: &CancellationToken) {
        for id in ids {
            match self.upkeep(id).gather(stop).await {
                Ok(()) => tracing::info!(repository = %id, "housekeeping: refs and new objects are packed"),
                Err(error) => {
                    tracing::warn!(repository = %id, %error, "housekeeping: what is loose stays so")
                }
            }
        }
        self.gathered.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn upkeep<'a>(&'a self, id: &'a str) -> Upkeep<'a> {
        Upkeep {
            path: self.repositories.path(id),
            id,
            leases: self.repositories.leases(),
            git: &self.settings.git,
            thresholds: &self.settings.thresholds,
        }
    }

    /// One round over everything.
    pub async fn round(&mut self, stop: &CancellationToken) {
        if let Err(error) = records::tidy(&self.store, &self.repositories, &self.settings.kept, stop).await {
            tracing::warn!(%error, "housekeeping: old records are not dropped");
        }
        let ids = self.repositories.ids().unwrap_or_else(|error| {
            tracing::warn!(%error, "housekeeping: the repositories cannot be listed");
            Vec::new()
        });
        self.tried.retain(|id, _| ids.contains(id));
        for id in ids {
            if stop.is_cancelled() {
                return;
            }
            match self.repository(&id, stop).await {
                Ok(done) if done == Collected::default() => {}
                Ok(done) => tracing::info!(repository = %id, ?done, "housekeeping"),
                Err(error) => {
                    tracing::warn!(repository = %id, %error, "housekeeping: the repository stays as it is")
                }
            }
        }
    }

    /// One repository, as far as it is worth it.
    pub async fn repository(&mut self, id: &str, stop: &CancellationToken) -> Result<Collected, GitError> {
        self.release_builds_gone(&self.repositories.path(id)).await;
        let rested = self.tried.get(id).is_none_or(|at| at.elapsed() >= self.settings.thresholds.pause);
        let work = self.upkeep(id).worthwhile(SystemTime::now()).await?;
        if !rested || work.is_none() {
            return Ok(Collected::default());
        }
        self.tried.insert(id.to_owned(), Instant::now());
        // a push that is not at its end may need a commit that no ref holds yet
        let unsettled = match self.store.journal().await {
            Ok(entries) => entries.iter().any(|entry| entry.app_id == id),
            Err(error) => {
                tracing::warn!(%error, "housekeeping: the journal cannot be read; nothing is taken away");
                true
            }
        };
        self.upkeep(id).run(!unsettled, stop).await
    }

    /// Lets go of the commits of builds whose record is gone. A record stands before its ref does.
    async fn release_builds_gone(&self, path: &std::path::Path) {
        let held = {
            let path = path.to_owned();
            match tokio::task::spawn_blocking(move || refs::kept(&path)).await {
                Ok(Ok(held)) => held,
                _ => return,
            }
        };
        for (build, _) in held {
            let gone = match self.store.build(&build).await {
                Ok(found) => found.is_none(),
                Err(_) => false,
            };
            if gone && let Err(error) = refs::release(path, &build) {
                tracing::warn!(%build, %error, "housekeeping: the hidden ref of a build that is gone stays");
            }
        }
    }
}

/// Why a round left something undone.
#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `days` before now, in Unix milliseconds.
fn days_ago_ms(days: u32) -> i64 {
    now_ms().saturating_sub(i64::from(days).saturating_mul(86_400_000))
}

/// The lock that the keeper of a git child holds, so that a killed server's child has ended before the next one's begins.
pub fn lock_path(runtime_dir: &std::path::Path) -> PathBuf {
    runtime_dir.join("housekeeping.lock")
}
