//! Directories of builds whose files pass through this server; what a crash leaves of them goes at the next start.

use tempfile::TempDir;

use super::{Pipeline, blocking, internal};
use crate::event::Failure;

impl Pipeline {
    /// A directory of this build alone, gone with it.
    pub(super) async fn scratch(&self) -> Result<TempDir, Failure> {
        let place = self.settings.scratch.clone();
        blocking(move || {
            let made = std::fs::create_dir_all(&place)
                .and_then(|()| tempfile::Builder::new().prefix("build-").tempdir_in(&place));
            made.map_err(|error| internal(format!("{}: {error}", place.display())))
        })
        .await
    }
}
