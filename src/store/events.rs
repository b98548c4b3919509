//! The full log of every build: its events, in order, without gaps.

use sqlx::Row as _;

use super::{Result, Store, StoreError, from_json, to_json};
use crate::event::Recorded;
use crate::model::BuildId;

impl Store {
    /// Appends events in one transaction: all of them or none.
    pub async fn append_events(&self, build: &BuildId, events: &[Recorded]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT 1 FROM builds WHERE id = ?").bind(build.as_str());
        if known.fetch_optional(&mut *tx).await?.is_none() {
            return Err(StoreError::NoBuild(build.to_string()));
        }
        // one statement for all of them: each has its way to the database's thread and back
        let rows = events.iter().map(|recorded| {
            let json = to_json("events.event_json", &recorded.event)?;
            Ok((signed(recorded.seq), signed(recorded.at_ms), json))
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        sqlx::query(
            "INSERT INTO events (build_id, seq, at_ms, event_json)
             SELECT ?, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(build.as_str())
        .bind(to_json("events", &rows)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.builds_changed();
        Ok(())
    }

    /// Number and time of the build's last event.
    pub async fn last_event(&self, build: &BuildId) -> Result<Option<(u64, u64)>> {
        let row = sqlx::query("SELECT seq, at_ms FROM events WHERE build_id = ? ORDER BY seq DESC LIMIT 1")
            .bind(build.as_str())
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let seq = unsigned("events.seq", row.try_get("seq")?)?;
        Ok(Some((seq, unsigned("events.at_ms", row.try_get("at_ms")?)?)))
    }

    /// At most `limit` events of a build from `from_seq` on, in order.
    pub async fn events(&self, build: &BuildId, from_seq: u64, limit: u32) -> Result<Vec<Recorded>> {
        sqlx::query(
            "SELECT seq, at_ms, event_json FROM events WHERE build_id = ? AND seq >= ? ORDER BY seq LIMIT ?",
        )
        .bind(build.as_str())
        .bind(signed(from_seq))
        .bind(limit)
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(|row| {
            Ok(Recorded {
                seq: unsigned("events.seq", row.try_get("seq")?)?,
                at_ms: unsigned("events.at_ms", row.try_get("at_ms")?)?,
                event: from_json("events.event_json", row.try_get("event_json")?)?,
            })
        })
        .collect()
    }
}

/// SQLite's integers are signed; no build has 2^63 events or milliseconds.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(place: &'static str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|cause| StoreError::Damaged { place, cause: cause.to_string() })
}
