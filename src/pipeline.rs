//! One ref's build, stage by stage: the only module that knows their order.
//!
//! receive's tree -> detect -> plan -> solve -> assemble. Each stage is a function from one value to the next; what goes
//! wrong in any of them becomes a `Failure` here and nowhere else. What the stages do of a plan differs by kind of work: one
//! file each. No ref and no tag moves here: that is `tag`'s, once
//! the caller knows which refs go together.

mod cache;
mod context;
mod dockerfile;
mod earlier;
mod failure;
mod ko;
mod manifests;
mod scratch;
mod secrets;
mod sources;
mod spin;
mod statements;

use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::detect;
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure, plain_json, plain_line};
use crate::failpoint::{Failpoints, Point};
use crate::kinds::ko::GitFacts;
use crate::metrics::{self, Stage};
use crate::model::{
    BuildId, BuildPlan, Destinations, Generator, ImagePlan, ImagePrefix, KindName, Publication, Push,
    RefUpdate, Sha, SolveSpec, SourcePolicy, SourceRules, Tag, Work,
};
use crate::plan::{self, BuildConfig, CommitFacts, FetchSecrets, PlanInput};
use crate::receive::tree::CommitTree;
use crate::registry::Registry;
use crate::solve;
use crate::solve::git_dir::{GitView, git_facts};
use crate::store::{Store, now_ms};

pub use failure::{from_report, internal, shorten_reason};

/// What the stages need besides the push itself; made once, by the composition root.
pub struct Pipeline {
    pub store: Store,
    pub registry: Registry,
    pub builders: solve::Pool,
    pub settings: Settings,
    pub failpoints: Failpoints,
}

/// Settings that several stages share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An app's image is this and the app's name, where it has no name of its own.
    pub image_prefix: ImagePrefix,
    /// Where pushes may put images besides their app's own.
    pub destinations: Destinations,
    /// Frontend images that `# syntax=` may name.
    pub frontends: Vec<String>,
    /// The image that makes SBOMs where an app names none.
    pub sbom_generator: Option<Generator>,
    /// What builds may take from outside.
    pub policy: SourcePolicy,
    /// Registries that are spoken to in plain http besides loopback.
    pub plain_http: Vec<String>,
    /// For what lies on disk for the time of a build.
    pub scratch: PathBuf,
    /// git's absolute path, for reading large files in a stream.
    pub git: PathBuf,
    /// Lines of a failing step that are shown again at the end.
    pub log_tail_lines: usize,
}

/// One ref of one push that builds.
#[derive(Debug, Clone)]
pub struct RefBuild {
    pub push: Arc<Push>,
    pub update: RefUpdate,
    pub repository: PathBuf,
    pub build: BuildId,
    /// Cancelled when the build is to end: the solve is dropped, and what was sent is remembered.
    pub stop: CancellationToken,
}

/// What became of it.
#[derive(Debug)]
pub enum Built {
    /// What is to be tagged stands in the registry by digest, one of each image; no tag has moved.
    Published(Vec<Publication>),
    /// `-o plan`: the plan was shown, nothing was built.
    PlanOnly,
}

/// What all images of one build have in common.
struct Making<'a> {
    job: &'a RefBuild,
    plan: &'a BuildPlan,
    rules: &'a Arc<SourceRules>,
    secrets: &'a solve::BuildSecrets,
    events: &'a EventSink,
    /// Unix seconds. One for all images, so that builders are told of one time of each file.
    began_s: i64,
}

/// So many Go programs of one push are built at once; each takes its builder's turn as any other build does.
const PROGRAMS_AT_ONCE: usize = 4;

impl Pipeline {
    /// Runs the stages up to what is pushed by digest. Nothing that is said on the way, and no failure, has a secret in it.
    pub async fn build(&self, job: &RefBuild, events: &EventSink) -> Result<Built, Failure> {
        let secrets = self.secrets(job).await?;
        let events = events.masked(secrets.masker());
        self.stages(job, &secrets, &events).await.map_err(|failure| failure.masked(secrets.masker()))
    }

    async fn stages(
        &self,
        job: &RefBuild,
        secrets: &solve::BuildSecrets,
        events: &EventSink,
    ) -> Result<Built, Failure> {
        let rules = self.source_rules(job).await?;
        let plan = self.plan_with(job, &rules, secrets, events).await?;
        self.pass(Point::AfterPlan).await?;
        if job.push.options.plan {
            let json = serde_json::to_string_pretty(&plan)
                .map_err(|e| internal(format!("writing the plan: {e}")))?;
            events.emit(BuildEvent::Plan { json: plain_json(&json) });
            return Ok(Built::PlanOnly);
        }
        // every image's tags are this ref's before any image is made
        for image in &plan.images {
            secrets::refuse_published(image, secrets.masker(), events)?;
            self.claim_name(job, image).await?;
            self.claim_tags(job, image).await?;
        }
        let began_s = now_ms().div_euclid(1000);
        let making = Making { job, plan: &plan, rules: &rules, secrets, events, began_s };
        let programs = plan.images.iter().all(|image| matches!(image.work, Work::Ko(_)));
        let at_once = if programs { PROGRAMS_AT_ONCE } else { 1 };
        let making_them: Vec<_> = plan.images.iter().map(|image| self.make(&making, image).boxed()).collect();
        let published: Vec<_> = stream::iter(making_them).buffered(at_once).try_collect().await?;
        self.resolve_manifests(&making, &published).await?;
        Ok(Built::Published(published))
    }

