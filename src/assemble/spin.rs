//! A spin artifact from an application and its contents: one OCI image manifest, never an index.
//!
//! Arithmetic, but for `gather`, which reads files, and `publish`, which pushes them: equal applications and contents give equal bytes. A content is a digest and a size; the caller streams what is
//! large. An index would fail in every runtime that takes such artifacts, so what is said about one (SBOM, signature) must refer
//! to it and not stand beside it. The configuration's architecture is `wasm`, as containerd's shim asks for; `spin up` and the
//! shim read no other field of it. Source: Spin 4.0's `spin registry push`.

mod archive;
mod gather;
mod locked;
mod publish;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use archive::{ARCHIVE_END_BYTES, ArchiveEntry, archive_entries};
pub use gather::{GatherError, Gathered, Places, gather};
pub use publish::{PublishError, manifest, publish};
pub use sources::{Sources, fetched};

use crate::model::{Digest, SpinApp};

/// A component.
pub const WASM_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// A file of a component.
pub const DATA_LAYER: &str = "application/vnd.wasm.content.layer.v1+data";
/// All files of a component, as a compressed archive.
pub const ARCHIVE_LAYER: &str = "application/vnd.wasm.content.bundle.v1.tar+gzip";
/// The locked application, always the last layer.
pub const APPLICATION_LAYER: &str = "application/vnd.fermyon.spin.application.v1+config";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Contents of at most so many bytes stand in the locked application itself: some registries take no very small blobs.
pub const INLINE_LIMIT_BYTES: u64 = 128;
/// The lowest bound of layers among registries is 500, and one is the locked application's.
pub const CONTENT_LAYERS_LIMIT: usize = 499;

#[derive(Debug, thiserror::Error)]
pub enum SpinAssembleError {
    #[error("the component {component} has no content")]
    NoContent { component: String },
    #[error("the small content {digest} of the component {component} was not handed over")]
    NoBytes { component: String, digest: Digest },
    #[error("no archive of the files of the component {component} was handed over")]
    NoArchive { component: String },
    #[error(
        "the artifact would have {layers} layers besides the application's, also with its files in archives; registries take {CONTENT_LAYERS_LIMIT}"
    )]
    TooManyLayers { layers: usize },
    #[error("the component {component} is no WebAssembly: {problem}")]
    NotWasm { component: String, problem: &'static str },
    #[error("{path} has {size_bytes} bytes; an archive holds files of less than 8 GiB")]
    FileTooLarge { path: String, size_bytes: u64 },
    #[error("writing JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Bytes somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub digest: Digest,
    pub size_bytes: u64,
    /// Themselves, where they are at most [`INLINE_LIMIT_BYTES`].
    pub small: Option<Vec<u8>>,
}

impl Content {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let size_bytes = bytes.len() as u64;
        let small = (size_bytes <= INLINE_LIMIT_BYTES).then(|| bytes.to_vec());
        Self { digest: Digest::of(bytes), size_bytes, small }
    }

    fn is_inline(&self) -> bool {
        self.size_bytes <= INLINE_LIMIT_BYTES
    }
}

/// What a component is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentContent {
    pub wasm: Content,
    /// By path as the component sees it, without a leading `/`.
    pub files: BTreeMap<String, Content>,
}

/// The contents of an application by its components' ids.
pub type Contents = BTreeMap<String, ComponentContent>;

/// How files stand in the artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A layer each.
    Files,
    /// An archive for each component that has any.
    Archives,
}

/// A layer, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    pub media_type: &'static str,
    pub digest: Digest,
    pub size_bytes: u64,
}

/// All that is pushed, contents aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The contents', without repeats, then the locked application's.
    pub layers: Vec<Layer>,
    /// The last layer's bytes.
    pub application: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    /// Of `manifest`.
    pub digest: Digest,
}

/// Which shape the artifact takes, by the number of its layers.
pub fn shape(app: &SpinApp, contents: &Contents) -> Result<Shape, SpinAssembleError> {
    let layers = content_layers(app, contents, None)?.len();
    if layers <= CONTENT_LAYERS_LIMIT {
        return Ok(Shape::Files);
    }
    let with_files = contents.values().filter(|content| !content.files.is_empty()).count();
    let wasm: BTreeSet<&Digest> = contents.values().map(|content| &content.wasm.digest).collect();
    let layers = wasm.len() + with_files;
    if layers <= CONTENT_LAYERS_LIMIT {
        Ok(Shape::Archives)
    } else {
        Err(SpinAssembleError::TooManyLayers { layers })
    }
}

