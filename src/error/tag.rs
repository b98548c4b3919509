//! `tag` errors as people see them.

use super::{Kind, Report};
use crate::tag::{RefError, TagError};

impl From<TagError> for Report {
    fn from(error: TagError) -> Self {
        match error {
            TagError::Registry(error) => {
                let hint = error.remedy();
                let kind = Self::from(error.clone()).kind;
                Self::new(kind, format!("nothing was moved: {error}")).hint(hint)
            }
            TagError::Store(error) => error.into(),
            TagError::Ref(error) => error.into(),
            TagError::Overtaken { .. } | TagError::Gone { .. } => Self::new(Kind::Conflict, error.to_string()),
            TagError::Busy { .. } => Self::new(Kind::Conflict, error.to_string()).hint("push again in a moment"),
            TagError::Unsettled { .. } => Self::new(Kind::Unavailable, error.to_string())
                .hint("it is completed as soon as the registry answers; push again then"),
            TagError::RefPending { .. } => Self::internal(error.to_string())
                .hint("the server completes it by itself; fetch in a moment, and look at the server's log if it does not"),
            TagError::Invalid(_) | TagError::Injected(_) | TagError::Abnormal(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<RefError> for Report {
    fn from(error: RefError) -> Self {
        let text = error.to_string();
        match error {
            RefError::Moved { .. } => Self::new(Kind::Conflict, text)
                .hint("somebody else pushed first: fetch, integrate their commits, and push again"),
            RefError::Locked { .. } => Self::new(Kind::Unavailable, text).hint("push again in a moment"),
            RefError::Clash { .. } => {
                Self::new(Kind::Conflict, text).hint("delete the other ref, or choose another name")
            }
            RefError::Git { .. } | RefError::Timeout { .. } | RefError::Spawn { .. } => Self::internal(text)
                .hint("look at the repository's directory: its disk, its owner, its permissions"),
        }
    }
}
