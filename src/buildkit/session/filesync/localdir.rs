//! A directory of this machine as a [`DirSource`].
//!
//! Listed once, so that all transfers of a build see the same entries. Owners and extended attributes are not sent, a
//! hard link is sent as a file of its own, and devices and sockets are left out. Symbolic links are never followed, not
//! even one that takes a directory's place after the listing.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{CWD, Mode, OFlags};

use super::{DirSource, Entry, Missing, SourceError, mode, shown};

/// More entries than this are refused.
const MAX_ENTRIES: usize = 1_000_000;
/// Directories nested deeper than this are refused.
const MAX_DEPTH: usize = 256;

/// A directory tree on disk.
#[derive(Debug)]
pub struct LocalDir {
    root: PathBuf,
    listing: OnceLock<Result<Arc<[Entry]>, SourceError>>,
}

impl LocalDir {
    /// The directory at `root`; links on the way to it are followed, here only.
    pub fn open(root: &Path) -> Result<Self, SourceError> {
        let path = root.display().to_string();
        let found = root.canonicalize().map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => SourceError::NotFound { path: path.clone() },
            _ => SourceError::Read { path: path.clone(), cause: cause.to_string() },
        })?;
        if !found.is_dir() {
            return Err(SourceError::Read { path, cause: "not a directory".to_owned() });
        }
        Ok(Self { root: found, listing: OnceLock::new() })
    }

    fn list(&self) -> Result<Arc<[Entry]>, SourceError> {
        let mut entries = Vec::new();
        self.list_below(b"", 0, &mut entries)?;
        Ok(entries.into())
    }

    fn list_below(&self, dir: &[u8], depth: usize, entries: &mut Vec<Entry>) -> Result<(), SourceError> {
        if depth > MAX_DEPTH {
            return Err(SourceError::TooDeep { path: shown(dir), limit: MAX_DEPTH });
        }
        let failed = |path: &[u8], cause: &std::io::Error| SourceError::Read {
            path: shown(path),
            cause: cause.to_string(),
        };
        let on_disk = self.root.join(OsStr::from_bytes(dir));
        let read = match std::fs::read_dir(&on_disk) {
            Ok(read) => read,
            Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied && !dir.is_empty() => {
                // it may well be excluded: only sending it is an error
                if let Some(last) = entries.last_mut() {
                    last.missing = Some(Missing::Unreadable);
                }
                return Ok(());
            }
            Err(cause) => return Err(failed(dir, &cause)),
        };
        let mut names = Vec::new();
        for found in read {
            names.push(found.map_err(|cause| failed(dir, &cause))?.file_name());
            if entries.len() + names.len() > MAX_ENTRIES {
                return Err(SourceError::TooManyEntries { limit: MAX_ENTRIES });
            }
        }
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            let separator: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            let path = [dir, separator, name.as_bytes()].concat();
            let place = on_disk.join(&name);
            let entry = match std::fs::symlink_metadata(&place).and_then(|found| entry(&path, &place, &found))
            {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                // removed since the directory was read
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(failed(&path, &cause)),
            };
            let is_dir = entry.is_dir();
            entries.push(entry);
            if is_dir {
                self.list_below(&path, depth + 1, entries)?;
            }
        }
        Ok(())
    }
}

/// The entry for what stands at `place`; none for what is not sent.
fn entry(path: &[u8], place: &Path, found: &Metadata) -> std::io::Result<Option<Entry>> {
    let kind = found.file_type();
    if kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Ok(None);
    }
    let linkname = match kind.is_symlink() {
        true => std::fs::read_link(place)?.as_os_str().as_bytes().to_vec(),
        false => Vec::new(),
    };
    let unix = found.mode();
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    let mode = unix & mode::PERMISSIONS
        | bit(unix & 0o4000 != 0, mode::SETUID)
        | bit(unix & 0o2000 != 0, mode::SETGID)
        | bit(unix & 0o1000 != 0, mode::STICKY)
        | bit(kind.is_dir(), mode::DIR)
        | bit(kind.is_symlink(), mode::SYMLINK)
        | bit(kind.is_fifo(), mode::FIFO);
    let size = if kind.is_file() || kind.is_symlink() { found.size() } else { 0 };
    let mtime_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    Ok(Some(Entry { path: path.to_vec(), mode, size, mtime_ns, linkname, missing: None }))
}

impl DirSource for LocalDir {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        self.listing.get_or_init(|| self.list()).clone()
    }

    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        let failed = |cause: String| SourceError::Read { path: shown(&entry.path), cause };
        let safe = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |at: rustix::fd::BorrowedFd<'_>, name: &[u8], flags: OFlags| {
            rustix::fs::openat(at, OsStr::from_bytes(name), flags, Mode::empty())
                .map_err(|cause| failed(std::io::Error::from(cause).to_string()))
        };
        let mut dir = open(CWD, self.root.as_os_str().as_bytes(), safe | OFlags::DIRECTORY)?;
        let mut parts = entry.path.split(|b| *b == b'/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                dir = open(std::os::fd::AsFd::as_fd(&dir), part, safe | OFlags::DIRECTORY)?;
                continue;
            }
            let file = File::from(open(std::os::fd::AsFd::as_fd(&dir), part, safe)?);
            if !file.metadata().map_err(|cause| failed(cause.to_string()))?.is_file() {
                return Err(SourceError::NotAFile { path: shown(&entry.path) });
            }
            return Ok(Box::new(file));
        }
        Err(SourceError::NotFound { path: shown(&entry.path) })
    }
}
