//! The audit record: rows are added, chained by hash, and never changed. Triggers hold that against everybody who goes
//! through SQLite; the chain shows what others did.
//!
//! What is written here is made harmless first: every text is one plain line of bounded length.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::watch;

use super::{Result, Store, from_json, now_ms};
use crate::event::plain_line;
use crate::model::Digest;
use crate::model::audit::{Entry, Event, Filter, Logged, Verdict, Who};

/// Of one text in an entry.
const TEXT_CHARS: usize = 400;
/// The most entries of one answer.
pub const AUDIT_LIMIT: u32 = 10_000;
/// What the first row is chained to.
const BEGINNING: &str = "";
/// Rows of one step of a purge, so that nobody else's write waits long.
const PURGE_ROWS: i64 = 10_000;
/// Rows of one step of a check.
const VERIFY_ROWS: i64 = 5_000;
/// Faults that a check names.
const MAX_FAULTS: usize = 20;

/// An entry that is written with the next change made through a [`Store::noting`] handle, in its transaction.
#[derive(Debug, Clone)]
pub struct Note(Arc<Mutex<Option<Entry>>>);

impl Note {
    /// The entry, if no change has taken it with it.
    pub fn left(&self) -> Option<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The change that took it did not come to be: it is still to be written.
    pub(super) fn put_back(&self, entry: Entry) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
    }

    /// Writes the entry into a change's transaction, and returns it; none where an earlier change has taken it.
    pub(super) async fn write(
        &self,
        tx: &mut SqliteConnection,
    ) -> std::result::Result<Option<Entry>, sqlx::Error> {
        let Some(entry) = self.left() else { return Ok(None) };
        match append(tx, std::slice::from_ref(&entry)).await {
            Ok(()) => Ok(Some(entry)),
            Err(error) => {
                self.put_back(entry);
                Err(error)
            }
        }
    }
}

impl Store {
    /// A handle whose first change writes `entry` too: both are on disk, or neither.
    pub fn noting(&self, entry: Entry) -> (Self, Note) {
        let note = Note(Arc::new(Mutex::new(Some(entry))));
        (Self { inner: self.inner.clone(), note: Some(note.clone()) }, note)
    }

    /// Adds entries to the record, in this order; they are on disk when it returns.
    pub async fn append_audit(&self, entries: &[Entry]) -> Result<()> {
        let mut tx = self.write().await?;
        append(&mut tx, entries).await?;
        tx.commit().await?;
        self.audit_changed();
        Ok(())
    }

