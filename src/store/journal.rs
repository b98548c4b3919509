//! The journal of the commit point: what a push is about to move, written before the first tag moves, gone when ref and
//! tags agree. `tag` alone decides what an entry means; nothing here is guessed.

use std::collections::BTreeSet;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, Write, from_json, generations, now_ms, parsed, to_json};
use crate::model::{Generation, ImageName, Move, Publication, PublishedImage, Tag};

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
    /// Opens an entry that owes all tags of its moves, and counts the moves of refs.
    pub async fn journal_open(&self, app_id: &str, moves: &[Move]) -> Result<JournalEntry> {
        let mut moves = moves.to_vec();
        let mut tx = self.write().await?;
        for one in &mut moves {
            if let (Some(update), None) = (&one.update, &one.generation) {
                let number = generations::count(&mut tx, app_id, &update.name).await?;
                let (reference, commit) = (update.name.clone(), update.new.clone());
                one.generation = Some(Generation { reference, number, commit });
            }
        }
        let moves_json = to_json("tag_journal.moves_json", &moves)?;
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
        for publication in moves.iter().flat_map(|one| &one.publications) {
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
        if refs_done {
            note_published(&mut tx, entry).await?;
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
        if moved {
            note_published(&mut tx, entry).await?;
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

/// The refs have moved: the records of the builds say what was published in the same transaction, so that a server that
/// dies before it closes them finds out what they are. A record that has its end keeps it: nobody ends a build whose
/// journal entry is open.
async fn note_published(tx: &mut Write, entry: &JournalEntry) -> Result<()> {
    for one in &entry.moves {
        let images: Vec<PublishedImage> = one.publications.iter().map(Publication::published).collect();
        let Some(publication) = one.publications.first() else { continue };
        if let Some(generation) = &one.generation {
            generations::publish(tx, &entry.app_id, generation, publication).await?;
        }
        sqlx::query("UPDATE builds SET generation = COALESCE(?, generation), images_json = ? WHERE id = ?")
            .bind(one.generation.as_ref().map(|generation| generation.number))
            .bind(to_json("builds.images_json", &images)?)
            .bind(publication.build.as_str())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, BuildId, BuildState, Digest, Form};
    use crate::store::Finished;

    /// Found by the seeded crash test: ref and tags had moved, and the record said that the build was interrupted.
    #[tokio::test]
    async fn the_record_says_what_was_published_as_soon_as_the_refs_have_moved() {
        for ended_before in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).await.unwrap();
            let app = store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
            let (id, main, commit) = (BuildId::generate(), "refs/heads/main", "a".repeat(40));
            let user = "ada".parse().unwrap();
            let build =
                Build::queued(id.clone(), app.name, user, main.parse().unwrap(), commit.parse().unwrap());
            store.create_build(&build).await.unwrap();
            let publication = Publication {
                build: id.clone(),
                image: "r.example/shop".parse().unwrap(),
                digest: Digest::of(b"{}"),
                media_type: "x".to_owned(),
                form: Form::Index,
                platforms: Vec::new(),
                bytes: b"{}".to_vec(),
                tags: vec!["main".parse().unwrap()],
                unshared: 0,
            };
            let moves = [Move::of_ref(build.update(), Some(publication.clone()))];
            let entry = store.journal_open(&app.id, &moves).await.unwrap();
            if ended_before {
                let end = Finished::as_state(BuildState::Interrupted, 9, Some("stopped".to_owned()));
                store.finish_build(&id, &end).await.unwrap();
                store.journal_forward(&entry, &BTreeSet::new(), true).await.unwrap();
                let found = store.build(&id).await.unwrap().unwrap();
                assert_eq!(
                    (found.state, found.digest),
                    (BuildState::Interrupted, Some(publication.digest)),
                    "one end"
                );
                continue;
            }
            store.journal_close(&entry, true).await.unwrap();
            let found = store.build(&id).await.unwrap().unwrap();
            assert_eq!((found.state, found.reason), (BuildState::Queued, None));
            assert_eq!((found.digest, found.tags), (Some(publication.digest), publication.tags));
        }
    }

    #[tokio::test]
    async fn an_entry_that_goes_back_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let app = store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        let main = "refs/heads/main".parse().unwrap();
        let commit = "a".repeat(40).parse().unwrap();
        let build = Build::queued(BuildId::generate(), app.name, "ada".parse().unwrap(), main, commit);
        store.create_build(&build).await.unwrap();
        let publication = Publication {
            build: build.id.clone(),
            image: "r.example/shop".parse().unwrap(),
            digest: Digest::of(b"{}"),
            media_type: "x".to_owned(),
            form: Form::Index,
            platforms: Vec::new(),
            bytes: b"{}".to_vec(),
            tags: Vec::new(),
            unshared: 0,
        };
        let moves = [Move::of_ref(build.update(), Some(publication))];
        let entry = store.journal_open(&app.id, &moves).await.unwrap();
        store.journal_close(&entry, false).await.unwrap();
        assert_eq!(store.build(&build.id).await.unwrap(), Some(build));
    }
}
