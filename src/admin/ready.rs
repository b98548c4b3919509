//! `lemnos.json`: what a running server uses, for scripts and commands. There exactly while the server is ready.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataLock;
use crate::error::{Kind, Report};

pub const FILE_NAME: &str = "lemnos.json";

/// Addresses as they are, ports picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// `127.0.0.1:40022`
    pub ssh: String,
    pub http: String,
    /// `HOST[:PORT][/PREFIX]`, without a scheme.
    pub registry: String,
    pub builders: Vec<String>,
    pub pid: u32,
}

impl Ready {
    /// What the running server wrote; none where there is no file, or none that can be read.
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join(FILE_NAME)).ok()?).ok()
    }
}

/// Removes the file when dropped.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Removes what a killed server left. Call it before anything is started.
    pub fn clear(data_dir: &Path, _lock: &DataLock) -> Result<(), Report> {
        remove(&data_dir.join(FILE_NAME))
    }

    /// Writes the file whole or not at all. Call it when everything answers.
    pub fn write(data_dir: &Path, ready: &Ready, _lock: &DataLock) -> Result<Self, Report> {
        let path = data_dir.join(FILE_NAME);
        let failed = |cause: std::io::Error| {
            Report::new(Kind::Unavailable, format!("writing {}: {cause}", path.display()))
                .hint("check that the data directory is writable and not full")
        };
        let mut json = serde_json::to_vec(ready).map_err(|cause| failed(cause.into()))?;
        json.push(b'\n');
        // made beside it with mode 0600, renamed onto it
        let mut file = tempfile::NamedTempFile::new_in(data_dir).map_err(failed)?;
        file.write_all(&json).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(Self { path })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Err(report) = remove(&self.path) {
            tracing::warn!(error = %report.message, "lemnos.json is left behind");
        }
    }
}

fn remove(path: &Path) -> Result<(), Report> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Report::new(Kind::Unavailable, format!("removing {}: {cause}", path.display())))
        }
        _ => Ok(()),
    }
}