    /// Entries in the order in which they came; at most [`AUDIT_LIMIT`].
    pub async fn audit(&self, filter: &Filter) -> Result<Vec<Logged>> {
        let newest = filter.after_seq.is_none();
        let order = if newest { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT seq, entry_json FROM audit
             WHERE seq > ?1 AND at_ms >= ?2 AND (?3 IS NULL OR app = ?3) AND (?4 IS NULL OR user = ?4)
               AND (?5 IS NULL OR request = ?5)
             ORDER BY seq {order} LIMIT ?6"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(filter.after_seq.unwrap_or(0))
            .bind(filter.since_ms.unwrap_or(i64::MIN))
            .bind(filter.app.as_ref().map(|app| app.as_str().to_owned()))
            .bind(filter.user.as_ref().map(|user| user.as_str().to_owned()))
            .bind(filter.request.clone())
            .bind(filter.limit.clamp(1, AUDIT_LIMIT))
            .fetch_all(self.pool())
            .await?;
        let mut found = rows.iter().map(logged).collect::<Result<Vec<_>>>()?;
        if newest {
            found.reverse();
        }
        Ok(found)
    }

    /// Wakes after every entry written through this handle or its clones (not by another process).
    pub fn audit_changes(&self) -> watch::Receiver<u64> {
        self.inner.audit_changes.subscribe()
    }

    pub(super) fn audit_changed(&self) {
        self.inner.audit_changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Removes entries older than `before_ms` and, beyond `keep` entries, the oldest; an entry says so. How many went.
    pub async fn purge_audit(&self, before_ms: i64, keep: i64) -> Result<u64> {
        let mut gone = 0;
        loop {
            let removed = self.purge_some(before_ms, keep).await?;
            gone += removed;
            if removed < PURGE_ROWS.unsigned_abs() {
                return Ok(gone);
            }
        }
    }

    async fn purge_some(&self, before_ms: i64, keep: i64) -> Result<u64> {
        let mut tx = self.write().await?;
        // the clock may have stepped back: what follows the first young entry stays
        let through: Option<i64> = sqlx::query_scalar(
            "SELECT max(seq) FROM (
                 SELECT seq FROM audit
                 WHERE seq < (SELECT coalesce(min(seq), 9223372036854775807) FROM audit WHERE at_ms >= ?1)
                    OR seq <= (SELECT max(seq) FROM audit) - ?2
                 ORDER BY seq LIMIT ?3)",
        )
        .bind(before_ms)
        .bind(keep.max(1))
        .bind(PURGE_ROWS)
        .fetch_one(&mut *tx)
        .await?;
        let Some(through) = through else { return Ok(0) };
        let (hash, entries): (String, i64) = sqlx::query_as(
            "SELECT (SELECT hash FROM audit WHERE seq = ?1), (SELECT count(*) FROM audit WHERE seq <= ?1)",
        )
        .bind(through)
        .fetch_one(&mut *tx)
        .await?;
        let event = Event::Purged { through, entries: entries.unsigned_abs(), hash };
        append(&mut tx, &[Entry::new(now_ms(), Who::Server, event)]).await?;
        let gone = sqlx::query("DELETE FROM audit WHERE seq <= ?").bind(through).execute(&mut *tx).await?;
        tx.commit().await?;
        self.audit_changed();
        Ok(gone.rows_affected())
    }

    /// Follows the chain of hashes from the first entry to the last.
    pub async fn verify_audit(&self) -> Result<Verdict> {
        // one view of it, whatever is added meanwhile
        let mut tx = self.pool().begin().await?;
        let mut check = Check::default();
        loop {
            let rows = sqlx::query(
                "SELECT seq, at_ms, event, user, app, request, entry_json, hash, purged_through FROM audit
                 WHERE seq > ? ORDER BY seq LIMIT ?",
            )
            .bind(check.last)
            .bind(VERIFY_ROWS)
            .fetch_all(&mut *tx)
            .await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                check.take(row)?;
            }
        }
        // SQLite counts for AUTOINCREMENT: rows cut off at the end show there
        let given: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")
            .fetch_optional(&mut *tx)
            .await?;
        Ok(check.verdict(given.unwrap_or(0)))
    }
}

/// The state of a check.
#[derive(Default)]
struct Check {
    entries: u64,
    first: i64,
    last: i64,
    hash: String,
    /// What a purge said last: up to which entry, and the hash there.
    purged: Option<(i64, String)>,
    /// The first entry's hash is checked by what a purge says of its predecessor, which stands further on.
    opening: Option<(i64, String, String)>,
    faults: Vec<String>,
}

impl Check {
    fn take(&mut self, row: &SqliteRow) -> Result<()> {
        let seq: i64 = row.try_get("seq")?;
        let (json, hash): (String, String) = (row.try_get("entry_json")?, row.try_get("hash")?);
        if self.entries == 0 {
            self.first = seq;
            self.opening = Some((seq, json.clone(), hash.clone()));
        } else {
            if seq != self.last + 1 {
                self.fault(format!("entries {} to {} are missing", self.last + 1, seq - 1));
            }
            if hash != link(&self.hash, seq, &json) {
                self.fault(format!("entry {seq}, or the one before it, is not what was written"));
            }
        }
        match from_json::<Entry>("audit.entry_json", &json) {
            Ok(entry) => self.columns(row, seq, &entry)?,
            Err(error) => self.fault(format!("entry {seq}: {error}")),
        }
        (self.last, self.hash) = (seq, hash);
        self.entries += 1;
        Ok(())
    }

