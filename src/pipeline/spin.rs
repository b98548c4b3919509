//! A spin application's artifact: BuildKit runs the components' commands, components that are elsewhere are fetched, and one
//! manifest over their bytes is made and pushed here.
//!
//! An unchanged tree is not built again: what the manifest names stands in the registry, and only annotations differ. Must not
//! make an index: no runtime takes one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::{Dirs, unless_stopped};
use super::statements::completed;
use super::{Making, Pipeline, blocking, from_report};
use crate::assemble::spin::{
    Artifact, Gathered, Places, Renewed, Sources, artifact, fetched, gather, manifest, publish, renewed,
};
use crate::error::Report;
use crate::event::{BuildEvent, Failure, plain_line};
use crate::failpoint::Point;
use crate::fetch::{FetchConfig, Fetcher};
use crate::metrics::{self, Stage};
use crate::model::{
    Digest, Form, ImagePlan, Material, Predicate, Publication, Sha, SpinFetch, SpinPlan, SpinSource,
};
use crate::receive::tree::DirTree;
use crate::solve::context::GitContext;
use crate::solve::spin::{CONTEXT, Steering, steer};
use crate::solve::{DirSource, FileGraph, FileSolve, Statements};

/// What comes back of a build at most: more than an artifact may hold, as mounts may leave files out.
const EXPORT_LIMIT_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// What is kept of an artifact for later builds of the same tree.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The manifest, as text.
    manifest: String,
    /// What was attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statements: Vec<Digest>,
}

/// An artifact of the same contents as an earlier one, with what was attested of that.
struct Again {
    commit: Sha,
    made: Renewed,
    said: Vec<Predicate>,
}

impl Pipeline {
    pub(super) async fn spin(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        plan: &SpinPlan,
    ) -> Result<Publication, Failure> {
        let fingerprint = plan.fingerprint(&image.name);
        let earlier = self.earlier_artifact(making, image, plan, fingerprint.as_ref()).await;
        if let Some(Again { commit, made, said }) = earlier {
            making.events.emit(BuildEvent::Reused { children: 1, commit, form: Form::Artifact });
            let Renewed { media_type, digest, manifest: bytes, .. } = made;
            match manifest(&self.registry, &image.name, media_type, &digest, &bytes).await {
                Ok(()) => {
                    self.attest_artifact(image, &said, media_type, &digest, &bytes).await?;
                    return Ok(published(making, image, media_type, digest, bytes));
                }
                Err(error) => {
                    tracing::warn!(%error, "an earlier artifact does not serve again");
                    let text = "the registry no longer has all of it: building after all".to_owned();
                    making.events.emit(BuildEvent::Note { text });
                }
            }
        }
        // kept until everything is pushed
        let scratch = self.scratch().await?;
        // first, as it costs least and may be refused
        let files = unless_stopped(making.job, self.fetched(making, plan, scratch.path())).await?;
        let (built, said) = self.built(making, image, plan, scratch.path()).await?;
        self.pass(Point::AfterSolve).await?;
        let assembling = self.assembled(making, image, plan, built, files, scratch.path());
        let (made, materials) = unless_stopped(making.job, assembling).await?;
        let said = completed(said, &materials)?;
        let Artifact { media_type, digest, manifest, .. } = made;
        let statements = self.attest_artifact(image, &said, media_type, &digest, &manifest).await?;
        let kept = Kept { manifest: String::from_utf8_lossy(&manifest).into_owned(), statements };
        self.keep(making.plan, &image.name, fingerprint.as_ref(), &kept).await;
        Ok(published(making, image, media_type, digest, manifest))
    }

    /// An artifact of the same contents with this push's annotations, where the registry still has the contents.
    async fn earlier_artifact(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        plan: &SpinPlan,
        fingerprint: Option<&Digest>,
    ) -> Option<Again> {
        let (kept, commit) = self.recalled::<Kept>(making.job, fingerprint).await?;
        let made = renewed(kept.manifest.as_bytes(), &plan.app, &annotations(image)).ok()?;
        let stand = made
            .blobs
            .iter()
            .map(async |digest| matches!(self.registry.has_blob(&image.name, digest).await, Ok(true)));
        let all_stand = futures::future::join_all(stand).await.into_iter().all(|stands| stands);
        if !all_stand {
            return None;
        }
        let said = self.attested(&image.name, &kept.statements).await?;
        Some(Again { commit, made, said })
    }

    async fn attest_artifact(
        &self,
        image: &ImagePlan,
        said: &[Predicate],
        media_type: &str,
        digest: &Digest,
        manifest: &[u8],
    ) -> Result<Vec<Digest>, Failure> {
        let made = (media_type, manifest.len() as u64, digest);
        self.attest(&image.name, said, std::slice::from_ref(digest), &[made]).await
    }

