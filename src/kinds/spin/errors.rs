//! What is wrong with a spin application, where, and what to do about it.
//!
//! Every problem of the manifest has a line and a column; the remedy is known where the problem is found, and is kept with it.
//! Must not hold text of the tree that would steer a terminal.

use std::fmt;

use crate::kinds::errors::shown;
use crate::model::TreeError;

/// A place in a manifest, each from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SpinError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// `hint` is the remedy.
    #[error("{manifest}:{at}: {problem}")]
    Manifest { manifest: String, at: At, problem: String, hint: String },
    /// Something of the application, rather than of the manifest's text.
    #[error("{problem}")]
    App { problem: String, hint: String },
}

impl SpinError {
    pub(super) fn app(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::App { problem: printable(problem.into()), hint: printable(hint.into()) }
    }

    pub(super) fn at(manifest: &str, at: At, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Manifest {
            manifest: shown(manifest),
            at,
            problem: printable(problem.into()),
            hint: printable(hint.into()),
        }
    }

    /// What to do about it; a tree's errors have theirs elsewhere.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Tree(_) => None,
            Self::Manifest { hint, .. } | Self::App { hint, .. } => Some(hint),
        }
    }
}

/// Longest message; a manifest may hold keys of any length.
const LIMIT_CHARS: usize = 400;

fn printable(text: String) -> String {
    shown(&text.chars().take(LIMIT_CHARS).collect::<String>())
}
