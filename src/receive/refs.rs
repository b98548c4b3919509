//! Hidden refs: `refs/lemnos/builds/ID` holds a build's commit while no visible ref does, so that nothing collects it.
//!
//! Clients neither see nor move them (`transfer.hideRefs`). Visible refs belong to `tag`; must not touch those.

use std::path::Path;

use super::error::ReceiveError;
use crate::model::{BuildId, Sha};

/// Where hidden refs live; also what `transfer.hideRefs` names.
pub(super) const HIDDEN: &str = "refs/lemnos";

/// A second and a half in all: git itself waits for one.
const LOCK_TRIES: u32 = 75;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn name(build: &BuildId) -> String {
    format!("{HIDDEN}/builds/{build}")
}

/// Holds `commit` for `build`. The object must be in the repository.
pub fn keep(repository: &Path, build: &BuildId, commit: &Sha) -> Result<(), ReceiveError> {
    let git = git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))?;
    let id =
        git2::Oid::from_str(commit.as_str()).map_err(ReceiveError::git("reading an id in", repository))?;
    patiently(|| git.reference(&name(build), id, true, "").map(drop))
        .map_err(ReceiveError::git("holding a commit in", repository))?;
    // what packs refs or collects garbage later is git's user
    let held = repository.join(name(build));
    for made in held.ancestors().take_while(|path| path.starts_with(repository.join(HIDDEN))) {
        crate::owner::give(made, repository).map_err(ReceiveError::io("giving to git's user", made))?;
    }
    Ok(())
}

/// Lets go of the build's commit; fine where nothing is held.
pub fn release(repository: &Path, build: &BuildId) -> Result<(), ReceiveError> {
    let git = git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))?;
    match patiently(|| git.find_reference(&name(build))?.delete()) {
        Err(e) if e.code() != git2::ErrorCode::NotFound => {
            Err(ReceiveError::git("letting go of a commit in", repository)(e))
        }
        _ => Ok(()),
    }
}

/// Tries again while another git holds a lock, or takes away the directory that it has just emptied (`pack-refs` does both,
/// for moments): libgit2 gives up at once where git waits.
fn patiently(mut work: impl FnMut() -> Result<(), git2::Error>) -> Result<(), git2::Error> {
    use git2::{ErrorClass, ErrorCode};
    let mut tried = 1;
    loop {
        match work() {
            Err(error)
                if tried < LOCK_TRIES
                    && (error.code() == ErrorCode::Locked || error.class() == ErrorClass::Os) =>
            {
                tried += 1;
                // no event tells that a lock file is gone
                std::thread::sleep(LOCK_PAUSE);
            }
            done => return done,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_goes_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        let tree = git.treebuilder(None).unwrap().write().unwrap();
        let by = git2::Signature::now("t", "t@example.org").unwrap();
        let commit = git.commit(None, &by, &by, "x", &git.find_tree(tree).unwrap(), &[]).unwrap();
        let (build, commit) = (BuildId::generate(), commit.to_string().parse().unwrap());
        let lock = dir.path().join(format!("{HIDDEN}/builds/{build}.lock"));
        std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
        std::fs::write(&lock, "").unwrap();
        let unlocking = std::thread::spawn({
            let lock = lock.clone();
            move || {
                std::thread::sleep(4 * LOCK_PAUSE);
                std::fs::remove_file(lock).unwrap();
            }
        });
        keep(dir.path(), &build, &commit).unwrap();
        unlocking.join().unwrap();
        assert_eq!(kept(dir.path()).unwrap(), [(build, commit)]);
    }
}
