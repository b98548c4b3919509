//! A push's refs, one after the other: which build, in what order, as one atomic group or each for itself.
//!
//! Every ref gets exactly one answer. A ref moves only through `Tagger::commit`; what is stored without a build moves there too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::queue::{Limits, Queue, Slot};
use super::record::{LineSink, Recorder};
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure, plain_line};
use crate::failpoint::Point;
use crate::model::{AppName, Build, BuildId, BuildState, Push, RefUpdate};
use crate::pipeline::{Built, Pipeline, RefBuild, from_report, shorten_reason};
use crate::plan::{self, WhichRef};
use crate::receive::refs;
use crate::receive::{PushHandler, PushOutput, RefAnswer};
use crate::store::{Finished, Store, now_ms};
use crate::tag::{Committed, Move, Publication, Tagger};

/// Takes pushes from `receive` and sees each to its end, also when the client is gone.
#[derive(Clone)]
pub struct Pushes {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    pipeline: Pipeline,
    tagger: Tagger,
    capacity: Capacity,
    queue: Queue,
    tasks: TaskTracker,
}

/// What this server takes on at once, and keeps.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub queue: Limits,
    pub keep_builds_per_app: u32,
    /// How long one build may take.
    pub build: Duration,
    /// Silence after which the pusher is told that the build is alive.
    pub heartbeat: Duration,
}

/// What a ref of the push is to become.
enum Wish {
    /// Stored, not built, with why.
    Store(String),
    Build,
    Delete,
}

/// A ref whose build is done and whose commit point is still to come.
struct Ready {
    update: RefUpdate,
    publication: Option<Publication>,
    build: Option<Running>,
}

/// A build whose record is open.
struct Running {
    id: BuildId,
    app: AppName,
    recorder: Recorder,
}

impl Pushes {
    pub fn new(store: Store, pipeline: Pipeline, tagger: Tagger, capacity: Capacity) -> Self {
        let (queue, tasks) = (Queue::new(capacity.queue), TaskTracker::new());
        Self { shared: Arc::new(Shared { store, pipeline, tagger, capacity, queue, tasks }) }
    }

