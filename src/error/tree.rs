//! What people see when a source tree cannot be opened.

use super::{Kind, Report};
use crate::receive::tree::OpenTreeError;

impl From<OpenTreeError> for Report {
    fn from(error: OpenTreeError) -> Self {
        let message = error.to_string();
        match error {
            OpenTreeError::NotARepository { .. } => Self::new(Kind::NotFound, message)
                .hint("give a directory, or GITDIR@COMMIT with a branch, tag or commit id"),
            OpenTreeError::Commit { .. } => {
                Self::internal(message).hint("`git fsck` says what is wrong with the repository")
            }
        }
    }
}
