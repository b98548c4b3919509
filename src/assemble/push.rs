//! The effects of assembling: the solves' manifests are read, the index is pushed by its digest.

use futures::future::try_join_all;

use super::{AssembleError, Child, Index, children};
use crate::failpoint::{Failpoints, Point};
use crate::model::{Digest, ImageName, Platform};
use crate::registry::{Registry, RegistryError};

/// The children of each solve's result. `pushed` holds the digest that each solve pushed and, where the solve was for one
/// platform only, that platform.
pub async fn fetch(
    registry: &Registry,
    image: &ImageName,
    pushed: &[(Digest, Option<Platform>)],
) -> Result<Vec<Vec<Child>>, AssembleError> {
    try_join_all(pushed.iter().map(async |(digest, platform)| {
        let manifest = registry.get_manifest(image, &digest.clone().into()).await?;
        children(&manifest.bytes, &manifest.media_type, platform.as_ref())
    }))
    .await
}

/// Pushes the index by its digest. Its children stand there already: BuildKit pushed them by digest.
pub async fn push(
    registry: &Registry,
    image: &ImageName,
    index: &Index,
    failpoints: &Failpoints,
) -> Result<Digest, AssembleError> {
    let reference = index.digest.clone().into();
    failpoints.reach(Point::BeforeIndexPush).await?;
    let digest = put(registry, image, index, &reference).await?;
    if digest != index.digest {
        return Err(AssembleError::WrongDigest { expected: index.digest.clone(), found: digest });
    }
    failpoints.reach(Point::AfterIndexPush).await?;
    Ok(digest)
}

async fn put(
    registry: &Registry,
    image: &ImageName,
    index: &Index,
    reference: &crate::registry::Reference,
) -> Result<Digest, RegistryError> {
    registry.put_manifest(image, reference, &index.media_type, index.bytes.clone()).await
}
