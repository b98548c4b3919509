//! What a build is going to do, as data: no I/O has happened, no clock was read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AppName, Attestations, Compression, Digest, ImageName, KoImage, LayerCache, Manifests, Platform, RefName,
    Sha, SourcePolicy, SpinPlan, Tag,
};

/// A kind of build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindName {
    Dockerfile,
    Ko,
    Spin,
    Melange,
}

impl std::fmt::Display for KindName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dockerfile => "dockerfile",
            Self::Ko => "ko",
            Self::Spin => "spin",
            Self::Melange => "melange",
        })
    }
}

/// The verdict of detection: which kind, and why not the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    pub kind: KindName,
    /// Why this kind, as a clause: "Dockerfile at the root".
    pub evidence: String,
    /// Every other kind, with why it lost, in the order they were asked.
    pub others: Vec<(KindName, String)>,
}

/// The whole plan of one ref of one push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// Of this format; raised when a stored plan of an older one could not be read.
    pub version: u32,
    pub app: AppName,
    /// Zeros for a plan of a directory without a commit.
    pub commit: Sha,
    /// None for a plan of a directory without a ref.
    pub reference: Option<RefName>,
    pub detected: Detected,
    pub images: Vec<ImagePlan>,
    /// What the pusher should know before the build: tags that could not be made, settings overridden.
    pub notes: Vec<String>,
    /// What is resolved when the images are there, and kept with the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Manifests>,
}

impl BuildPlan {
    pub const VERSION: u32 = 1;
}

/// One image: the work that makes it, and what stands on what is tagged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePlan {
    pub name: ImageName,
    /// In the order they move: the unshared ones first.
    pub tags: Vec<Tag>,
    /// How many of `tags`, from the front, are named after the commit or the try alone (`git-…`, `try-…`): no ref owns
    /// them. All others belong to the ref that moves them and to no other.
    pub unshared: usize,
    /// On the index only, so that an unchanged tree reuses its children.
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub work: Work,
}

/// What makes an image, by kind of build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Solves whose images are the children of one index.
    #[serde(rename = "solves")]
    Dockerfile(Vec<SolveSpec>),
    /// A Go program that is compiled, and put on a base image here.
    #[serde(rename = "ko")]
    Ko(Box<KoImage>),
    /// A WebAssembly application, of which one manifest is made.
    #[serde(rename = "spin")]
    Spin(Box<SpinPlan>),
}

impl Work {
    /// What the image is made for, in order; none where it is for no platform.
    pub fn platforms(&self) -> Vec<Platform> {
        match self {
            Self::Dockerfile(solves) => solves.iter().flat_map(|solve| solve.platforms.clone()).collect(),
            Self::Ko(image) => image.compile.targets.iter().map(|target| target.platform.clone()).collect(),
            Self::Spin(_) => Vec::new(),
        }
    }

    /// Solves of a Dockerfile frontend; none of other kinds.
    pub fn solves(&self) -> &[SolveSpec] {
        match self {
            Self::Dockerfile(solves) => solves,
            Self::Ko(_) | Self::Spin(_) => &[],
        }
    }
}

impl ImagePlan {
    /// The tags that the ref must own before they may move.
    pub fn owned_tags(&self) -> &[Tag] {
        self.tags.get(self.unshared..).unwrap_or_default()
    }
}

/// One BuildKit frontend solve for several platforms; the `solve` stage splits it over builders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolveSpec {
    /// `dockerfile.v0`, or `gateway.v0` with `frontend_image`.
    pub frontend: String,
    /// The frontend image of a `# syntax=` line that the operator allows and the daemon does not have built in.
    #[serde(default)]
    pub frontend_image: Option<String>,
    pub platforms: Vec<Platform>,
    /// The directory of the tree that is the build context, `""` for the root.
    pub context_path: String,
    /// The id of that directory's git tree; none for a directory that git does not keep.
    pub context_tree: Option<Sha>,
    /// Path of the Dockerfile from the root of the tree.
    pub dockerfile_path: String,
    /// Digest of the Dockerfile's bytes (it may stand outside the context).
    pub dockerfile_digest: Option<Digest>,
    /// Digest of `DOCKERFILE.dockerignore` beside the Dockerfile, which rules in place of the context's `.dockerignore`
    /// (that one is in `context_tree`).
    #[serde(default)]
    pub ignore_digest: Option<Digest>,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub compression: Compression,
    pub no_cache: bool,
    /// Base images are looked up again.
    pub pull: bool,
    /// What the operator lets it take from outside: images that were made under another policy do not serve again.
    #[serde(default, skip_serializing_if = "SourcePolicy::is_default")]
    pub policy: SourcePolicy,
    #[serde(default, skip_serializing_if = "Attestations::is_none")]
    pub attest: Attestations,
    /// Where layers go for later builds.
    #[serde(default, skip_serializing_if = "LayerCache::is_off")]
    pub cache: LayerCache,
    /// By which tags of the image that is done.
    #[serde(default, skip_serializing_if = "CacheTags::is_empty")]
    pub cache_tags: CacheTags,
    /// `BUILDKIT_CACHE_MOUNT_NS`: cache mounts of different apps, or of different refs of one, never meet.
    pub cache_namespace: String,
    /// Stands in the key of every step that runs: cached steps serve within it only. That of the cache mounts where there may
    /// be any, else the app's.
    #[serde(default)]
    pub step_namespace: String,
}

/// Tags of the app's image by which layers are found again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheTags {
    /// Written by this build; none: it only reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<Tag>,
    /// The ref's own first, then the main branch's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Tag>,
}

impl CacheTags {
    pub fn is_empty(&self) -> bool {
        self.export.is_none() && self.imports.is_empty()
    }

