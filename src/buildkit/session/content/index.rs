//! `index.json`: what a store's blobs are called.
//!
//! Invariants: the file is replaced as a whole, under the lock that BuildKit's own clients take; what we do not know of
//! it is kept. Source: OCI image layout; moby/buildkit v0.32.2, client/ociindex.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::store::{ContentStore, StoreError};

const TAG: &str = "org.opencontainers.image.ref.name";
const NAME: &str = "io.containerd.image.name";
/// Largest index that is read.
const INDEX_LIMIT: u64 = 16 << 20;
/// Longest wait for somebody else's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What names a blob from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    version: u32,
    #[serde(rename = "mediaType", default = "index_type")]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

fn index_type() -> String {
    "application/vnd.oci.image.index.v1+json".to_owned()
}

impl ContentStore {
    /// What is called `tag`, by its image name or its tag; none too where the store has no index.
    pub fn resolve(&self, tag: &str) -> Result<Option<Descriptor>, StoreError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let called = |key: &str| {
            index.manifests.iter().find(|found| found.annotations.get(key).is_some_and(|name| name == tag))
        };
        Ok(called(NAME).or_else(|| called(TAG)).cloned())
    }

    /// The only image of the store's index; none where there are several.
    pub fn only(&self) -> Result<Option<Descriptor>, StoreError> {
        let index = self.index()?;
        let mut manifests = index.map(|index| index.manifests).unwrap_or_default();
        Ok(manifests.pop().filter(|_| manifests.is_empty()))
    }

    /// Calls `descriptor`, and nothing else, `tag`.
    pub fn tag(&self, descriptor: Descriptor, tag: &str) -> Result<(), StoreError> {
        self.call(descriptor, None, tag)
    }

    /// Gives `descriptor`, and nothing else, the image's name `name`; its tag is that of the name.
    pub fn name(&self, descriptor: Descriptor, name: &str) -> Result<(), StoreError> {
        self.call(descriptor, Some(name), object(name))
    }

    fn call(&self, mut descriptor: Descriptor, name: Option<&str>, tag: &str) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let lock = self.lock()?;
        let mut index = self.index()?.unwrap_or_else(|| Index {
            version: 2,
            media_type: index_type(),
            manifests: Vec::new(),
            more: Map::new(),
        });
        let called = |found: &Descriptor, key: &str| found.annotations.get(key).cloned().unwrap_or_default();
        index
            .manifests
            .retain(|known| called(known, TAG) != tag || called(known, NAME) != name.unwrap_or_default());
        if let Some(name) = name {
            descriptor.annotations.insert(NAME.to_owned(), name.to_owned());
        }
        descriptor.annotations.insert(TAG.to_owned(), tag.to_owned());
        index.manifests.push(descriptor);
        self.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let text = serde_json::to_vec(&index).map_err(|problem| StoreError::Index(problem.to_string()))?;
        self.replace("index.json", &text)?;
        drop(lock);
        Ok(())
    }

    /// Everything that the index names.
    pub(super) fn manifests(&self) -> Result<Vec<Descriptor>, StoreError> {
        Ok(self.index()?.map(|index| index.manifests).unwrap_or_default())
    }

    fn index(&self) -> Result<Option<Index>, StoreError> {
        let path = self.root().join("index.json");
        let text = match fs::metadata(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.len() > INDEX_LIMIT => {
                return Err(StoreError::Index(format!("it has more than {INDEX_LIMIT} bytes")));
            }
            _ => fs::read(path)?,
        };
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(|problem| StoreError::Index(problem.to_string()))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mode = fs::Permissions::from_mode(0o644);
        let mut file =
            tempfile::Builder::new().prefix(".lemnos-").permissions(mode).tempfile_in(self.root())?;
        file.write_all(content)?;
        file.persist(self.root().join(name)).map_err(|problem| problem.error)?;
        Ok(())
    }

    fn lock(&self) -> Result<Locked, StoreError> {
        let path = self.root().join("index.json.lock");
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let file = File::options().create(true).append(true).open(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked { _file: file, path }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(cause) => return Err(io::Error::from(cause).into()),
            }
        }
    }
}

/// What stands behind an image's name: a tag, or a digest with its `@`. As containerd takes it, the first of either ends
/// the name.
fn object(name: &str) -> &str {
    let path = name.find('/').unwrap_or_default();
    let found = name.get(path..).and_then(|rest| rest.find([':', '@'])).map(|at| path + at);
    match found.map(|at| name.split_at(at).1) {
        None => "",
        Some(rest) => rest.strip_prefix(':').unwrap_or(rest),
    }
}

/// Holds the lock; the file goes as it came, as BuildKit's clients have it.
struct Locked {
    _file: File,
    path: std::path::PathBuf,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
