//! Who uses a repository: any number of pushes, or one sweep that takes unreachable objects away.
//!
//! A push counts on every object that was reachable when it began, so nothing may be taken away while one is under way. The
//! push is the stronger one: it ends the sweep in progress and waits only until that has stopped. Where many have pushed,
//! housekeeping is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Many times what makes a crowd are a crowd also while more are under way.
const ENDLESS: usize = 4;

/// Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_app: Mutex<HashMap<String, Use>>,
    freed: Notify,
    /// Pushes that have ended since their app was last said to be crowded.
    ended: Mutex<HashMap<String, usize>>,
    one_more: Notify,
}

#[derive(Debug, Default)]
struct Use {
    pushes: usize,
    sweep: Option<CancellationToken>,
}

/// A push is under way until this is dropped.
#[derive(Debug)]
pub struct PushLease {
    leases: Leases,
    app_id: String,
}

/// Objects may be taken away until this is dropped; whoever holds it stops as soon as `unwanted` says so.
#[derive(Debug)]
pub struct SweepLease {
    leases: Leases,
    app_id: String,
    unwanted: CancellationToken,
}

impl Leases {
    /// Registers a push; returns when no sweep is at work any more.
    pub async fn push(&self, app_id: &str) -> PushLease {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // from here on no notification is missed
            freed.as_mut().enable();
            if self.try_push(app_id) {
                return PushLease { leases: self.clone(), app_id: app_id.to_owned() };
            }
            freed.await;
        }
    }

    fn try_push(&self, app_id: &str) -> bool {
        let mut by_app = self.by_app();
        let current = by_app.entry(app_id.to_owned()).or_default();
        match &current.sweep {
            None => current.pushes += 1,
            Some(unwanted) => unwanted.cancel(),
        }
        current.sweep.is_none()
    }

    /// None while a push or another sweep is under way.
    pub fn sweep(&self, app_id: &str) -> Option<SweepLease> {
        let mut by_app = self.by_app();
        let current = by_app.entry(app_id.to_owned()).or_default();
        if current.pushes > 0 || current.sweep.is_some() {
            return None;
        }
        let unwanted = CancellationToken::new();
        current.sweep = Some(unwanted.clone());
        Some(SweepLease { leases: self.clone(), app_id: app_id.to_owned(), unwanted })
    }

    /// The apps with this many pushes since they were last returned here: when the last of those under way has ended, or
    /// where there is no end of them.
    pub async fn crowded(&self, pushes: usize) -> Vec<String> {
        loop {
            let one_more = self.0.one_more.notified();
            let crowded = self.take_crowded(pushes.max(1));
            if !crowded.is_empty() {
                return crowded;
            }
            // a push that ended in between has left its word
            one_more.await;
        }
    }

    fn take_crowded(&self, pushes: usize) -> Vec<String> {
        let by_app = self.by_app();
        let busy = |app_id: &str| by_app.get(app_id).is_some_and(|current| current.pushes > 0);
        let is_crowded = |app_id: &str, count: usize| {
            count >= pushes.saturating_mul(ENDLESS) || (count >= pushes && !busy(app_id))
        };
        let mut ended = lock(&self.0.ended);
        let crowded = ended.iter().filter(|(app_id, count)| is_crowded(app_id, **count));
        let crowded: Vec<String> = crowded.map(|(app_id, _)| app_id.clone()).collect();
        ended.retain(|app_id, _| !crowded.contains(app_id));
        crowded
    }

    fn by_app(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        lock(&self.0.by_app)
    }

    fn end(&self, app_id: &str, end: impl FnOnce(&mut Use)) {
        let mut by_app = self.by_app();
        if let Some(current) = by_app.get_mut(app_id) {
            end(current);
            if current.pushes == 0 && current.sweep.is_none() {
                by_app.remove(app_id);
            }
        }
        drop(by_app);
        self.0.freed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SweepLease {
    /// Cancelled when a push waits.
    pub fn unwanted(&self) -> &CancellationToken {
        &self.unwanted
    }
}

impl Drop for PushLease {
    fn drop(&mut self) {
        let count = |ended: &mut usize| *ended = ended.saturating_add(1);
        count(lock(&self.leases.0.ended).entry(self.app_id.clone()).or_default());
        self.leases.end(&self.app_id, |current| current.pushes = current.pushes.saturating_sub(1));
        self.leases.0.one_more.notify_one();
    }
}

impl Drop for SweepLease {
    fn drop(&mut self) {
        self.leases.end(&self.app_id, |current| current.sweep = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_push_ends_a_sweep_and_waits_for_its_end_only() {
        let leases = Leases::default();
        let sweep = leases.sweep("a").unwrap();
        assert!(leases.sweep("a").is_none(), "one sweep at a time");
        let _other = leases.push("b").await;
        let waiting = tokio::spawn({
            let leases = leases.clone();
            async move { leases.push("a").await }
        });
        sweep.unwanted().cancelled().await;
        assert!(!waiting.is_finished(), "the sweep has not stopped yet");
        drop(sweep);
        let push = waiting.await.unwrap();
        let second = leases.push("a").await;
        assert!(leases.sweep("a").is_none());
        drop(push);
        assert!(leases.sweep("a").is_none(), "one push is left");
        drop(second);
        assert!(leases.sweep("a").is_some());
    }

    #[tokio::test]
    async fn a_crowd_is_told_of_once_and_when_it_has_gone() {
        let leases = Leases::default();
        let crowded = |leases: &Leases| leases.take_crowded(2);
        drop(leases.push("a").await);
        drop(leases.push("b").await);
        assert!(crowded(&leases).is_empty());
        let late = leases.push("a").await;
        drop(leases.push("a").await);
        assert!(crowded(&leases).is_empty(), "one is still under way");
        let told = tokio::spawn({
            let leases = leases.clone();
            async move { leases.crowded(2).await }
        });
        drop(late);
        assert_eq!(told.await.unwrap(), ["a"]);
        assert!(crowded(&leases).is_empty(), "once");

        let _endless = leases.push("a").await;
        for _ in 0..2 * ENDLESS {
            drop(leases.push("a").await);
        }
        assert_eq!(crowded(&leases), ["a"], "there is no end of them");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_left() {
        let leases = Leases::default();
        drop(leases.push("a").await);
        drop(leases.sweep("a"));
        assert!(leases.by_app().is_empty());
    }
}
