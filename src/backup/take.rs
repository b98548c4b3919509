//! Taking a backup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy;
use super::manifest::{FileEntry, MANIFEST, Manifest};
use super::repository::{self, Earlier};
use super::{BackupError, REPOSITORIES, SECRETS, Volume, is_empty, partial_of};
use crate::store;

/// How often the store is copied anew because an app of it went away meanwhile.
const TRIES: u32 = 3;

/// A backup that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub dir: PathBuf,
    pub apps: u64,
    #[serde(flatten)]
    pub volume: Volume,
    pub with_secrets: bool,
    /// The one that stood there before, in Unix milliseconds.
    pub replaces_ms: Option<i64>,
}

/// Copies `data_dir` to `dir`, in the place of an earlier backup that is there; `git` is git's absolute path.
pub async fn take(data_dir: &Path, dir: &Path, git: &Path, with_secrets: bool) -> Result<Taken, BackupError> {
    let dir = std::path::absolute(dir).map_err(BackupError::io("finding", dir))?;
    if !data_dir.join(store::FILE_NAME).is_file() {
        return Err(BackupError::NoData(data_dir.to_owned()));
    }
    let inside = |path: &Path| path.starts_with(data_dir);
    if inside(&dir) || dir.parent().and_then(|p| p.canonicalize().ok()).is_some_and(|p| inside(&p)) {
        return Err(BackupError::Inside(dir));
    }
    let before = if is_empty(&dir)? {
        None
    } else {
        Some(Manifest::read(&dir).map_err(|error| match error {
            BackupError::NoBackup { path, .. } => BackupError::Foreign(path),
            other => other,
        })?)
    };
    let partial = partial_of(&dir).ok_or_else(|| BackupError::Foreign(dir.clone()))?;
    let lock = begin(&partial, &dir)?;
    let earlier = before.as_ref().map(|manifest| Earlier { dir: &dir, manifest });
    let mut attempt = 1;
    let (manifest, reused, apps) = loop {
        clear(&partial)?;
        match fill(data_dir, &partial, git, with_secrets, earlier.as_ref()).await? {
            Some(filled) => break filled,
            None if attempt < TRIES => attempt += 1,
            None => {
                let cause = "apps are destroyed again and again".to_owned();
                return Err(BackupError::Unsteady { id: "of an app".to_owned(), cause });
            }
        }
    };
    let json = serde_json::to_vec(&manifest).map_err(|e| BackupError::io("writing", &partial)(e.into()))?;
    copy::write(&partial.join(MANIFEST), &json, 0o600)?;
    copy::sync_dirs(&partial)?;
    stand(&partial, &dir)?;
    drop(lock);
    Ok(Taken {
        apps,
        volume: manifest.volume(reused),
        with_secrets,
        replaces_ms: before.map(|manifest| manifest.taken_at_ms),
        dir,
    })
}

/// Makes the directory that becomes the backup; held while it is worked in.
fn begin(partial: &Path, dir: &Path) -> Result<File, BackupError> {
    copy::private_dir(partial)?;
    let lock = File::open(partial).map_err(BackupError::io("opening", partial))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(BackupError::Busy(dir.to_owned())),
        Err(std::fs::TryLockError::Error(cause)) => Err(BackupError::io("locking", partial)(cause)),
    }
}

/// Takes away what an attempt before left.
fn clear(partial: &Path) -> Result<(), BackupError> {
    let failed = || BackupError::io("clearing", partial);
    for entry in fs::read_dir(partial).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed())?;
    }
    Ok(())
}

/// None where an app of the store has lost its repository meanwhile.
async fn fill(
    data_dir: &Path,
    partial: &Path,
    git: &Path,
    with_secrets: bool,
    earlier: Option<&Earlier<'_>>,
) -> Result<Option<(Manifest, u64, u64)>, BackupError> {
    let mut manifest = Manifest::new(with_secrets);
    let database = partial.join(store::FILE_NAME);
    let ids = store::snapshot(data_dir, &database).await?;
    File::open(&database).and_then(|f| f.sync_all()).map_err(BackupError::io("syncing", &database))?;
    manifest.files.insert(store::FILE_NAME.to_owned(), copy::checksum(&database)?);
    let mut reused = 0;
    let mut missing = 0;
    for id in &ids {
        let inside = format!("{REPOSITORIES}/{id}.git");
        let (from, to) = (repository::path(data_dir, id), repository::path(partial, id));
        match repository::copy(git, &from, &to, &inside, earlier)? {
            Some(copied) => {
                reused += copied.reused;
                let inside = |(name, entry)| (format!("{inside}/{name}"), entry);
                manifest.files.extend(copied.files.into_iter().map(inside));
            }
            None => missing += 1,
        }
    }
    if missing > 0 {
        return Ok(None);
    }
    let configuration = std::iter::once(crate::config::FILE_NAME);
    let secrets = SECRETS.into_iter().filter(|_| with_secrets);
    for name in configuration.chain(secrets) {
        for path in files_of(data_dir, name)? {
            let target = partial.join(&path);
            if let Some(dir) = target.parent() {
                copy::private_dir(dir)?;
            }
            let entry: Option<FileEntry> = copy::copy(&data_dir.join(&path), &target, 0o600)?;
            manifest.files.extend(entry.map(|entry| (path, entry)));
        }
    }
    Ok(Some((manifest, reused, ids.len() as u64)))
}

/// The file `name`, or the files right in the directory `name`.
fn files_of(data_dir: &Path, name: &str) -> Result<Vec<String>, BackupError> {
    let path = data_dir.join(name);
    if !path.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let failed = || BackupError::io("reading", &path);
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_file() {
            files.push(format!("{name}/{}", entry.file_name().to_string_lossy()));
        }
    }
    Ok(files)
}

/// Gives the complete backup its name; the earlier one goes only after.
fn stand(partial: &Path, dir: &Path) -> Result<(), BackupError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let failed = || BackupError::io("renaming", partial);
    if dir.exists() {
        renameat_with(CWD, partial, CWD, dir, RenameFlags::EXCHANGE).map_err(|e| failed()(e.into()))?;
    } else {
        fs::rename(partial, dir).map_err(failed())?;
    }
    if let Some(parent) = dir.parent() {
        File::open(parent).and_then(|p| p.sync_all()).map_err(BackupError::io("syncing", parent))?;
    }
    // now the earlier one
    repository::remove(partial)
}
