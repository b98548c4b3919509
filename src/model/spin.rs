//! A spin application as data: what is built, what is fetched, and what the locked application will say.
//!
//! Everything has been checked and put in its normal form: inline components have names, triggers have ids, the profile has been
//! applied. Paths are relative to the application's root (`SpinPlan::root`), in `Tree`'s form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Attestations, Digest, ImageName, Sha, SourcePolicy};

/// What a build of an application has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinPlan {
    /// The directory of spin.toml in the tree, `""` for the root.
    pub root: String,
    pub app: SpinApp,
    /// In the order in which they have to run: what a component imports from a file of another's is built first.
    pub steps: Vec<SpinStep>,
    /// Components that are not built here.
    pub fetches: Vec<SpinFetch>,
    /// What the built tree has to give.
    pub wanted: SpinWanted,
    /// What decides a push's build besides the application.
    #[serde(default, skip_serializing_if = "SpinTerms::is_default")]
    pub terms: SpinTerms,
}

/// The terms of a push's build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpinTerms {
    /// The id of the application's git tree; none for a directory that git does not keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Sha>,
    /// Keeps cache directories, and the steps that ran over them, of different apps and refs apart.
    pub cache_namespace: String,
    /// What of the application's directory no builder is sent, as lines of `.dockerignore`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Every step runs again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Toolchain images are looked up again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// What the operator lets it take from outside: an artifact that was made under another policy does not serve again.
    #[serde(skip_serializing_if = "SourcePolicy::is_default")]
    pub policy: SourcePolicy,
    /// What the builder is to say of the build.
    #[serde(skip_serializing_if = "Attestations::is_none")]
    pub attest: Attestations,
}

impl SpinTerms {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl SpinPlan {
    /// What decides the artifact but for its annotations: equal keys may share all but the manifest. None where the tree has
    /// no id. Where a step's cached results are found is left out: another ref's artifact of the same tree serves as well.
    pub fn fingerprint(&self, image: &ImageName) -> Option<Digest> {
        self.terms.tree.as_ref()?;
        let mut key = self.clone();
        key.terms.cache_namespace = String::new();
        key.terms.no_cache = false;
        key.terms.pull = false;
        let json = serde_json::to_vec(&("spin", super::BuildPlan::VERSION, image, key)).ok()?;
        Some(Digest::of(&json))
    }
}

/// The build commands of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinStep {
    pub component: String,
    /// The image that the commands run in.
    pub image: String,
    /// Run first, by lemnos's recipe for the toolchain.
    pub prepare: Vec<String>,
    /// Directories of the image that outlive the build.
    pub caches: Vec<String>,
    /// Each by `sh -c`, one after the other.
    pub commands: Vec<String>,
    /// `""` for the application's root.
    pub workdir: String,
}

/// A component that is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinFetch {
    pub component: String,
    pub source: SpinSource,
}

/// Paths that are taken out of the built tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpinWanted {
    /// Files that must be there: components.
    pub files: Vec<String>,
    /// Files or directories, with all that is below; `""` is everything.
    pub places: Vec<String>,
}

/// Where the WebAssembly of a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpinSource {
    /// A file of the application, in the tree or built.
    Path(String),
    Url {
        url: String,
        digest: Digest,
    },
    /// A package in a registry of WebAssembly packages; the version is exact.
    Package {
        registry: Option<String>,
        package: String,
        version: String,
    },
}

/// A file mount of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpinMount {
    /// A file, a directory or a pattern, mounted where it is.
    Pattern(String),
    /// A file or a directory, mounted at `destination` (without its leading `/`).
    Placed { source: String, destination: String },
}

/// The locked application, but for contents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpinApp {
    pub name: String,
    /// Empty where the manifest has none; so are all texts.
    pub version: String,
    pub description: String,
    pub authors: Vec<String>,
    pub profile: Option<String>,
    /// `[application.trigger.TYPE]`.
    pub trigger_settings: BTreeMap<String, Json>,
    pub variables: BTreeMap<String, SpinVariable>,
    pub triggers: Vec<SpinTrigger>,
    pub components: Vec<SpinComponent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinVariable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// None: it must be given when the application runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinTrigger {
    pub id: String,
    /// `http`, `redis` …
    pub kind: String,
    /// With `component` in it.
    pub config: BTreeMap<String, Json>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinComponent {
    pub id: String,
    pub description: String,
    pub source: SpinSource,
    pub build: Option<SpinBuild>,
    pub environment: BTreeMap<String, String>,
    pub variables: BTreeMap<String, String>,
    pub files: Vec<SpinMount>,
    pub exclude_files: Vec<String>,
    pub allowed_outbound_hosts: Vec<String>,
    /// It talks to other components: the host must know how.
    pub service_chaining: bool,
    pub key_value_stores: Vec<String>,
    pub sqlite_databases: Vec<String>,
    pub ai_models: Vec<String>,
}

/// `[component.ID.build]`, which the locked application repeats, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpinBuild {
    pub command: SpinCommand,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<String>,
    /// As it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
}

/// One command or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SpinCommand {
    One(String),
    Several(Vec<String>),
}

impl SpinCommand {
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(command) => std::slice::from_ref(command),
            Self::Several(commands) => commands,
        }
    }
}
