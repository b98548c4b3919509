//! The build context of a commit, straight from git objects: no checkout, no temporary directory.
//!
//! Invariants: a file's time changes exactly when its content or mode does (see [`Ledger`]), because the daemon compares
//! times and never content; modes, owners and directory times are constants of the kind of entry; nothing outside the
//! context's directory is served. Must not write to the repository, nor read a blob to list one that the ledger knows.

mod blobs;
mod ledger;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::buildkit::session::filesync::{DirSource, Entry, Missing, SourceError, find, mode, shown};
use crate::model::Sha;
use crate::model::tree::clean_path;

use blobs::{Blobs, message};
pub use ledger::{CorruptLedger, Ledger};
use ledger::{Known, Times};

/// A context with more entries is refused; receiving checks a tighter bound of its own.
const MAX_ENTRIES: usize = 500_000;
const MAX_DEPTH: usize = 256;
/// Longer link targets fit no file system.
const MAX_LINK_BYTES: u64 = 4096;
/// Pointers are smaller than this by their specification, and no valid one is as small as the other bound.
const LFS_POINTER_BYTES: std::ops::RangeInclusive<u64> = 80..=1024;
/// 1980: the daemon never compares the times of directories, and archivers refuse anything earlier.
const DIRECTORY_MTIME_NS: i64 = 315_532_800_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    #[error("{path} is not a git repository: {cause}")]
    NotARepository { path: String, cause: String },
    #[error("reading commit {commit}: {cause}")]
    Commit { commit: Sha, cause: String },
    #[error("the commit has no directory {path:?}")]
    NoDirectory { path: String },
    #[error("reading {path}: {cause}")]
    Read { path: String, cause: String },
    #[error("the context has more than {limit} entries")]
    TooManyEntries { limit: usize },
    #[error("{path} is nested deeper than {limit} directories")]
    TooDeep { path: String, limit: usize },
    #[error("the tree holds an entry with the name \"{name}\", which no file can have")]
    BadName { name: String },
    #[error(
        "the symbolic link {path} has a target of {size} bytes; {limit} are the most a file system takes"
    )]
    LongLink { path: String, size: u64, limit: u64 },
}

/// One directory of a commit, as BuildKit asks for it. Cheap to clone.
#[derive(Clone)]
pub struct GitContext {
    commit: Arc<Commit>,
    /// From the root of the tree; empty for the root.
    path: String,
    listing: Arc<Listing>,
}

struct Commit {
    blobs: Blobs,
    root: git2::Oid,
    times: Times,
}

struct Listing {
    entries: Arc<[Entry]>,
    /// Of each entry.
    oids: Vec<git2::Oid>,
}

impl fmt::Debug for GitContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.listing.entries.len();
        f.debug_struct("GitContext")
            .field("path", &self.path)
            .field("entries", &entries)
            .finish_non_exhaustive()
    }
}

impl GitContext {
    /// Lists the directory `subdir` (`""`: the root) of `commit`, and moves `ledger` on to it: the ledger must be kept
    /// when anything was sent, whether or not the build ends well. `now_s`: Unix seconds at the build's start. Blocks,
    /// for about 20 ms for 7,500 files.
    pub fn open(
        repository: &Path,
        commit: &Sha,
        subdir: &str,
        ledger: &mut Ledger,
        now_s: i64,
    ) -> Result<Self, ContextError> {
        let path = clean(subdir)?;
        let blobs = Blobs::open(repository)?;
        let root = blobs
            .with(|git| {
                let id = git2::Oid::from_str(commit.as_str())?;
                Ok(git.find_object(id, None)?.peel_to_tree()?.id())
            })
            .map_err(|cause| ContextError::Commit { commit: commit.clone(), cause: message(&cause) })?;
        let times = ledger.begin(now_s);
        let commit = Commit { blobs, root, times };
        let before = ledger.take(&path);
        let (listing, known) = commit.list(&path, &before)?;
        ledger.put(&path, known, times);
        Ok(Self { commit: Arc::new(commit), path, listing: Arc::new(listing) })
    }

    /// Streams files of several megabytes through this git program (an absolute path) instead of reading them whole.
    #[must_use]
    pub fn streaming_with(mut self, git: PathBuf) -> Self {
        self.commit = Arc::new(Commit {
            blobs: self.commit.blobs.streaming_with(git),
            root: self.commit.root,
            times: self.commit.times,
        });
        self
    }

