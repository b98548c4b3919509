//! Manifests: one image over one base image, and the index over the images of several platforms.
//!
//! Everything is ko's except what is wrong there: the index's `base.digest` is the digest of the base index as it stands in
//! the registry (ko digests a copy that it has annotated before), every manifest says its media type, and an index's
//! descriptors have no `artifactType`, which is for artifacts.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Serialize;

use super::KoError;
use super::base::{BaseImage, BaseIndex, Descriptor};
use super::layer::Layer;
use super::platform::BasePlatform;
use super::reference::BaseReference;
use super::time::Epoch;
use crate::model::Digest;

/// `org.opencontainers.image.base.…`
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What an image is made of beside its base: `Default` with an import path is a plain `ko build`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Without `ko://`, in its own case.
    pub import_path: String,
    /// `SOURCE_DATE_EPOCH`; without it the image keeps the base's time.
    pub created: Option<Epoch>,
    /// `KO_DATA_DATE_EPOCH`; the same that the kodata layer was written with.
    pub kodata_created: Option<Epoch>,
    /// Over the base's.
    pub labels: BTreeMap<String, String>,
    /// Of manifest and index; ko's own win.
    pub annotations: BTreeMap<String, String>,
    /// Instead of the base's.
    pub user: Option<String>,
    /// lemnos's own, from here on. Ports that the program listens on: `8080`, `53/udp`.
    pub expose: Vec<String>,
    /// An absolute path, instead of the base's.
    pub working_dir: Option<String>,
    /// What the program is always started with.
    pub args: Vec<String>,
    /// What it is started with unless whoever starts it says otherwise.
    pub cmd: Vec<String>,
    /// Variables at run time, in this order; one that is there already is replaced.
    pub env: Vec<(String, String)>,
}

/// The layers that are put onto the base, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    pub kodata: Layer,
    pub binary: Layer,
    /// Present: the program is started under it. Only for platforms that are `debuggable`.
    pub debugger: Option<Layer>,
}

/// Bytes to be stored in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub media_type: String,
    /// Of `bytes`.
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

impl Document {
    pub(super) fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(&bytes), bytes }
    }
    pub(super) fn json(media_type: &str, value: &impl Serialize) -> Self {
        // what is written here are strings, numbers, lists and maps by string
        Self::new(media_type, serde_json::to_vec(value).expect("plain data is always JSON"))
    }
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.bytes.len() as u64, self.digest.clone())
    }
}

/// One image, ready to be pushed once its layers and the base's are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub config: Document,
    pub manifest: Document,
    pub platform: BasePlatform,
    pub annotations: BTreeMap<String, String>,
    /// The config's time.
    pub created: String,
}

/// The image that `layers` make of `base`. `entry` is the base's entry in its index; none for a base without an index.
pub fn image(
    base: &BaseImage,
    reference: &BaseReference,
    entry: Option<&Descriptor>,
    layers: &Layers,
    options: &ImageOptions,
) -> Result<Image, KoError> {
    let platform = entry.and_then(|entry| entry.platform.clone()).unwrap_or_else(|| base.platform());
    if platform.os == "windows" {
        return Err(KoError::Windows { platform: platform.to_string() });
    }
    if layers.debugger.is_some() && !platform.debuggable() {
        return Err(KoError::NoDebugger { platform: platform.to_string() });
    }
    let config = base.config.clone().with(layers, options)?;
    let created = config.created.clone();
    let mut manifest = base.manifest.clone();
    let config = Document::json(&manifest.config.media_type, &config);
    manifest.config.size = config.bytes.len() as u64;
    manifest.config.digest = config.digest.clone();
    if let Some(data) = &mut manifest.config.data {
        *data = base64::engine::general_purpose::STANDARD.encode(&config.bytes);
    }
    let added = [Some(&layers.kodata), Some(&layers.binary), layers.debugger.as_ref()];
    let layer_type = base.layer_type();
    manifest.layers.extend(
        added
            .into_iter()
            .flatten()
            .map(|layer| Descriptor::new(layer_type, layer.size, layer.digest.clone())),
    );
    let annotations = manifest.annotations.get_or_insert_default();
    annotations.extend(annotated(options, reference, &base.digest));
    let annotations = annotations.clone();
    manifest.media_type.clone_from(&base.media_type);
    let manifest = Document::json(&base.media_type, &manifest);
    Ok(Image { config, manifest, platform, annotations, created })
}

fn annotated(options: &ImageOptions, reference: &BaseReference, base: &Digest) -> BTreeMap<String, String> {
    let mut annotations = options.annotations.clone();
    annotations.insert(BASE_NAME.to_owned(), reference.to_string());
    annotations.insert(BASE_DIGEST.to_owned(), base.to_string());
    annotations
}

/// The index over several images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIndex {
    pub document: Document,
    /// In its order.
    pub manifests: Vec<Descriptor>,
    pub annotations: BTreeMap<String, String>,
    /// The first image's time.
    pub created: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
    annotations: &'a BTreeMap<String, String>,
}

/// What is pushed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Product {
    /// One platform: the image alone.
    Image(Image),
    Index(ImageIndex),
}

impl Product {
    /// The manifest or index that tags point at.
    pub fn document(&self) -> &Document {
        match self {
            Self::Image(image) => &image.manifest,
            Self::Index(index) => &index.document,
        }
    }
}

/// One image stays an image; several are an index in the base's order and of its media type. `images`: the base's entry and
/// the image over it, as `Platforms::choose` gave them. Of `options` only the annotations count, which need not be those of
/// the images: what depends on the commit may stand on the index alone.
pub fn product(
    base: &BaseIndex,
    reference: &BaseReference,
    mut images: Vec<(&Descriptor, Image)>,
    options: &ImageOptions,
) -> Result<Product, KoError> {
    let place = |entry: &Descriptor| base.manifests.iter().position(|known| known == entry);
    if images.iter().any(|(entry, _)| place(entry).is_none()) || images.is_empty() {
        return Err(KoError::NotOfBase { base: base.digest.clone() });
    }
    images.sort_by_key(|(entry, _)| place(entry));
    let created = images.first().map(|(_, image)| image.created.clone()).unwrap_or_default();
    if images.len() == 1 {
        return images
            .pop()
            .map(|(_, image)| Product::Image(image))
            .ok_or(KoError::NotOfBase { base: base.digest.clone() });
    }
    let manifests = images.iter().map(|(entry, image)| described(entry, image)).collect();
    Ok(Product::Index(index(base, reference, manifests, created, options)))
}

/// What an index says of an image over the base's `entry`.
pub fn described(entry: &Descriptor, image: &Image) -> Descriptor {
    Descriptor {
        urls: entry.urls.clone(),
        annotations: entry.annotations.clone(),
        platform: entry.platform.clone(),
        ..image.manifest.descriptor()
    }
}

/// The index over images that were made before: as `product` made it of them. `created`: the first image's.
pub fn index(
    base: &BaseIndex,
    reference: &BaseReference,
    manifests: Vec<Descriptor>,
    created: String,
    options: &ImageOptions,
) -> ImageIndex {
    let annotations = annotated(options, reference, &base.digest);
    let written = WrittenIndex {
        schema_version: 2,
        media_type: &base.media_type,
        manifests: &manifests,
        annotations: &annotations,
    };
    let document = Document::json(&base.media_type, &written);
    ImageIndex { document, manifests, annotations, created }
}
