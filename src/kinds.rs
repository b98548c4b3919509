//! Kinds of builds: each says whether a tree is one of its own, and what then has to be solved.
//!
//! A new kind is one file here and one folder in `buildpacks/`. Pure: the same tree and settings give the same answer
//! anywhere; files are seen through `model::Tree` only. Must not touch a network, a clock or the environment, and must
//! not decide names of images, tags or annotations (that is `plan`).

mod attest;
mod build_config;
pub mod dockerfile;
mod errors;
pub mod ko;
mod melange;
pub mod spin;
mod wishes;

use crate::model::{
    AppName, AppSettings, Destinations, Detected, Generator, ImageName, KindName, Manifests, PushOptions,
    RefName, Sha, SourcePolicy, SourceRules, Tree, Work,
};

pub use attest::attest_attrs;
use attest::{attestations, provenance};
pub use build_config::{BUILD_CONFIG, BuildConfig};
use dockerfile::cache_namespace;
pub use dockerfile::{default_frontends, dockerfile_attrs};
pub use errors::{By, KindError};
use wishes::arguments;
pub use wishes::{Said, Wishes, check_build_arg};

/// What a kind says of a tree; the text is a clause that people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Yes { evidence: String },
    No { reason: String },
}

/// A kind of build.
pub trait Kind: Sync {
    fn name(&self) -> KindName;
    /// What a tree needs to be of this kind, as the end of "to be found, a tree needs …".
    fn needs(&self) -> &'static str;
    /// Whether this version makes such builds, or only recognises them.
    fn is_ready(&self) -> bool {
        false
    }
    /// Whether the tree is of this kind. An error where it clearly tries to be and cannot.
    fn detect(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError>;
    /// As `detect`, of a tree that another kind has won already: what costs much is not looked for.
    fn glance(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError> {
        self.detect(tree, wishes)
    }
    /// What has to be solved for a tree of this kind.
    fn plan(&self, input: &PlanInput<'_>, wishes: &Wishes) -> Result<Draft, KindError>;
}

/// Every kind, in the order in which they are asked: the first that says yes wins.
pub fn all() -> &'static [&'static dyn Kind] {
    &[&dockerfile::Dockerfile, &spin::Spin, &melange::Melange, &ko::Ko]
}

/// The kind of this name.
pub fn named(name: KindName) -> Option<&'static dyn Kind> {
    all().iter().copied().find(|kind| kind.name() == name)
}

/// What of a commit stands in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFacts {
    /// Zeros for a directory without a commit.
    pub sha: Sha,
    /// The committer's time, Unix seconds.
    pub committed_at_s: i64,
    /// What else git knows of it; looked up for kinds whose templates speak of it.
    pub git: Option<ko::GitFacts>,
}

impl CommitFacts {
    /// For a directory: no id, no time.
    pub fn none() -> Self {
        Self { sha: Sha::zero(), committed_at_s: 0, git: None }
    }
}

/// Which of the app's secrets fetch what a build needs; not what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchSecrets {
    /// One named `netrc`, for private modules.
    pub netrc: bool,
    /// An SSH key named `default`.
    pub ssh: bool,
}

/// Everything that a plan is made of. Equal inputs give equal plans.
pub struct PlanInput<'a> {
    pub tree: &'a dyn Tree,
    pub detected: &'a Detected,
    /// The root `build-config.yaml`, where there is one.
    pub config: Option<&'a BuildConfig>,
    pub app: &'a AppName,
    /// Server-chosen, never reused: names the app's cache mounts.
    pub app_id: &'a str,
    pub settings: &'a AppSettings,
    pub secrets: FetchSecrets,
    /// The effective image name.
    pub image: &'a ImageName,
    pub commit: CommitFacts,
    /// None for a plan without a ref: then no ref's tag is made.
    pub reference: Option<&'a RefName>,
    pub options: &'a PushOptions,
    /// Images that `# syntax=` may name (repositories, or with a tag or digest).
    pub frontends: &'a [String],
    /// What the operator lets builds take from outside, and what that means for this app.
    pub policy: &'a SourcePolicy,
    pub sources: &'a SourceRules,
    /// Which further names images may have; without a server nobody knows, and all are taken.
    pub destinations: Option<&'a Destinations>,
    /// The image that makes SBOMs where the app names none.
    pub sbom_generator: Option<&'a Generator>,
    /// Where the source can be looked at, when known.
    pub source_url: Option<&'a str>,
    /// What distinguishes the tags of this try from another's: the short commit, a build's short id.
    pub try_id: &'a str,
}

/// What a kind plans: images without tags or annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub images: Vec<DraftImage>,
    /// What the pusher should know, one line each.
    pub notes: Vec<String>,
    pub manifests: Option<Manifests>,
}

/// One image of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftImage {
    pub name: ImageName,
    pub work: Work,
}