    /// Another directory of the same commit, for the Dockerfile's: the daemon keeps no mirror of that, so the ledger
    /// does not know it. Nothing is read again for the context itself or a directory in it. Blocks.
    pub fn at(&self, subdir: &str) -> Result<Self, ContextError> {
        let path = clean(subdir)?;
        let listing = if path == self.path {
            self.listing.clone()
        } else if let Some(inside) = inside(&path, &self.path) {
            Arc::new(
                self.listing.below(inside).ok_or_else(|| ContextError::NoDirectory { path: path.clone() })?,
            )
        } else {
            Arc::new(self.commit.list(&path, &ledger::Files::default())?.0)
        };
        Ok(Self { commit: self.commit.clone(), path, listing })
    }

    /// Submodules in the directory, by path; git keeps no content of theirs, so they are not served.
    pub fn submodules(&self) -> Vec<String> {
        self.missing(Missing::Submodule)
    }

    /// Git LFS pointers in the directory, by path; served as the small texts that they are.
    pub fn lfs_pointers(&self) -> Vec<String> {
        self.missing(Missing::LfsPointer)
    }

    fn missing(&self, kind: Missing) -> Vec<String> {
        let entries = self.listing.entries.iter();
        entries.filter(|entry| entry.missing == Some(kind)).map(|entry| shown(&entry.path)).collect()
    }
}

impl DirSource for GitContext {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        Ok(self.listing.entries.clone())
    }

    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        let path = || shown(&entry.path);
        let at = find(&self.listing.entries, &entry.path);
        let known = at.and_then(|at| Some((self.listing.entries.get(at)?, self.listing.oids.get(at)?)));
        let (entry, oid) = known.ok_or_else(|| SourceError::NotFound { path: path() })?;
        if !entry.is_regular() {
            return Err(SourceError::NotAFile { path: path() });
        }
        self.commit.blobs.read(*oid, entry)
    }
}

impl Listing {
    /// The part below a directory; none where there is no such directory.
    fn below(&self, dir: &str) -> Option<Self> {
        let at = find(&self.entries, dir.as_bytes())?;
        let found = self.entries.get(at)?;
        if !found.is_dir() || found.missing.is_some() {
            return None;
        }
        let prefix = format!("{dir}/");
        let mut entries = Vec::new();
        let mut oids = Vec::new();
        for (entry, oid) in self.entries.iter().zip(&self.oids).skip(at + 1) {
            let Some(path) = entry.path.strip_prefix(prefix.as_bytes()) else { break };
            entries.push(Entry { path: path.to_vec(), ..entry.clone() });
            oids.push(*oid);
        }
        Some(Self { entries: entries.into(), oids })
    }
}

impl Commit {
    fn list(&self, path: &str, before: &ledger::Files) -> Result<(Listing, ledger::Files), ContextError> {
        let failed = |cause| ContextError::Read { path: path.to_owned(), cause: message(&cause) };
        self.blobs.with(|git| Ok(self.list_in(git, path, before))).map_err(failed)?
    }

    fn list_in(
        &self,
        git: &git2::Repository,
        path: &str,
        before: &ledger::Files,
    ) -> Result<(Listing, ledger::Files), ContextError> {
        let read = |cause: git2::Error| ContextError::Read { path: path.to_owned(), cause: message(&cause) };
        let mut tree = git.find_tree(self.root).map_err(read)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let child = tree.get_name(part).filter(|child| child.kind() == Some(git2::ObjectType::Tree));
            let id = child.map(|child| child.id());
            let id = id.ok_or_else(|| ContextError::NoDirectory { path: path.to_owned() })?;
            tree = git.find_tree(id).map_err(read)?;
        }
        let mut walk = Walk {
            git,
            odb: git.odb().map_err(read)?,
            times: self.times,
            before,
            entries: Vec::new(),
            oids: Vec::new(),
            known: ledger::Files::default(),
        };
        walk.list(tree.id(), b"", 0)?;
        Ok((Listing { entries: walk.entries.into(), oids: walk.oids }, walk.known))
    }
}

struct Walk<'a> {
    git: &'a git2::Repository,
    odb: git2::Odb<'a>,
    times: Times,
    before: &'a ledger::Files,
    entries: Vec<Entry>,
    oids: Vec<git2::Oid>,
    known: ledger::Files,
}

