//! A builder as people see it: where it is, what it takes, how it is.

use serde::{Deserialize, Serialize};

use super::Platform;

/// Whether a builder gets solves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuilderState {
    /// It has not been asked yet.
    Unknown,
    Up,
    /// It does not answer: it gets no solves until it does.
    Down,
    /// It gets no solves; those that run on it finish.
    Draining,
    /// As draining, and nothing runs on it.
    Drained,
}

impl BuilderState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuilderStatus {
    pub name: String,
    /// As in `unix:///PATH`, `tcp://HOST:PORT` or `ssh://HOST`.
    pub address: String,
    /// Named by flag or configuration file, or started by the server itself: it can be drained, not removed.
    pub configured: bool,
    pub state: BuilderState,
    /// Since when it answers, or does not; Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Why it does not answer.
    pub cause: Option<String>,
    /// The platforms bound to it, else what it last said it can run.
    pub platforms: Vec<Platform>,
    /// Solves at work on it, and how many it takes at once.
    pub running: usize,
    pub max: usize,
    /// BuildKit's, as it last said.
    pub version: Option<String>,
}
