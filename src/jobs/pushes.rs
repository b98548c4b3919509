//! A push's refs, one after the other: which build, in what order, as one atomic group or each for itself, and which
//! are answered before they are built.
//!
//! Every ref gets exactly one answer. A ref moves only through `Tagger::commit`; what is stored without a build moves there too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::build::{Halt, Job};
use super::lanes::Stop;
use super::{Pushes, Shared};
use crate::error::Report;
use crate::event::{EventSink, Failure, plain_line};
use crate::failpoint::Point;
use crate::model::{Build, BuildId, Generation, Push, RefUpdate};
use crate::pipeline::{Built, from_report, shorten_reason};
use crate::plan::{self, WhichRef};
use crate::receive::{PushHandler, PushOutput, RefAnswer, refs};
use crate::store::now_ms;
use crate::tag::{Committed, Move, Publication, TagError};

/// What a ref of the push is to become.
enum Part {
    /// Moved, not built.
    Alone(RefUpdate),
    Build(Box<Job>),
    /// Refused, with why.
    Not(RefUpdate, String),
}

impl Part {
    fn update(&self) -> &RefUpdate {
        match self {
            Self::Alone(update) | Self::Not(update, _) => update,
            Self::Build(job) => &job.update,
        }
    }
}

/// A ref whose commit point is still to come.
struct Ready {
    update: RefUpdate,
    built: Option<(Box<Job>, Vec<Publication>)>,
}

#[async_trait]
impl PushHandler for Pushes {
    async fn push(&self, push: Push, repository: PathBuf, output: PushOutput) -> Vec<RefAnswer> {
        let names: Vec<_> = push.updates.iter().map(|u| u.name.clone()).collect();
        let shared = self.shared.clone();
        // a task of its own: whoever waits for the answers may go away, the push goes on
        let task = shared.tasks.spawn({
            let shared = shared.clone();
            async move { shared.run(Arc::new(push), &repository, output).await }.in_current_span()
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a push ended unexpectedly");
            refuse_all(names.into_iter(), "server error: see the server's log")
        })
    }
}

fn refuse_all(names: impl Iterator<Item = crate::model::RefName>, why: &str) -> Vec<RefAnswer> {
    names.map(|name| RefAnswer { name, result: Err(why.to_owned()) }).collect()
}

