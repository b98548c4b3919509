//! One build from its row to its built index: its turn among the builds of its ref, its place in the queue, its time limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::lanes::{Entry, Lane, Stop};
use super::record::{LineSink, Recorder};
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure, plain_line};
use crate::failpoint::Point;
use crate::metrics;
use crate::model::{Build, Push, RefUpdate};
use crate::pipeline::{Built, RefBuild, from_report};
use crate::receive::{PushOutput, refs};
use crate::store::{StoreError, now_ms};

/// How long a build that was told to stop may take to keep what it has learned.
const STOPPING: Duration = Duration::from_millis(500);
/// Pause before an accepted build asks again for a place in a queue that was full.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A build under way. Its end is written before it is dropped.
pub(super) struct Job {
    pub push: Arc<Push>,
    pub update: RefUpdate,
    pub repository: PathBuf,
    pub build: Build,
    pub lane: Lane,
    pub recorder: Recorder,
}

/// Why nothing was built.
pub(super) enum Halt {
    Stopped(Stop),
    Failed(Failure),
}

impl From<Stop> for Halt {
    fn from(why: Stop) -> Self {
        Self::Stopped(why)
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(from_report(Report::from(error)))
    }
}

impl Job {
    pub fn events(&self) -> EventSink {
        self.recorder.sink()
    }

    pub fn note(&self, text: &str) {
        self.events().emit(BuildEvent::Note { text: plain_line(text) });
    }
}

impl Shared {
    /// A job of a build whose row stands.
    pub(super) async fn job(
        &self,
        push: &Arc<Push>,
        build: Build,
        lane: Lane,
        repository: PathBuf,
        output: PushOutput,
    ) -> Result<Job, StoreError> {
        let lines: LineSink = Arc::new(move |line: &str| output.line(line));
        let (color, beat) = (push.options.color, self.capacity.heartbeat);
        let recorder = Recorder::resume(self.store.clone(), build.id.clone(), color, beat, lines).await?;
        let update = build.update();
        Ok(Job { push: push.clone(), update, repository, build, lane, recorder })
    }

    /// Waits for its turn and its place, and builds.
    pub(super) async fn drive(&self, job: &Job) -> Result<Built, Halt> {
        // nobody waits for what cannot be won any more
        self.still_wins(job).await?;
        let tell = |other: &Entry| job.note(&waiting_for(other));
        self.lanes.turn(&job.lane, &job.repository, tell).await?;
        self.still_wins(job).await?;
        let queueing = metrics::time(metrics::Stage::Queue);
        let slot = {
            let what = format!("{} {}", job.push.app.name, job.update.name.short());
            let on_place = |place| job.note(&format!("waiting: {place}"));
            loop {
                let entering = self.queue.enter(&job.push.app.name, what.clone(), on_place);
                tokio::select! {
                    biased;
                    why = job.lane.stopped() => return Err(why.into()),
                    entered = entering => match entered {
                        Ok(slot) => break slot,
                        Err(full) if !job.lane.is_accepted() => {
                            return Err(from_report(Report::from(full)).into());
                        }
                        Err(_) => {}
                    },
                }
                // an accepted build is refused no more; the queue wakes those in it only
                tokio::select! {
                    biased;
                    why = job.lane.stopped() => return Err(why.into()),
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                }
            }
        };
        drop(queueing);
        self.store.start_build(&job.build.id, now_ms()).await?;
        job.lane.run();
        self.pass(Point::AfterQueue).await;
        self.still_wins(job).await?;
        tracing::info!(push = %job.push.id, build = %job.build.id, app = %job.push.app.name, user = %job.push.user, reference = %job.update.name, commit = %job.update.new, "build runs");
        let built = self.in_time(job).await;
        drop(slot);
        built
    }

    /// A push whose ref is not where it found it cannot win: it is refused without building.
    async fn still_wins(&self, job: &Job) -> Result<(), Halt> {
        if job.lane.is_accepted() || job.lane.is_aside() {
            return Ok(());
        }
        let (repository, name) = (job.repository.clone(), job.update.name.clone());
        let at = tokio::task::spawn_blocking(move || refs::at(&repository, &name)).await;
        match at {
            Ok(Ok(at)) if at != job.update.old => Err(Stop::Moved { at }.into()),
            Ok(Err(error)) => Err(from_report(Report::from(error)).into()),
            _ => Ok(()),
        }
    }

    async fn in_time(&self, job: &Job) -> Result<Built, Halt> {
        let stop = CancellationToken::new();
        let work = RefBuild {
            push: job.push.clone(),
            update: job.update.clone(),
            repository: job.repository.clone(),
            build: job.build.id.clone(),
            stop: stop.clone(),
        };
        let events = job.events();
        let mut building = std::pin::pin!(self.stages.build(&work, &events));
        let settings = &job.push.app.settings;
        let own = |seconds: Option<u32>, usual: Duration| {
            seconds.map_or(usual, |s| Duration::from_secs(u64::from(s)))
        };
        let whole = own(settings.build_timeout_s, self.capacity.build);
        let silence = own(settings.silence_timeout_s, self.capacity.silence);
        let app = &job.push.app.name;
        let halt: Halt = tokio::select! {
            biased;
            why = job.lane.stopped() => why.into(),
            built = &mut building => return built.map_err(Halt::from),
            () = tokio::time::sleep(whole) => {
                let cause = format!("build timeout: it took longer than {} s", whole.as_secs());
                Failure::new(cause.clone(), cause).with_remedy(format!(
                    "make the build shorter, or allow more: lemnos apps set {app} build-timeout=SECONDS"
                )).into()
            }
            () = job.recorder.silent_for(silence) => {
                let cause = format!("silence timeout: nothing came of the build for {} s", silence.as_secs());
                Failure::new(cause.clone(), cause).with_remedy(format!(
                    "have the step say what it does, or allow more: lemnos apps set {app} silence-timeout=SECONDS"
                )).into()
            }
        };
        stop.cancel();
        // what it knows of the files that were sent is worth keeping; the rest goes when it is dropped
        let _ = tokio::time::timeout(STOPPING, building).await;
        Err(halt)
    }
}

/// `waiting for build 1234567890 of main (0123456789ab by ada)`
fn waiting_for(other: &Entry) -> String {
    let (build, reference, commit) = (other.build.short(), other.reference.short(), other.commit.short(12));
    format!("waiting for build {build} of {reference} ({commit} by {})", other.user)
}
