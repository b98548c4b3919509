//! The end of a build: one state, one reason, said everywhere alike. What cannot be written now is written later.

use std::time::Duration;

use super::Shared;
use super::build::{Halt, Job};
use super::lanes::Stop;
use crate::event::{BuildEvent, Failure};
use crate::failpoint::Point;
use crate::metrics;
use crate::model::{BuildId, BuildState, Publication};
use crate::pipeline::shorten_reason;
use crate::receive::refs;
use crate::store::{Finished, StoreError, now_ms};

/// Pauses between tries to write an end: doubling from the first to the second.
const WRITE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Shared {
    /// Ends a build that came to nothing; the line for git.
    pub(super) async fn halt(&self, job: Job, halt: Halt) -> String {
        let (end, failure) = match halt {
            Halt::Failed(failure) => (
                Finished::as_state(BuildState::Failed, now_ms(), Some(shorten_reason(&failure.reason))),
                failure,
            ),
            Halt::Stopped(Stop::Shutdown) if job.build.detached => return self.put_off(job).await,
            Halt::Stopped(why) => stopped(&job, &why),
        };
        let reason = end.reason.clone().unwrap_or_default();
        let duration_ms = job.recorder.elapsed_ms();
        job.events().emit(BuildEvent::Failed { failure, duration_ms });
        self.end(job, end).await;
        reason
    }

    pub(super) async fn fail(&self, job: Job, failure: Failure) -> String {
        self.halt(job, Halt::Failed(failure)).await
    }

    pub(super) async fn succeed(&self, job: Job, published: Vec<Publication>, reason: Option<String>) {
        job.events().emit(BuildEvent::Succeeded { duration_ms: job.recorder.elapsed_ms() });
        let mut end = Finished::as_state(BuildState::Succeeded, now_ms(), reason);
        end.images = published.iter().map(Publication::published).collect();
        self.end(job, end).await;
    }

    /// The server stops: a build that nobody waits for is done after the next start.
    async fn put_off(&self, job: Job) -> String {
        job.note("the server stops: this build goes on when it is back");
        let id = job.build.id.clone();
        if let Err(error) = job.recorder.finish().await {
            tracing::error!(build = %id, %error, "part of the build's log is lost");
        }
        if let Err(error) = self.store.requeue_build(&id).await {
            tracing::warn!(build = %id, %error, "a build that is put off is not marked so");
        }
        tracing::info!(build = %id, "build put off to the next start");
        "the server is stopping".to_owned()
    }

    /// Writes the end and lets the lane go.
    pub(super) async fn end(&self, job: Job, end: Finished) {
        let Job { push, repository, build, lane, recorder, .. } = job;
        metrics::build_ended(end.state, recorder.kind());
        if let Err(error) = recorder.finish().await {
            tracing::error!(build = %build.id, %error, "part of the build's log is lost");
        }
        self.pass(Point::BeforeFinish).await;
        self.finish(&build.id, &end).await;
        self.pass(Point::AfterFinish).await;
        tracing::info!(push = %push.id, build = %build.id, state = end.state.as_str(), reason = end.reason.as_deref(), "build ended");
        if end.state == BuildState::Succeeded {
            release(&repository, &build.id);
        }
        match self.store.prune_builds(&build.app, self.capacity.keep_builds_per_app).await {
            Ok(gone) => gone.iter().for_each(|id| release(&repository, id)),
            Err(error) => tracing::warn!(build = %build.id, %error, "old builds are not removed"),
        }
        drop(lane);
    }

    /// Writes the end now, or as soon as the store takes it; a server that dies before finds out at its start.
    pub(super) async fn finish(&self, id: &BuildId, end: &Finished) {
        let over = |result: &Result<(), StoreError>| {
            matches!(result, Ok(()) | Err(StoreError::BuildEnded(_) | StoreError::NoBuild(_)))
        };
        let written = self.store.finish_build(id, end).await;
        if over(&written) {
            return;
        }
        tracing::error!(build = %id, error = ?written.err(), "the build's end cannot be written yet");
        let (store, id, end) = (self.store.clone(), id.clone(), end.clone());
        tokio::spawn(async move {
            let mut pause = WRITE_AGAIN.0;
            loop {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(WRITE_AGAIN.1);
                if over(&store.finish_build(&id, &end).await) {
                    tracing::info!(build = %id, "the build's end is written");
                    return;
                }
            }
        });
    }
}

/// A commit that no build needs any more may be collected.
pub(super) fn release(repository: &std::path::Path, build: &BuildId) {
    if let Err(error) = refs::release(repository, build) {
        tracing::warn!(%build, %error, "the build's hidden ref stays");
    }
}

fn stopped(job: &Job, why: &Stop) -> (Finished, Failure) {
    let name = job.update.name.short();
    let (state, reason, remedy) = match why {
        Stop::Cancelled { by } => (BuildState::Cancelled, format!("cancelled by {by}"), None),
        Stop::ClientGone => {
            let reason = "cancelled: the pusher went away (cancel-on-disconnect)".to_owned();
            (BuildState::Cancelled, reason, Some("push again without -o cancel-on-disconnect"))
        }
        Stop::Superseded { by, commit, user } => {
            let reason = format!("superseded by {} ({} by {user})", by.short(), commit.short(12));
            (BuildState::Superseded, reason, None)
        }
        Stop::Deleted => (BuildState::Superseded, format!("{name} was deleted meanwhile"), None),
        Stop::Moved { at } => (
            BuildState::Failed,
            format!("fetch first: {name} is at {} by now", at.short(12)),
            Some("somebody else pushed first: fetch, integrate their commits, and push again"),
        ),
        Stop::Shutdown => (
            BuildState::Interrupted,
            "the server is stopping".to_owned(),
            Some("push again in a moment, or have it done again: lemnos builds retry BUILD"),
        ),
    };
    let mut end = Finished::as_state(state, now_ms(), Some(reason.clone()));
    match why {
        Stop::Cancelled { by } => end.cancelled_by = Some(by.clone()),
        Stop::ClientGone => end.cancelled_by = Some(job.push.user.to_string()),
        Stop::Superseded { by, .. } => end.superseded_by = Some(by.clone()),
        Stop::Deleted | Stop::Moved { .. } | Stop::Shutdown => {}
    }
    let failure = Failure::new(reason.clone(), reason);
    (end, remedy.into_iter().fold(failure, Failure::with_remedy))
}
