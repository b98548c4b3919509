//! What is old: found in small steps, dropped in small transactions; and the file made smaller.

use sqlx::Row as _;
use tokio_util::sync::CancellationToken;

use super::{Result, Store, parsed, to_json};
use crate::event::BuildEvent;
use crate::model::BuildId;

/// Events dropped in one transaction.
const EVENTS_AT_ONCE: i64 = 4_000;
/// Pages given back in one transaction.
const PAGES_AT_ONCE: u32 = 1_000;

/// What the database takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub used_bytes: u64,
    /// In the file, and used by nothing.
    pub free_bytes: u64,
}

impl Store {
    /// Ended builds with more than a note for a log, the oldest first, that ended before.
    pub async fn logs_to_drop(&self, before_ms: i64, limit: u32) -> Result<Vec<BuildId>> {
        let rows = sqlx::query(
            "SELECT id FROM builds WHERE finished_at_ms < ?
               AND EXISTS (SELECT 1 FROM events WHERE build_id = builds.id AND seq > 0)
             ORDER BY id LIMIT ?",
        )
        .bind(before_ms)
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(|row| parsed("builds.id", row.try_get("id")?)).collect()
    }

    /// Removes a build's events; with `note`, one that says so stands in their place.
    pub async fn drop_log(&self, build: &BuildId, note: Option<&str>) -> Result<()> {
        loop {
            let mut tx = self.write().await?;
            let gone = sqlx::query(
                "DELETE FROM events WHERE build_id = ?1 AND seq IN
                   (SELECT seq FROM events WHERE build_id = ?1 ORDER BY seq DESC LIMIT ?2)",
            )
            .bind(build.as_str())
            .bind(EVENTS_AT_ONCE)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let last = gone < EVENTS_AT_ONCE.unsigned_abs();
            if last && let Some(text) = note {
                let event = BuildEvent::Note { text: text.to_owned() };
                sqlx::query("INSERT INTO events (build_id, seq, at_ms, event_json) VALUES (?, 0, 0, ?)")
                    .bind(build.as_str())
                    .bind(to_json("events.event_json", &event)?)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            if last {
                self.builds_changed();
                return Ok(());
            }
        }
    }

    /// Ended builds that are too old, or too many of their app. The newest ended one of each ref stays whatever its age: it says
    /// what its tags stand at.
    pub async fn builds_to_drop(&self, before_ms: i64, per_app: u32, limit: u32) -> Result<Vec<BuildId>> {
        let rows = sqlx::query(
            "SELECT id FROM
               (SELECT id, finished_at_ms,
                       ROW_NUMBER() OVER (PARTITION BY app_id ORDER BY id DESC) AS nth,
                       ROW_NUMBER() OVER (PARTITION BY app_id, reference, finished_at_ms IS NULL
                                          ORDER BY id DESC) AS nth_of_ref
                FROM builds)
             WHERE finished_at_ms IS NOT NULL AND (nth > ?2 OR (finished_at_ms < ?1 AND nth_of_ref > 1))
             ORDER BY id LIMIT ?3",
        )
        .bind(before_ms)
        .bind(per_app)
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(|row| parsed("builds.id", row.try_get("id")?)).collect()
    }

    /// Removes an ended build's record, and what is left of its log.
    pub async fn drop_build(&self, build: &BuildId) -> Result<()> {
        let statement = sqlx::query("DELETE FROM builds WHERE id = ? AND finished_at_ms IS NOT NULL");
        self.change(statement.bind(build.as_str())).await?;
        self.builds_changed();
        Ok(())
    }

    /// Forgets published indexes that are old, or too many of one image; how many. Forgetting costs a solve.
    pub async fn prune_published(&self, before_ms: i64, per_image: u32) -> Result<u64> {
        let old = "SELECT fingerprint FROM
               (SELECT fingerprint, published_at_ms,
                       ROW_NUMBER() OVER (PARTITION BY image ORDER BY published_at_ms DESC) AS nth
                FROM published)
             WHERE published_at_ms < ?1 OR nth > ?2";
        // looked at first: most rounds find nothing, and should not take a writer's turn
        let found = sqlx::query(old).bind(before_ms).bind(per_image).fetch_all(self.pool()).await?;
        for row in &found {
            let fingerprint: &str = row.try_get("fingerprint")?;
            self.change(sqlx::query("DELETE FROM published WHERE fingerprint = ?").bind(fingerprint)).await?;
        }
        Ok(found.len() as u64)
    }

    /// The ledger's keys that were last written before.
    pub async fn ledger_keys_before(&self, before_ms: i64) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT key FROM ledger WHERE updated_at_ms < ? ORDER BY key")
            .bind(before_ms)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(|row| Ok(row.try_get("key")?)).collect()
    }

    pub async fn size(&self) -> Result<Size> {
        let row = sqlx::query(
            "SELECT page_count, freelist_count, page_size
             FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()",
        )
        .fetch_one(self.pool())
        .await?;
        let number = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
        let (pages, free, page) = (number("page_count")?, number("freelist_count")?, number("page_size")?);
        Ok(Size { used_bytes: pages.saturating_sub(free) * page, free_bytes: free * page })
    }

