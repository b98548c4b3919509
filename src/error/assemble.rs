//! `assemble` errors as people see them.

use super::{Kind, Report};
use crate::assemble::AssembleError;

impl From<AssembleError> for Report {
    fn from(error: AssembleError) -> Self {
        match error {
            AssembleError::Registry(error) => error.into(),
            AssembleError::Ko(error) => error.into(),
            AssembleError::Name { .. } => {
                Self::user(error.to_string()).hint("name the image as HOST/PATH:TAG or HOST/PATH@sha256:…")
            }
            AssembleError::WrongDigest { .. } => Self::new(Kind::Unavailable, error.to_string())
                .hint("check what stands between this server and the registry (a proxy?), then push again"),
            AssembleError::Missing { .. }
            | AssembleError::Unexpected { .. }
            | AssembleError::Duplicate { .. } => Self::internal(error.to_string()).hint(
                "nothing was published; push again with -o rebuild, and look at the builders' platforms",
            ),
            AssembleError::Unreadable { .. }
            | AssembleError::MediaType { .. }
            | AssembleError::Nested { .. }
            | AssembleError::NoPlatform { .. }
            | AssembleError::Dangling { .. }
            | AssembleError::TooMany
            | AssembleError::Injected(_) => {
                Self::internal(error.to_string()).hint("nothing was published; push again with -o rebuild")
            }
        }
    }
}