    async fn make(&self, making: &Making<'_>, image: &ImagePlan) -> Result<Publication, Failure> {
        match &image.work {
            Work::Dockerfile(solves) => self.dockerfile(making, image, solves).await,
            Work::Ko(program) => self.ko(making, image, program).await,
            Work::Spin(plan) => self.spin(making, image, plan).await,
        }
    }

    async fn pass(&self, point: Point) -> Result<(), Failure> {
        self.failpoints.reach(point).await.map_err(|injected| internal(injected.to_string()))
    }

    /// What would be built.
    pub async fn plan(&self, job: &RefBuild, events: &EventSink) -> Result<BuildPlan, Failure> {
        let rules = self.source_rules(job).await?;
        let secrets = self.secrets(job).await?;
        self.plan_with(job, &rules, &secrets, events).await
    }

    /// The commit's tree -> detect -> plan, all on one blocking thread.
    async fn plan_with(
        &self,
        job: &RefBuild,
        rules: &Arc<SourceRules>,
        secrets: &solve::BuildSecrets,
        events: &EventSink,
    ) -> Result<BuildPlan, Failure> {
        let _timing = metrics::time(Stage::Plan);
        let (job, events, settings, rules) =
            (job.clone(), events.clone(), self.settings.clone(), rules.clone());
        let secrets = FetchSecrets { netrc: secrets.has("netrc"), ssh: secrets.has_key("default") };
        blocking(move || plan_commit(&job, &settings, &rules, secrets, &events)).await
    }

    /// What is not the app's own name becomes this app's alone.
    async fn claim_name(&self, job: &RefBuild, image: &ImagePlan) -> Result<(), Failure> {
        let (app, prefix) = (&job.push.app, Some(&self.settings.image_prefix));
        if app.image(prefix).is_some_and(|own| own.same_repository(&image.name)) {
            return Ok(());
        }
        let claimed = self.store.claim_destination(&app.id, &image.name, prefix).await;
        claimed.map_err(|e| from_report(Report::from(e)))
    }

    async fn claim_tags(&self, job: &RefBuild, image: &ImagePlan) -> Result<(), Failure> {
        let caches = image.work.solves().iter().flat_map(SolveSpec::written_caches);
        let owned: Vec<Tag> = image.owned_tags().iter().cloned().chain(caches).collect();
        self.store
            .claim_tags(&job.push.app.id, &image.name, &job.update.name, &owned)
            .await
            .map_err(|e| from_report(Report::from(e)))
    }
}

fn plan_commit(
    job: &RefBuild,
    settings: &Settings,
    rules: &SourceRules,
    secrets: FetchSecrets,
    events: &EventSink,
) -> Result<BuildPlan, Failure> {
    let push = &job.push;
    let tree = CommitTree::open_ref_target(&job.repository, &job.update.new)
        .map_err(|e| from_report(Report::from(e)))?;
    let commit = tree.commit_info();
    events.emit(BuildEvent::Received {
        reference: job.update.name.clone(),
        commit: commit.sha.clone(),
        subject: plain_line(&commit.subject),
        user: push.user.to_string(),
    });
    let config = BuildConfig::read(&tree).map_err(|e| from_report(Report::from(e)))?;
    let detected = detect::detect(&tree, &push.app.settings, config.as_ref())
        .map_err(|e| from_report(Report::from(e)))?;
    events.emit(BuildEvent::Detected { kind: detected.kind, evidence: plain_line(&detected.evidence) });
    let image =
        push.app.image(Some(&settings.image_prefix)).ok_or_else(|| internal("the app has no image name"))?;
    let plan = plan::plan(&PlanInput {
        tree: &tree,
        detected: &detected,
        config: config.as_ref(),
        app: &push.app.name,
        app_id: &push.app.id,
        settings: &push.app.settings,
        secrets,
        image: &image,
        commit: CommitFacts {
            sha: commit.sha.clone(),
            committed_at_s: commit.committer_time_s,
            git: (detected.kind == KindName::Ko).then(|| facts(job, &commit.sha)).transpose()?,
        },
        reference: Some(&job.update.name),
        options: &push.options,
        frontends: &settings.frontends,
        policy: &settings.policy,
        sources: rules,
        destinations: Some(&settings.destinations),
        sbom_generator: settings.sbom_generator.as_ref(),
        source_url: None,
        try_id: job.build.short(),
    })
    .map_err(|e| from_report(Report::from(e)))?;
    for note in &plan.notes {
        events.emit(BuildEvent::Note { text: plain_line(note) });
    }
    for image in &plan.images {
        events.emit(BuildEvent::Planned {
            image: image.name.clone(),
            platforms: image.work.platforms(),
            tags: image.tags.clone(),
        });
    }
    Ok(plan)
}

/// What git says of the commit, for the templates of ko's file.
fn facts(job: &RefBuild, commit: &Sha) -> Result<GitFacts, Failure> {
    let (reference, pushed) = (job.update.name.to_string(), ko::pushed(job));
    let view = GitView { repository: &job.repository, tip: commit, reference: &reference, pushed: &pushed };
    git_facts(&view).map_err(|e| from_report(Report::from(e)))
}

/// Runs what reads files or git objects off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or_else(|error| Err(internal(format!("a stage ended unexpectedly: {error}"))))
}
