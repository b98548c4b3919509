//! A build's log as it grows: pages of events until the build has ended and all of them were read.

use tokio::sync::watch;

use super::EVENTS_LIMIT;
use crate::error::Report;
use crate::event::Recorded;
use crate::model::{Build, BuildId};
use crate::store::{Store, StoreError};

/// What a follower is told next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Events(Vec<Recorded>),
    /// The build has ended, or nobody is there who would end it.
    Ended(Box<Build>),
}

/// Wakes by the store's own changes, so only a handle of the process that builds sees a running build move.
#[derive(Debug)]
pub struct Follow {
    store: Store,
    build: BuildId,
    next_seq: u64,
    changes: watch::Receiver<u64>,
}

impl Follow {
    pub(super) fn new(store: Store, build: BuildId, next_seq: u64) -> Self {
        let changes = store.build_changes();
        Self { store, build, next_seq, changes }
    }

    /// What comes next: events, never an empty page, or, when all were read, the end.
    pub async fn next(&mut self) -> Result<Step, Report> {
        loop {
            // marked as seen before looking: what is written while we look wakes us again
            self.changes.borrow_and_update();
            // the state first: events are all written before a build is closed
            let build = self.build().await?;
            let events = self.store.events(&self.build, self.next_seq, EVENTS_LIMIT).await?;
            if let Some(last) = events.last() {
                self.next_seq = last.seq.saturating_add(1);
                return Ok(Step::Events(events));
            }
            // an error: the store is gone, and nothing more will come
            if !build.state.is_live() || self.changes.changed().await.is_err() {
                return Ok(Step::Ended(Box::new(build)));
            }
        }
    }

    /// The build as it stands.
    async fn build(&self) -> Result<Build, Report> {
        let found = self.store.build(&self.build).await?;
        Ok(found.ok_or_else(|| StoreError::NoBuild(self.build.to_string()))?)
    }
}
