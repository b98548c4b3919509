//! Hidden refs: `refs/lemnos/builds/ID` holds a build's commit while no visible ref does, so that nothing collects it.
//!
//! Clients neither see nor move them (`transfer.hideRefs`). Visible refs belong to `tag`; must not touch those.

use std::path::Path;

use super::error::ReceiveError;
use crate::model::{BuildId, Sha};

/// Where hidden refs live; also what `transfer.hideRefs` names.
pub(super) const HIDDEN: &str = "refs/lemnos";

fn name(build: &BuildId) -> String {
    format!("{HIDDEN}/builds/{build}")
}

/// Holds `commit` for `build`. The object must be in the repository.
pub fn keep(repository: &Path, build: &BuildId, commit: &Sha) -> Result<(), ReceiveError> {
    let git = git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))?;
    let id =
        git2::Oid::from_str(commit.as_str()).map_err(ReceiveError::git("reading an id in", repository))?;
    git.reference(&name(build), id, true, "")
        .map_err(ReceiveError::git("holding a commit in", repository))?;
    Ok(())
}

/// Lets go of the build's commit; fine where nothing is held.
pub fn release(repository: &Path, build: &BuildId) -> Result<(), ReceiveError> {
    let git = git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))?;
    match git.find_reference(&name(build)).and_then(|mut held| held.delete()) {
        Err(e) if e.code() != git2::ErrorCode::NotFound => {
            Err(ReceiveError::git("letting go of a commit in", repository)(e))
        }
        _ => Ok(()),
    }
}

/// What is held, for those who clean up.
pub fn kept(repository: &Path) -> Result<Vec<(BuildId, Sha)>, ReceiveError> {
    let doing = || ReceiveError::git("listing held commits of", repository);
    let git = git2::Repository::open_bare(repository).map_err(doing())?;
    let mut found = Vec::new();
    for reference in git.references_glob(&format!("{HIDDEN}/builds/*")).map_err(doing())? {
        let reference = reference.map_err(doing())?;
        let id = reference.name().ok().and_then(|n| n.rsplit('/').next()).and_then(|n| n.parse().ok());
        let target = reference.target().and_then(|oid| oid.to_string().parse().ok());
        found.extend(id.zip(target));
    }
    Ok(found)
}
