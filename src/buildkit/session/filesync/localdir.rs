//! A directory of this machine as a [`DirSource`].
//!
//! Listed once, so that all transfers of a build see the same entries. Owners are not sent, extended attributes on request
//! only, and devices and sockets are left out. A file's further names are sent as hard links. Symbolic links are never
//! followed, not even one that takes a directory's place after the listing.

use std::collections::{BTreeMap, HashMap};
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
    xattrs: bool,
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
        Ok(Self { root: found, xattrs: false, listing: OnceLock::new() })
    }

    /// Sends extended attributes too, at the price of looking for them at every entry.
    pub fn with_xattrs(mut self) -> Self {
        self.xattrs = true;
        self
    }

    fn list(&self) -> Result<Arc<[Entry]>, SourceError> {
        let mut found = Found::default();
        self.list_below(b"", 0, &mut found)?;
        Ok(found.entries.into())
    }

    fn list_below(&self, dir: &[u8], depth: usize, listed: &mut Found) -> Result<(), SourceError> {
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
                if let Some(last) = listed.entries.last_mut() {
                    last.missing = Some(Missing::Unreadable);
                }
                return Ok(());
            }
            Err(cause) => return Err(failed(dir, &cause)),
        };
        let mut names = Vec::new();
        for found in read {
            names.push(found.map_err(|cause| failed(dir, &cause))?.file_name());
            if listed.entries.len() + names.len() > MAX_ENTRIES {
                return Err(SourceError::TooManyEntries { limit: MAX_ENTRIES });
            }
        }
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            let separator: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            let path = [dir, separator, name.as_bytes()].concat();
            let place = on_disk.join(&name);
            let mut entry = match std::fs::symlink_metadata(&place).and_then(|found| {
                let entry = entry(&path, &place, &found)?;
                Ok(entry.map(|entry| listed.linked(entry, &found)))
            }) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                // removed since the directory was read
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(failed(&path, &cause)),
            };
            if self.xattrs && (entry.is_dir() || entry.is_regular()) {
                entry.xattrs = xattrs(&place).map_err(|cause| failed(&path, &cause))?;
            }
            let is_dir = entry.is_dir();
            listed.entries.push(entry);
            if is_dir {
                self.list_below(&path, depth + 1, listed)?;
            }
        }
        Ok(())
    }
}

/// What a listing has come across.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// The first name of each file with several, by device and inode.
    first_names: HashMap<(u64, u64), Vec<u8>>,
}

impl Found {
    /// `entry`, as a link where its file has been seen under another name.
    fn linked(&mut self, mut entry: Entry, found: &Metadata) -> Entry {
        if entry.is_regular() && found.nlink() > 1 {
            match self.first_names.entry((found.dev(), found.ino())) {
                std::collections::hash_map::Entry::Occupied(first) => entry.linkname.clone_from(first.get()),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(entry.path.clone());
                }
            }
        }
        entry
    }
}

/// The extended attributes at `place`, which is no link; none where the file system has none.
fn xattrs(place: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    /// As long as the kernel lets lists and values be.
    const LIMIT: usize = 64 << 10;
    let mut names = vec![0; LIMIT];
    let length = match rustix::fs::llistxattr(place, &mut names) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
        length => length?,
    };
    let mut found = BTreeMap::new();
    for name in names.get(..length).unwrap_or_default().split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let mut value = vec![0; LIMIT];
        // one that may not be read is left out, as Go's clients do
        if let Ok(length) = rustix::fs::lgetxattr(place, name, &mut value) {
            value.truncate(length);
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
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
    Ok(Some(Entry { path: path.to_vec(), mode, size, mtime_ns, linkname, ..Entry::default() }))
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
