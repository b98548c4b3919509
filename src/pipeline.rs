//! One ref's build, stage by stage: the only module that knows their order.
//!
//! receive's tree -> detect -> plan -> solve -> assemble. Each stage is a function from one value to the next; what goes
//! wrong in any of them becomes a `Failure` here and nowhere else. No ref and no tag moves here: that is `tag`'s, once
//! the caller knows which refs go together.

mod cache;
mod context;
mod failure;
mod secrets;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::assemble::{self, Child};
use crate::detect;
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure, plain_json, plain_line};
use crate::failpoint::{Failpoints, Point};
use crate::metrics::{self, Stage};
use crate::model::{
    BuildId, BuildPlan, Digest, Generator, ImagePlan, ImagePrefix, Platform, Publication, Push, RefUpdate,
    Sha, SolveSpec, SourcePolicy, SourceRules, Tag,
};
use crate::plan::{self, BuildConfig, CommitFacts, PlanInput};
use crate::receive::tree::CommitTree;
use crate::registry::Registry;
use crate::solve;
use crate::store::{Published, Store};

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
    /// Frontend images that `# syntax=` may name.
    pub frontends: Vec<String>,
    /// The image that makes SBOMs where an app names none.
    pub sbom_generator: Option<Generator>,
    /// What builds may take from outside.
    pub policy: SourcePolicy,
    /// Registries that are spoken to in plain http besides loopback.
    pub plain_http: Vec<String>,
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
    /// The index stands in the registry by digest; no tag has moved.
    Published(Publication),
    /// `-o plan`: the plan was shown, nothing was built.
    PlanOnly,
}

/// Images of an earlier build that serve again.
struct Reusable {
    commit: Sha,
    children: Vec<Child>,
}

