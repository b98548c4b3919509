//! Files from one directory to another: copied with their checksum and synced, or linked where an equal one is on the disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::BackupError;
use super::manifest::FileEntry;

const BUFFER: usize = 256 << 10;

/// Makes a directory, and those above it, for this user only.
pub(super) fn private_dir(dir: &Path) -> Result<(), BackupError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(BackupError::io("making", dir))
}

/// Copies a file; none where it is not there.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<Option<FileEntry>, BackupError> {
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(BackupError::io("reading", from)(e)),
    };
    let mut target = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(to)
        .map_err(BackupError::io("writing", to))?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(BackupError::io("reading", from)(e)),
        };
        let part = buffer.get(..length).unwrap_or_default();
        hash.update(part);
        bytes += length as u64;
        target.write_all(part).map_err(BackupError::io("writing", to))?;
    }
    target.sync_all().map_err(BackupError::io("writing", to))?;
    Ok(Some(FileEntry { bytes, sha256: hex::encode(hash.finalize()) }))
}

/// The checksum of a file.
pub(super) fn checksum(path: &Path) -> Result<FileEntry, BackupError> {
    let failed = || BackupError::io("reading", path);
    let mut file = File::open(path).map_err(failed())?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        let length = file.read(&mut buffer).map_err(failed())?;
        if length == 0 {
            return Ok(FileEntry { bytes, sha256: hex::encode(hash.finalize()) });
        }
        hash.update(buffer.get(..length).unwrap_or_default());
        bytes += length as u64;
    }
}

/// Gives a file, whose content never changes, a second name. False where that cannot be: another file system, or gone.
pub(super) fn link(from: &Path, to: &Path) -> bool {
    fs::hard_link(from, to).is_ok()
}

/// Writes a small file whole.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), BackupError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(BackupError::io("writing", path))
}

/// Puts a directory's names, and those of all below it, on the disk.
pub(super) fn sync_dirs(dir: &Path) -> Result<(), BackupError> {
    let failed = || BackupError::io("syncing", dir);
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed())
}
