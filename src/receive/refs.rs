//! Hidden refs: `refs/lemnos/builds/ID` holds a build's commit while no visible ref does, so that nothing collects it.
//!
//! Clients neither see nor move them (`transfer.hideRefs`). Visible refs belong to `tag`; must not touch those.

use std::path::Path;

use super::error::ReceiveError;
use crate::model::{BuildId, RefName, Sha};

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
    give(repository, &name(build))
}

/// What libgit2 made on the way to a hidden ref, also to delete it, is given to git's user, who packs refs and collects
/// garbage later. What has vanished meanwhile needs no owner.
fn give(repository: &Path, name: &str) -> Result<(), ReceiveError> {
    let (held, hidden) = (repository.join(name), repository.join(HIDDEN));
    for made in held.ancestors().take_while(|path| path.starts_with(&hidden)) {
        match crate::owner::give(made, repository) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(ReceiveError::io("giving to git's user", made)(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Lets go of the build's commit; fine where nothing is held.
pub fn release(repository: &Path, build: &BuildId) -> Result<(), ReceiveError> {
    let git = git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))?;
    match patiently(|| git.find_reference(&name(build))?.delete()) {
        Err(e) if e.code() != git2::ErrorCode::NotFound => {
            return Err(ReceiveError::git("letting go of a commit in", repository)(e));
        }
        _ => {}
    }
    give(repository, &name(build))?;
    // of a packed ref: the file was written anew
    let packed = repository.join("packed-refs");
    match crate::owner::give(&packed, repository) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(ReceiveError::io("giving to git's user", &packed)(cause))
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

fn open(repository: &Path) -> Result<git2::Repository, ReceiveError> {
    git2::Repository::open_bare(repository).map_err(ReceiveError::git("opening", repository))
}

/// Where a visible ref stands, zeros for nowhere.
pub fn at(repository: &Path, name: &RefName) -> Result<Sha, ReceiveError> {
    let doing = || ReceiveError::git("reading a ref of", repository);
    let git = open(repository)?;
    match git.find_reference(name.as_str()) {
        Ok(found) => Ok(found.target().and_then(|id| id.to_string().parse().ok()).unwrap_or_else(Sha::zero)),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(Sha::zero()),
        Err(error) => Err(doing()(error)),
    }
}

/// Whether `new` is built on top of `old`; tags count as their commits.
pub fn descends(repository: &Path, new: &Sha, old: &Sha) -> Result<bool, ReceiveError> {
    let git = open(repository)?;
    let doing = || ReceiveError::git("comparing commits of", repository);
    let commit = |sha: &Sha| {
        let object = git.find_object(git2::Oid::from_str(sha.as_str())?, None)?;
        Ok::<_, git2::Error>(object.peel_to_commit()?.id())
    };
    let (new, old) = (commit(new).map_err(doing())?, commit(old).map_err(doing())?);
    git.graph_descendant_of(new, old).map_err(doing())
}

/// The object that a branch's, a tag's or an object's name means, and the ref when it is one; none where there is none.
pub fn resolve(repository: &Path, what: &str) -> Result<Option<(Option<RefName>, Sha)>, ReceiveError> {
    for name in [what.to_owned(), format!("refs/heads/{what}"), format!("refs/tags/{what}")] {
        let Ok(name) = name.parse::<RefName>() else { continue };
        let found = at(repository, &name)?;
        if !found.is_zero() {
            return Ok(Some((Some(name), found)));
        }
    }
    let hex = (7..=40).contains(&what.len()) && what.bytes().all(|b| b.is_ascii_hexdigit());
    let git = open(repository)?;
    let found = hex.then(|| git.find_object_by_prefix(what, None));
    Ok(found
        .and_then(Result::ok)
        .and_then(|object| object.id().to_string().parse().ok())
        .map(|sha| (None, sha)))
}

/// Whether the object is in the repository.
pub fn has(repository: &Path, object: &Sha) -> Result<bool, ReceiveError> {
    let git = open(repository)?;
    let id = git2::Oid::from_str(object.as_str());
    Ok(id.and_then(|id| git.find_object(id, None).map(drop)).is_ok())
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
