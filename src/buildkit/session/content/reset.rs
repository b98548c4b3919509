//! Deleting what an index does not name: a cache that is written again and again would keep every old blob.
//!
//! Invariant: nothing is deleted before everything that is named has been found and read, so that a store which is not
//! whole loses nothing.

use std::collections::BTreeSet;
use std::io::Read;

use serde::Deserialize;

use super::digest::Digest;
use super::index::Descriptor;
use super::store::{ContentStore, StoreError};

/// Largest manifest that is read.
const MANIFEST_LIMIT: u64 = 16 << 20;

/// What an index or an image's manifest names in turn.
#[derive(Default, Deserialize)]
struct Children {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl ContentStore {
    /// Deletes every blob that is not reached from the index.
    pub fn keep_named(&self) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let mut named = BTreeSet::new();
        let mut waiting = self.manifests()?;
        while let Some(descriptor) = waiting.pop() {
            let digest: Digest = descriptor.digest.parse()?;
            if named.insert(digest.clone()) && has_children(&descriptor.media_type) {
                let children = self.children(&digest)?;
                waiting.extend(children.manifests);
                waiting.extend(children.config);
                waiting.extend(children.layers);
            }
        }
        for blob in self.list()? {
            if !named.contains(&blob.digest) {
                self.delete(&blob.digest)?;
            }
        }
        Ok(())
    }

    fn children(&self, digest: &Digest) -> Result<Children, StoreError> {
        let (file, _) = self.open(digest)?;
        let mut text = Vec::new();
        file.take(MANIFEST_LIMIT).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(|problem| StoreError::Index(format!("{digest}: {problem}")))
    }
}

fn has_children(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
    )
}
