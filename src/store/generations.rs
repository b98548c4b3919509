//! The accepted moves of each ref, counted: which one the shared tags stand at, and which refs are ahead of their image.
//!
//! The rule of the tags is kept here: they go to a greater generation of their ref only. Whoever counts or publishes holds
//! the ref's lock (`tag`).

use sqlx::Row as _;

use super::{Result, Store, Write, parsed};
use crate::model::{AppName, Behind, BuildId, Generation, Publication, RefName, Sha};

/// What a ref's tags stand at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagsAt {
    /// How many moves of the ref were accepted.
    pub accepted: i64,
    /// 0: nothing was published yet.
    pub generation: i64,
    pub build: Option<BuildId>,
    pub commit: Option<Sha>,
}

impl Store {
    /// Counts one more accepted move of the ref; its number, from 1.
    pub async fn next_generation(&self, app_id: &str, reference: &RefName) -> Result<i64> {
        let mut tx = self.write().await?;
        let generation = count(&mut tx, app_id, reference).await?;
        tx.commit().await?;
        Ok(generation)
    }

    /// What the ref's tags stand at.
    pub async fn published_generation(&self, app_id: &str, reference: &RefName) -> Result<TagsAt> {
        let row = sqlx::query(
            "SELECT accepted, published, published_build, published_commit FROM ref_generations
             WHERE app_id = ? AND reference = ?",
        )
        .bind(app_id)
        .bind(reference.as_str())
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(TagsAt::default()) };
        let build: Option<&str> = row.try_get("published_build")?;
        let commit: Option<&str> = row.try_get("published_commit")?;
        Ok(TagsAt {
            accepted: row.try_get("accepted")?,
            generation: row.try_get("published")?,
            build: build.map(|text| parsed("ref_generations.published_build", text)).transpose()?,
            commit: commit.map(|text| parsed("ref_generations.published_commit", text)).transpose()?,
        })
    }

    /// The ref is gone, with its tags' owner: no build of a generation up to this one moves them any more.
    pub async fn close_generations(&self, app_id: &str, reference: &RefName, generation: i64) -> Result<()> {
        let statement = sqlx::query(
            "UPDATE ref_generations SET published = ?3, published_build = NULL, published_commit = NULL
             WHERE app_id = ?1 AND reference = ?2 AND published < ?3",
        );
        self.change(statement.bind(app_id).bind(reference.as_str()).bind(generation)).await?;
        Ok(())
    }

    /// The app's refs whose newest accepted build has not succeeded, by name.
    pub async fn behind(&self, app: &AppName) -> Result<Vec<Behind>> {
        let rows = sqlx::query(
            "SELECT g.reference, b.commit_sha, b.id, b.state, g.published_commit
             FROM ref_generations g
             JOIN apps ON apps.id = g.app_id
             JOIN builds b ON b.app_id = g.app_id AND b.reference = g.reference AND b.generation = g.accepted
             WHERE apps.name = ? AND g.published < g.accepted AND b.state != 'succeeded'
             ORDER BY g.reference",
        )
        .bind(app.as_str())
        .fetch_all(self.pool())
        .await?;
        let behind = rows.iter().map(|row| {
            let tags_at: Option<&str> = row.try_get("published_commit")?;
            Ok(Behind {
                reference: parsed("ref_generations.reference", row.try_get("reference")?)?,
                commit: parsed("builds.commit_sha", row.try_get("commit_sha")?)?,
                build: parsed("builds.id", row.try_get("id")?)?,
                state: parsed("builds.state", row.try_get("state")?)?,
                tags_at: tags_at.map(|text| parsed("ref_generations.published_commit", text)).transpose()?,
            })
        });
        behind.collect()
    }
}

/// One more accepted move of the ref, within a transaction.
pub(super) async fn count(tx: &mut Write, app_id: &str, reference: &RefName) -> Result<i64> {
    let row = sqlx::query(
        "INSERT INTO ref_generations (app_id, reference, accepted) VALUES (?, ?, 1)
         ON CONFLICT (app_id, reference) DO UPDATE SET accepted = accepted + 1 RETURNING accepted",
    )
    .bind(app_id)
    .bind(reference.as_str())
    .fetch_one(&mut **tx)
    .await?;
    Ok(row.try_get("accepted")?)
}

/// The tags of `publication` are the ref's from now on.
pub(super) async fn publish(
    tx: &mut Write,
    app_id: &str,
    generation: &Generation,
    publication: &Publication,
) -> Result<()> {
    sqlx::query(
        "UPDATE ref_generations SET published = ?3, published_build = ?4, published_commit = ?5
         WHERE app_id = ?1 AND reference = ?2 AND published <= ?3",
    )
    .bind(app_id)
    .bind(generation.reference.as_str())
    .bind(generation.number)
    .bind(publication.build.as_str())
    .bind(generation.commit.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
