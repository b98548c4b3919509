//! The layer caches that are there: what has not been written yet is not asked of a builder, which would call it a failed step.

use super::Pipeline;
use crate::model::{CacheTags, ImageName, SolveSpec, Tag};

impl Pipeline {
    /// The solve with the caches that the registry has. One that cannot be looked up costs time, not the push.
    pub(super) async fn with_caches_that_stand(&self, spec: &SolveSpec, image: &ImageName) -> SolveSpec {
        let alone = spec.platforms.len() < 2;
        let candidates: Vec<Tag> = spec
            .cache_tags
            .imports
            .iter()
            .flat_map(|tag| {
                let parts =
                    spec.platforms.iter().filter(|_| !alone).filter_map(|p| CacheTags::of_one(tag, p));
                std::iter::once(tag.clone()).chain(parts)
            })
            .collect();
        let stands = candidates.into_iter().map(async |tag| {
            let found = self.registry.head_manifest(image, &tag.clone().into()).await;
            matches!(found, Ok(Some(_))).then_some(tag)
        });
        let imports = futures::future::join_all(stands).await.into_iter().flatten().collect();
        let cache_tags = CacheTags { imports, ..spec.cache_tags.clone() };
        SolveSpec { cache_tags, ..spec.clone() }
    }
}
