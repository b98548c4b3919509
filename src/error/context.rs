//! What people see when a commit cannot be a build context.

use super::{Kind, Report};
use crate::solve::context::ContextError;

impl From<ContextError> for Report {
    fn from(error: ContextError) -> Self {
        let message = error.to_string();
        match error {
            ContextError::NotARepository { .. } => Self::new(Kind::NotFound, message)
                .hint("give a directory, or GITDIR@COMMIT with a branch, tag or commit id"),
            ContextError::NoDirectory { .. } => Self::user(message)
                .hint("git keeps no empty directories: commit a file in it, or change context_path"),
            ContextError::TooManyEntries { .. } | ContextError::TooDeep { .. } => {
                Self::user(message).hint("set context_path to the directory that the build needs")
            }
            ContextError::BadName { .. } | ContextError::LongLink { .. } => {
                Self::user(message).hint("remove it from the commit and push again")
            }
            ContextError::Commit { .. } | ContextError::Read { .. } => {
                Self::internal(message).hint("`git fsck` says what is wrong with the repository")
            }
        }
    }
}
