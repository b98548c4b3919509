//! Build records.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AppName, Digest, ImageName, Invalid, RefName, Sha, Tag, UserName, text_newtype};

/// A build's id: a UUID version 7 in its simple form (32 hexadecimal digits), so ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(String);
text_newtype!(BuildId);

impl BuildId {
    /// A new id: the one place that reads a clock for it.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }
    /// The last 10 digits: what people see and may type; random, so clashes within a store are reported, not guessed.
    pub fn short(&self) -> &str {
        self.0.get(22..).unwrap_or(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Invalid::new("build id", text, "32 hexadecimal digits"))
        }
    }
}

/// Where a build stands. `Running` is the only state that is not terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    Running,
    Succeeded,
    Failed,
    /// The server stopped while it ran.
    Interrupted,
}

impl BuildState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl FromStr for BuildState {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "running" => Ok(Self::Running),
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            "interrupted" => Ok(Self::Interrupted),
            _ => Err(Invalid::new("build state", text, "running, succeeded, failed or interrupted")),
        }
    }
}

/// One build of one ref of one push, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    pub id: BuildId,
    pub app: AppName,
    pub user: UserName,
    pub reference: RefName,
    pub commit: Sha,
    pub state: BuildState,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    pub finished_at_ms: Option<i64>,
    /// What was published, when it succeeded.
    pub image: Option<ImageName>,
    pub digest: Option<Digest>,
    pub tags: Vec<Tag>,
    /// The one-line reason, when it failed.
    pub reason: Option<String>,
}