impl Walk<'_> {
    fn list(&mut self, tree: git2::Oid, dir: &[u8], depth: usize) -> Result<(), ContextError> {
        if depth > MAX_DEPTH {
            return Err(ContextError::TooDeep { path: shown(dir), limit: MAX_DEPTH });
        }
        let tree = self.git.find_tree(tree).map_err(|cause| unreadable(dir, &cause))?;
        let mut children: Vec<_> =
            tree.iter().map(|child| (child.name_bytes().to_vec(), child.id(), child.filemode())).collect();
        // git sorts a directory as if its name ended in a slash
        children.sort_unstable();
        if self.entries.len() + children.len() > MAX_ENTRIES {
            return Err(ContextError::TooManyEntries { limit: MAX_ENTRIES });
        }
        for (name, oid, filemode) in children {
            // git's own fsck knows more names that are `.git` to some file systems
            if matches!(name.as_slice(), b"" | b"." | b"..")
                || name.contains(&b'/')
                || name.eq_ignore_ascii_case(b".git")
            {
                return Err(ContextError::BadName { name: shown(&name) });
            }
            let path = if dir.is_empty() { name } else { [dir, b"/", &name].concat() };
            let directory = Entry {
                path: path.clone(),
                mode: mode::DIR | 0o755,
                mtime_ns: DIRECTORY_MTIME_NS,
                ..Entry::default()
            };
            match filemode & 0o170_000 {
                0o040_000 => {
                    self.push(directory, oid);
                    self.list(oid, &path, depth + 1)?;
                }
                0o160_000 => self.push(Entry { missing: Some(Missing::Submodule), ..directory }, oid),
                0o120_000 => self.file(path, oid, mode::SYMLINK | 0o777)?,
                _ if filemode & 0o111 != 0 => self.file(path, oid, 0o755)?,
                _ => self.file(path, oid, 0o644)?,
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry, oid: git2::Oid) {
        self.entries.push(entry);
        self.oids.push(oid);
    }

    fn file(&mut self, path: Vec<u8>, oid: git2::Oid, mode: u32) -> Result<(), ContextError> {
        let known = match self.before.get(&path) {
            Some(known) if known.oid == oid && known.mode == mode => known.clone(),
            // a chmod: the content is known, the time is new
            Some(known) if known.oid == oid && (known.mode ^ mode) & mode::SYMLINK == 0 => {
                Known { mode, second: self.times.second, ..known.clone() }
            }
            _ => self.look(&path, oid, mode)?,
        };
        let entry = Entry {
            path: path.clone(),
            mode,
            size: known.size,
            mtime_ns: known.mtime_ns(),
            linkname: known.linkname.clone(),
            missing: known.lfs_pointer.then_some(Missing::LfsPointer),
            ..Entry::default()
        };
        self.known.insert(path, known);
        self.push(entry, oid);
        Ok(())
    }

    /// Reads what the ledger does not know: the size of a file, the content of a link or of what may be a pointer.
    fn look(&self, path: &[u8], oid: git2::Oid, mode: u32) -> Result<Known, ContextError> {
        let unreadable = |cause: git2::Error| unreadable(path, &cause);
        let (size, kind) = self.odb.read_header(oid).map_err(unreadable)?;
        let size = size as u64;
        if kind != git2::ObjectType::Blob {
            return Err(ContextError::Read { path: shown(path), cause: format!("{oid} is no blob") });
        }
        let mut known =
            Known { oid, mode, second: self.times.second, size, linkname: Vec::new(), lfs_pointer: false };
        if mode & mode::SYMLINK != 0 {
            if size > MAX_LINK_BYTES {
                return Err(ContextError::LongLink { path: shown(path), size, limit: MAX_LINK_BYTES });
            }
            known.linkname = self.odb.read(oid).map_err(unreadable)?.data().to_vec();
        } else if LFS_POINTER_BYTES.contains(&size) {
            known.lfs_pointer = is_lfs_pointer(self.odb.read(oid).map_err(unreadable)?.data());
        }
        Ok(known)
    }
}

fn unreadable(path: &[u8], cause: &git2::Error) -> ContextError {
    ContextError::Read { path: shown(path), cause: message(cause) }
}

/// By the specification: a version line comes first, and the content is named by its digest.
fn is_lfs_pointer(content: &[u8]) -> bool {
    content.starts_with(b"version https://git-lfs.github.com/spec/v1\n")
        && content.windows(12).any(|window| window == b"\noid sha256:")
}

fn clean(subdir: &str) -> Result<String, ContextError> {
    clean_path(subdir).map_err(|_| ContextError::NoDirectory { path: subdir.to_owned() })
}

/// `path` seen from the directory `dir` above it.
fn inside<'p>(path: &'p str, dir: &str) -> Option<&'p str> {
    if dir.is_empty() { Some(path) } else { path.strip_prefix(dir)?.strip_prefix('/') }
}

/// The name under which a daemon keeps its mirror of a context: one an app, branch and directory, so that builds never
/// meet another's files, and a branch's next build finds the last one's.
pub fn shared_key(app_id: &str, reference: &str, context_path: &str) -> String {
    let mut hash = Sha256::new();
    for part in [app_id, reference, context_path] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    format!("lemnos-{}", hex::encode(digest.get(..16).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