impl Pipeline {
    /// Runs the stages up to the pushed index. Nothing that is said on the way, and no failure, has a secret in it.
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
        let plan = self.plan_with(job, &rules, events).await?;
        self.pass(Point::AfterPlan).await?;
        if job.push.options.plan {
            let json = serde_json::to_string_pretty(&plan)
                .map_err(|e| internal(format!("writing the plan: {e}")))?;
            events.emit(BuildEvent::Plan { json: plain_json(&json) });
            return Ok(Built::PlanOnly);
        }
        let [image] = plan.images.as_slice() else {
            return Err(internal(format!("a plan of {} images, where one is expected", plan.images.len())));
        };
        secrets::refuse_published(image, secrets.masker(), events)?;
        self.claim_tags(job, image).await?;
        if let Some(earlier) = self.reusable(job, image).await {
            events.emit(BuildEvent::Reused {
                children: earlier.children.len(),
                commit: earlier.commit.clone(),
            });
            match self.assemble(job, image, vec![earlier.children], events).await {
                Ok(publication) => return Ok(Built::Published(publication)),
                Err(error) if error.may_lack_children() => events.emit(BuildEvent::Note {
                    text: "the registry no longer has all of them: building after all".to_owned(),
                }),
                Err(error) => return Err(from_report(Report::from(error))),
            }
        }
        let children = self.solve(job, &plan, image, &rules, secrets, events).await?;
        let remember = self.remember(&plan, image, children.clone());
        let ((), assembled) = tokio::join!(remember, self.assemble(job, image, children, events));
        assembled.map(Built::Published).map_err(|e| from_report(Report::from(e)))
    }

    async fn pass(&self, point: Point) -> Result<(), Failure> {
        self.failpoints.reach(point).await.map_err(|injected| internal(injected.to_string()))
    }

    /// What would be built.
    pub async fn plan(&self, job: &RefBuild, events: &EventSink) -> Result<BuildPlan, Failure> {
        let rules = self.source_rules(job).await?;
        self.plan_with(job, &rules, events).await
    }

    /// The commit's tree -> detect -> plan, all on one blocking thread.
    async fn plan_with(
        &self,
        job: &RefBuild,
        rules: &Arc<SourceRules>,
        events: &EventSink,
    ) -> Result<BuildPlan, Failure> {
        let _timing = metrics::time(Stage::Plan);
        let (job, events, settings, rules) =
            (job.clone(), events.clone(), self.settings.clone(), rules.clone());
        blocking(move || plan_commit(&job, &settings, &rules, &events)).await
    }

    async fn claim_tags(&self, job: &RefBuild, image: &ImagePlan) -> Result<(), Failure> {
        let caches = image.solves.iter().flat_map(SolveSpec::written_caches);
        let owned: Vec<Tag> = image.owned_tags().iter().cloned().chain(caches).collect();
        self.store
            .claim_tags(&job.push.app.id, &image.name, &job.update.name, &owned)
            .await
            .map_err(|e| from_report(Report::from(e)))
    }

    /// The images of an earlier build of the same tree and settings, where they still stand in the registry.
    async fn reusable(&self, job: &RefBuild, image: &ImagePlan) -> Option<Reusable> {
        if job.push.options.no_cache || job.push.options.rebuild {
            return None;
        }
        let published = match self.store.published(&fingerprint(image)?).await {
            Ok(published) => published?,
            Err(error) => {
                tracing::warn!(%error, "earlier builds cannot be looked up: building");
                return None;
            }
        };
        let children: Vec<Child> = serde_json::from_str(&published.children_json).ok()?;
        let heads = children.iter().map(async |child| {
            let found = self.registry.head_manifest(&image.name, &child.digest.clone().into()).await;
            matches!(found, Ok(Some(_)))
        });
        let all_stand = futures::future::join_all(heads).await.into_iter().all(|stands| stands);
        all_stand.then_some(Reusable { commit: published.commit, children })
    }

    async fn solve(
        &self,
        job: &RefBuild,
        plan: &BuildPlan,
        image: &ImagePlan,
        rules: &Arc<SourceRules>,
        secrets: &solve::BuildSecrets,
        events: &EventSink,
    ) -> Result<Vec<Vec<Child>>, Failure> {
        let _timing = metrics::time(Stage::Solve);
        let mut pushed: Vec<(Digest, Option<Platform>)> = Vec::new();
        let mut ledgers = Vec::new();
        for spec in &image.solves {
            let opened = self.open_context(job, &plan.commit, spec, &image.name, rules, secrets).await?;
            self.pass(Point::AfterContext).await?;
            let insecure = self.settings.plain_http.iter().any(|host| host == image.name.host());
            let app = job.push.app.name.as_str();
            let spec = self.with_caches_that_stand(spec, &image.name).await;
            let solving = self.builders.solve(app, &spec, &image.name, insecure, &opened.dirs, events);
            let solved = tokio::select! {
                biased;
                () = job.stop.cancelled() => Err(internal("the build was stopped")),
                solved = solving => solved,
            };
            let parts = match solved {
                Ok(parts) => parts,
                Err(failure) => {
                    self.keep_ledger(opened.ledger, &opened.key).await;
                    return Err(failure);
                }
            };
            ledgers.push((opened.ledger, opened.key));
            pushed.extend(parts.into_iter().map(|part| {
                let only = match part.platforms.as_slice() {
                    [only] => Some(only.clone()),
                    _ => None,
                };
                (part.digest, only)
            }));
        }
        self.pass(Point::AfterSolve).await?;
        // one waits for the disk, the other for the registry
        let keep = async {
            for (ledger, key) in ledgers {
                self.keep_ledger(ledger, &key).await;
            }
        };
        tracing::info!(build = %job.build, parts = pushed.len(), "solved");
        let ((), fetched) = tokio::join!(keep, assemble::fetch(&self.registry, &image.name, &pushed));
        fetched.map_err(|e| from_report(Report::from(e)))
    }

    /// Lets the next build of the same tree and settings take these images. Forgetting costs a solve, not a push.
    async fn remember(&self, plan: &BuildPlan, image: &ImagePlan, children: Vec<Vec<Child>>) {
        let Some(fingerprint) = fingerprint(image) else { return };
        let flat: Vec<Child> = children.into_iter().flatten().collect();
        let Ok(children_json) = serde_json::to_string(&flat) else { return };
        let published = Published { image: image.name.clone(), commit: plan.commit.clone(), children_json };
        if let Err(error) = self.store.put_published(&fingerprint, &published).await {
            tracing::warn!(%error, "this build's images are not remembered");
        }
    }

    async fn assemble(
        &self,
        job: &RefBuild,
        image: &ImagePlan,
        children: Vec<Vec<Child>>,
        events: &EventSink,
    ) -> Result<Publication, assemble::AssembleError> {
        let _timing = metrics::time(Stage::Assemble);
        let platforms: Vec<Platform> = image.solves.iter().flat_map(|s| s.platforms.clone()).collect();
        let index = assemble::index(&platforms, children, &image.annotations)?;
        let digest = assemble::push(&self.registry, &image.name, &index, &self.failpoints).await?;
        tracing::info!(build = %job.build, image = %image.name, %digest, "assembled");
        events.emit(BuildEvent::Assembled { image: image.name.clone(), digest: digest.clone(), platforms });
        Ok(Publication {
            build: job.build.clone(),
            image: image.name.clone(),
            index: digest,
            media_type: index.media_type,
            index_bytes: index.bytes,
            tags: image.tags.clone(),
            unshared: image.unshared,
        })
    }
}

/// What decides the images' content, where they have one solve and a tree with an id.
fn fingerprint(image: &ImagePlan) -> Option<Digest> {
    match image.solves.as_slice() {
        [only] => only.fingerprint(&image.name),
        _ => None,
    }
}

fn plan_commit(
    job: &RefBuild,
    settings: &Settings,
    rules: &SourceRules,
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
        image: &image,
        commit: CommitFacts { sha: commit.sha.clone(), committed_at_s: commit.committer_time_s },
        reference: Some(&job.update.name),
        options: &push.options,
        frontends: &settings.frontends,
        policy: &settings.policy,
        sources: rules,
        sbom_generator: settings.sbom_generator.as_ref(),
        source_url: None,
        try_id: job.build.short(),
    })
    .map_err(|e| from_report(Report::from(e)))?;
    for note in &plan.notes {
        events.emit(BuildEvent::Note { text: plain_line(note) });
    }
    if let [image] = plan.images.as_slice() {
        events.emit(BuildEvent::Planned {
            image: image.name.clone(),
            platforms: image.solves.iter().flat_map(|s| s.platforms.clone()).collect(),
            tags: image.tags.clone(),
        });
    }
    Ok(plan)
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
