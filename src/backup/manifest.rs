//! `lemnos-backup.json`: what a backup holds, with checksums. Written last; a directory without it is no backup.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::{BackupError, Volume};
use crate::store::now_ms;

pub const MANIFEST: &str = "lemnos-backup.json";
/// What this lemnos writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;
/// A gigabyte of paths would be no manifest of ours.
const MOST_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Of the lemnos that wrote it.
    pub version: String,
    pub taken_at_ms: i64,
    /// Whether host keys and the key of registry logins are in it.
    pub with_secrets: bool,
    /// By path below the backup.
    pub files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

impl Manifest {
    pub(super) fn new(with_secrets: bool) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, taken_at_ms: now_ms(), with_secrets, files: BTreeMap::new() }
    }

    pub(super) fn volume(&self, reused_files: u64) -> Volume {
        let bytes = self.files.values().map(|file| file.bytes).sum();
        Volume { files: self.files.len() as u64, bytes, reused_files }
    }

    /// The manifest of the backup in `dir`.
    pub fn read(dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(MANIFEST);
        let no_backup = |cause: String| BackupError::NoBackup { path: dir.to_owned(), cause };
        let size = std::fs::metadata(&path).map_err(|e| no_backup(format!("{MANIFEST}: {e}")))?.len();
        if size > MOST_BYTES {
            return Err(no_backup(format!("{MANIFEST} has {size} bytes")));
        }
        let bytes = std::fs::read(&path).map_err(|e| no_backup(format!("{MANIFEST}: {e}")))?;
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| no_backup(format!("{MANIFEST}: {e}")))?;
        let found = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found > u64::from(FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(BackupError::NewerFormat { path: dir.to_owned(), found, known: FORMAT });
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|e| no_backup(format!("{MANIFEST}: {e}")))?;
        match manifest.files.keys().find(|path| !is_inside(path)) {
            Some(path) => Err(no_backup(format!("{MANIFEST} names {path:?}, which is outside of it"))),
            None => Ok(manifest),
        }
    }
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_cannot_lead_out_of_its_directory() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./x"] {
            assert!(!is_inside(path) || path == "./x", "{path}");
        }
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new(false);
        let write = |manifest: &Manifest| {
            std::fs::write(dir.path().join(MANIFEST), serde_json::to_vec(manifest).unwrap()).unwrap();
        };
        write(&manifest);
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.files.insert("../x".to_owned(), FileEntry { bytes: 1, sha256: "00".to_owned() });
        write(&manifest);
        assert!(matches!(Manifest::read(dir.path()), Err(BackupError::NoBackup { .. })));
        manifest.files.clear();
        manifest.format = FORMAT + 1;
        write(&manifest);
        assert!(matches!(Manifest::read(dir.path()), Err(BackupError::NewerFormat { .. })));
    }
}
