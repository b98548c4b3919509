//! What people ask of builds: to end one, to do one again, to say what one would be.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::lanes::{Stop, TooLate};
use super::{Pushes, Shared};
use crate::error::{Kind, Report};
use crate::event::EventSink;
use crate::model::{
    Actor, App, Build, BuildId, BuildPlan, Generation, Push, PushOptions, RefName, RefUpdate, Sha,
};
use crate::pipeline::RefBuild;
use crate::plan::{self, WhichRef};
use crate::receive::{PushOutput, refs};
use crate::store::{StoreError, now_ms};
use crate::tag::TagError;

/// How long a build that is cancelled may take to write its end.
const ENDING: Duration = Duration::from_secs(30);

impl Pushes {
    /// Ends a build that is queued or running, and returns it as it ended.
    pub async fn cancel(&self, build: &Build, by: &Actor) -> Result<Build, Report> {
        let shared = &self.shared;
        let conflict = |what: &str| Report::new(Kind::Conflict, format!("build {} {what}", build.id.short()));
        let again = async || {
            let found = shared.store.build(&build.id).await?;
            found.ok_or_else(|| Report::from(StoreError::NoBuild(build.id.to_string())))
        };
        let Some(entry) = shared.lanes.find(&build.id) else {
            let now = again().await?;
            return Err(conflict(&match now.state.is_live() {
                true => "is being completed: it cannot be cancelled any more".to_owned(),
                false => format!("has ended already: {}", now.state.as_str()),
            }));
        };
        match entry.stop(Stop::Cancelled { by: by.name.clone() }) {
            Ok(()) => {}
            Err(TooLate::Committing) => {
                return Err(conflict("is built, and its tags are moving: it cannot be cancelled any more"));
            }
            Err(TooLate::Stopping) => return Err(conflict("is ending already")),
        }
        tracing::info!(build = %build.id, app = %build.app, by = %by.name, "build cancelled");
        if tokio::time::timeout(ENDING, entry.ended()).await.is_err() {
            return Err(Report::internal(format!("build {} was told to end and has not", build.id.short()))
                .hint("look at the server's log"));
        }
        again().await
    }

    /// Makes a new build of the same commit with the same options.
    pub async fn retry(&self, build: &Build, by: &Actor) -> Result<Build, Report> {
        let shared = &self.shared;
        let id = build.id.short();
        let conflict = |text: String| Report::new(Kind::Conflict, text);
        if build.state.is_live() {
            return Err(conflict(format!("build {id} is {}", build.state.as_str()))
                .hint(format!("`lemnos builds logs {id} -f` follows it")));
        }
        if build.options.plan {
            return Err(Report::user(format!("build {id} is a plan: it built nothing")).hint(format!(
                "lemnos builds plan {} {}",
                build.app,
                build.commit.short(12)
            )));
        }
        let app = shared.store.app(&build.app).await?.ok_or(StoreError::NoApp(build.app.clone()))?;
        if let WhichRef::NotBuilt(why) = plan::builds(&app.settings, &build.reference) {
            return Err(conflict(format!("{} is not built any more: {why}", build.reference.short())));
        }
        let key = by.key.clone().or_else(|| build.key.clone()).ok_or_else(|| {
            conflict(format!("build {id} was recorded by an older lemnos")).hint("push its commit again")
        })?;
        let repository = (shared.repository_of)(&app.id);
        if !refs::has(&repository, &build.commit)? {
            return Err(conflict(format!("the commit {} is not kept any more", build.commit.short(12)))
                .hint("push it again"));
        }
        let old = shared.where_it_goes(build, &app).await?;
        let mut options = build.options.clone();
        options.detach = false;
        options.cancel_on_disconnect = false;
        let again = Build {
            started_at_ms: now_ms(),
            push: uuid_of_a_push(),
            key: Some(key.clone()),
            old,
            detached: true,
            options: options.clone(),
            retry_of: Some(build.id.clone()),
            ..Build::queued(
                BuildId::generate(),
                build.app.clone(),
                by.user.clone().unwrap_or_else(|| build.user.clone()),
                build.reference.clone(),
                build.commit.clone(),
            )
        };
        let push = Push {
            id: again.push.clone(),
            app,
            user: again.user.clone(),
            key,
            updates: vec![again.update()],
            atomic: false,
            options,
        };
        shared.begin_retry(push, again, repository, by).await
    }