impl Shared {
    async fn run(self: Arc<Self>, push: Arc<Push>, repository: &Path, output: PushOutput) -> Vec<RefAnswer> {
        let parts = match self.open(&push, repository, &output).await {
            Ok(parts) => parts,
            Err(failure) => {
                tell(&failure, &output);
                let names = push.updates.iter().map(|u| u.name.clone());
                return refuse_all(names, &shorten_reason(&failure.reason));
            }
        };
        self.say_what_is_behind(&push, &output).await;
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        if push.options.cancel_on_disconnect {
            let lanes = parts.iter().filter_map(|part| match part {
                Part::Build(job) => Some(Arc::clone(&job.lane)),
                _ => None,
            });
            let (lanes, output): (Vec<_>, _) = (lanes.collect(), output.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    // what is at its commit point, or at its end, goes on
                    () = output.gone() => {
                        for lane in lanes {
                            let _ = lane.stop(Stop::ClientGone);
                        }
                    }
                }
            });
        }
        let atomic = push.atomic && push.updates.len() > 1;
        match (push.options.detach, atomic) {
            (true, _) => self.run_detached(&push, parts, repository, &output, atomic).await,
            (false, true) => self.run_atomic(&push, parts, repository, &output).await,
            (false, false) => {
                let mut answers = Vec::with_capacity(parts.len());
                for part in parts {
                    let name = part.update().name.clone();
                    let result = match self.prepare(part).await {
                        Ok(ready) => self.commit(&push, repository, vec![ready], &output).await,
                        Err(reason) => Err(reason),
                    };
                    answers.push(RefAnswer { name, result });
                }
                answers
            }
        }
    }

    /// Rows, held commits and lanes for all refs that build: before anything is built, moved or answered.
    async fn open(
        &self,
        push: &Arc<Push>,
        repository: &Path,
        output: &PushOutput,
    ) -> Result<Vec<Part>, Failure> {
        let report = |report: Report| from_report(report);
        let mut parts = Vec::with_capacity(push.updates.len());
        let mut builds = Vec::new();
        for update in &push.updates {
            match wish(push, update) {
                Some(Ok(why)) => {
                    if let Some(why) = why {
                        output.line(&format!("-----> {} stored, not built: {why}", update.name.short()));
                    }
                    parts.push(Part::Alone(update.clone()));
                }
                Some(Err(why)) => parts.push(Part::Not(update.clone(), why)),
                None => {
                    builds.push(row(push, update));
                    parts.push(Part::Alone(update.clone()));
                }
            }
        }
        if push.options.detach && !builds.is_empty() {
            let queue = self.queue.snapshot();
            if queue.waiting.len().saturating_add(builds.len()) > queue.limits.waiting.max(1) {
                let text = format!("{} builds are waiting already", queue.waiting.len());
                return Err(report(
                    Report::new(crate::error::Kind::Unavailable, text).hint("push again in a while"),
                ));
            }
        }
        // a store that cannot write refuses the push
        self.store.create_builds(&builds).await.map_err(|e| report(e.into()))?;
        self.pass(Point::AfterAccept).await;
        let Some(lanes) = self.lanes.enter(&push.app.id, &builds) else {
            let stopping = Report::new(crate::error::Kind::Unavailable, "the server is stopping");
            let failure = report(stopping.hint("push again in a moment"));
            let reason = Some(shorten_reason(&failure.reason));
            let end =
                crate::store::Finished::as_state(crate::model::BuildState::Interrupted, now_ms(), reason);
            for build in &builds {
                self.finish(&build.id, &end).await;
            }
            return Err(failure);
        };
        for (build, lane) in builds.into_iter().zip(lanes) {
            let name = build.reference.clone();
            let kept = refs::keep(repository, &build.id, &build.commit);
            let job = self.job(push, build, lane, repository.to_owned(), output.clone()).await;
            let job = job.map_err(|e| report(e.into()))?;
            if let Some(part) = parts.iter_mut().find(|part| part.update().name == name) {
                *part = match kept {
                    Ok(()) => Part::Build(Box::new(job)),
                    Err(error) => {
                        let update = job.update.clone();
                        Part::Not(update, self.fail(job, report(error.into())).await)
                    }
                };
            }
        }
        Ok(parts)
    }

    /// A pusher learns of a ref whose earlier push was accepted and has no image.
    async fn say_what_is_behind(&self, push: &Push, output: &PushOutput) {
        match self.store.behind(&push.app.name).await {
            Ok(behind) => {
                let named = |name| push.updates.iter().any(|update| update.name == name);
                for one in behind.into_iter().filter(|one| named(one.reference.clone())) {
                    output.line(&format!("       {one}"));
                }
            }
            Err(error) => tracing::warn!(%error, "looking for refs without image"),
        }
    }

    /// All refs are built first; then all move, or none does.
    async fn run_atomic(
        &self,
        push: &Arc<Push>,
        parts: Vec<Part>,
        repository: &Path,
        output: &PushOutput,
    ) -> Vec<RefAnswer> {
        let mut ready = Vec::new();
        let mut failed: Option<(crate::model::RefName, String)> = None;
        for part in parts {
            let name = part.update().name.clone();
            if let Some((first, _)) = &failed {
                if let Part::Build(job) = part {
                    self.fail(*job, beside(first.short())).await;
                }
                continue;
            }
            match self.prepare(part).await {
                Ok(one) => ready.push(one),
                Err(reason) => failed = Some((name, reason)),
            }
        }
        let result = match &failed {
            None => self.commit(push, repository, ready, output).await,
            Some((name, _)) => {
                for (job, _) in ready.into_iter().filter_map(|one| one.built) {
                    self.fail(*job, beside(name.short())).await;
                }
                Err(format!("atomic push: {} failed", name.short()))
            }
        };
        let answer = |update: &RefUpdate| match &failed {
            Some((name, reason)) if *name == update.name => Err(reason.clone()),
            _ => result.clone(),
        };
        push.updates.iter().map(|u| RefAnswer { name: u.name.clone(), result: answer(u) }).collect()
    }

    /// The refs move and are answered at once; what is to be built goes on by itself.
    async fn run_detached(
        self: &Arc<Self>,
        push: &Arc<Push>,
        parts: Vec<Part>,
        repository: &Path,
        output: &PushOutput,
        atomic: bool,
    ) -> Vec<RefAnswer> {
        let groups: Vec<Vec<Part>> =
            if atomic { vec![parts] } else { parts.into_iter().map(|part| vec![part]).collect() };
        let mut answers = Vec::new();
        for group in groups {
            let names: Vec<_> = group.iter().map(|part| part.update().name.clone()).collect();
            let result = self.accept(push, group, repository, output).await;
            answers.extend(names.into_iter().map(|name| RefAnswer { name, result: result.clone() }));
        }
        answers
    }

    async fn accept(
        self: &Arc<Self>,
        push: &Arc<Push>,
        group: Vec<Part>,
        repository: &Path,
        output: &PushOutput,
    ) -> Result<(), String> {
        let refused = group.iter().find_map(|part| match part {
            Part::Not(_, why) => Some(why.clone()),
            Part::Build(job) => job.lane.why().map(|_| "it was cancelled".to_owned()),
            Part::Alone(_) => None,
        });
        let moves: Vec<Move> = group.iter().map(|part| Move::of_ref(part.update().clone(), None)).collect();
        let committed = match refused {
            Some(why) => Err(Failure::new(why.clone(), why)),
            None => {
                let discard = EventSink::discard();
                let committed = self.tagger.commit(&push.app, repository, moves, &discard).await;
                committed.map_err(|error| from_report(Report::from(error)))
            }
        };
        let committed = match committed {
            Ok(committed) => committed,
            Err(failure) => {
                for part in group {
                    if let Part::Build(job) = part {
                        self.fail(*job, failure.clone()).await;
                    }
                }
                return Err(shorten_reason(&failure.reason));
            }
        };
        for (part, generation) in group.into_iter().zip(committed.generations) {
            let Generation { reference, number, commit } = &generation;
            let Part::Build(job) = part else {
                self.moved_alone(push, reference, commit, *number).await;
                continue;
            };
            job.lane.accept(*number);
            if let Err(error) = self.store.accept_build(&job.build.id, *number).await {
                // after a crash the ref itself says that it was accepted
                tracing::warn!(build = %job.build.id, %error, "the record does not say yet that the ref has moved");
            }
            self.lanes.moved(&push.app.id, reference, commit, *number, None);
            let short = job.build.id.short();
            output.line(&format!("-----> {} has moved; build {short} goes on by itself", reference.short()));
            output.line(&format!(
                "       follow it: ssh HOST logs {short} -f, or lemnos builds logs {short} -f"
            ));
            let shared = self.clone();
            self.tasks
                .spawn(async move { shared.follow_through(*job, Some(generation)).await }.in_current_span());
        }
        Ok(())
    }

    /// Builds what nobody waits for, and has the tags follow; or moves the ref, for a retry of what was not accepted.
    pub(super) async fn follow_through(&self, job: Job, generation: Option<Generation>) {
        let published = match self.drive(&job).await {
            Ok(Built::Published(published)) => published,
            Ok(Built::PlanOnly) => return self.succeed(job, Vec::new(), None).await,
            Err(halt) => return drop(self.halt(job, halt).await),
        };
        if let Err(why) = job.lane.begin_commit() {
            return drop(self.halt(job, why.into()).await);
        }
        let one = match generation {
            _ if job.push.options.dry_try => Move::of_try(published.clone()),
            Some(generation) => Move::following(generation, published.clone()),
            None => Move::of_ref(job.update.clone(), published.clone()),
        };
        match self.tagger.commit(&job.push.app, &job.repository, vec![one], &job.events()).await {
            Ok(committed) => self.accepted(Box::new(job), published, &committed).await,
            Err(TagError::RefPending { cause }) => self.leave_to_the_journal(job, &cause.to_string()),
            Err(TagError::Overtaken { by, reference }) => {
                let halt = match self.build_of(by).await {
                    Some(by) => Stop::Superseded { by: by.id, commit: by.commit, user: by.user }.into(),
                    None => {
                        Halt::from(from_report(Report::from(TagError::Overtaken { by: None, reference })))
                    }
                };
                self.halt(job, halt).await;
            }
            Err(TagError::Gone { .. }) => drop(self.halt(job, Stop::Deleted.into()).await),
            Err(error) => drop(self.fail(job, from_report(Report::from(error))).await),
        }
    }

    async fn build_of(&self, id: Option<BuildId>) -> Option<Build> {
        self.store.build(&id?).await.ok().flatten()
    }

    /// Everything of one ref up to its commit point.
    async fn prepare(&self, part: Part) -> Result<Ready, String> {
        let job = match part {
            Part::Alone(update) => return Ok(Ready { update, built: None }),
            Part::Not(_, why) => return Err(why),
            Part::Build(job) => job,
        };
        match self.drive(&job).await {
            Ok(Built::Published(published)) if job.push.options.dry_try => {
                Err(self.finish_try(*job, published).await)
            }
            Ok(Built::Published(published)) => {
                Ok(Ready { update: job.update.clone(), built: Some((job, published)) })
            }
            Ok(Built::PlanOnly) => {
                let reason = "plan only: nothing was built".to_owned();
                self.end_plan(*job, reason.clone()).await;
                Err(reason)
            }
            Err(halt) => Err(self.halt(*job, halt).await),
        }
    }

    /// The commit point of one ref, or of all refs of an atomic push.
    async fn commit(
        &self,
        push: &Push,
        repository: &Path,
        ready: Vec<Ready>,
        output: &PushOutput,
    ) -> Result<(), String> {
        let jobs = || ready.iter().filter_map(|one| one.built.as_ref().map(|(job, _)| job));
        let events = jobs().next().map_or_else(EventSink::discard, |job| job.events());
        // whoever stopped one of them was in time
        let stopped =
            jobs().find_map(|job| job.lane.begin_commit().err().map(|why| (job.build.id.clone(), why)));
        if let Some((id, why)) = stopped {
            let mut answer = "it was stopped".to_owned();
            for (job, _) in ready.into_iter().filter_map(|one| one.built) {
                if job.build.id == id {
                    answer = self.halt(*job, why.clone().into()).await;
                } else {
                    self.fail(*job, beside("another ref")).await;
                }
            }
            return Err(answer);
        }
        let moves = ready.iter().map(|one| {
            let published = one.built.as_ref().map(|(_, published)| published.clone());
            Move::of_ref(one.update.clone(), published.unwrap_or_default())
        });
        let error = match self.tagger.commit(&push.app, repository, moves.collect(), &events).await {
            Ok(committed) => {
                for one in ready {
                    match one.built {
                        Some((job, published)) => self.accepted(job, published, &committed).await,
                        None => {
                            let is_mine = |g: &&Generation| g.reference == one.update.name;
                            let number = committed.generations.iter().find(is_mine).map_or(0, |g| g.number);
                            self.moved_alone(push, &one.update.name, &one.update.new, number).await;
                        }
                    }
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let pending = matches!(error, TagError::RefPending { .. });
        let failure = from_report(Report::from(error));
        let mut told = false;
        for (job, _) in ready.into_iter().filter_map(|one| one.built) {
            told = true;
            if pending {
                self.leave_to_the_journal(*job, &failure.cause);
            } else {
                self.fail(*job, failure.clone()).await;
            }
        }
        if !told || pending {
            tell(&failure, output);
        }
        Err(shorten_reason(&failure.reason))
    }

    /// Ref and tags have moved for this build.
    async fn accepted(&self, job: Box<Job>, published: Vec<Publication>, committed: &Committed) {
        if let Some(text) = committed.notice() {
            job.note(&text);
        }
        let mine = |g: &&Generation| g.reference == job.update.name;
        if let Some(Generation { reference, number, commit }) = committed.generations.iter().find(mine) {
            self.lanes.moved(&job.push.app.id, reference, commit, *number, Some(&job.lane));
        }
        self.succeed(*job, published, None).await;
    }

    /// A ref that nothing is built for has moved, or is gone.
    async fn moved_alone(
        &self,
        push: &Push,
        name: &crate::model::RefName,
        at: &crate::model::Sha,
        number: i64,
    ) {
        if at.is_zero() {
            self.release_tags(push, name).await;
        }
        self.lanes.moved(&push.app.id, name, at, number, None);
    }

    /// A try: its own tags move, no ref does, and git is told so by a refusal that says it went well.
    async fn finish_try(&self, job: Job, published: Vec<Publication>) -> String {
        if let Err(why) = job.lane.begin_commit() {
            return self.halt(job, why.into()).await;
        }
        let moves = vec![Move::of_try(published.clone())];
        match self.tagger.commit(&job.push.app, &job.repository, moves, &job.events()).await {
            Ok(_) => {
                let at = published.iter().map(|one| match one.tags.first() {
                    Some(tag) => format!("{}:{tag}", one.image),
                    None => one.image.to_string(),
                });
                let reason = format!("try succeeded: {}; no ref moved", at.collect::<Vec<_>>().join(", "));
                self.succeed(job, published, Some(reason.clone())).await;
                reason
            }
            Err(error) => self.fail(job, from_report(Report::from(error))).await,
        }
    }
}

/// The record of a ref that builds.
fn row(push: &Push, update: &RefUpdate) -> Build {
    let id = BuildId::generate();
    Build {
        started_at_ms: now_ms(),
        push: push.id.clone(),
        key: Some(push.key.clone()),
        old: update.old.clone(),
        detached: push.options.detach,
        options: push.options.clone(),
        ..Build::queued(id, push.app.name.clone(), push.user.clone(), update.name.clone(), update.new.clone())
    }
}

/// None: it builds. Else it is moved alone, perhaps with why, or refused.
fn wish(push: &Push, update: &RefUpdate) -> Option<Result<Option<String>, String>> {
    if update.is_delete() {
        return Some(Ok(None));
    }
    match plan::builds(&push.app.settings, &update.name) {
        WhichRef::NotBuilt(why) if push.options.plan || push.options.dry_try => {
            Some(Err(format!("{why}, so there is nothing to plan or try")))
        }
        WhichRef::NotBuilt(why) => Some(Ok(Some(why))),
        _ => None,
    }
}

/// Why a ref of an atomic push failed that was well itself.
fn beside(name: &str) -> Failure {
    let reason = format!("atomic push: {name} failed");
    Failure::new(reason.clone(), reason).with_remedy("mend the ref that failed, or push without --atomic")
}

/// Shows a failure that belongs to no build.
fn tell(failure: &Failure, output: &PushOutput) {
    output.line(&format!("error: {}", plain_line(&failure.cause)));
    if let Some(remedy) = &failure.remedy {
        output.line(&format!("hint: {}", plain_line(remedy)));
    }
}

impl Shared {
    async fn end_plan(&self, job: Job, reason: String) {
        // a plan says no "Done": nothing was
        let end =
            crate::store::Finished::as_state(crate::model::BuildState::Succeeded, now_ms(), Some(reason));
        self.end(job, end).await;
    }

    /// The tags have moved and the ref will: the journal knows, and its end is this build's.
    pub(super) fn leave_to_the_journal(&self, job: Job, cause: &str) {
        job.note(&format!("the ref is moved as soon as it can be: {cause}"));
        let id = job.build.id.clone();
        let (store, tagger) = (self.store.clone(), self.tagger.clone());
        tokio::spawn(async move {
            drop(job.recorder.finish().await);
            super::resume::await_journal(&store, &tagger, &id).await;
            drop(job.lane);
        });
    }
}
