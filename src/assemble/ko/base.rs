//! Base images as a registry gives them: manifests, indexes and configs, checked against each other before they are built on.
//!
//! What is not understood is kept (descriptors) or, where ko drops it, dropped (fields of a config that no runtime reads).
//! Reads bytes that were fetched elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::KoError;
use super::config::Config;
use super::platform::BasePlatform;
use crate::model::Digest;
use crate::registry::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST};

pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What registries take as a manifest at most, and what lies behind one in a config.
const BYTES_LIMIT: usize = 4 << 20;
/// More layers than runtimes can mount are no base.
const LAYERS_LIMIT: usize = 500;
const ENTRIES_LIMIT: usize = 256;
/// As deep as anything that is read lies in its document.
const NESTED: u32 = 4;

/// What a manifest says of a blob or of another manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub size: u64,
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<BasePlatform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, size: u64, digest: Digest) -> Self {
        Self {
            media_type: media_type.to_owned(),
            size,
            digest,
            data: None,
            urls: None,
            annotations: None,
            platform: None,
            artifact_type: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
}

/// One image of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Of the manifest.
    pub digest: Digest,
    /// The manifest's: OCI or Docker.
    pub media_type: String,
    pub(super) manifest: Manifest,
    pub(super) config: Config,
}

/// The digest of the config that an image manifest names: what has to be fetched before `BaseImage::read`.
pub fn config_digest(manifest: &[u8]) -> Result<Digest, KoError> {
    let digest = Digest::of(manifest);
    Ok(parse::<Manifest>(&digest, manifest)?.config.digest)
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(digest: &Digest, bytes: &[u8]) -> Result<T, KoError> {
    let refuse = |problem: String| KoError::Base { digest: digest.clone(), problem };
    if bytes.len() > BYTES_LIMIT {
        return Err(refuse(format!("{} bytes, more than {BYTES_LIMIT}", bytes.len())));
    }
    let mut value = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    without_null(&mut value, NESTED);
    serde_json::from_value(value).map_err(|error| refuse(error.to_string()))
}

/// Go reads `null` as if nothing stood there.
fn without_null(value: &mut Value, depth: u32) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            if depth > 0 {
                fields.values_mut().for_each(|field| without_null(field, depth - 1));
            }
        }
        Value::Array(items) if depth > 0 => items.iter_mut().for_each(|item| without_null(item, depth - 1)),
        _ => {}
    }
}

impl BaseImage {
    /// `media_type`: what the registry calls the manifest. `config`: the blob that it names.
    pub fn read(manifest: &[u8], media_type: &str, config: &[u8]) -> Result<Self, KoError> {
        let digest = Digest::of(manifest);
        let refuse = |problem: String| KoError::Base { digest: digest.clone(), problem };
        if !matches!(media_type, MANIFEST | DOCKER_MANIFEST) {
            return Err(refuse(format!("{media_type:?} is no image manifest")));
        }
        let read: Manifest = parse(&digest, manifest)?;
        if read.schema_version != 2 {
            return Err(refuse(format!("schema version {}", read.schema_version)));
        }
        if !read.media_type.is_empty() && read.media_type != media_type {
            return Err(refuse(format!(
                "it calls itself {:?}, the registry {media_type:?}",
                read.media_type
            )));
        }
        if !matches!(read.config.media_type.as_str(), CONFIG | DOCKER_CONFIG) {
            return Err(refuse(format!(
                "its config is {:?}, so it is no container image",
                read.config.media_type
            )));
        }
        let found = Digest::of(config);
        if read.config.digest != found {
            return Err(refuse(format!(
                "it names the config {}, but {found} was fetched",
                read.config.digest
            )));
        }
        if read.layers.len() > LAYERS_LIMIT {
            return Err(refuse(format!("{} layers, more than {LAYERS_LIMIT}", read.layers.len())));
        }
        let config = Config::read(&found, config)?;
        let layers = config.rootfs.diff_ids.len();
        if layers != read.layers.len() {
            return Err(refuse(format!("{} layers, but {layers} diff IDs in its config", read.layers.len())));
        }
        Ok(Self { digest, media_type: media_type.to_owned(), manifest: read, config })
    }

    /// The media type of the layers that are put onto this base: some registries refuse mixed ones.
    pub fn layer_type(&self) -> &'static str {
        if self.media_type == DOCKER_MANIFEST { DOCKER_LAYER } else { LAYER }
    }

    /// The base's own layers, in order: blobs that the image's repository must have too.
    pub fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }

    /// What the config says that the image is for; Linux on amd64 where it says nothing, as ko has it.
    pub fn platform(&self) -> BasePlatform {
        let or =
            |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        BasePlatform {
            os: or(&self.config.os, "linux"),
            architecture: or(&self.config.architecture, "amd64"),
            os_version: self.config.os_version.clone(),
            // ko leaves the variant out here, and so never finds linux/arm/v7 in a plain base
            variant: self.config.variant.clone(),
            ..BasePlatform::default()
        }
    }
}

/// A base for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseIndex {
    pub digest: Digest,
    /// OCI index or Docker manifest list.
    pub media_type: String,
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadIndex {
    #[serde(default)]
    media_type: String,
    manifests: Vec<Descriptor>,
}

impl BaseIndex {
    /// `media_type`: what the registry calls it.
    pub fn read(index: &[u8], media_type: &str) -> Result<Self, KoError> {
        let digest = Digest::of(index);
        let refuse = |problem: String| KoError::Base { digest: digest.clone(), problem };
        if !matches!(media_type, INDEX | DOCKER_LIST) {
            return Err(refuse(format!("{media_type:?} is no index")));
        }
        let ReadIndex { media_type: own, manifests } = parse(&digest, index)?;
        if !own.is_empty() && own != media_type {
            return Err(refuse(format!("it calls itself {own:?}, the registry {media_type:?}")));
        }
        if manifests.len() > ENTRIES_LIMIT {
            return Err(refuse(format!("{} entries, more than {ENTRIES_LIMIT}", manifests.len())));
        }
        let image = |entry: &&Descriptor| matches!(entry.media_type.as_str(), MANIFEST | DOCKER_MANIFEST);
        if let Some(other) = manifests.iter().find(|entry| !image(entry)) {
            return Err(refuse(format!(
                "it holds {}, a {:?}, which is no image",
                other.digest, other.media_type
            )));
        }
        Ok(Self { digest, media_type: media_type.to_owned(), manifests })
    }

    /// All entries, in order; `Platforms::choose` takes those that are built over.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }
}
