//! The journal of the commit point: what a push is about to move, written before the first tag moves, gone when ref and
//! tags agree. `tag` alone decides what an entry means; nothing here is guessed.

use std::collections::BTreeSet;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, from_json, now_ms, parsed, to_json};
use crate::model::{ImageName, Move, Tag};

/// A push that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Later entries have greater ids.
    pub id: i64,
    pub app_id: String,
    /// Decided: ref and tags go to the new values.
    pub forward: bool,
    /// The refs have moved; only tags are owed.
    pub refs_done: bool,
    pub moves: Vec<Move>,
    /// The tags not known to stand at the new index yet.
    pub owed: BTreeSet<(ImageName, Tag)>,
}

impl Store {
    /// Opens an entry that owes all tags of its moves.
    pub async fn journal_open(&self, app_id: &str, moves: &[Move]) -> Result<JournalEntry> {
        let moves_json = to_json("tag_journal.moves_json", &moves)?;
        let mut tx = self.write().await?;
        let id: i64 = sqlx::query(
            "INSERT INTO tag_journal (app_id, moves_json, opened_at_ms) VALUES (?, ?, ?) RETURNING id",
        )
        .bind(app_id)
        .bind(moves_json)
        .bind(now_ms())
        .fetch_one(&mut *tx)
        .await?
        .try_get("id")?;
        let mut owed = BTreeSet::new();
        for publication in moves.iter().filter_map(|one| one.publication.as_ref()) {
            for tag in &publication.tags {
                owed.insert((publication.image.clone(), tag.clone()));
                sqlx::query(
                    "INSERT OR IGNORE INTO tag_journal_owed (journal_id, image, tag) VALUES (?, ?, ?)",
                )
                .bind(id)
                .bind(publication.image.as_str())
                .bind(tag.as_str())
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        let moves = moves.to_vec();
        Ok(JournalEntry { id, app_id: app_id.to_owned(), forward: false, refs_done: false, moves, owed })
    }

    /// Decides that the entry goes forward, owing only `owed`; whatever older entries owe of its other tags is moot.
    pub async fn journal_forward(
        &self,
        entry: &JournalEntry,
        owed: &BTreeSet<(ImageName, Tag)>,
        refs_done: bool,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE tag_journal SET forward = 1, refs_done = ? WHERE id = ?")
            .bind(refs_done)
            .bind(entry.id)
            .execute(&mut *tx)
            .await?;
        for (image, tag) in &entry.owed {
            let upto = if owed.contains(&(image.clone(), tag.clone())) { entry.id - 1 } else { entry.id };
            sqlx::query("DELETE FROM tag_journal_owed WHERE image = ? AND tag = ? AND journal_id <= ?")
                .bind(image.as_str())
                .bind(tag.as_str())
                .bind(upto)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Ends an entry; with `moved`, its tags stand, and older entries owe them no more.
    pub async fn journal_close(&self, entry: &JournalEntry, moved: bool) -> Result<()> {
        let mut tx = self.write().await?;
        for (image, tag) in entry.owed.iter().filter(|_| moved) {
            sqlx::query("DELETE FROM tag_journal_owed WHERE image = ? AND tag = ? AND journal_id < ?")
                .bind(image.as_str())
                .bind(tag.as_str())
                .bind(entry.id)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query("DELETE FROM tag_journal WHERE id = ?").bind(entry.id).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Every entry, the oldest first. There are as many as pushes are at their commit point, and those left over from a
    /// crash or a registry that went away.
    pub async fn journal(&self) -> Result<Vec<JournalEntry>> {
        // one statement, so that no entry is seen without what it owes
        let rows = sqlx::query(
            "SELECT id, app_id, forward, refs_done, moves_json, image, tag
             FROM tag_journal LEFT JOIN tag_journal_owed ON journal_id = id ORDER BY id",
        )
        .fetch_all(self.pool())
        .await?;
        let mut entries: Vec<JournalEntry> = Vec::new();
        for row in rows {
            let id: i64 = row.try_get("id")?;
            let mut entry = match entries.pop() {
                Some(entry) if entry.id == id => entry,
                other => {
                    entries.extend(other);
                    read(id, &row)?
                }
            };
            if let Some(image) = row.try_get::<Option<&str>, _>("image")? {
                let image = parsed("tag_journal_owed.image", image)?;
                entry.owed.insert((image, parsed("tag_journal_owed.tag", row.try_get("tag")?)?));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn read(id: i64, row: &SqliteRow) -> Result<JournalEntry> {
    Ok(JournalEntry {
        id,
        app_id: row.try_get("app_id")?,
        forward: row.try_get("forward")?,
        refs_done: row.try_get("refs_done")?,
        moves: from_json("tag_journal.moves_json", row.try_get("moves_json")?)?,
        owed: BTreeSet::new(),
    })
}