    /// The directory in which the application stands with what its commands made, and what is attested of that.
    async fn built(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        plan: &SpinPlan,
        scratch: &Path,
    ) -> Result<(PathBuf, Vec<Predicate>), Failure> {
        let _timing = metrics::time(Stage::Solve);
        let served = |context: &GitContext| {
            Ok(Dirs::from([(CONTEXT.to_owned(), Arc::new(context.clone()) as Arc<dyn DirSource>)]))
        };
        let opened = self.open_context(making, &image.name, &plan.root, served).await?;
        self.pass(Point::AfterContext).await?;
        let steering = Steering {
            shared_key: opened.dirs.shared_key.clone(),
            cache_namespace: plan.terms.cache_namespace.clone(),
            excluded: plan.terms.excluded.clone(),
        };
        // the context is the application's directory itself
        let graph_plan = SpinPlan { root: String::new(), ..plan.clone() };
        let steered = move |gateway| -> futures::future::BoxFuture<'static, _> {
            Box::pin(steer(gateway, graph_plan.clone(), steering.clone()))
        };
        let out = scratch.join("built");
        let graph = FileGraph::Steered(&steered);
        let statements = Statements::of(&plan.terms.attest);
        let files = FileSolve { graph, out: &out, limit_bytes: EXPORT_LIMIT_BYTES, statements: &statements };
        let said = self.make_files(making, &files, opened).await?;
        Ok((out, said))
    }

    async fn fetched(
        &self,
        making: &Making<'_>,
        plan: &SpinPlan,
        scratch: &Path,
    ) -> Result<BTreeMap<String, PathBuf>, Failure> {
        if plan.fetches.is_empty() {
            return Ok(BTreeMap::new());
        }
        let config = FetchConfig { plain_http: self.settings.plain_http.clone(), ..FetchConfig::default() };
        let fetcher = Fetcher::new(config).map_err(|e| from_report(Report::from(e)))?;
        let sources = Sources {
            fetcher: &fetcher,
            registry: &self.registry,
            rules: making.rules,
            into: scratch,
            cache: None,
        };
        fetched(&plan.fetches, sources).await.map_err(|e| from_report(Report::from(e)))
    }

    async fn assembled(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        plan: &SpinPlan,
        built: PathBuf,
        files: BTreeMap<String, PathBuf>,
        scratch: &Path,
    ) -> Result<(Artifact, Vec<Material>), Failure> {
        let _timing = metrics::time(Stage::Assemble);
        let (app, annotations, scratch) = (plan.app.clone(), annotations(image), scratch.to_owned());
        let (made, gathered) = blocking(move || {
            let tree = DirTree::new(&built);
            let places = Places { dir: &built, tree: &tree, fetched: &files, scratch: &scratch };
            let gathered: Gathered = gather(&app, places).map_err(|e| from_report(Report::from(e)))?;
            let made = artifact(&app, &gathered.contents, gathered.archives.as_ref(), &annotations);
            Ok((made.map_err(|e| from_report(Report::from(e)))?, gathered))
        })
        .await?;
        for note in gathered.notes.iter().filter(|_| !plan.steps.is_empty()) {
            making.events.emit(BuildEvent::Note { text: plain_line(note) });
        }
        publish(&self.registry, &image.name, &made, &gathered, &self.failpoints)
            .await
            .map_err(|e| from_report(Report::from(e)))?;
        Ok((made, materials(plan, &gathered)))
    }
}

/// What the builder has not seen of an application.
fn materials(plan: &SpinPlan, gathered: &Gathered) -> Vec<Material> {
    let material = |fetch: &SpinFetch| {
        let uri = match &fetch.source {
            SpinSource::Url { url, .. } => url.clone(),
            SpinSource::Package { registry: Some(registry), package, version } => {
                format!("{registry}/{package}@{version}")
            }
            SpinSource::Package { registry: None, package, version } => format!("{package}@{version}"),
            SpinSource::Path(path) => path.clone(),
        };
        let content = gathered.contents.get(&fetch.component)?;
        Some(Material { uri, digest: content.wasm.digest.clone() })
    };
    plan.fetches.iter().filter_map(material).collect()
}

/// Those of the push, but for the title: spin.toml names the application.
fn annotations(image: &ImagePlan) -> BTreeMap<String, String> {
    let mut all = image.annotations.clone();
    all.remove("org.opencontainers.image.title");
    all
}

fn published(
    making: &Making<'_>,
    image: &ImagePlan,
    media_type: &str,
    digest: Digest,
    bytes: Vec<u8>,
) -> Publication {
    tracing::info!(build = %making.job.build, image = %image.name, %digest, "assembled");
    making.events.emit(BuildEvent::Assembled {
        image: image.name.clone(),
        digest: digest.clone(),
        platforms: Vec::new(),
        indexed: false,
    });
    Publication {
        build: making.job.build.clone(),
        image: image.name.clone(),
        digest,
        media_type: media_type.to_owned(),
        form: Form::Artifact,
        platforms: Vec::new(),
        bytes,
        tags: image.tags.clone(),
        unshared: image.unshared,
    }
}
