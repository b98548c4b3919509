//! What people see when git's part of a Go build cannot be made.

use super::{Kind, Report};
use crate::solve::git_dir::GitDirError;

impl From<GitDirError> for Report {
    fn from(error: GitDirError) -> Self {
        let message = error.to_string();
        match error {
            GitDirError::NotARepository { .. } => Self::new(Kind::NotFound, message)
                .hint("give a directory, or GITDIR@COMMIT with a branch, tag or commit id"),
            GitDirError::TooManyFiles { .. } | GitDirError::TooDeep { .. } => Self::user(message)
                .hint("split the repository: Go builds are made with the whole tree and its history"),
            GitDirError::Read { .. } => {
                Self::internal(message).hint("`git fsck` says what is wrong with the repository")
            }
        }
    }
}
