//! Start and stop: builds that nobody waits for survive the server, all others are said to be interrupted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::{Pushes, Shared};
use crate::error::Report;
use crate::model::{Build, BuildId, BuildState, Generation, Push};
use crate::receive::{PushOutput, refs};
use crate::store::{Finished, Store, now_ms};
use crate::tag::{TagError, Tagger};

/// How long builds that were told to stop may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(10);
const INTERRUPTED: &str = "the server stopped while it ran";

impl Pushes {
    /// At start, when the journal is settled and no door is open: each build that the server before left gets its end, or
    /// goes on. Needs the repositories.
    pub async fn recover(&self) -> Result<(), Report> {
        let shared = &self.shared;
        let undecided: BTreeSet<BuildId> = journalled(&shared.store).await?;
        for build in shared.store.live_builds(None).await? {
            if undecided.contains(&build.id) && build.digest.is_none() {
                let (store, tagger) = (shared.store.clone(), shared.tagger.clone());
                tokio::spawn(async move { await_journal(&store, &tagger, &build.id).await });
            } else if build.digest.is_some() {
                // it was published: only its last word is missing
                shared.finish(&build.id, &Finished::as_state(BuildState::Succeeded, now_ms(), None)).await;
                if let Some(app) = shared.store.app(&build.app).await? {
                    super::ending::release(&(shared.repository_of)(&app.id), &build.id);
                }
            } else if build.detached {
                shared.resume(build).await?;
            } else {
                shared.interrupt(&build, INTERRUPTED).await;
            }
        }
        Ok(())
    }

    /// Takes no more builds, refuses those that wait, and gives those that run `grace`; what nobody waits for goes on after
    /// the next start. Returns when nothing is under way.
    pub async fn shutdown(&self, grace: Duration) {
        let Shared { lanes, tasks, .. } = &*self.shared;
        lanes.close();
        tasks.close();
        for entry in lanes.all().into_iter().filter(|entry| !entry.is_running()) {
            let _ = entry.stop(super::lanes::Stop::Shutdown);
        }
        if tokio::time::timeout(grace, tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(left = lanes.all().len(), "the grace is over: builds are stopped");
        for entry in lanes.all() {
            let _ = entry.stop(super::lanes::Stop::Shutdown);
        }
        if tokio::time::timeout(LAST_WORDS, tasks.wait()).await.is_err() {
            tracing::error!("builds did not end: the next start settles them");
        }
    }
}

impl Shared {
    async fn interrupt(&self, build: &Build, reason: &str) {
        tracing::warn!(build = %build.id, app = %build.app, reference = %build.reference, "this build was interrupted");
        let end = Finished::as_state(BuildState::Interrupted, now_ms(), Some(reason.to_owned()));
        self.finish(&build.id, &end).await;
    }

    /// A build that nobody waits for goes on, under its own record.
    async fn resume(self: &Arc<Self>, build: Build) -> Result<(), Report> {
        let app = self.store.app(&build.app).await?;
        let (Some(app), Some(key)) = (app, build.key.clone()) else {
            self.interrupt(&build, INTERRUPTED).await;
            return Ok(());
        };
        let repository = (self.repository_of)(&app.id);
        let at = refs::at(&repository, &build.reference)?;
        let generation = match build.generation {
            Some(number) if at.is_zero() => {
                let reason =
                    format!("{} was deleted meanwhile (generation {number})", build.reference.short());
                let end = Finished::as_state(BuildState::Superseded, now_ms(), Some(reason));
                self.finish(&build.id, &end).await;
                return Ok(());
            }
            Some(number) => {
                let (reference, commit) = (build.reference.clone(), build.commit.clone());
                Some(Generation { reference, number, commit })
            }
            // killed between the move of the ref and its note in the record
            None if at == build.commit && !build.options.dry_try => {
                let counted =
                    self.tagger.accept_in_place(&app, &repository, &build.reference, &build.commit).await;
                match counted {
                    Ok(generation) => {
                        self.store.accept_build(&build.id, generation.number).await?;
                        Some(generation)
                    }
                    Err(TagError::Store(error)) => return Err(error.into()),
                    Err(error) => {
                        self.interrupt(&build, &error.to_string()).await;
                        return Ok(());
                    }
                }
            }
            None if build.retry_of.is_some() => None,
            None => {
                self.interrupt(&build, "the server stopped before the push was accepted").await;
                return Ok(());
            }
        };
        if let Err(error) = refs::keep(&repository, &build.id, &build.commit) {
            self.interrupt(&build, &format!("its commit is gone: {error}")).await;
            return Ok(());
        }
        self.store.requeue_build(&build.id).await?;
        let build = Build { generation: generation.as_ref().map(|g| g.number), ..build };
        let Some(lane) = self.lanes.enter(&app.id, std::slice::from_ref(&build)).and_then(|mut l| l.pop())
        else {
            return Ok(());
        };
        let push = Arc::new(Push {
            id: build.push.clone(),
            app,
            user: build.user.clone(),
            key,
            updates: vec![build.update()],
            atomic: false,
            options: build.options.clone(),
        });
        let job = self.job(&push, build, lane, repository, PushOutput::discard()).await?;
        job.note("the server was restarted: building again");
        tracing::info!(build = %job.build.id, app = %push.app.name, reference = %job.update.name, "build resumed");
        let shared = self.clone();
        let span = tracing::error_span!("push", push = %job.push.id);
        self.tasks.spawn(async move { shared.follow_through(job, generation).await }.instrument(span));
        Ok(())
    }
}

/// The builds whose commit point is not settled.
async fn journalled(store: &Store) -> Result<BTreeSet<BuildId>, crate::store::StoreError> {
    let entries = store.journal().await?;
    let publications = entries.into_iter().flat_map(|entry| entry.moves).flat_map(|one| one.publications);
    Ok(publications.map(|publication| publication.build).collect())
}

/// Ends a build as the journal decides.
pub(super) async fn await_journal(store: &Store, tagger: &Tagger, id: &BuildId) {
    let mut settled = tagger.settled();
    loop {
        settled.borrow_and_update();
        match (journalled(store).await, store.build(id).await) {
            (Ok(_), Ok(None)) => return,
            (Ok(left), Ok(Some(build))) if build.digest.is_some() || !left.contains(id) => {
                let end = match build.digest {
                    Some(_) => Finished::as_state(BuildState::Succeeded, now_ms(), None),
                    None => {
                        Finished::as_state(BuildState::Interrupted, now_ms(), Some(INTERRUPTED.to_owned()))
                    }
                };
                match store.finish_build(id, &end).await {
                    Ok(()) | Err(crate::store::StoreError::BuildEnded(_)) => return,
                    Err(error) => tracing::warn!(build = %id, %error, "the build's end is not recorded yet"),
                }
            }
            _ => {}
        }
        if settled.changed().await.is_err() {
            return;
        }
    }
}
