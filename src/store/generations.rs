//! The accepted moves of each ref, counted: which one the shared tags stand at, and which refs are ahead of their image.
//!
//! The rule of the tags is kept here: they go to a greater generation of their ref only. Whoever counts or publishes holds
//! the ref's lock (`tag`).

use std::sync::{Arc, MutexGuard, PoisonError};

use sqlx::Row as _;
use tokio::sync::oneshot;

use super::{Result, Store, Write, parsed};
use crate::model::{AppName, Behind, BuildId, Generation, Publication, RefName, Sha};

/// A move that waits to be counted.
pub(super) struct Uncounted {
    app_id: String,
    reference: RefName,
}

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
    /// Counts one more accepted move of the ref; its number, from 1. Whoever has the turn to write counts for all who wait
    /// for it: many pushes at once then share one sync of the disk.
    pub async fn next_generation(&self, app_id: &str, reference: &RefName) -> Result<i64> {
        let (told, answer) = oneshot::channel();
        let mine = Arc::new(Uncounted { app_id: app_id.to_owned(), reference: reference.clone() });
        self.uncounted().push((mine.clone(), told));
        let mut tx = self.write().await?;
        let all = {
            let mut waiting = self.uncounted();
            let is_there = waiting.iter().any(|(one, _)| Arc::ptr_eq(one, &mine));
            if is_there { std::mem::take(&mut *waiting) } else { Vec::new() }
        };
        if all.is_empty() {
            // somebody has taken it along; where that failed, its own try says why
            drop(tx);
            if let Ok(number) = answer.await {
                return Ok(number);
            }
            let mut tx = self.write().await?;
            let number = count(&mut tx, app_id, reference).await?;
            tx.commit().await?;
            return Ok(number);
        }
        let mut numbers = Vec::with_capacity(all.len());
        // whoever went away meanwhile needs no number
        for (one, told) in all.into_iter().filter(|(_, told)| !told.is_closed()) {
            numbers.push((count(&mut tx, &one.app_id, &one.reference).await?, told));
        }
        tx.commit().await?;
        for (number, told) in numbers {
            let _ = told.send(number);
        }
        // its own is among them
        answer.await.map_err(|_| sqlx::Error::WorkerCrashed.into())
    }

    fn uncounted(&self) -> MutexGuard<'_, Vec<(Arc<Uncounted>, oneshot::Sender<i64>)>> {
        self.inner.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moves_that_wait_for_the_turn_are_counted_together_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let id = store.create_app(&"shop".parse().unwrap(), None).await.unwrap().id;
        let name = |n: usize| format!("refs/heads/b{n}").parse::<RefName>().unwrap();
        assert_eq!(store.next_generation(&id, &name(0)).await.unwrap(), 1);
        let busy = store.write().await.unwrap();
        let counting = (0..20).map(|n| {
            let (store, id, name) = (store.clone(), id.clone(), name(n % 10));
            tokio::spawn(async move { store.next_generation(&id, &name).await.unwrap() })
        });
        let counting: Vec<_> = counting.collect();
        while store.uncounted().len() < counting.len() {
            tokio::task::yield_now().await;
        }
        // one that has given up is not counted
        counting[19].abort();
        while !counting[19].is_finished() {
            tokio::task::yield_now().await;
        }
        drop(busy);
        let mut numbers = Vec::new();
        for one in counting.into_iter().take(19) {
            numbers.push(one.await.unwrap());
            assert!(store.uncounted().is_empty(), "the first in turn takes all along");
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [vec![1; 9], vec![2; 9], vec![3]].concat());
        assert_eq!(store.published_generation(&id, &name(9)).await.unwrap().accepted, 1);
    }
}
