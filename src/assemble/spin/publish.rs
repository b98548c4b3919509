//! The effects of a spin artifact: its blobs are pushed, then its one manifest, by digest.
//!
//! A blob that stands in the registry is not sent again. No tag moves here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::try_join_all;

use super::{Artifact, Gathered, Layer};
use crate::failpoint::{Failpoints, Injected, Point};
use crate::model::{Digest, ImageName};
use crate::registry::{BlobSource, Registry, RegistryError};

/// Blobs on their way at once.
const AT_ONCE: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error("the layer {digest} was not gathered")]
    NoBlob { digest: Digest },
}

/// Pushes an artifact by its digest.
pub async fn publish(
    registry: &Registry,
    image: &ImageName,
    made: &Artifact,
    gathered: &Gathered,
    failpoints: &Failpoints,
) -> Result<(), PublishError> {
    // the application's own comes last: whoever finds it finds all that it speaks of
    let of_files = made.layers.split_last().map_or(&[][..], |(_, others)| others);
    for layers in of_files.chunks(AT_ONCE) {
        try_join_all(layers.iter().map(|layer| blob(registry, image, layer, &gathered.blobs))).await?;
    }
    for bytes in [&made.application, &made.config] {
        let source = BlobSource::Bytes(bytes.clone().into());
        registry.put_blob(image, &Digest::of(bytes), bytes.len() as u64, source).await?;
    }
    failpoints.reach(Point::BeforeIndexPush).await?;
    manifest(registry, image, made.media_type, &made.digest, &made.manifest).await?;
    failpoints.reach(Point::AfterIndexPush).await?;
    Ok(())
}

/// A manifest alone, where all that it names stands there.
pub async fn manifest(
    registry: &Registry,
    image: &ImageName,
    media_type: &str,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    registry.put_manifest(image, &digest.clone().into(), media_type, bytes.to_vec()).await.map(drop)
}

async fn blob(
    registry: &Registry,
    image: &ImageName,
    layer: &Layer,
    blobs: &BTreeMap<Digest, PathBuf>,
) -> Result<(), PublishError> {
    let path = blobs.get(&layer.digest);
    let path = path.ok_or_else(|| PublishError::NoBlob { digest: layer.digest.clone() })?;
    let source = BlobSource::File(path.clone());
    Ok(registry.put_blob(image, &layer.digest, layer.size_bytes, source).await?)
}
