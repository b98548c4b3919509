//! Assemble: what the solves pushed becomes one OCI index.
//!
//! The arithmetic is pure: the same children and annotations give the same bytes. An index holds exactly the platforms of
//! the plan, in the plan's order, each once, then the attestation manifests of these images; never an index in an index.
//! `push` has the effects; it pushes by digest only: no tag is touched here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Platform};
use crate::registry::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, RegistryError};

pub mod base;
pub mod ko;
pub mod layers;
pub mod publish;
mod push;
pub mod spin;

pub use push::{fetch, push};

/// BuildKit marks an attestation manifest by this annotation, and names its image by the other one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";

/// More children are refused: a solve has a handful of platforms, each with at most a few attestations.
const CHILDREN_LIMIT: usize = 256;

/// One manifest of an index: an image of a platform, or an attestation of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    /// None for attestations.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Further fields of the platform that are kept as they came (`os.version`, `os.features`).
    #[serde(default)]
    pub platform_extra: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The image that this manifest attests.
    #[serde(default)]
    pub attestation_of: Option<Digest>,
}

/// An index, ready to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub bytes: Vec<u8>,
    /// Of `bytes`.
    pub digest: Digest,
    pub media_type: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error("the manifest {digest} cannot be read: {problem}")]
    Unreadable { digest: Digest, problem: String },
    #[error("{digest} has media type {media_type:?}, which is neither an image manifest nor an index")]
    MediaType { digest: Digest, media_type: String },
    #[error("the index {digest} holds {what}, so it cannot be flattened")]
    Nested { digest: Digest, what: String },
    #[error("the manifest {digest} belongs to no platform")]
    NoPlatform { digest: Digest },
    #[error("the builders made {platform} twice, as {first} and {second}")]
    Duplicate { platform: Platform, first: Digest, second: Digest },
    #[error("the builders made no image for {}", .platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Missing { platforms: Vec<Platform> },
    #[error("the builders made an image for {platform}, which the plan does not hold")]
    Unexpected { platform: Platform },
    #[error("the attestation {digest} is of {of}, which is not among the images")]
    Dangling { digest: Digest, of: Digest },
    #[error("more than {CHILDREN_LIMIT} manifests for one index")]
    TooMany,
    #[error("the registry took the index as {found}, but it is {expected}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("{name:?} cannot be looked up: {problem}")]
    Name { name: String, problem: String },
    #[error(transparent)]
    Ko(#[from] ko::KoError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Injected(#[from] crate::failpoint::Injected),
}

