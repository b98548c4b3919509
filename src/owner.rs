//! Whom git's children run as. A server that is root gives them a user of their own, who owns the repositories and nothing
//! else: whatever a push makes git do, it reads neither the database nor a key.
//!
//! The group of the repositories' directory says who that is, as a user and a group of one number; the directory itself stays
//! root's, so that nobody who becomes that user can choose another. Must not be asked for what somebody else could have
//! made. Without root there is one user for everything, and nothing here does anything.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid};

/// The user and group of git's children for a repository in the repositories' directory; none: our own.
pub fn of(repository: &Path) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let about = std::fs::symlink_metadata(repository.parent()?).ok()?;
    (about.uid() == 0 && about.gid() != 0).then(|| about.gid())
}

/// Gives what the server made in a repository, `path`, to the repository's user. A link itself, never what it leads to.
pub fn give(path: &Path, repository: &Path) -> io::Result<()> {
    match of(repository) {
        Some(id) => chown(path, id, id),
        None => Ok(()),
    }
}

/// As `give`, for everything below and the directory itself.
pub fn give_all(repository: &Path) -> io::Result<()> {
    of(repository).map_or(Ok(()), |id| hand_over(repository, id))
}

/// Makes the repositories' directory and all repositories in it belong to user and group `id`; 0 is the server's own user.
/// A look where it is so already, else every file once; the directory's own group comes last, so that a walk that was cut
/// short is done again.
pub fn settle(repositories: &Path, id: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::fs::create_dir_all(repositories)?;
    let about = std::fs::symlink_metadata(repositories)?;
    if about.uid() == 0 && about.gid() == id {
        return Ok(());
    }
    for entry in std::fs::read_dir(repositories)? {
        hand_over(&entry?.path(), id)?;
    }
    std::fs::set_permissions(repositories, std::fs::Permissions::from_mode(0o750))?;
    chown(repositories, 0, id)
}

/// What keeps another user from reaching `path`: the first directory on the way that it may not pass, or the file itself.
pub fn unreachable(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let closed = |part: &&Path| std::fs::metadata(part).map_or(true, |about| about.mode() & 0o001 == 0);
    let mut ways: Vec<&Path> = path.ancestors().collect();
    ways.reverse();
    ways.iter().find(|part| closed(part)).map(|part| part.to_path_buf())
}

/// The repository's own directory stays root's and lets the group write: what the server reads with refuses the
/// repository of another user.
fn hand_over(repository: &Path, id: u32) -> io::Result<()> {
    if std::fs::symlink_metadata(repository)?.is_dir() {
        for entry in std::fs::read_dir(repository)? {
            chown_all(&entry?.path(), id)?;
        }
        std::fs::set_permissions(repository, std::fs::Permissions::from_mode(0o770))?;
    }
    chown(repository, 0, id)
}

/// What vanishes meanwhile needs no owner.
fn chown_all(path: &Path, id: u32) -> io::Result<()> {
    let walk = || {
        if std::fs::symlink_metadata(path)?.is_dir() {
            for entry in std::fs::read_dir(path)? {
                chown_all(&entry?.path(), id)?;
            }
        }
        chown(path, id, id)
    };
    match walk() {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        walked => walked,
    }
}

fn chown(path: &Path, user: u32, group: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    Ok(rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_change_hands_whole_and_back() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repositories");
        std::fs::create_dir_all(root.join("a.git/objects")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("a.git/link")).unwrap();
        let owner = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap().uid();
        assert_eq!(of(&root.join("a.git")), None);
        settle(&root, 64_097).unwrap();
        assert_eq!(of(&root.join("a.git")), Some(64_097));
        assert_eq!(["a.git", "a.git/objects", "a.git/link", ""].map(owner), [0, 64_097, 64_097, 0]);
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), 0, "what a link leads to");
        std::fs::create_dir_all(root.join("b.git/refs")).unwrap();
        give_all(&root.join("b.git")).unwrap();
        assert_eq!(owner("b.git/refs"), 64_097);
        settle(&root, 0).unwrap();
        assert_eq!((of(&root.join("a.git")), owner("a.git/objects")), (None, 0));
    }

    #[test]
    fn the_closed_directory_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("open/closed"));
        std::fs::create_dir_all(&closed).unwrap();
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        chmod(dir.path(), 0o755);
        chmod(&open, 0o711);
        chmod(&closed, 0o700);
        assert_eq!(unreachable(&open), None);
        assert_eq!(unreachable(&closed), Some(closed.canonicalize().unwrap()));
    }
}