    /// `tag` as a solve uses it that has some of the platforms, this one first: solves of one build on several builders write
    /// beside each other.
    pub fn of_one(tag: &Tag, platform: &Platform) -> Option<Tag> {
        format!("{tag}-{}", platform.to_string().replace('/', "-")).parse().ok()
    }
}

impl SolveSpec {
    /// Every tag that the layers of this solve may be written to, however it is split over builders.
    pub fn written_caches(&self) -> Vec<Tag> {
        let Some(tag) = &self.cache_tags.export else { return Vec::new() };
        let parts = self.platforms.iter().filter_map(|platform| CacheTags::of_one(tag, platform));
        std::iter::once(tag.clone()).chain(parts).collect()
    }

    /// What decides the result, commit and tags left out: equal keys may share children. None where the tree has no id.
    /// Left out are `no_cache` and `pull`, and where caches are: the ref's, while its images may serve another ref. Every other
    /// field is in the key; a new field is in it by itself.
    pub fn fingerprint(&self, image: &ImageName) -> Option<Digest> {
        self.context_tree.as_ref()?;
        self.dockerfile_digest.as_ref()?;
        let mut key = self.clone();
        key.no_cache = false;
        key.pull = false;
        key.cache_namespace = String::new();
        key.cache_tags = CacheTags::default();
        let json = serde_json::to_vec(&(BuildPlan::VERSION, image, key)).ok()?;
        Some(Digest::of(&json))
    }

    /// The same solve for some of its platforms: what one builder takes, and whose fingerprint outlives a failure elsewhere.
    #[must_use]
    pub fn for_platforms(&self, platforms: &[Platform]) -> Self {
        Self { platforms: platforms.to_vec(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> serde_json::Value {
        serde_json::json!({
            "frontend": "dockerfile.v0", "frontend_image": null, "platforms": ["linux/amd64"], "context_path": "",
            "context_tree": "1111111111111111111111111111111111111111", "dockerfile_path": "Dockerfile",
            "dockerfile_digest": Digest::of(b"a"), "ignore_digest": null, "target": null, "build_args": {},
            "labels": {}, "compression": "gzip", "no_cache": false, "pull": false, "cache_namespace": "a",
            "step_namespace": "a", "attest": {"provenance": "min"}, "cache": "registry", "cache_tags": {"export": "x"}
        })
    }

    fn fingerprint(spec: &serde_json::Value) -> Option<Digest> {
        let spec: SolveSpec = serde_json::from_value(spec.clone()).unwrap();
        spec.fingerprint(&"localhost:5000/shop".parse().unwrap())
    }

    #[test]
    fn every_field_but_those_of_caches_decides_the_fingerprint() {
        let base = spec();
        let changes = serde_json::json!({
            "frontend": "gateway.v0", "frontend_image": "x", "platforms": ["linux/amd64", "linux/arm64"],
            "context_path": "app", "context_tree": "2222222222222222222222222222222222222222",
            "dockerfile_path": "D", "dockerfile_digest": Digest::of(b"b"), "ignore_digest": Digest::of(b""),
            "target": "t", "build_args": {"A": "1"}, "labels": {"a": "b"}, "compression": "zstd",
            "no_cache": true, "pull": true, "cache_namespace": "b",
            "step_namespace": "b", "attest": {"provenance": "max"}, "cache": "inline", "cache_tags": {"export": "y"}
        });
        let (base_map, changes) = (base.as_object().unwrap(), changes.as_object().unwrap());
        assert_eq!(
            base_map.keys().collect::<Vec<_>>(),
            changes.keys().collect::<Vec<_>>(),
            "a field without a row"
        );
        let real: SolveSpec = serde_json::from_value(base.clone()).unwrap();
        assert_eq!(serde_json::to_value(real).unwrap(), base, "a field that this test does not know");
        for (field, value) in changes {
            let mut changed = base.clone();
            changed[field] = value.clone();
            let same = fingerprint(&changed) == fingerprint(&base);
            assert_eq!(
                same,
                ["no_cache", "pull", "cache_namespace", "cache_tags"].contains(&field.as_str()),
                "{field}"
            );
        }
        let spec: SolveSpec = serde_json::from_value(base).unwrap();
        let names = ["localhost:5000/shop", "localhost:5000/other"].map(|n| n.parse().unwrap());
        assert_ne!(spec.fingerprint(&names[0]), spec.fingerprint(&names[1]));
    }

    #[test]
    fn a_policy_decides_the_fingerprint_and_the_default_stands_in_no_plan() {
        let (open, mut strict) = (spec(), spec());
        strict["policy"] = serde_json::json!({"by_digest": true});
        assert_ne!(fingerprint(&open), fingerprint(&strict));
        let real: SolveSpec = serde_json::from_value(open).unwrap();
        assert!(serde_json::to_value(real).unwrap().get("policy").is_none());
    }

    #[test]
    fn what_has_no_id_has_no_fingerprint() {
        for field in ["context_tree", "dockerfile_digest"] {
            let mut spec = spec();
            spec[field] = serde_json::Value::Null;
            assert_eq!(fingerprint(&spec), None, "{field}");
        }
    }

    #[test]
    fn tags_that_no_ref_owns_stand_first() {
        let image: ImagePlan = serde_json::from_value(serde_json::json!({
            "name": "localhost:5000/shop", "tags": ["git-0123456789ab", "main", "latest"], "unshared": 1,
            "annotations": {}, "solves": []
        }))
        .unwrap();
        assert_eq!(image.owned_tags().iter().map(Tag::as_str).collect::<Vec<_>>(), ["main", "latest"]);
        assert!(ImagePlan { unshared: 9, ..image }.owned_tags().is_empty());
    }
}