    /// Gives free pages back to the file system, a few at a time, and empties the write-ahead log; how many bytes the
    /// database became smaller by. A reader that is in the way makes it less, never an error.
    pub async fn shrink(&self, stop: &CancellationToken) -> Result<u64> {
        let before = self.size().await?;
        let mut free = before.free_bytes;
        while free > 0 && !stop.is_cancelled() {
            let mut tx = self.write().await?;
            // one row is returned for each page
            let pages = format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})");
            sqlx::query(sqlx::AssertSqlSafe(pages)).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            let now = self.size().await?.free_bytes;
            if now >= free {
                break;
            }
            free = now;
        }
        let _turn = self.turn().await;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(self.pool()).await?;
        Ok(before.free_bytes.saturating_sub(free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Recorded;
    use crate::model::{Build, BuildState};
    use crate::store::{Finished, Published};

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        (dir, store)
    }

    fn running(reference: &str) -> Build {
        let (app, user) = ("shop".parse().unwrap(), "ann".parse().unwrap());
        let (reference, commit) = (reference.parse().unwrap(), "a".repeat(40).parse().unwrap());
        Build {
            state: BuildState::Running,
            ..Build::queued(BuildId::generate(), app, user, reference, commit)
        }
    }

    /// An ended build with a log of `lines`.
    async fn build(store: &Store, reference: &str, ended_at_ms: i64, lines: u64) -> BuildId {
        let build = running(reference);
        store.create_build(&build).await.unwrap();
        let line = |seq| Recorded {
            seq,
            at_ms: seq,
            event: BuildEvent::StepLog { step: 1, line: format!("{seq} {}", "x".repeat(1000)) },
        };
        for from in (0..lines).step_by(500) {
            let batch: Vec<_> = (from..lines.min(from + 500)).map(line).collect();
            store.append_events(&build.id, &batch).await.unwrap();
        }
        let finished = Finished {
            state: BuildState::Failed,
            at_ms: ended_at_ms,
            images: Vec::new(),
            reason: None,
            superseded_by: None,
            cancelled_by: None,
        };
        store.finish_build(&build.id, &finished).await.unwrap();
        build.id
    }

    #[tokio::test]
    async fn a_dropped_log_leaves_the_record_and_a_note_and_the_file_shrinks() {
        let (dir, store) = store().await;
        let (old, new) = (
            build(&store, "refs/heads/main", 10, 5_000).await,
            build(&store, "refs/heads/main", 20, 3).await,
        );
        let file = || std::fs::metadata(dir.path().join(crate::store::FILE_NAME)).unwrap().len();
        let stop = CancellationToken::new();
        store.shrink(&stop).await.unwrap();
        let before = file();
        assert_eq!(store.logs_to_drop(15, 10).await.unwrap(), std::slice::from_ref(&old));
        store.drop_log(&old, Some("gone")).await.unwrap();
        assert_eq!(store.logs_to_drop(15, 10).await.unwrap(), Vec::<BuildId>::new());
        let left = store.events(&old, 0, 10).await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].event, BuildEvent::Note { text: "gone".to_owned() });
        assert!(store.build(&old).await.unwrap().is_some());
        assert_eq!(store.events(&new, 0, 10).await.unwrap().len(), 3);
        assert_eq!(file(), before, "pages are free, and still in the file");
        let freed = store.shrink(&stop).await.unwrap();
        let after = file();
        assert!(freed > 4 << 20 && after < before / 4, "{before} -> {after}, {freed} freed");
        assert_eq!(store.size().await.unwrap().free_bytes, 0);
        let wal = dir.path().join(format!("{}-wal", crate::store::FILE_NAME));
        assert_eq!(std::fs::metadata(wal).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn old_builds_go_but_the_newest_of_each_ref_and_none_that_runs() {
        let (_dir, store) = store().await;
        let main =
            [build(&store, "refs/heads/main", 1, 1).await, build(&store, "refs/heads/main", 2, 1).await];
        let other = build(&store, "refs/heads/other", 3, 1).await;
        let running = running("refs/heads/main");
        store.create_build(&running).await.unwrap();
        assert_eq!(store.builds_to_drop(1_000, 100, 10).await.unwrap(), [main[0].clone()]);
        assert_eq!(store.builds_to_drop(0, 2, 10).await.unwrap(), main);
        store.drop_build(&main[0]).await.unwrap();
        store.drop_build(&running.id).await.unwrap();
        assert!(store.build(&main[0]).await.unwrap().is_none());
        assert!(
            store.build(&running.id).await.unwrap().is_some() && store.build(&other).await.unwrap().is_some()
        );
    }

    #[tokio::test]
    async fn published_indexes_are_bounded_by_age_and_by_image() {
        let (_dir, store) = store().await;
        let published = Published {
            image: "localhost:5000/shop".parse().unwrap(),
            commit: "a".repeat(40).parse().unwrap(),
            children_json: "[]".to_owned(),
        };
        for n in 0..5 {
            let fingerprint = crate::model::Digest::of(&[n]);
            store.put_published(&fingerprint, &published).await.unwrap();
        }
        assert_eq!(store.prune_published(0, 5).await.unwrap(), 0);
        assert_eq!(store.prune_published(0, 3).await.unwrap(), 2);
        assert_eq!(store.prune_published(i64::MAX, 3).await.unwrap(), 3);
    }
}
