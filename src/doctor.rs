//! `lemnos doctor`: what is wrong with this installation, and what to do about it.
//!
//! Each check gathers facts and then judges them; a judgement is a function of its facts alone. Works with a running server,
//! which it asks as any client would, and without one. Must not change anything, or need more rights than the server has.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::buildkit::Endpoint;
use crate::model::{ImagePrefix, Platform};
use crate::registry::RegistryConfig;

mod engines;
mod files;
mod machine;
mod programs;
mod server;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, and may stop working or be unsafe.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub check: String,
    pub level: Level,
    /// What is so, or what is wrong.
    pub says: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(check: &str, says: impl Into<String>) -> Self {
        Self { check: check.to_owned(), level: Level::Ok, says: says.into(), remedy: None }
    }
    pub fn warn(check: &str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(check, says) }
    }
    pub fn fail(check: &str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(check, says) }
    }
}

/// What is examined: the configuration, freed of how it was given.
#[derive(Debug, Clone)]
pub struct Subject {
    pub data_dir: PathBuf,
    pub temp_dir: PathBuf,
    /// Where programs are looked for.
    pub path: OsString,
    pub ssh: SocketAddr,
    pub http: SocketAddr,
    /// Name and address; empty: a buildkitd of the server's own.
    pub builders: Vec<(String, Endpoint)>,
    pub buildkitd: Option<PathBuf>,
    pub isolated: bool,
    /// None: one of the server's own, at `registry_listen`.
    pub registry: Option<ImagePrefix>,
    pub registry_listen: SocketAddr,
    pub registry_program: Option<PathBuf>,
    pub registry_client: RegistryConfig,
    /// What apps build where they say nothing else.
    pub platforms: Vec<Platform>,
}

/// All checks, in the order in which they are read best.
pub async fn examine(subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(programs::git(&subject.path));
    let state = server::state(&subject.data_dir).await;
    found.extend(server::check(subject, &state).await);
    found.extend(files::permissions(&subject.data_dir));
    found.extend(files::store(&subject.data_dir).await);
    found.extend(machine::disks(subject));
    found.extend(engines::builders(subject, &state).await);
    let (findings, registry_time) = engines::registry(subject, &state).await;
    found.extend(findings);
    let last_build_ms = files::last_build_ms(&subject.data_dir, &state).await;
    found.extend(machine::clock(crate::store::now_ms(), registry_time, last_build_ms));
    found
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}