    /// What waits and what is at work.
    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// Waits until no push is under way; new ones must have been stopped at the door.
    pub async fn drain(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

#[async_trait]
impl PushHandler for Pushes {
    async fn push(&self, push: Push, repository: PathBuf, output: PushOutput) -> Vec<RefAnswer> {
        let names: Vec<_> = push.updates.iter().map(|u| u.name.clone()).collect();
        let shared = self.shared.clone();
        // a task of its own: whoever waits for the answers may go away, the push goes on
        let task = shared.tasks.spawn({
            let shared = shared.clone();
            async move { shared.run(Arc::new(push), &repository, output).await }
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a push ended unexpectedly");
            let refuse =
                |name| RefAnswer { name, result: Err("server error: see the server's log".to_owned()) };
            names.into_iter().map(refuse).collect()
        })
    }
}

impl Shared {
    async fn run(&self, push: Arc<Push>, repository: &Path, output: PushOutput) -> Vec<RefAnswer> {
        if push.atomic && push.updates.len() > 1 {
            return self.run_atomic(&push, repository, &output).await;
        }
        let mut answers = Vec::with_capacity(push.updates.len());
        for update in &push.updates {
            let result = match self.prepare(&push, update, repository, &output).await {
                Ok(ready) => self.commit(&push, repository, vec![ready], &output).await,
                Err(reason) => Err(reason),
            };
            answers.push(RefAnswer { name: update.name.clone(), result });
        }
        answers
    }

    /// All refs are built first; then all move, or none does.
    async fn run_atomic(&self, push: &Arc<Push>, repository: &Path, output: &PushOutput) -> Vec<RefAnswer> {
        let mut ready = Vec::new();
        let mut failed = None;
        for update in &push.updates {
            match self.prepare(push, update, repository, output).await {
                Ok(one) => ready.push(one),
                Err(reason) => {
                    failed = Some((update.name.clone(), reason));
                    break;
                }
            }
        }
        let result = match &failed {
            None => self.commit(push, repository, ready, output).await,
            Some((name, _)) => {
                let reason = format!("atomic push: {} failed", name.short());
                for one in ready {
                    self.abandon(one, repository, &reason).await;
                }
                Err(reason)
            }
        };
        let answer = |update: &RefUpdate| match &failed {
            Some((name, reason)) if *name == update.name => Err(reason.clone()),
            _ => result.clone(),
        };
        push.updates.iter().map(|u| RefAnswer { name: u.name.clone(), result: answer(u) }).collect()
    }

    /// Everything of one ref up to its commit point.
    async fn prepare(
        &self,
        push: &Arc<Push>,
        update: &RefUpdate,
        repository: &Path,
        output: &PushOutput,
    ) -> Result<Ready, String> {
        match wish(push, update) {
            Wish::Build => self.build(push, update, repository, output).await,
            Wish::Delete => Ok(Ready { update: update.clone(), publication: None, build: None }),
            Wish::Store(why) if push.options.plan || push.options.dry_try => {
                Err(format!("{why}, so there is nothing to plan or try"))
            }
            Wish::Store(why) => {
                output.line(&format!("-----> {} stored, not built: {why}", update.name.short()));
                Ok(Ready { update: update.clone(), publication: None, build: None })
            }
        }
    }

    async fn build(
        &self,
        push: &Arc<Push>,
        update: &RefUpdate,
        repository: &Path,
        output: &PushOutput,
    ) -> Result<Ready, String> {
        let _slot = self.slot(push, update, output).await.map_err(|report| refuse(&report, output))?;
        self.pass(Point::AfterQueue).await;
        let running = self.begin(push, update, output).await.map_err(|report| refuse(&report, output))?;
        self.pass(Point::AfterAccept).await;
        let job = RefBuild {
            push: push.clone(),
            update: update.clone(),
            repository: repository.to_owned(),
            build: running.id.clone(),
        };
        let events = running.recorder.sink();
        let built = match refs::keep(repository, &running.id, &update.new) {
            Ok(()) => self.build_in_time(&job, &events).await,
            Err(error) => Err(from_report(Report::from(error))),
        };
        match built {
            Ok(Built::Published(publication)) if push.options.dry_try => {
                self.finish_try(&job, running, publication, &events).await
            }
            Ok(Built::Published(publication)) => {
                Ok(Ready { update: update.clone(), publication: Some(publication), build: Some(running) })
            }
            Ok(Built::PlanOnly) => {
                let reason = "plan only: nothing was built".to_owned();
                self.end(running, repository, BuildState::Succeeded, None, Some(reason.clone())).await;
                Err(reason)
            }
            Err(failure) => Err(self.fail(running, repository, failure).await),
        }
    }

    /// Waits for room; the pusher is told what for.
    async fn slot(&self, push: &Push, update: &RefUpdate, output: &PushOutput) -> Result<Slot, Report> {
        let what = format!("{} {}", push.app.name, update.name.short());
        let on_place = |place| output.line(&format!("-----> Waiting: {place}"));
        Ok(self.queue.enter(&push.app.name, what, on_place).await?)
    }

    async fn build_in_time(&self, job: &RefBuild, events: &EventSink) -> Result<Built, Failure> {
        let limit = self.capacity.build;
        match tokio::time::timeout(limit, self.pipeline.build(job, events)).await {
            Ok(built) => built,
            Err(_) => {
                let cause = format!("the build was stopped: it took longer than {} s", limit.as_secs());
                Err(Failure::new(cause.clone(), cause)
                    .with_remedy("make the build shorter; the operator can raise limits.build_seconds"))
            }
        }
    }

    /// The row that says a build runs stands before anything else happens: a store that cannot write refuses the push.
    async fn begin(&self, push: &Push, update: &RefUpdate, output: &PushOutput) -> Result<Running, Report> {
        let id = BuildId::generate();
        let build = Build {
            state: BuildState::Running,
            started_at_ms: now_ms(),
            push: push.id.clone(),
            key: Some(push.key.clone()),
            old: update.old.clone(),
            options: push.options.clone(),
            ..Build::queued(
                id.clone(),
                push.app.name.clone(),
                push.user.clone(),
                update.name.clone(),
                update.new.clone(),
            )
        };
        self.store.create_build(&build).await?;
        tracing::info!(push = %push.id, build = %id, app = %push.app.name, user = %push.user, reference = %update.name, commit = %update.new, "build begins");
        let output = output.clone();
        let lines: LineSink = Arc::new(move |line: &str| output.line(line));
        let recorder = Recorder::begin(
            self.store.clone(),
            id.clone(),
            push.options.color,
            self.capacity.heartbeat,
            lines,
        );
        Ok(Running { id, app: push.app.name.clone(), recorder })
    }

    /// The commit point of one ref, or of all refs of an atomic push.
    async fn commit(
        &self,
        push: &Push,
        repository: &Path,
        ready: Vec<Ready>,
        output: &PushOutput,
    ) -> Result<(), String> {
        let events = ready.iter().find_map(|r| r.build.as_ref()).map(|b| b.recorder.sink());
        let moves =
            ready.iter().map(|r| Move { update: Some(r.update.clone()), publication: r.publication.clone() });
        let committed = self
            .tagger
            .commit(&push.app, repository, moves.collect(), &events.unwrap_or_else(EventSink::discard))
            .await;
        match committed {
            Ok(committed) => {
                for one in ready {
                    self.succeed(push, one, repository, &committed).await;
                }
                Ok(())
            }
            Err(error) => {
                let failure = from_report(Report::from(error));
                let reason = shorten_reason(&failure.reason);
                let mut told = false;
                for one in ready {
                    if let Some(running) = one.build {
                        self.fail(running, repository, failure.clone()).await;
                        told = true;
                    }
                }
                if !told {
                    tell(&failure, output);
                }
                Err(reason)
            }
        }
    }

    async fn succeed(&self, push: &Push, one: Ready, repository: &Path, committed: &Committed) {
        if one.update.is_delete()
            && let Err(error) = self.store.release_tags(&push.app.id, &one.update.name).await
        {
            tracing::warn!(%error, reference = %one.update.name, "the deleted ref still owns its tags");
        }
        if let Some(running) = one.build {
            let events = running.recorder.sink();
            if let Some(text) = committed.notice() {
                events.emit(BuildEvent::Note { text: plain_line(&text) });
            }
            events.emit(BuildEvent::Succeeded { duration_ms: running.recorder.elapsed_ms() });
            self.end(running, repository, BuildState::Succeeded, one.publication, None).await;
        }
    }

    /// A try: its own tags move, no ref does, and git is told so by a refusal that says it went well.
    async fn finish_try(
        &self,
        job: &RefBuild,
        running: Running,
        publication: Publication,
        events: &EventSink,
    ) -> Result<Ready, String> {
        let moves = vec![Move { update: None, publication: Some(publication.clone()) }];
        match self.tagger.commit(&job.push.app, &job.repository, moves, events).await {
            Ok(_) => {
                events.emit(BuildEvent::Succeeded { duration_ms: running.recorder.elapsed_ms() });
                let tag = publication.tags.first().map_or_else(String::new, ToString::to_string);
                let reason = format!("try succeeded: {}:{tag}; no ref moved", publication.image);
                self.end(
                    running,
                    &job.repository,
                    BuildState::Succeeded,
                    Some(publication),
                    Some(reason.clone()),
                )
                .await;
                Err(reason)
            }
            Err(error) => Err(self.fail(running, &job.repository, from_report(Report::from(error))).await),
        }
    }

    async fn abandon(&self, one: Ready, repository: &Path, reason: &str) {
        if let Some(running) = one.build {
            let failure = Failure::new(reason, reason)
                .with_remedy("mend the ref that failed, or push without --atomic");
            self.fail(running, repository, failure).await;
        }
    }

    async fn fail(&self, running: Running, repository: &Path, failure: Failure) -> String {
        let reason = shorten_reason(&failure.reason);
        let duration_ms = running.recorder.elapsed_ms();
        running.recorder.sink().emit(BuildEvent::Failed { failure, duration_ms });
        self.end(running, repository, BuildState::Failed, None, Some(reason.clone())).await;
        reason
    }

    /// Where a crash test may end the server; a point that is armed to fail has nothing to fail here.
    async fn pass(&self, point: Point) {
        if let Err(injected) = self.pipeline.failpoints.reach(point).await {
            tracing::warn!(%injected, "nothing fails here");
        }
    }

    /// Closes the record. What cannot be written any more is logged: the refs have their answer by now.
    async fn end(
        &self,
        running: Running,
        repository: &Path,
        state: BuildState,
        publication: Option<Publication>,
        reason: Option<String>,
    ) {
        let id = running.id;
        if let Err(error) = running.recorder.finish().await {
            tracing::error!(build = %id, %error, "part of the build's log is lost");
        }
        let (image, digest, tags) = match publication {
            Some(p) => (Some(p.image), Some(p.index), p.tags),
            None => (None, None, Vec::new()),
        };
        self.pass(Point::BeforeFinish).await;
        let finished = Finished { image, digest, tags, ..Finished::as_state(state, now_ms(), reason) };
        if let Err(error) = self.store.finish_build(&id, &finished).await {
            tracing::error!(build = %id, %error, "the build's end is not recorded");
        }
        self.pass(Point::AfterFinish).await;
        if let Err(error) = self.store.prune_builds(&running.app, self.capacity.keep_builds_per_app).await {
            tracing::warn!(build = %id, %error, "old builds are not removed");
        }
        if let Err(error) = refs::release(repository, &id) {
            tracing::warn!(build = %id, %error, "the build's hidden ref stays");
        }
        tracing::info!(build = %id, state = state.as_str(), reason = finished.reason.as_deref(), "build ended");
    }
}

fn wish(push: &Push, update: &RefUpdate) -> Wish {
    if update.is_delete() {
        return Wish::Delete;
    }
    match plan::builds(&push.app.settings, &update.name) {
        WhichRef::NotBuilt(why) => Wish::Store(why),
        _ => Wish::Build,
    }
}

/// Shows a failure that belongs to no build, and gives its reason.
fn refuse(report: &Report, output: &PushOutput) -> String {
    let failure = from_report(report.clone());
    tell(&failure, output);
    shorten_reason(&failure.reason)
}

fn tell(failure: &Failure, output: &PushOutput) {
    output.line(&format!("error: {}", plain_line(&failure.cause)));
    if let Some(remedy) = &failure.remedy {
        output.line(&format!("hint: {}", plain_line(remedy)));
    }
}
