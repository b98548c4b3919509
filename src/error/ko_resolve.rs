//! Errors of `ko://` references in YAML as people see them: always the user's to mend.

use super::Report;
use crate::kinds::ko::resolve::{ResolveError, SelectorError};

/// What to do about it.
pub(super) fn resolve_hint(error: &ResolveError) -> String {
    match error {
        ResolveError::TooLarge { .. } => "split the file".to_owned(),
        ResolveError::Syntax { file, .. } | ResolveError::Unprintable { file, .. } => {
            format!("correct {file}")
        }
        ResolveError::Reference { .. } => "for example ko://example.com/shop/cmd/web".to_owned(),
        ResolveError::NoObject { .. } | ResolveError::List { .. } => {
            "leave the selector out, or the file".to_owned()
        }
        ResolveError::Unresolved { .. } => "name a main package that is built".to_owned(),
        ResolveError::Misplaced { .. } => {
            "write the references as plain values, image: ko://…, without anchors or tags".to_owned()
        }
    }
}

impl From<ResolveError> for Report {
    fn from(error: ResolveError) -> Self {
        Self::user(error.to_string()).hint(resolve_hint(&error))
    }
}

impl From<SelectorError> for Report {
    fn from(error: SelectorError) -> Self {
        Self::user(error.to_string())
    }
}
