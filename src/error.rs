//! `Report`: what every door prints of an error. Each module has its own error enum; its kind and hint are decided
//! once, in the `From` impl of `error/MODULE.rs`, so that terminal, push text and HTTP say the same.

use std::process::ExitCode;

use crate::event::plain_text;

/// Who can do something about it; decides the exit code and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bad input: exit 2.
    User,
    /// The named thing does not exist, or may not be seen: exit 3.
    NotFound,
    /// Not allowed: exit 4.
    Forbidden,
    /// It stands against what is there already: exit 5.
    Conflict,
    /// Something outside is down or slow; the same call may work later: exit 6.
    Unavailable,
    /// The build of the user's tree failed: exit 1.
    Build,
    /// Whoever runs the command ended it: exit 130.
    Interrupted,
    /// Ours or the machine's fault: exit 70.
    Internal,
}

/// An error as people see it: `error: …`, then `hint: …`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    pub kind: Kind,
    /// Cause and where, one sentence or more, lower-case start, no final stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Report {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_status())
    }
    /// The same as a number, for doors that are not a process.
    pub fn exit_status(&self) -> u8 {
        match self.kind {
            Kind::Build => 1,
            Kind::Interrupted => 130,
            Kind::User => 2,
            Kind::NotFound => 3,
            Kind::Forbidden => 4,
            Kind::Conflict => 5,
            Kind::Unavailable => 6,
            Kind::Internal => 70,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // both may repeat what stands in somebody's tree
        write!(f, "error: {}", plain_text(&self.message))?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {}", plain_text(hint)))
    }
}

impl std::error::Error for Report {}

impl From<crate::model::Invalid> for Report {
    fn from(invalid: crate::model::Invalid) -> Self {
        Self::user(format!("{:?} is not a valid {}", invalid.given, invalid.what)).hint(invalid.allowed)
    }
}

mod assemble;
mod backup;
mod buildkit;
mod config;
mod context;
mod engine;
mod fetch;
mod git_dir;
mod jobs;
mod kinds;
mod ko;
mod ko_assembly;
mod ko_resolve;
mod receive;
mod registry;
mod spin;
mod ssh;
mod store;
mod tag;
mod tree;