    /// What stands in columns of its own is what the entry says.
    fn columns(&mut self, row: &SqliteRow, seq: i64, entry: &Entry) -> Result<()> {
        let columns = Columns::of(entry);
        let same = row.try_get::<i64, _>("at_ms")? == entry.at_ms
            && row.try_get::<String, _>("event")? == entry.event.name()
            && row.try_get::<Option<String>, _>("user")? == columns.user
            && row.try_get::<Option<String>, _>("app")? == columns.app
            && row.try_get::<Option<String>, _>("request")? == entry.request
            && row.try_get::<Option<i64>, _>("purged_through")? == columns.purged_through;
        if !same {
            self.fault(format!("entry {seq}: its columns are not what was written"));
        }
        if let Event::Purged { through, hash, .. } = &entry.event {
            self.purged = Some((*through, hash.clone()));
        }
        Ok(())
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(text);
        }
    }

    fn verdict(mut self, given: i64) -> Verdict {
        if let Some((seq, json, hash)) = self.opening.take() {
            let before = match &self.purged {
                Some((through, hash)) if *through == seq - 1 => Some(hash.clone()),
                None if seq == 1 => Some(BEGINNING.to_owned()),
                _ => None,
            };
            match before {
                Some(before) if link(&before, seq, &json) == hash => {}
                Some(_) => self.fault(format!("entry {seq} is not what was written")),
                None => self.fault(format!("the entries before {seq} are missing, and no purge says so")),
            }
        }
        if given > self.last {
            self.fault(format!("entries {} to {given} are missing at the end", self.last + 1));
        }
        Verdict {
            entries: self.entries,
            first: self.first,
            last: self.last,
            hash: self.hash,
            faults: self.faults,
        }
    }
}

/// What of an entry can be asked for.
struct Columns {
    user: Option<String>,
    app: Option<String>,
    purged_through: Option<i64>,
}

impl Columns {
    fn of(entry: &Entry) -> Self {
        let deployed = match &entry.actor {
            Who::DeployKey { app } => Some(app),
            _ => None,
        };
        Self {
            user: entry.actor.user().map(ToString::to_string),
            app: entry.app.as_ref().or(deployed).map(ToString::to_string),
            purged_through: match &entry.event {
                Event::Purged { through, .. } => Some(*through),
                _ => None,
            },
        }
    }
}

/// Adds rows to the chain; the transaction holds the write lock.
async fn append(tx: &mut SqliteConnection, entries: &[Entry]) -> std::result::Result<(), sqlx::Error> {
    let last = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(&mut *tx);
    let (mut seq, mut hash) = match last.await? {
        Some(row) => (row.try_get::<i64, _>("seq")?, row.try_get::<String, _>("hash")?),
        None => (0, BEGINNING.to_owned()),
    };
    for entry in entries {
        seq += 1;
        let json = harmless(entry)?;
        hash = link(&hash, seq, &json);
        let columns = Columns::of(entry);
        sqlx::query(
            "INSERT INTO audit (seq, at_ms, event, user, app, request, entry_json, hash, purged_through)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(seq)
        .bind(entry.at_ms)
        .bind(entry.event.name())
        .bind(columns.user)
        .bind(columns.app)
        .bind(&entry.request)
        .bind(&json)
        .bind(&hash)
        .bind(columns.purged_through)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// A row's hash: over the one before it, its place and its content.
fn link(before: &str, seq: i64, json: &str) -> String {
    Digest::of(format!("{before}\n{seq}\n{json}").as_bytes()).to_string()
}

/// The entry as JSON in which every text is one plain line of bounded length.
fn harmless(entry: &Entry) -> std::result::Result<String, sqlx::Error> {
    let mut value = serde_json::to_value(entry).map_err(|e| sqlx::Error::Encode(e.into()))?;
    tame(&mut value);
    Ok(value.to_string())
}

fn tame(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            let one_line = text.split(['\n', '\r', '\t']).collect::<Vec<_>>().join(" ");
            *text = plain_line(&one_line).chars().take(TEXT_CHARS).collect();
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(tame),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(tame),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn logged(row: &SqliteRow) -> Result<Logged> {
    let json: String = row.try_get("entry_json")?;
    Ok(Logged { seq: row.try_get("seq")?, entry: from_json("audit.entry_json", &json)? })
}

#[cfg(test)]
mod tests;
