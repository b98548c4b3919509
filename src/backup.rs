//! A copy of everything that cannot be made again: the store and the repositories, while the server runs.
//!
//! The store is copied first, as one moment of it, and the repositories after: whatever the store speaks of is in them. Of a
//! repository the refs are read first and the objects after, until none vanished meanwhile, and then it is checked whole. A
//! backup stands under its name when it is complete and on the disk, never before. Images are the registry's to keep.
//! Must not write to the data directory, nor restore into one that has something in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::receive::ReceiveError;
use crate::store::StoreError;

mod copy;
mod manifest;
mod repository;
mod restore;
mod take;

pub use manifest::{MANIFEST, Manifest};
pub use restore::{Restored, restore};
pub use take::{Taken, take};

/// What is left out unless it is asked for: whoever has it can be taken for this server, and open its registry logins.
pub const SECRETS: [&str; 2] = ["ssh", crate::store::KEY_FILE_NAME];
/// Where the repositories are, in a data directory as in a backup.
const REPOSITORIES: &str = "repositories";

/// How much a backup or a restore has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Volume {
    pub files: u64,
    pub bytes: u64,
    /// Of these, files that an earlier backup had already.
    pub reused_files: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{doing} {}: {cause}", .path.display())]
    Io { doing: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("there is no lemnos data in {}", .0.display())]
    NoData(PathBuf),
    #[error("{} has something in it that is no backup of lemnos", .0.display())]
    Foreign(PathBuf),
    #[error("{} is inside the data directory", .0.display())]
    Inside(PathBuf),
    #[error("another backup to {} is under way", .0.display())]
    Busy(PathBuf),
    #[error("{} is no backup of lemnos: {cause}", .path.display())]
    NoBackup { path: PathBuf, cause: String },
    #[error("the backup in {} has format {found}; this lemnos reads up to {known}", .path.display())]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error("{} is damaged: {cause}", .path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("repository {id} changed faster than it could be copied: {cause}")]
    Unsteady { id: String, cause: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Repository(#[from] ReceiveError),
}

impl BackupError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
}

/// `/a/b/NAME` -> `/a/b/.NAME.lemnos-partial`: beside its target, so that a rename is all it takes.
fn partial_of(target: &Path) -> Option<PathBuf> {
    let name = target.file_name()?.to_string_lossy();
    Some(target.with_file_name(format!(".{name}.lemnos-partial")))
}

/// Nothing in it, or not there.
fn is_empty(dir: &Path) -> Result<bool, BackupError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(BackupError::io("reading", dir)(e)),
    }
}
