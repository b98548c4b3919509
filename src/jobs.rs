//! Builds as records: every build of a push has a row and its whole log, and its events reach those who watch.
//!
//! A job outlives the connection that asked for it. Its row is there before anything else, and gets one end: `ending`.
//! `jobs` decides nothing about what a build does: `Stages` do.

mod build;
mod caches;
mod ending;
mod lanes;
mod pushes;
pub mod queue;
pub mod record;
mod resume;
mod retry;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use crate::event::{EventSink, Failure};
use crate::failpoint::{Failpoints, Point};
use crate::model::BuildPlan;
use crate::pipeline::{Built, Pipeline, RefBuild};
use crate::store::Store;
use crate::tag::Tagger;

use lanes::Lanes;
use queue::{Limits, Queue};

/// What turns a commit into a pushed index. `Pipeline`, and in tests something quicker.
#[async_trait]
pub trait Stages: Send + Sync + 'static {
    /// Runs until the index stands, or `job.stop` is cancelled; may be dropped at any time.
    async fn build(&self, job: &RefBuild, events: &EventSink) -> Result<Built, Failure>;
    /// What would be built.
    async fn plan(&self, job: &RefBuild, events: &EventSink) -> Result<BuildPlan, Failure>;
}

#[async_trait]
impl Stages for Pipeline {
    async fn build(&self, job: &RefBuild, events: &EventSink) -> Result<Built, Failure> {
        Self::build(self, job, events).await
    }
    async fn plan(&self, job: &RefBuild, events: &EventSink) -> Result<BuildPlan, Failure> {
        Self::plan(self, job, events).await
    }
}

/// What this server takes on at once, and keeps.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub queue: Limits,
    pub keep_builds_per_app: u32,
    /// How long one build may take, where its app says nothing else.
    pub build: Duration,
    /// How long nothing may come of one.
    pub silence: Duration,
    /// Silence after which the pusher is told that the build is alive.
    pub heartbeat: Duration,
}

/// Takes pushes from `receive` and sees each to its end, also when the client is gone.
#[derive(Clone)]
pub struct Pushes {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    stages: Arc<dyn Stages>,
    tagger: Tagger,
    capacity: Capacity,
    queue: Queue,
    lanes: Lanes,
    tasks: TaskTracker,
    failpoints: Failpoints,
    repository_of: Box<dyn Fn(&str) -> PathBuf + Send + Sync>,
}

impl Pushes {
    /// `repository_of` says where the repository of an app's id is.
    pub fn new(
        store: Store,
        stages: Arc<dyn Stages>,
        tagger: Tagger,
        capacity: Capacity,
        repository_of: impl Fn(&str) -> PathBuf + Send + Sync + 'static,
        failpoints: Failpoints,
    ) -> Self {
        let (queue, lanes, tasks) = (Queue::new(capacity.queue), Lanes::default(), TaskTracker::new());
        let repository_of = Box::new(repository_of);
        let shared =
            Shared { store, stages, tagger, capacity, queue, lanes, tasks, failpoints, repository_of };
        Self { shared: Arc::new(shared) }
    }

    /// What waits and what is at work.
    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }
}

impl Shared {
    /// Where a crash test may end the server; a point that is armed to fail has nothing to fail here.
    async fn pass(&self, point: Point) {
        if let Err(injected) = self.failpoints.reach(point).await {
            tracing::warn!(%injected, "nothing fails here");
        }
    }
}

#[cfg(test)]
mod tests;