/// The artifact. `archives`: for [`Shape::Archives`], what each component's archive came to, by its id. `annotations` go before
/// those that the application itself gives; the time of creation is among them or nowhere, so that nothing depends on a clock.
pub fn artifact(
    app: &SpinApp,
    contents: &Contents,
    archives: Option<&BTreeMap<String, Content>>,
    annotations: &BTreeMap<String, String>,
) -> Result<Artifact, SpinAssembleError> {
    let mut layers = content_layers(app, contents, archives)?;
    let application = serde_json::to_vec(&locked::locked(app, contents)?)?;
    let locked_digest = Digest::of(&application);
    layers.push(Layer {
        media_type: APPLICATION_LAYER,
        digest: locked_digest.clone(),
        size_bytes: application.len() as u64,
    });
    let config = config(&locked_digest)?;
    let written = WrittenManifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: Descriptor { media_type: CONFIG, digest: &Digest::of(&config), size: config.len() as u64 },
        layers: layers.iter().map(Descriptor::of).collect(),
        annotations: all_annotations(app, annotations),
    };
    let manifest = serde_json::to_vec(&written)?;
    Ok(Artifact {
        layers,
        application,
        config,
        digest: Digest::of(&manifest),
        manifest,
        media_type: MANIFEST,
    })
}

/// The manifest of an earlier artifact with other annotations, and the blobs that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    /// Of `manifest`.
    pub digest: Digest,
    pub blobs: Vec<Digest>,
}

/// What [`artifact`] would make of the same application and contents with these annotations.
pub fn renewed(
    manifest: &[u8],
    app: &SpinApp,
    annotations: &BTreeMap<String, String>,
) -> Result<Renewed, SpinAssembleError> {
    let read: ReadManifest = serde_json::from_slice(manifest)?;
    let blobs = read.layers.iter().chain([&read.config]).map(|blob| blob.digest.clone()).collect();
    let written = WrittenManifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: read.config.written(),
        layers: read.layers.iter().map(ReadDescriptor::written).collect(),
        annotations: all_annotations(app, annotations),
    };
    let manifest = serde_json::to_vec(&written)?;
    Ok(Renewed { digest: Digest::of(&manifest), manifest, media_type: MANIFEST, blobs })
}

#[derive(Deserialize)]
struct ReadManifest {
    config: ReadDescriptor,
    layers: Vec<ReadDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl ReadDescriptor {
    fn written(&self) -> Descriptor<'_> {
        Descriptor { media_type: &self.media_type, digest: &self.digest, size: self.size }
    }
}

/// The layers of contents in order, each once.
fn content_layers(
    app: &SpinApp,
    contents: &Contents,
    archives: Option<&BTreeMap<String, Content>>,
) -> Result<Vec<Layer>, SpinAssembleError> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |media_type: &'static str, content: &Content| {
        let layer = Layer { media_type, digest: content.digest.clone(), size_bytes: content.size_bytes };
        if known.insert(layer.clone()) {
            layers.push(layer);
        }
    };
    for component in &app.components {
        let content = of_component(contents, &component.id)?;
        add(WASM_LAYER, &content.wasm);
        match archives {
            None => {
                content.files.values().filter(|file| !file.is_inline()).for_each(|file| add(DATA_LAYER, file))
            }
            Some(_) if content.files.is_empty() => {}
            Some(archives) => {
                let archive = archives.get(&component.id);
                let missing = || SpinAssembleError::NoArchive { component: component.id.clone() };
                add(ARCHIVE_LAYER, archive.ok_or_else(missing)?);
            }
        }
    }
    Ok(layers)
}

fn of_component<'a>(contents: &'a Contents, id: &str) -> Result<&'a ComponentContent, SpinAssembleError> {
    contents.get(id).ok_or_else(|| SpinAssembleError::NoContent { component: id.to_owned() })
}

/// Whether a file begins as a WebAssembly module or component does; eight bytes are enough.
pub fn check_wasm(component: &str, beginning: &[u8]) -> Result<(), SpinAssembleError> {
    let refuse = |problem| Err(SpinAssembleError::NotWasm { component: component.to_owned(), problem });
    match beginning {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] | [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', ..] => refuse("its version is neither a module's nor a component's"),
        [] => refuse("it is empty"),
        _ => refuse("it does not begin as one"),
    }
}

fn all_annotations(app: &SpinApp, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = [
        ("authors", app.authors.join(", ")),
        ("title", app.name.clone()),
        ("description", app.description.clone()),
        ("version", app.version.clone()),
    ];
    let mut all: BTreeMap<String, String> = own
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (format!("org.opencontainers.image.{name}"), text))
        .collect();
    all.extend(given.iter().map(|(name, text)| (name.clone(), text.clone())));
    all
}

/// The label keeps configurations of different applications apart; without it all would be one image to a container runtime.
fn config(locked: &Digest) -> Result<Vec<u8>, serde_json::Error> {
    let written = WrittenConfig {
        architecture: "wasm",
        os: "wasip1",
        config: Labels { labels: BTreeMap::from([("com.fermyon.spin.lockedAppDigest", locked)]) },
        rootfs: RootFs { kind: "layers", diff_ids: [] },
    };
    serde_json::to_vec(&written)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
}

impl<'a> Descriptor<'a> {
    fn of(layer: &'a Layer) -> Self {
        Self { media_type: layer.media_type, digest: &layer.digest, size: layer.size_bytes }
    }
}

#[derive(Serialize)]
struct WrittenConfig<'a> {
    architecture: &'static str,
    os: &'static str,
    config: Labels<'a>,
    rootfs: RootFs,
}

#[derive(Serialize)]
struct Labels<'a> {
    #[serde(rename = "Labels")]
    labels: BTreeMap<&'static str, &'a Digest>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [&'static str; 0],
}