impl AssembleError {
    /// Whether the registry may lack a child that the index names: children of an earlier build can be gone, and a solve
    /// makes them again.
    pub fn may_lack_children(&self) -> bool {
        use crate::registry::Problem;
        matches!(self, Self::Registry(error)
            if matches!(*error.problem, Problem::NotFound { .. } | Problem::Rejected { status: 400 | 422, .. }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadManifest {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// The children of what one solve pushed: the entries of an index, or the one manifest itself, which is for `platform`.
/// `bytes` are what the registry gave for the solve's digest.
pub fn children(
    bytes: &[u8],
    media_type: &str,
    platform: Option<&Platform>,
) -> Result<Vec<Child>, AssembleError> {
    let digest = Digest::of(bytes);
    let unreadable = |problem: String| AssembleError::Unreadable { digest: digest.clone(), problem };
    let manifest: ReadManifest =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if manifest.schema_version != 2 {
        return Err(unreadable(format!("schema version {}", manifest.schema_version)));
    }
    if manifest.media_type.as_deref().is_some_and(|own| own != media_type) {
        return Err(unreadable(format!("it does not call itself {media_type:?}")));
    }
    match media_type {
        INDEX | DOCKER_LIST => {
            if manifest.manifests.len() > CHILDREN_LIMIT {
                return Err(AssembleError::TooMany);
            }
            manifest.manifests.into_iter().map(|entry| child(&digest, entry, platform)).collect()
        }
        MANIFEST | DOCKER_MANIFEST => {
            let platform = platform.ok_or_else(|| AssembleError::NoPlatform { digest: digest.clone() })?;
            Ok(vec![Child {
                media_type: media_type.to_owned(),
                size: bytes.len() as u64,
                platform: Some(platform.clone()),
                platform_extra: BTreeMap::new(),
                annotations: BTreeMap::new(),
                artifact_type: None,
                attestation_of: None,
                digest,
            }])
        }
        other => Err(AssembleError::MediaType { digest, media_type: other.to_owned() }),
    }
}

/// One entry of the index `parent`; one without a platform is for `hint`.
fn child(parent: &Digest, entry: Descriptor, hint: Option<&Platform>) -> Result<Child, AssembleError> {
    if !matches!(entry.media_type.as_str(), MANIFEST | DOCKER_MANIFEST) {
        return Err(AssembleError::Nested { digest: parent.clone(), what: entry.media_type });
    }
    let attestation = entry.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == ATTESTATION);
    let mut extra = BTreeMap::new();
    let (platform, attestation_of) = if attestation {
        let of = entry.annotations.get(REFERENCE_DIGEST).and_then(|text| text.parse().ok());
        let of = of.ok_or_else(|| AssembleError::Nested {
            digest: parent.clone(),
            what: format!("the attestation {} of nothing", entry.digest),
        })?;
        (None, Some(of))
    } else {
        let platform = match entry.platform {
            Some(mut fields) => {
                let platform = take_platform(&mut fields);
                extra = fields;
                platform
            }
            None => hint.cloned(),
        };
        (Some(platform.ok_or_else(|| AssembleError::NoPlatform { digest: entry.digest.clone() })?), None)
    };
    Ok(Child {
        media_type: entry.media_type,
        digest: entry.digest,
        size: entry.size,
        platform,
        platform_extra: extra,
        annotations: entry.annotations,
        artifact_type: entry.artifact_type,
        attestation_of,
    })
}

/// Takes os, architecture and variant out of `fields`; `unknown/unknown` and what is no platform are none.
fn take_platform(fields: &mut BTreeMap<String, serde_json::Value>) -> Option<Platform> {
    let mut take = |name: &str| match fields.remove(name) {
        Some(serde_json::Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (os, arch, variant) = (take("os")?, take("architecture")?, take("variant"));
    if os == "unknown" || arch == "unknown" {
        return None;
    }
    let text = match variant {
        Some(variant) => format!("{os}/{arch}/{variant}"),
        None => format!("{os}/{arch}"),
    };
    text.parse().ok()
}

/// The index over `children` (one list a solve): exactly `platforms`, in this order, then their attestations.
pub fn index(
    platforms: &[Platform],
    children: Vec<Vec<Child>>,
    annotations: &BTreeMap<String, String>,
) -> Result<Index, AssembleError> {
    let mut images: BTreeMap<Platform, Child> = BTreeMap::new();
    let mut attestations: Vec<Child> = Vec::new();
    for child in children.into_iter().flatten() {
        match (&child.platform, &child.attestation_of) {
            (_, Some(_)) => {
                if !attestations.iter().any(|known| known.digest == child.digest) {
                    attestations.push(child);
                }
            }
            (Some(platform), None) if !platforms.contains(platform) => {
                return Err(AssembleError::Unexpected { platform: platform.clone() });
            }
            (Some(platform), None) => {
                if let Some(first) = images.get(platform) {
                    return Err(AssembleError::Duplicate {
                        platform: platform.clone(),
                        first: first.digest.clone(),
                        second: child.digest,
                    });
                }
                images.insert(platform.clone(), child);
            }
            (None, None) => return Err(AssembleError::NoPlatform { digest: child.digest }),
        }
    }
    let missing: Vec<Platform> = platforms.iter().filter(|p| !images.contains_key(*p)).cloned().collect();
    if !missing.is_empty() {
        return Err(AssembleError::Missing { platforms: missing });
    }
    let mut manifests: Vec<Child> = platforms.iter().filter_map(|platform| images.remove(platform)).collect();
    attach(&mut manifests, attestations)?;
    if manifests.len() > CHILDREN_LIMIT {
        return Err(AssembleError::TooMany);
    }
    write(manifests, annotations)
}

/// Adds the attestations after the images, in the order of the images that they attest.
fn attach(images: &mut Vec<Child>, mut attestations: Vec<Child>) -> Result<(), AssembleError> {
    let place =
        |child: &Child| images.iter().position(|image| Some(&image.digest) == child.attestation_of.as_ref());
    if let Some(dangling) = attestations.iter().find(|child| place(child).is_none()) {
        return Err(AssembleError::Dangling {
            digest: dangling.digest.clone(),
            of: dangling.attestation_of.clone().unwrap_or_else(|| dangling.digest.clone()),
        });
    }
    attestations.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.digest.cmp(&b.digest)));
    images.append(&mut attestations);
    Ok(())
}

fn write(manifests: Vec<Child>, annotations: &BTreeMap<String, String>) -> Result<Index, AssembleError> {
    let written = WrittenIndex {
        schema_version: 2,
        media_type: INDEX,
        manifests: manifests.into_iter().map(descriptor).collect(),
        annotations,
    };
    let bytes = serde_json::to_vec(&written)
        .map_err(|error| AssembleError::Unreadable { digest: Digest::of(b""), problem: error.to_string() })?;
    Ok(Index { digest: Digest::of(&bytes), bytes, media_type: INDEX.to_owned() })
}

fn descriptor(child: Child) -> Descriptor {
    let mut fields = child.platform_extra;
    let (os, arch, variant) = match child.platform {
        Some(platform) => (platform.os, platform.arch, platform.variant),
        // as BuildKit writes it: clients that choose by platform then pass attestations over
        None => ("unknown".to_owned(), "unknown".to_owned(), None),
    };
    fields.insert("os".to_owned(), os.into());
    fields.insert("architecture".to_owned(), arch.into());
    if let Some(variant) = variant {
        fields.insert("variant".to_owned(), variant.into());
    }
    Descriptor {
        media_type: child.media_type,
        digest: child.digest,
        size: child.size,
        annotations: child.annotations,
        platform: Some(fields),
        artifact_type: child.artifact_type,
    }
}

#[cfg(test)]
mod tests;
