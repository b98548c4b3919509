//! Writing below one directory, and nowhere else.
//!
//! Invariants: every step is taken from an open directory with a single name, and no symbolic link is followed, not even
//! one that takes a directory's place meanwhile; what is new appears under its name whole, by renaming; a directory that
//! holds something is removed only where `delete` says so. Blocks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RawMode, Timespec, Timestamps};
use rustix::io::Errno;

use super::order::split;

/// Directories nested deeper than this are not removed.
const MAX_DEPTH: usize = 512;
/// Of a temporary name; what bears it is ours.
const TEMPORARY: &str = ".lemnos-";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn name_of(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// A place for something new: its directory, its name, and the name it has until it is whole.
#[derive(Debug)]
pub(super) struct Place {
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
    temporary: String,
    /// Whether something stands under the temporary name.
    begun: bool,
    delete: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.begun {
            let _ = fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}

impl Place {
    /// An empty file, for this process alone until it gets its mode.
    pub fn file(&mut self) -> io::Result<std::fs::File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.dir, &self.temporary, flags, Mode::RUSR | Mode::WUSR)?;
        self.begun = true;
        Ok(file.into())
    }

    pub fn symlink(&mut self, target: &[u8]) -> io::Result<()> {
        fs::symlinkat(name_of(target), &self.dir, &self.temporary)?;
        self.begun = true;
        Ok(())
    }

    pub fn fifo(&mut self) -> io::Result<OwnedFd> {
        fs::mknodat(&self.dir, &self.temporary, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        self.begun = true;
        // a reader that does not wait opens a pipe at once
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.dir, &self.temporary, flags, Mode::empty())?)
    }

    /// Another name of the file called `name` in `dir`.
    pub fn hard_link(&mut self, dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
        fs::linkat(dir, name_of(name), &self.dir, &self.temporary, AtFlags::empty())?;
        self.begun = true;
        Ok(())
    }

    /// The time of a symbolic link.
    pub fn set_link_time(&self, mtime_ns: i64) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(fs::utimensat(&self.dir, &self.temporary, &times(mtime_ns), flags)?)
    }

    /// Gives it its name, in the place of what stands there.
    pub fn finish(mut self) -> io::Result<()> {
        let (dir, name) = (&self.dir, name_of(&self.name));
        match fs::renameat(dir, &self.temporary, dir, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                make_way(dir, &self.name, self.delete)?;
                fs::renameat(dir, &self.temporary, dir, name)?;
            }
            renamed => renamed?,
        }
        // renaming one name of a file to another of its names does nothing, so the old name is removed in any case
        let _ = fs::unlinkat(dir, &self.temporary, AtFlags::empty());
        self.begun = false;
        Ok(())
    }
}

/// The directory that is written into.
#[derive(Debug)]
pub(super) struct Tree {
    root: Arc<OwnedFd>,
    /// The directory last used.
    near: Option<(Vec<u8>, Arc<OwnedFd>)>,
    delete: bool,
}

impl Tree {
    /// Links on the way to `root` are followed, here only.
    pub fn open(root: &Path, delete: bool) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if delete && std::fs::canonicalize(root)?.parent().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is the root of this machine's files",
            ));
        }
        let root = Arc::new(fs::openat(fs::CWD, root, flags, Mode::empty())?);
        Ok(Self { root, near: None, delete })
    }

    /// The open directory at `path`, whose names were checked.
    pub fn dir(&mut self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((known, dir)) = &self.near
            && known == path
        {
            return Ok(dir.clone());
        }
        let mut dir = self.root.clone();
        for name in path.split(|b| *b == b'/') {
            dir = Arc::new(fs::openat(&dir, name_of(name), DIRECTORY, Mode::empty())?);
        }
        self.near = Some((path.to_vec(), dir.clone()));
        Ok(dir)
    }

    pub fn place(&mut self, path: &[u8]) -> io::Result<Place> {
        let (dir, name) = split(path);
        let temporary = format!("{TEMPORARY}{}", uuid::Uuid::now_v7().simple());
        Ok(Place { dir: self.dir(dir)?, name: name.to_vec(), temporary, begun: false, delete: self.delete })
    }

    /// Makes the directory where it is not there. A link or a file under its name makes way.
    pub fn make_dir(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        let owner = Mode::RWXU;
        match fs::mkdirat(&parent, name_of(name), owner) {
            Err(Errno::EXIST) => {}
            made => return Ok(made?),
        }
        let found = fs::statat(&parent, name_of(name), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Ok(());
        }
        fs::unlinkat(&parent, name_of(name), AtFlags::empty())?;
        Ok(fs::mkdirat(&parent, name_of(name), owner)?)
    }

    /// Removes what stands in the directory at `path` and is not wanted there.
    pub fn prune(&mut self, path: &[u8], wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let dir = self.dir(path)?;
        for name in names(&dir)? {
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            if !wanted(&[path, separator, &name].concat()) {
                remove(&dir, &name, 0)?;
            }
        }
        Ok(())
    }
}

/// Names in a directory, without `.` and `..`.
fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for found in Dir::read_from(dir)? {
        let name = found?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a directory that stands where something else must.
fn make_way(dir: &OwnedFd, name: &[u8], delete: bool) -> io::Result<()> {
    if delete {
        return remove(dir, name, 0);
    }
    match fs::unlinkat(dir, name_of(name), AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(io::Error::new(
            io::ErrorKind::DirectoryNotEmpty,
            "a directory with files stands in its place",
        )),
        removed => Ok(removed?),
    }
}

/// Removes whatever is called `name`, with everything in it.
fn remove(dir: &OwnedFd, name: &[u8], depth: usize) -> io::Result<()> {
    let plain = fs::unlinkat(dir, name_of(name), AtFlags::empty());
    match plain {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(cause) => return Err(cause.into()),
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("more than {MAX_DEPTH} directories deep")));
    }
    let inner = fs::openat(dir, name_of(name), DIRECTORY, Mode::empty())?;
    for name in names(&inner)? {
        remove(&inner, &name, depth + 1)?;
    }
    Ok(fs::unlinkat(dir, name_of(name), AtFlags::REMOVEDIR)?)
}

/// Gives an open file or directory its attributes, xattrs, mode and time: in this order, for each may spoil the ones before.
pub(super) fn set_attributes<'a>(
    file: impl AsFd,
    mode: RawMode,
    mtime_ns: i64,
    xattrs: impl Iterator<Item = (&'a String, &'a Vec<u8>)>,
) -> io::Result<()> {
    for (key, value) in xattrs {
        // what other namespaces mean is this machine's affair; a file system may have none
        if key.starts_with("user.") || key == "security.capability" {
            let _ = fs::fsetxattr(&file, key.as_str(), value, fs::XattrFlags::empty());
        }
    }
    fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(fs::futimens(&file, &times(mtime_ns))?)
}

/// Both times, as Go's receiver sets them.
fn times(ns: i64) -> Timestamps {
    let time = Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}