    /// What a push of `what` would build.
    pub async fn plan(&self, app: &App, what: &str) -> Result<BuildPlan, Report> {
        let repository = (self.shared.repository_of)(&app.id);
        let found = refs::resolve(&repository, what)?;
        let (reference, commit) = found.ok_or_else(|| {
            Report::new(Kind::NotFound, format!("{} has no branch, tag or commit {what:?}", app.name))
                .hint("push it first; or plan a work tree: `lemnos plan` in it")
        })?;
        let main = || format!("refs/heads/{}", app.settings.main_branch).parse::<RefName>();
        let name = reference.map_or_else(main, Ok)?;
        let user = "plan".parse()?;
        let key = format!("SHA256:{}", "0".repeat(43)).parse()?;
        let update = RefUpdate { name, old: Sha::zero(), new: commit };
        let options = PushOptions { plan: true, ..PushOptions::default() };
        let push = Push {
            id: uuid_of_a_push(),
            app: app.clone(),
            user,
            key,
            updates: vec![update.clone()],
            atomic: false,
            options,
        };
        let (build, stop) = (BuildId::generate(), CancellationToken::new());
        let job = RefBuild { push: Arc::new(push), update, repository, build, stop };
        let planned = self.shared.stages.plan(&job, &EventSink::discard()).await;
        planned.map_err(|failure| {
            let report = Report::new(Kind::Build, failure.cause);
            failure.remedy.into_iter().fold(report, Report::hint)
        })
    }
}

/// Of the same shape as the door's: 32 hexadecimal digits.
fn uuid_of_a_push() -> String {
    BuildId::generate().to_string()
}

impl Shared {
    /// The value the ref must have for a retry: the commit itself, where tags alone follow, or what the first build found.
    async fn where_it_goes(&self, build: &Build, app: &App) -> Result<Sha, Report> {
        if build.options.dry_try {
            return Ok(build.old.clone());
        }
        let repository = (self.repository_of)(&app.id);
        let at = refs::at(&repository, &build.reference)?;
        if at == build.commit || (at == build.old && build.generation.is_none()) {
            return Ok(at);
        }
        let name = build.reference.short();
        let stands =
            if at.is_zero() { "is gone".to_owned() } else { format!("is at {} by now", at.short(12)) };
        Err(Report::new(
            Kind::Conflict,
            format!("{name} {stands}, so build {} is not repeated", build.id.short()),
        )
        .hint("push what is to be built"))
    }

    async fn begin_retry(
        self: &Arc<Self>,
        push: Push,
        build: Build,
        repository: std::path::PathBuf,
        by: &Actor,
    ) -> Result<Build, Report> {
        self.store.create_build(&build).await?;
        let entered = self.lanes.enter(&push.app.id, std::slice::from_ref(&build));
        let Some(lane) = entered.and_then(|mut lanes| lanes.pop()) else {
            let reason = "the server is stopping";
            let end = crate::store::Finished::as_state(
                crate::model::BuildState::Interrupted,
                now_ms(),
                Some(reason.to_owned()),
            );
            self.finish(&build.id, &end).await;
            return Err(Report::new(Kind::Unavailable, reason).hint("try again in a moment"));
        };
        let push = Arc::new(push);
        let in_place = build.old == build.commit && !build.options.dry_try;
        let job = self.job(&push, build, lane, repository, PushOutput::discard()).await?;
        job.note(&match &job.build.retry_of {
            Some(first) => format!("build {} again, for {}", first.short(), by.name),
            None => format!("for {}", by.name),
        });
        let generation = match self.accept_retry(&job, in_place).await {
            Ok(generation) => generation,
            Err(error) => {
                let report = Report::from(error);
                self.fail(job, crate::pipeline::from_report(report.clone())).await;
                return Err(report);
            }
        };
        let mut build = job.build.clone();
        build.generation = generation.as_ref().map(|g| g.number);
        let shared = self.clone();
        let span = tracing::error_span!("push", push = %job.push.id);
        self.tasks.spawn(async move { shared.follow_through(job, generation).await }.instrument(span));
        Ok(build)
    }

    async fn accept_retry(
        &self,
        job: &super::build::Job,
        in_place: bool,
    ) -> Result<Option<Generation>, TagError> {
        if let Err(error) = refs::keep(&job.repository, &job.build.id, &job.update.new) {
            return Err(TagError::Invalid(error.to_string()));
        }
        if !in_place {
            return Ok(None);
        }
        let (app, update) = (&job.push.app, &job.update);
        let generation = self.tagger.accept_in_place(app, &job.repository, &update.name, &update.new).await?;
        job.lane.accept(generation.number);
        self.store.accept_build(&job.build.id, generation.number).await?;
        Ok(Some(generation))
    }
}
