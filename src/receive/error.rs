//! What can go wrong here: `ReceiveError` is ours or the machine's, `Refusal` is the push's.

use std::path::{Path, PathBuf};

use super::limits::human_bytes;
use crate::model::Invalid;

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("no git can be run at {path}: {cause}", path = path.display())]
    NoGit { path: PathBuf, cause: std::io::Error },
    #[error("{path} is git {found}; {needed} or newer is needed", path = path.display())]
    GitTooOld { path: PathBuf, found: String, needed: &'static str },
    #[error("{what} {path} is not an absolute path", path = path.display())]
    NotAbsolute { what: &'static str, path: PathBuf },
    #[error("{path} has {length} bytes; a unix socket's path may have {limit}", path = path.display())]
    SocketPath { path: PathBuf, length: usize, limit: usize },
    #[error("{doing} {path}: {cause}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{0:?} cannot name a repository")]
    BadId(String),
    #[error("{what} {id} in {path}: {cause}", path = path.display())]
    Object { what: &'static str, id: String, path: PathBuf, cause: String },
    #[error("{doing} {path}: {cause}", path = path.display())]
    Repository { doing: &'static str, path: PathBuf, cause: String },
}

impl ReceiveError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
    pub(super) fn git(doing: &'static str, path: &Path) -> impl FnOnce(git2::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Repository { doing, path, cause: cause.message().to_owned() }
    }
}

/// Why a push is refused before its objects enter the repository. The text is a sentence for the pusher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Name(Invalid),
    #[error("the push names {0} more than once")]
    Twice(String),
    #[error("the push has more than {0} ref commands")]
    TooManyUpdates(usize),
    #[error("{reference} would point at a {kind}; a branch points at a commit")]
    NotACommit { reference: String, kind: String },
    #[error("{what} is {size}; one object may have {limit}", size = human_bytes(*size_bytes), limit = human_bytes(*limit_bytes))]
    Blob { what: String, size_bytes: u64, limit_bytes: u64 },
    #[error("this clone is shallow, and the server lacks the commits before its boundary ({0})")]
    Shallow(String),
    #[error("the push brings more than {limit} of inflated objects", limit = human_bytes(*limit_bytes))]
    NewBytes { limit_bytes: u64 },
    #[error("the push brings more than {0} objects")]
    NewObjects(u64),
    #[error("the tree of {reference} has more than {limit} paths")]
    Entries { reference: String, limit: u64 },
    #[error("the tree of {reference} has directories nested more than {limit} deep")]
    Depth { reference: String, limit: u32 },
    #[error("the tree of {reference} has more than {limit} of files", limit = human_bytes(*limit_bytes))]
    TreeBytes { reference: String, limit_bytes: u64 },
    #[error("{path} in {reference} is a symbolic link; build configuration is read from regular files only")]
    Symlink { reference: String, path: String },
    #[error("the objects could not be read: {0}")]
    Unreadable(String),
    #[error("the hook's request does not belong to a running push: {0}")]
    Forged(&'static str),
}

impl Refusal {
    /// What the pusher can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Name(_) => "push to another name: git push REMOTE LOCAL:refs/heads/NAME",
            Self::Twice(_) => "name each ref once",
            Self::TooManyUpdates(_) => "push the refs in several smaller pushes",
            Self::NotACommit { .. } => "push a commit, or the object under refs/tags/",
            Self::Blob { .. } => {
                "take the file out of the commits that are pushed (git rm and amend, or git filter-repo), and fetch it in the build"
            }
            Self::Shallow(_) => "run git fetch --unshallow, then push again",
            Self::NewBytes { .. } | Self::NewObjects(_) => {
                "push the history in parts, oldest first, or ask the operator for a higher limit"
            }
            Self::Entries { .. } | Self::Depth { .. } | Self::TreeBytes { .. } => {
                "split the repository, or ask the operator for a higher limit"
            }
            Self::Symlink { .. } => "replace the link by the file it points at, and commit that",
            Self::Unreadable(_) => "run git fsck in the clone, then push again",
            Self::Forged(_) => return None,
        })
    }
}
