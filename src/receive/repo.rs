//! The repositories on disk: bare, one directory an app, with a configuration that is ours to the byte.
//!
//! Nothing in a repository is trusted: before each use its configuration is compared with what we wrote, and whatever
//! could make git run or read something else is removed. Must not look at what clients put in.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::error::ReceiveError;
use super::leases::Leases;
use crate::model::RefName;

/// The whole `config` of a repository. Everything else that matters is set in the child's environment.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";

/// Files with which a repository could steer git, none of which we ever write.
const INTRUDERS: [&str; 9] = [
    "hooks",
    "config.worktree",
    "commondir",
    "gitdir",
    "shallow",
    "info/attributes",
    "info/grafts",
    "objects/info/alternates",
    "objects/info/http-alternates",
];

/// Where the objects are; `objects` leads there. git's check of what a push brings asks every object directory that is really
/// called `objects` for the refs beside it, with a process of its own. Here that is the repository itself, whose refs it knows:
/// under another name it is not asked, which is an eighth of what a small push costs.
const OBJECTS: &str = "odb";

/// How often a removal is begun again when something new stands in the way.
const REMOVAL_TRIES: u32 = 20;

const DEFAULT_HEAD: &str = "ref: refs/heads/main\n";

/// `root/<app id>.git` for every app. Clones share the leases.
#[derive(Debug, Clone)]
pub struct Repositories {
    root: PathBuf,
    leases: Leases,
}

impl Repositories {
    /// `root` is made when it is needed; it must be ours alone.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), leases: Leases::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Who uses which of them now.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The apps' ids, of the repositories that are there.
    pub fn ids(&self) -> Result<Vec<String>, ReceiveError> {
        let failed = || ReceiveError::io("reading", &self.root);
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed()(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed())?.file_name();
            let id =
                name.to_str().and_then(|name| name.strip_suffix(".git")).filter(|id| !id.starts_with('.'));
            ids.extend(id.map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// Where the app's repository is, or would be.
    pub fn path(&self, app_id: &str) -> PathBuf {
        self.root.join(format!("{app_id}.git"))
    }

    /// Makes the app's bare repository; does nothing where it stands already.
    pub fn create(&self, app_id: &str) -> Result<PathBuf, ReceiveError> {
        let path = self.checked(app_id)?;
        if path.is_dir() {
            return Ok(path);
        }
        fs::create_dir_all(&self.root).map_err(ReceiveError::io("creating", &self.root))?;
        let fresh = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.root)
            .map_err(ReceiveError::io("creating a directory in", &self.root))?;
        lay_out(fresh.path())?;
        for (name, content) in [("config", CONFIG), ("HEAD", DEFAULT_HEAD)] {
            let file = fresh.path().join(name);
            fs::write(&file, content).map_err(ReceiveError::io("writing", &file))?;
        }
        crate::owner::give_all(fresh.path())
            .map_err(ReceiveError::io("giving to git's user", fresh.path()))?;
        match fs::rename(fresh.path(), &path) {
            // the name is taken by a repository with something in it: another call was faster
            Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
            moved => moved.map_err(ReceiveError::io("creating", &path))?,
        }
        Ok(path)
    }

    /// Removes the app's repository: out of the way in one step, then file by file. Fine where there is none.
    pub fn remove(&self, app_id: &str) -> Result<(), ReceiveError> {
        let path = self.checked(app_id)?;
        if !path.exists() {
            return Ok(());
        }
        let grave = tempfile::Builder::new()
            .prefix(".removed-")
            .tempdir_in(&self.root)
            .map_err(ReceiveError::io("creating a directory in", &self.root))?;
        fs::rename(&path, grave.path().join("repository.git"))
            .map_err(ReceiveError::io("removing", &path))?;
        // a git that works here unasked (housekeeping) may still write for a moment: it no longer finds the place
        for _ in 1..REMOVAL_TRIES {
            match fs::remove_dir_all(grave.path()) {
                Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
                removed => {
                    drop(grave.keep());
                    return removed.map_err(ReceiveError::io("removing", &path));
                }
            }
        }
        grave.close().map_err(ReceiveError::io("removing", &path))
    }

    /// Puts the repository's steering files back to what we wrote: a read and nine looks when nothing is wrong.
    pub fn ensure_pristine(&self, app_id: &str) -> Result<PathBuf, ReceiveError> {
        let path = self.checked(app_id)?;
        let meta = fs::symlink_metadata(&path).map_err(ReceiveError::io("reading", &path))?;
        if !meta.is_dir() {
            let cause = std::io::Error::from(ErrorKind::NotADirectory);
            return Err(ReceiveError::Io { doing: "reading", path, cause });
        }
        put_back(&path, "config", CONFIG)?;
        for name in INTRUDERS {
            let intruder = path.join(name);
            let Ok(meta) = fs::symlink_metadata(&intruder) else { continue };
            tracing::warn!(repository = %path.display(), file = name, "removed what does not belong into a repository");
            let removed =
                if meta.is_dir() { fs::remove_dir_all(&intruder) } else { fs::remove_file(&intruder) };
            removed.map_err(ReceiveError::io("removing", &intruder))?;
        }
        Ok(path)
    }

    /// Lets a clone without `-b` check out `branch`. A name that cannot be a branch leaves HEAD as it is.
    pub fn set_head(&self, app_id: &str, branch: &str) -> Result<(), ReceiveError> {
        let path = self.checked(app_id)?;
        match format!("refs/heads/{branch}").parse::<RefName>() {
            Ok(name) => put_back(&path, "HEAD", &format!("ref: {name}\n")),
            Err(_) => Ok(()),
        }
    }

    /// Removes what a killed server left: half-made and half-removed repositories, and quarantines. Only while no
    /// request runs.
    pub fn sweep(&self) -> Result<(), ReceiveError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(ReceiveError::io("reading", &self.root)(e)),
        };
        for entry in entries {
            let path = entry.map_err(ReceiveError::io("reading", &self.root))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(".new-") || name.starts_with(".removed-") {
                fs::remove_dir_all(&path).map_err(ReceiveError::io("removing", &path))?;
            } else if name.ends_with(".git") {
                sweep_quarantines(&path.join("objects"))?;
            }
        }
        Ok(())
    }

    /// Ids come from the server, so this cannot fail unless something is badly wrong; then it must.
    fn checked(&self, app_id: &str) -> Result<PathBuf, ReceiveError> {
        let safe = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if app_id.is_empty() || app_id.len() > 64 || app_id.starts_with('-') || !app_id.bytes().all(safe) {
            return Err(ReceiveError::BadId(app_id.chars().take(80).collect()));
        }
        Ok(self.path(app_id))
    }
}

