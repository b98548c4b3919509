//! One writer a ref and a tag, in this process: keyed locks, several taken at once in one order.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

/// Locks by name. A name that nobody holds or awaits takes no room.
#[derive(Debug, Default)]
pub struct Locks {
    by_key: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held locks; dropping lets them go.
#[derive(Debug)]
pub struct Held<'a> {
    locks: &'a Locks,
    guards: Vec<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Takes all `keys`, or none when that takes longer than `patience`. In the keys' order, so that two callers never wait
    /// for each other.
    pub async fn hold(&self, keys: &BTreeSet<String>, patience: Duration) -> Option<Held<'_>> {
        let mut held = Held { locks: self, guards: Vec::with_capacity(keys.len()) };
        let taking = async {
            for key in keys {
                let lock = self.lock().entry(key.clone()).or_default().clone();
                held.guards.push(lock.lock_owned().await);
            }
        };
        tokio::time::timeout(patience, taking).await.ok()?;
        Some(held)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.guards.clear();
        // whoever holds or awaits a lock has a clone of it, and clones are made under this mutex only
        self.locks.lock().retain(|_, lock| Arc::strong_count(lock) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|key| (*key).to_owned()).collect()
    }

    #[tokio::test]
    async fn overlapping_sets_exclude_each_other_and_leave_nothing() {
        let locks = Locks::default();
        let patience = Duration::from_millis(10);
        let first = locks.hold(&keys(&["a", "b"]), patience).await;
        assert!(first.is_some());
        assert!(locks.hold(&keys(&["b", "c"]), patience).await.is_none());
        let apart = locks.hold(&keys(&["c"]), patience).await;
        assert!(apart.is_some(), "a failed attempt holds nothing");
        drop(first);
        drop(apart);
        assert!(locks.hold(&keys(&["b", "c"]), patience).await.is_some());
        assert!(locks.lock().is_empty());
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let locks = Arc::new(Locks::default());
        let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let tasks = (0..20).map(|n| {
            let (locks, inside) = (locks.clone(), inside.clone());
            tokio::spawn(async move {
                let sets = [keys(&["x", "y"]), keys(&["y", "z"]), keys(&["x", "y", "z"])];
                let _held = locks.hold(&sets[n % 3], Duration::from_secs(10)).await.unwrap();
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}
