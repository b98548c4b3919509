//! Making a data directory of a backup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy;
use super::manifest::Manifest;
use super::repository;
use super::{BackupError, REPOSITORIES, Volume, is_empty, partial_of};
use crate::receive::{Repositories, lay_out};
use crate::store;

/// A data directory that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub data_dir: PathBuf,
    pub taken_at_ms: i64,
    pub apps: u64,
    #[serde(flatten)]
    pub volume: Volume,
    /// Host keys and the key of registry logins.
    pub with_secrets: bool,
}

/// Copies the backup in `dir` to `data_dir`, which must be empty or not there; every file is compared with its checksum,
/// every repository walked by the git at `git`.
pub async fn restore(dir: &Path, data_dir: &Path, git: &Path) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(dir)?;
    if !is_empty(data_dir)? {
        return Err(BackupError::NotEmpty(data_dir.to_owned()));
    }
    let partial = partial_of(data_dir).ok_or_else(|| BackupError::NotEmpty(data_dir.to_owned()))?;
    repository::remove(&partial)?;
    copy::private_dir(&partial)?;
    let ids = repository::ids(&manifest.files);
    for id in &ids {
        let path = repository::path(&partial, id);
        copy::private_dir(&path)?;
        lay_out(&path)?;
    }
    for (path, expected) in &manifest.files {
        let (from, to) = (dir.join(path), partial.join(path));
        if let Some(parent) = to.parent() {
            copy::private_dir(parent)?;
        }
        let mode = if path.contains("/objects/") { 0o444 } else { 0o600 };
        let damaged = |cause: &str| BackupError::Damaged { path: from.clone(), cause: cause.to_owned() };
        match copy::copy(&from, &to, mode)? {
            Some(found) if found == *expected => {}
            Some(_) => return Err(damaged("its checksum differs from the one that was noted")),
            None => return Err(damaged("it is missing")),
        }
    }
    let repositories = Repositories::new(partial.join(REPOSITORIES));
    for id in &ids {
        let path = repository::path(&partial, id);
        repositories.ensure_pristine(id)?;
        repository::check(git, &path).map_err(|cause| BackupError::Damaged {
            path: repository::path(dir, id),
            cause: format!("a ref's history is not whole: {cause}"),
        })?;
    }
    let known = store::check(&partial.join(store::FILE_NAME)).await?;
    if let Some(id) = known.iter().find(|id| !ids.contains(*id)) {
        let cause = format!("the store has an app whose repository {id} is not in it");
        return Err(BackupError::NoBackup { path: dir.to_owned(), cause });
    }
    copy::sync_dirs(&partial)?;
    fs::rename(&partial, data_dir).map_err(BackupError::io("renaming", &partial))?;
    if let Some(parent) = data_dir.parent() {
        File::open(parent).and_then(|p| p.sync_all()).map_err(BackupError::io("syncing", parent))?;
    }
    Ok(Restored {
        data_dir: data_dir.to_owned(),
        taken_at_ms: manifest.taken_at_ms,
        apps: ids.len() as u64,
        volume: manifest.volume(0),
        with_secrets: manifest.with_secrets,
    })
}
