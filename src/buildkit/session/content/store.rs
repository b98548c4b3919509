//! A directory of blobs: `blobs/ALGORITHM/HEX`, as OCI layouts have them.
//!
//! Invariants: a blob is written beside the others and renamed to its name when its digest is known to be right; there is
//! one writer for each reference; errors name digests and references, never the directory. Blocks, but for what only
//! looks at the writes under way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::digest::{Algorithm, Digest};
use super::ingest::{Ingest, Progress};

/// Writes under way in one store.
const MAX_WRITES: usize = 1024;
/// Blobs that can be listed.
const MAX_LISTED: usize = 1_000_000;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0:?} is no digest that is known here")]
    Digest(String),
    #[error("there is no blob {0}")]
    NotFound(Digest),
    #[error("the blob {0} is there already")]
    Exists(Digest),
    #[error("this content store can only be read")]
    ReadOnly,
    #[error("{0:?} is being written by another call")]
    Busy(String),
    #[error("a write needs a name of its own, of {limit} bytes at most")]
    Reference { limit: usize },
    #[error("nothing is being written as {0:?}")]
    NoWrite(String),
    #[error("the write {0:?} was given up")]
    Aborted(String),
    #[error("a write at {at} must be at {end}, where the last one ended")]
    Offset { at: i64, end: u64 },
    #[error("what was written is {found}, and {wanted} was announced")]
    Mismatch { found: String, wanted: String },
    #[error("the store's index.json cannot be used: {0}")]
    Index(String),
    #[error("the content store: {0}")]
    Io(String),
}

impl From<io::Error> for StoreError {
    fn from(cause: io::Error) -> Self {
        // the kind alone: other texts name files of ours
        Self::Io(cause.kind().to_string())
    }
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    pub digest: Digest,
    pub size: u64,
    pub created: SystemTime,
}

/// Blobs in a directory.
#[derive(Debug)]
pub struct ContentStore {
    root: PathBuf,
    writable: bool,
    writes: Mutex<BTreeMap<String, Progress>>,
}

impl ContentStore {
    /// The OCI layout at `root`, to be read only.
    pub fn read_only(root: &Path) -> Result<Self, StoreError> {
        if !fs::metadata(root)?.is_dir() {
            return Err(StoreError::Io("not a directory".to_owned()));
        }
        Ok(Self { root: root.to_owned(), writable: false, writes: Mutex::default() })
    }

    /// The store at `root`, to be read and written; made where it is not there.
    pub fn read_write(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned(), writable: true, writes: Mutex::default() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    pub(super) fn must_be_writable(&self) -> Result<(), StoreError> {
        if self.writable { Ok(()) } else { Err(StoreError::ReadOnly) }
    }

    pub fn info(&self, digest: &Digest) -> Result<Info, StoreError> {
        let (_, info) = self.find(digest, || fs::metadata(self.blob_path(digest)))?;
        Ok(info)
    }

    /// The blob and its size.
    pub fn open(&self, digest: &Digest) -> Result<(File, u64), StoreError> {
        let (file, _) = self.find(digest, || File::open(self.blob_path(digest)))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    fn find<T>(&self, digest: &Digest, look: impl Fn() -> io::Result<T>) -> Result<(T, Info), StoreError> {
        let missing = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound(digest.clone()),
            _ => cause.into(),
        };
        let found = look().map_err(missing)?;
        let metadata = fs::metadata(self.blob_path(digest)).map_err(missing)?;
        if !metadata.is_file() {
            return Err(StoreError::NotFound(digest.clone()));
        }
        let created = metadata.modified()?;
        Ok((found, Info { digest: digest.clone(), size: metadata.len(), created }))
    }

    /// Every blob, by digest.
    pub fn list(&self) -> Result<Vec<Info>, StoreError> {
        let mut all = Vec::new();
        for algorithm in Algorithm::ALL {
            let names = match fs::read_dir(self.root.join("blobs").join(algorithm.name())) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                names => names?,
            };
            for name in names {
                let name = name?.file_name();
                let text = format!("{}:{}", algorithm.name(), name.to_string_lossy());
                // what is no blob is not ours
                let Ok(digest) = text.parse::<Digest>() else { continue };
                match self.info(&digest) {
                    Ok(info) => all.push(info),
                    Err(StoreError::NotFound(_)) => {}
                    Err(problem) => return Err(problem),
                }
                if all.len() > MAX_LISTED {
                    return Err(StoreError::Io(format!("more than {MAX_LISTED} blobs")));
                }
            }
        }
        all.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(all)
    }

    pub fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.must_be_writable()?;
        match fs::remove_file(self.blob_path(digest)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NotFound(digest.clone()))
            }
            removed => Ok(removed?),
        }
    }

    /// Begins a write; it is given up when the answer is dropped.
    pub(super) fn begin(
        self: &Arc<Self>,
        reference: &str,
        expected: Option<Digest>,
        total: u64,
    ) -> Result<Ingest, StoreError> {
        self.must_be_writable()?;
        self.must_be_absent(expected.as_ref())?;
        let progress = Progress::new(reference, expected, total);
        {
            let mut writes = self.writes();
            if writes.contains_key(reference) || writes.len() >= MAX_WRITES {
                return Err(StoreError::Busy(reference.to_owned()));
            }
            writes.insert(reference.to_owned(), progress.clone());
        }
        // from here on, dropping it takes the entry back
        Ingest::new(self.clone(), progress)
    }

    pub(super) fn must_be_absent(&self, expected: Option<&Digest>) -> Result<(), StoreError> {
        match expected {
            Some(digest) if self.info(digest).is_ok() => Err(StoreError::Exists(digest.clone())),
            _ => Ok(()),
        }
    }

    pub(super) fn writes(&self) -> MutexGuard<'_, BTreeMap<String, Progress>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self, reference: &str) -> Result<Progress, StoreError> {
        self.writes().get(reference).cloned().ok_or_else(|| StoreError::NoWrite(reference.to_owned()))
    }

    pub(super) fn all_progress(&self) -> Vec<Progress> {
        self.writes().values().cloned().collect()
    }

    /// Gives a write up: its call notices with its next message.
    pub(super) fn abort(&self, reference: &str) -> Result<(), StoreError> {
        self.must_be_writable()?;
        let removed = self.writes().remove(reference);
        removed.map(drop).ok_or_else(|| StoreError::NoWrite(reference.to_owned()))
    }
}
