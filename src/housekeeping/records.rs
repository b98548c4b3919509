//! The store's old records: logs first, then builds, then what later builds could have reused; last, the file is made smaller.
//!
//! Each transaction is small, so that no push waits for one of these.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{TidyError, days_ago_ms};
use crate::receive::Repositories;
use crate::store::{Store, now_ms};

/// How long records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub builds_per_app: u32,
    pub builds_days: u32,
    pub logs_days: u32,
    /// What the database may hold before the oldest logs go.
    pub logs_bytes: u64,
    /// Entries of the audit record.
    pub audit: Duration,
    /// And at most so many of them.
    pub audit_entries: u64,
}

/// Builds of one step.
const BATCH: u32 = 50;
/// A ledger entry without its ref may belong to a first build that is under way.
const LEDGER_DAYS: u32 = 2;
/// Free pages worth a shrinking.
const FREE_BYTES: u64 = 1 << 20;

pub(super) async fn tidy(
    store: &Store,
    repositories: &Repositories,
    kept: &Kept,
    stop: &CancellationToken,
) -> Result<(), TidyError> {
    let logs = drop_logs(store, kept, stop).await?;
    let mut builds = 0;
    let before_ms = days_ago_ms(kept.builds_days);
    while !stop.is_cancelled() {
        let old = store.builds_to_drop(before_ms, kept.builds_per_app, BATCH).await?;
        for id in &old {
            store.drop_log(id, None).await?;
            store.drop_build(id).await?;
        }
        builds += old.len();
        if old.is_empty() {
            break;
        }
    }
    let published = store.prune_published(before_ms, kept.builds_per_app).await?;
    let ledgers = drop_ledgers(store, repositories).await?;
    let audit = drop_audit(store, kept).await?;
    let mut freed = 0;
    if logs + builds > 0 || store.size().await?.free_bytes >= FREE_BYTES {
        freed = store.shrink(stop).await?;
    }
    if logs + builds > 0 || published + ledgers + audit > 0 || freed > 0 {
        tracing::info!(
            logs,
            builds,
            published,
            ledgers,
            audit,
            freed_bytes = freed,
            "housekeeping: old records dropped"
        );
    }
    Ok(())
}

/// By age, then by their number; the record itself says what went.
async fn drop_audit(store: &Store, kept: &Kept) -> Result<u64, TidyError> {
    let age_ms = i64::try_from(kept.audit.as_millis()).unwrap_or(i64::MAX);
    let most = i64::try_from(kept.audit_entries).unwrap_or(i64::MAX);
    Ok(store.purge_audit(now_ms().saturating_sub(age_ms), most).await?)
}

/// By age, then by what all of them take.
async fn drop_logs(store: &Store, kept: &Kept, stop: &CancellationToken) -> Result<usize, TidyError> {
    let mut dropped = 0;
    let by_age = format!("the log of this build was removed: logs are kept for {} days", kept.logs_days);
    while !stop.is_cancelled() {
        let old = store.logs_to_drop(days_ago_ms(kept.logs_days), BATCH).await?;
        for id in &old {
            store.drop_log(id, Some(&by_age)).await?;
        }
        dropped += old.len();
        if old.is_empty() {
            break;
        }
    }
    let by_size = "the log of this build was removed to make room for newer ones";
    while !stop.is_cancelled() && store.size().await?.used_bytes > kept.logs_bytes {
        let old = store.logs_to_drop(i64::MAX, 1).await?;
        let Some(oldest) = old.first() else { break };
        store.drop_log(oldest, Some(by_size)).await?;
        dropped += 1;
    }
    Ok(dropped)
}

/// Of apps and refs that are not there any more.
async fn drop_ledgers(store: &Store, repositories: &Repositories) -> Result<u64, TidyError> {
    let mut dropped = 0;
    let keys = store.ledger_keys_before(days_ago_ms(LEDGER_DAYS)).await?;
    let ids: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.split_once('/')?.0)).collect();
    for id in ids {
        let path = repositories.path(id);
        let Some(refs) = tokio::task::spawn_blocking(move || ref_names(&path)).await.ok().flatten() else {
            continue;
        };
        let of_app = keys.iter().filter_map(|key| Some((key, key.strip_prefix(id)?.strip_prefix('/')?)));
        for (key, name) in of_app.filter(|(_, name)| !refs.contains(*name)) {
            tracing::debug!(%name, "housekeeping: the times of a ref that is gone");
            store.remove_ledger(key).await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// None where the repository cannot be read; without one there are no refs.
fn ref_names(repository: &std::path::Path) -> Option<BTreeSet<String>> {
    if !repository.exists() {
        return Some(BTreeSet::new());
    }
    let git = git2::Repository::open_bare(repository).ok()?;
    let mut names = BTreeSet::new();
    for reference in git.references().ok()? {
        names.insert(reference.ok()?.name().ok()?.to_owned());
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::audit::{Entry, Event, Filter, Who};

    #[tokio::test]
    async fn a_round_drops_what_the_audit_record_need_not_keep() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let repositories = Repositories::new(dir.path().join("repositories"));
        let entry = |age_ms| {
            Entry::new(now_ms() - age_ms, Who::Server, Event::HookRefused { reason: "x".to_owned() })
        };
        store.append_audit(&[entry(7_200_000), entry(7_200_000), entry(1), entry(1)]).await.unwrap();
        let hour = Duration::from_secs(3_600);
        let kept = Kept {
            builds_per_app: 1,
            builds_days: 1,
            logs_days: 1,
            logs_bytes: 1 << 30,
            audit: hour,
            audit_entries: 100,
        };
        let left = async || {
            tidy(&store, &repositories, &kept, &CancellationToken::new()).await.unwrap();
            store.audit(&Filter { limit: 100, ..Filter::default() }).await.unwrap().len()
        };
        assert_eq!(left().await, 3, "the young ones, and the entry that says what went");
    }
}
