//! What administering asks of the builds: only a running server has any.

use async_trait::async_trait;

use super::Context;
use crate::error::{Kind, Report};
use crate::model::{Actor, App, Build, BuildPlan};

/// The builds of a running server. Whether the actor may is decided before.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Ends a build that is queued or running, and returns it as it ended. `Conflict` when it has ended, or is past the
    /// point where it can still be stopped.
    async fn cancel(&self, build: &Build, by: &Actor) -> Result<Build, Report>;

    /// Makes a new build of the same commit with the same options, and returns it as it was queued. `Conflict` while the
    /// old one is under way, and when the ref stands elsewhere by now.
    async fn retry(&self, build: &Build, by: &Actor) -> Result<Build, Report>;

    /// What a push of a commit would build: `what` is a branch, a tag, or a commit's id.
    async fn plan(&self, app: &App, what: &str) -> Result<BuildPlan, Report>;
}

/// The server's work; `does` says what nobody does without one.
pub(super) fn at<'a>(context: &'a Context, does: &str) -> Result<&'a dyn Work, Report> {
    context.work.as_deref().ok_or_else(|| {
        Report::new(Kind::Unavailable, format!("no server runs, and nothing else {does}"))
            .hint("start it: lemnos serve")
    })
}
