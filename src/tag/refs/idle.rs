//! Children of `git update-ref --stdin` that have ended a transaction and wait for the repository's next one: starting git costs
//! more than moving a ref. One that is not asked again within seconds ends; so do all when this is dropped or we die, because
//! they live on our end of their stdin.
//!
//! Must not keep one whose transaction did not end well.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Keeper;

/// How long a child waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of one repository at once: pushes to one repository that end together are not many.
const MAX_EACH: usize = 4;
/// Of all repositories.
const MAX_ALL: usize = 64;
/// After so many transactions a child makes place for a new one, whatever it has gathered meanwhile.
const MAX_TRANSACTIONS: u32 = 200;

type Waiting = HashMap<PathBuf, Vec<(Instant, Keeper)>>;

/// Those that wait; clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Waiting>>);

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // nothing here can panic half-way through a change
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Idle {
    /// The one that has waited shortest and still runs.
    pub(super) fn take(&self, repository: &Path) -> Option<Keeper> {
        let mut waiting = lock(&self.0);
        let of_it = waiting.get_mut(repository)?;
        while let Some((_, mut keeper)) = of_it.pop() {
            if matches!(keeper.child.try_wait(), Ok(None)) {
                return Some(keeper);
            }
        }
        None
    }

    /// Lets a child wait. Needs a tokio runtime.
    pub(super) fn put(&self, repository: &Path, keeper: Keeper) {
        if keeper.begun >= MAX_TRANSACTIONS {
            return;
        }
        let mut waiting = lock(&self.0);
        let (first, all) = (waiting.is_empty(), waiting.values().map(Vec::len).sum::<usize>());
        let of_it = waiting.entry(repository.to_owned()).or_default();
        if all >= MAX_ALL || of_it.len() >= MAX_EACH {
            return;
        }
        of_it.push((Instant::now(), keeper));
        drop(waiting);
        if first {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self, repository: &Path) -> usize {
        lock(&self.0).get(repository).map_or(0, Vec::len)
    }
}

/// Ends those that have waited too long, until there is none.
async fn sweep(waiting: Weak<Mutex<Waiting>>) {
    loop {
        tokio::time::sleep(PATIENCE / 5).await;
        let Some(waiting) = waiting.upgrade() else { return };
        let mut waiting = lock(&waiting);
        for of_it in waiting.values_mut() {
            of_it.retain(|(since, _)| since.elapsed() < PATIENCE);
        }
        waiting.retain(|_, of_it| !of_it.is_empty());
        if waiting.is_empty() {
            return;
        }
    }
}