/// Makes a repository's directories where they are not there. One that has its objects under git's own name keeps them there.
pub fn lay_out(repository: &Path) -> Result<(), ReceiveError> {
    let make = |dir: &Path| fs::create_dir_all(dir).map_err(ReceiveError::io("creating", dir));
    let objects = repository.join("objects");
    if !objects.exists() {
        make(&repository.join(OBJECTS))?;
        std::os::unix::fs::symlink(OBJECTS, &objects).map_err(ReceiveError::io("creating", &objects))?;
    }
    for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        make(&repository.join(dir))?;
    }
    Ok(())
}

/// The names that git gives a push's quarantine inside `objects/`.
pub(super) fn is_quarantine_name(name: &str) -> bool {
    name.starts_with("tmp_objdir-") || name.starts_with("incoming-")
}

fn sweep_quarantines(objects: &Path) -> Result<(), ReceiveError> {
    let Ok(entries) = fs::read_dir(objects) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if is_quarantine_name(&entry.file_name().to_string_lossy()) {
            fs::remove_dir_all(&path).map_err(ReceiveError::io("removing", &path))?;
        }
    }
    Ok(())
}

/// Writes `content` to `repository/name` unless it is there already, so that a reader sees the old or the new.
fn put_back(repository: &Path, name: &str, content: &str) -> Result<(), ReceiveError> {
    let path = repository.join(name);
    let regular = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == content.len() as u64);
    if regular && fs::read(&path).is_ok_and(|found| found == content.as_bytes()) {
        return Ok(());
    }
    if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
        fs::remove_dir_all(&path).map_err(ReceiveError::io("removing", &path))?;
    }
    let mut file =
        tempfile::NamedTempFile::new_in(repository).map_err(ReceiveError::io("writing in", repository))?;
    // through the handle: the name is in a directory that is another user's
    file.write_all(content.as_bytes()).map_err(ReceiveError::io("writing", &path))?;
    crate::owner::give(file.path(), repository).map_err(ReceiveError::io("giving to git's user", &path))?;
    file.persist(&path).map_err(|e| ReceiveError::io("writing", &path)(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repositories() -> (tempfile::TempDir, Repositories) {
        let dir = tempfile::tempdir().unwrap();
        let repositories = Repositories::new(dir.path().join("repositories"));
        (dir, repositories)
    }

    #[test]
    fn creating_twice_keeps_the_first_and_removing_leaves_nothing() {
        let (_dir, repositories) = repositories();
        let path = repositories.create("app1").unwrap();
        fs::write(path.join("objects/kept"), "x").unwrap();
        assert_eq!(repositories.create("app1").unwrap(), path);
        assert!(path.join("objects/kept").exists());
        assert!(git2::Repository::open_bare(&path).unwrap().is_bare());
        repositories.remove("app1").unwrap();
        repositories.remove("app1").unwrap();
        assert_eq!(fs::read_dir(repositories.root()).unwrap().count(), 0);
    }

    #[test]
    fn git_asks_no_process_for_the_refs_beside_the_objects() {
        // as the check of a push: the new objects are elsewhere, the repository's are an alternate
        let asked = |repository: &Path| {
            let marker = repository.join("asked");
            let command = format!("touch {}", marker.display());
            let checked = std::process::Command::new("git")
                .args(["-c", &format!("core.alternateRefsCommand={command}"), "-c", "safe.directory=*"])
                .args(["rev-list", "--objects", "--all", "--alternate-refs", "--quiet"])
                .env("GIT_DIR", repository)
                .env("GIT_OBJECT_DIRECTORY", repository.join("objects/incoming-x"))
                .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", repository.join("objects"))
                .output()
                .unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            marker.exists()
        };
        let (dir, repositories) = repositories();
        let ours = repositories.create("app1").unwrap();
        let gits = dir.path().join("theirs.git");
        git2::Repository::init_bare(&gits).unwrap();
        for repository in [&ours, &gits] {
            fs::create_dir_all(repository.join("objects/incoming-x/pack")).unwrap();
        }
        assert!(asked(&gits), "this is why");
        assert!(!asked(&ours));
        // one that was made otherwise keeps its objects where they are
        lay_out(&gits).unwrap();
        assert!(fs::symlink_metadata(gits.join("objects")).unwrap().is_dir());
        assert!(!gits.join(OBJECTS).exists());
    }

    #[test]
    fn what_steers_git_is_put_back() {
        let (_dir, repositories) = repositories();
        let path = repositories.create("app1").unwrap();
        let evil = path.join("config");
        fs::remove_file(&evil).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &evil).unwrap();
        fs::create_dir(path.join("hooks")).unwrap();
        fs::write(path.join("hooks/update"), "#!/bin/sh\n").unwrap();
        fs::write(path.join("objects/info/alternates"), "/elsewhere\n").unwrap();
        repositories.ensure_pristine("app1").unwrap();
        assert!(fs::symlink_metadata(&evil).unwrap().is_file());
        assert_eq!(fs::read_to_string(&evil).unwrap(), CONFIG);
        assert!(!path.join("hooks").exists());
        assert!(!path.join("objects/info/alternates").exists());
    }

    #[test]
    fn head_follows_the_main_branch() {
        let (_dir, repositories) = repositories();
        let path = repositories.create("app1").unwrap();
        repositories.set_head("app1", "trunk").unwrap();
        repositories.set_head("app1", "no..good").unwrap();
        assert_eq!(fs::read_to_string(path.join("HEAD")).unwrap(), "ref: refs/heads/trunk\n");
    }

    #[test]
    fn ids_that_could_leave_the_root_are_errors() {
        let (_dir, repositories) = repositories();
        for id in ["", "..", "a/b", "-x", ".git", "a\0b", &"a".repeat(65)] {
            assert!(matches!(repositories.create(id), Err(ReceiveError::BadId(_))), "{id:?}");
        }
    }

    #[test]
    fn a_sweep_takes_what_a_killed_server_left_and_nothing_else() {
        let (_dir, repositories) = repositories();
        repositories.sweep().unwrap();
        let path = repositories.create("app1").unwrap();
        fs::create_dir_all(path.join("objects/tmp_objdir-incoming-Ab12/pack")).unwrap();
        fs::create_dir_all(repositories.root().join(".removed-x/repository.git")).unwrap();
        repositories.sweep().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(path.join("objects")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["info", "pack"]);
        assert_eq!(fs::read_dir(repositories.root()).unwrap().count(), 1);
    }
}
