//! The `.git` directory that a Go build finds beside its source, made from a bare repository: as much of it as `go` reads when
//! it writes commit and version into a program, so that it writes what it would write in a full clone.
//!
//! Invariants: `git status` in it finds nothing changed, as long as it stands in the commit's whole tree; `git log` has the
//! commit; the version tags of the commit's history are there, and git takes them for merged. The history between the tags is
//! left out, so the size follows the tree's directories and never the number of commits. Equal commits, refs and tags give
//! equal bytes. Must not write to the repository, nor hold anything of its configuration, its hooks or its other branches.

mod history;
mod index;
mod objects;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use crate::buildkit::session::filesync::{DirSource, Entry, SourceError, mode, shown};
use crate::kinds::ko::GitFacts;
use crate::model::Sha;

use history::History;
use objects::Objects;

/// 1980, and later by what a file holds: the daemon compares times, never content.
const EPOCH_S: i64 = 315_532_800;
const NANOSECONDS: u64 = 1_000_000_000;
/// Owner, group and modes as git finds them in a clone; and the bytes of files as they are, whatever `.gitattributes` says
/// that a checkout should have made of them.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
const ATTRIBUTES: &str = "* -text -eol -ident -filter -working-tree-encoding\n";

/// What is built, and where it will stand.
#[derive(Debug, Clone, Copy)]
pub struct GitView<'a> {
    /// The bare repository.
    pub repository: &'a Path,
    /// What was pushed: a commit, or a tag of one.
    pub tip: &'a Sha,
    /// The ref that it goes to: a branch is checked out, anything else is a detached HEAD.
    pub reference: &'a str,
    /// Refs that come with the same push and are not in the repository yet; tags among them count as if they were.
    pub pushed: &'a [(String, Sha)],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitDirError {
    #[error("{path} is not a git repository: {cause}")]
    NotARepository { path: String, cause: String },
    #[error("reading {what} for the program's version: {cause}")]
    Read { what: String, cause: String },
    #[error("the tree has more than {limit} files, which is too many to hand its history to a Go build")]
    TooManyFiles { limit: usize },
    #[error("{path} is nested deeper than {limit} directories")]
    TooDeep { path: String, limit: usize },
}

/// A `.git` directory for the session. Cheap to clone.
#[derive(Clone)]
pub struct GitDir {
    entries: Arc<[Entry]>,
    files: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    cut: bool,
}

impl fmt::Debug for GitDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitDir")
            .field("files", &self.files.len())
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

/// The directory for a Go build of `view`. Blocks.
pub fn git_dir(view: &GitView<'_>) -> Result<GitDir, GitDirError> {
    let git = open(view.repository)?;
    let history = History::of(&git, view)?;
    let mut objects = Objects::new(&git)?;
    let mut files = BTreeMap::new();
    let mut refs = BTreeMap::new();

    objects.add(history.commit)?;
    let listing = objects.add_tree(history.tree)?;
    let mut parents = Vec::new();
    for tag in history.versions() {
        objects.add_tag(tag.target)?;
        objects.add(tag.commit)?;
        refs.insert(format!("refs/tags/{}", tag.name), (tag.target, tag.commit));
        if tag.commit != history.commit && !parents.contains(&tag.commit) {
            parents.push(tag.commit);
        }
    }
    // what lies before these is not here
    let mut shallow = parents.clone();
    if parents.is_empty() {
        shallow.extend(history.has_parents.then_some(history.commit));
    } else {
        // a stand-in for the commit, whose parents are the tags: they count as merged, with nothing in between
        let stand_in = objects.add_with_parents(history.commit, &parents)?;
        // where the tags are its parents indeed, it is the commit itself
        if stand_in != history.commit {
            refs.insert(format!("refs/replace/{}", history.commit), (stand_in, stand_in));
        }
    }
    let head = match view.reference.strip_prefix("refs/heads/") {
        Some(_) => {
            refs.insert(view.reference.to_owned(), (history.commit, history.commit));
            format!("ref: {}\n", view.reference)
        }
        None => format!("{}\n", history.commit),
    };
    files.insert(b"HEAD".to_vec(), head.into_bytes());
    files.insert(b"config".to_vec(), CONFIG.into());
    files.insert(b"info/attributes".to_vec(), ATTRIBUTES.into());
    files.insert(b"packed-refs".to_vec(), packed(&refs).into_bytes());
    files.insert(b"index".to_vec(), index::write(&listing));
    if !shallow.is_empty() {
        shallow.sort_unstable();
        let lines: String = shallow.iter().map(|oid| format!("{oid}\n")).collect();
        files.insert(b"shallow".to_vec(), lines.into_bytes());
    }
    files.extend(objects.into_files());
    Ok(GitDir { entries: entries(&files), files: Arc::new(files), cut: history.cut })
}

/// What ko's templates may say of the commit, as git says it in a clone. Blocks.
pub fn git_facts(view: &GitView<'_>) -> Result<GitFacts, GitDirError> {
    let git = open(view.repository)?;
    History::of(&git, view)?.facts(&git, view)
}

fn open(repository: &Path) -> Result<git2::Repository, GitDirError> {
    let none = std::iter::empty::<&std::ffi::OsStr>();
    git2::Repository::open_ext(repository, git2::RepositoryOpenFlags::NO_SEARCH, none).map_err(|cause| {
        GitDirError::NotARepository {
            path: repository.display().to_string(),
            cause: cause.message().to_owned(),
        }
    })
}

fn unreadable(what: impl fmt::Display) -> impl FnOnce(git2::Error) -> GitDirError {
    move |cause| GitDirError::Read { what: what.to_string(), cause: cause.message().to_owned() }
}

/// All refs in one file, each with what it stands for, peeled.
fn packed(refs: &BTreeMap<String, (git2::Oid, git2::Oid)>) -> String {
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for (name, (target, commit)) in refs {
        text += &format!("{target} {name}\n");
        if target != commit {
            text += &format!("^{commit}\n");
        }
    }
    text
}

/// The files and the directories that they are in, and those that git wants to see.
fn entries(files: &BTreeMap<Vec<u8>, Vec<u8>>) -> Arc<[Entry]> {
    let directory = Entry { mode: mode::DIR | 0o755, mtime_ns: EPOCH_S * 1_000_000_000, ..Entry::default() };
    let mut all: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    let mut add_directory = |path: &[u8]| {
        all.entry(path.to_vec()).or_insert_with(|| Entry { path: path.to_vec(), ..directory.clone() });
    };
    add_directory(b"objects");
    add_directory(b"refs");
    for path in files.keys() {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            add_directory(path.get(..at).unwrap_or_default());
        }
    }
    for (path, content) in files {
        let size = content.len() as u64;
        let entry =
            Entry { path: path.clone(), mode: 0o644, size, mtime_ns: time_of(content), ..Entry::default() };
        all.insert(path.clone(), entry);
    }
    all.into_values().collect()
}

/// A time that says what is in the file.
fn time_of(content: &[u8]) -> i64 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(content);
    let number = |at: usize| {
        let bytes = hash.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        (u64::from_le_bytes(bytes) % NANOSECONDS).cast_signed()
    };
    (EPOCH_S + number(0)) * 1_000_000_000 + number(8)
}

impl GitDir {
    /// Whether the history was too long to be looked through for tags to its end.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

impl DirSource for GitDir {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        Ok(self.entries.clone())
    }

    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        let content = self.files.get(&entry.path);
        let content = content.ok_or_else(|| SourceError::NotFound { path: shown(&entry.path) })?;
        Ok(Box::new(Cursor::new(content.clone())))
    }
}

#[cfg(test)]
mod tests;
