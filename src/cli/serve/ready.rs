//! `DIR/lemnos.json`: written when the server is ready, removed when it stops; tells scripts what is in use.

use std::path::{Path, PathBuf};

use crate::error::Report;

/// Its name in the data directory.
pub const FILE_NAME: &str = "lemnos.json";

/// What is in use.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// `127.0.0.1:40022`
    pub ssh: String,
    pub http: String,
    /// Host, port and prefix of images.
    pub registry: String,
    pub builders: Vec<String>,
    pub pid: u32,
}

/// Removes the file when it is dropped.
#[derive(Debug)]
pub struct ReadyFile(PathBuf);

impl Ready {
    /// Writes the file whole or not at all, so that who sees it can read it.
    pub fn write(&self, data_dir: &Path) -> Result<ReadyFile, Report> {
        let path = data_dir.join(FILE_NAME);
        let failed = |e: std::io::Error| Report::internal(format!("writing {}: {e}", path.display()));
        let draft = data_dir.join(".lemnos.json.new");
        let mut json = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        json.push(b'\n');
        std::fs::write(&draft, json).map_err(failed)?;
        std::fs::rename(&draft, &path).map_err(failed)?;
        Ok(ReadyFile(path))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the file that says the server is ready stays");
        }
    }
}

/// The builders of the server that runs on the data directory; none where no server does.
pub fn running_builders(data_dir: &Path) -> Result<Vec<String>, Report> {
    let path = data_dir.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice::<Ready>(&json)
            .map(|ready| ready.builders)
            .map_err(|e| Report::internal(format!("reading {}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Report::internal(format!("reading {}: {e}", path.display()))),
    }
}

/// Takes away what a server that was killed left behind; the data directory's lock must be held.
pub fn clear(data_dir: &Path) -> Result<(), Report> {
    match std::fs::remove_file(data_dir.join(FILE_NAME)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Report::internal(format!("removing {}: {e}", data_dir.join(FILE_NAME).display())))
        }
        _ => Ok(()),
    }
}
