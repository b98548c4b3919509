//! Source trees as `model::Tree`: a commit's, straight from git objects, and a directory's.
//!
//! Neither follows a symbolic link, not in the middle of a path either; neither reads a blob before its length is known.
//! Must not check anything out, and must not trust the repository's own configuration for more than its object format.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::model::tree::clean_path;
use crate::model::{EntryKind, Sha, Tree, TreeEntry, TreeError};

/// Why a tree cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTreeError {
    #[error("{path} is not a git repository: {cause}")]
    NotARepository { path: String, cause: String },
    #[error("reading commit {commit} of {path}: {cause}")]
    Commit { path: String, commit: String, cause: String },
}

/// What of a commit builds need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    pub sha: Sha,
    /// The id of the root tree.
    pub tree: Sha,
    /// Unix seconds.
    pub author_time_s: i64,
    /// Unix seconds.
    pub committer_time_s: i64,
    /// The first line of the message; not UTF-8 is replaced, control characters are left out.
    pub subject: String,
}

/// What stands in a directory, by the bytes of the names.
type Nodes = Arc<[(Vec<u8>, git2::Oid, EntryKind)]>;

/// More entries of directories are not kept.
const KEPT_ENTRIES: usize = 200_000;

/// A repository, and the directories that were read of it: whoever looks at paths goes through the same ones each time.
struct Objects {
    repository: git2::Repository,
    dirs: HashMap<git2::Oid, Nodes>,
    kept: usize,
}

impl Objects {
    fn dir(&mut self, id: git2::Oid) -> Result<Nodes, git2::Error> {
        if let Some(known) = self.dirs.get(&id) {
            return Ok(known.clone());
        }
        let tree = self.repository.find_tree(id)?;
        let nodes = tree.iter().map(|e| (e.name_bytes().to_vec(), e.id(), kind_of(e.filemode())));
        let mut nodes: Vec<_> = nodes.collect();
        // git sorts a directory as if its name ended in '/'
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        let nodes: Nodes = nodes.into();
        self.kept += nodes.len();
        if self.kept <= KEPT_ENTRIES {
            self.dirs.insert(id, nodes.clone());
        }
        Ok(nodes)
    }

    /// The object at a clean path below `root`: its id and kind; directories only in the middle.
    fn find(&mut self, root: git2::Oid, path: &str) -> Result<Option<(git2::Oid, EntryKind)>, git2::Error> {
        let mut at = (root, EntryKind::Dir);
        for part in path.split('/').filter(|p| !p.is_empty()) {
            if at.1 != EntryKind::Dir {
                return Ok(None);
            }
            let nodes = self.dir(at.0)?;
            let Ok(place) = nodes.binary_search_by(|(name, ..)| name.as_slice().cmp(part.as_bytes())) else {
                return Ok(None);
            };
            let Some((_, id, kind)) = nodes.get(place) else { return Ok(None) };
            at = (*id, *kind);
        }
        Ok(Some(at))
    }
}

/// The tree of one commit.
pub struct CommitTree {
    // libgit2's handle is not for two threads at once
    objects: Mutex<Objects>,
    root: git2::Oid,
    info: CommitInfo,
}

impl CommitTree {
    /// The tree of `commit` in the repository at `gitdir` (bare, or a work tree with `.git`).
    pub fn open(gitdir: &Path, commit: &Sha) -> Result<Self, OpenTreeError> {
        Self::of(gitdir, commit, |object| object.into_commit().map_err(|_| "not a commit".to_owned()))
    }

    /// The tree of what a ref points at: a commit, or an annotated tag (of tags) of one.
    pub fn open_ref_target(gitdir: &Path, target: &Sha) -> Result<Self, OpenTreeError> {
        Self::of(gitdir, target, |object| object.peel_to_commit().map_err(|e| e.message().to_owned()))
    }

    fn of(
        gitdir: &Path,
        id: &Sha,
        to_commit: impl for<'r> FnOnce(git2::Object<'r>) -> Result<git2::Commit<'r>, String>,
    ) -> Result<Self, OpenTreeError> {
        let repository = open_repository(gitdir)?;
        let read = || -> Result<(CommitInfo, git2::Oid), String> {
            let message = |e: git2::Error| e.message().to_owned();
            let oid = git2::Oid::from_str(id.as_str()).map_err(message)?;
            let commit = to_commit(repository.find_object(oid, None).map_err(message)?)?;
            let root = commit.tree_id();
            let text = String::from_utf8_lossy(commit.message_bytes()).into_owned();
            let subject = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("").trim();
            let info = CommitInfo {
                sha: sha(commit.id()).ok_or("not a SHA-1 id")?,
                tree: sha(root).ok_or("not a SHA-1 id")?,
                author_time_s: commit.author().when().seconds(),
                committer_time_s: commit.time().seconds(),
                subject: subject.chars().filter(|c| !c.is_control()).take(200).collect(),
            };
            Ok((info, root))
        };
        let (info, root) = read().map_err(|cause| OpenTreeError::Commit {
            path: gitdir.display().to_string(),
            commit: id.to_string(),
            cause,
        })?;
        let objects = Objects { repository, dirs: HashMap::new(), kept: 0 };
        Ok(Self { objects: Mutex::new(objects), root, info })
    }

    pub fn commit_info(&self) -> &CommitInfo {
        &self.info
    }

    /// The id of the directory at `path`; none where no directory stands.
    pub fn tree_id(&self, path: &str) -> Result<Option<Sha>, TreeError> {
        Ok(self.entry(path)?.filter(|e| e.kind == EntryKind::Dir).and_then(|e| e.id))
    }

    fn with<T>(
        &self,
        path: &str,
        read: impl FnOnce(&mut Objects) -> Result<T, git2::Error>,
    ) -> Result<T, TreeError> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut objects)
            .map_err(|e| TreeError::Read { path: path.to_owned(), cause: e.message().to_owned() })
    }
}

impl Tree for CommitTree {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        let path = clean_path(path)?;
        let found = self.with(&path, |objects| objects.find(self.root, &path))?;
        let name = path.rsplit('/').next().unwrap_or("").to_owned();
        Ok(found.map(|(oid, kind)| TreeEntry { name, kind, id: sha(oid) }))
    }

    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        let path = clean_path(path)?;
        self.with(&path, |objects| {
            let Some((oid, EntryKind::Dir)) = objects.find(self.root, &path)? else { return Ok(Vec::new()) };
            let entry = |(name, oid, kind): &(Vec<u8>, git2::Oid, EntryKind)| TreeEntry {
                name: String::from_utf8_lossy(name).into_owned(),
                kind: *kind,
                id: sha(*oid),
            };
            Ok(objects.dir(oid)?.iter().map(entry).collect())
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let path = clean_path(path)?;
        let oid = match self.with(&path, |objects| objects.find(self.root, &path))? {
            None => return Ok(None),
            Some((oid, EntryKind::File { .. })) => oid,
            Some((_, EntryKind::Symlink)) => return Err(TreeError::Symlink { path }),
            Some(_) => return Err(TreeError::NotAFile { path }),
        };
        let size_bytes =
            self.with(&path, |objects| Ok(objects.repository.odb()?.read_header(oid)?.0))? as u64;
        if size_bytes > limit_bytes {
            return Err(TreeError::TooLarge { path, size_bytes, limit_bytes });
        }
        self.with(&path, |objects| Ok(objects.repository.find_blob(oid)?.content().to_vec())).map(Some)
    }
}

fn open_repository(gitdir: &Path) -> Result<git2::Repository, OpenTreeError> {
    let flags = git2::RepositoryOpenFlags::NO_SEARCH;
    git2::Repository::open_ext(gitdir, flags, std::iter::empty::<&OsStr>()).map_err(|e| {
        OpenTreeError::NotARepository { path: gitdir.display().to_string(), cause: e.message().to_owned() }
    })
}

fn sha(oid: git2::Oid) -> Option<Sha> {
    oid.to_string().parse().ok()
}

pub(super) fn kind_of(mode: i32) -> EntryKind {
    match mode & 0o170_000 {
        0o040_000 => EntryKind::Dir,
        0o120_000 => EntryKind::Symlink,
        0o160_000 => EntryKind::Submodule,
        _ => EntryKind::File { executable: mode & 0o111 != 0 },
    }
}

/// A directory of the file system. Its entries have no ids; sockets, devices and pipes are not seen.
pub struct DirTree {
    root: PathBuf,
}

impl DirTree {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What stands at a clean path, and a handle on the directory above it; none where a part is no directory.
    fn parent_of<'p>(&self, path: &'p str) -> Result<Option<(OwnedFd, &'p str)>, TreeError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.dir(dir)?.map(|fd| (fd, name)))
    }

    /// A handle on the directory at a clean path.
    fn dir(&self, path: &str) -> Result<Option<OwnedFd>, TreeError> {
        let failed = |e: rustix::io::Errno| TreeError::Read { path: path.to_owned(), cause: e.to_string() };
        let root = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let flags = root | OFlags::NOFOLLOW;
        // the root itself is the user's choice, and may be a link
        let mut at = rustix::fs::open(&self.root, root, Mode::empty()).map_err(failed)?;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            use rustix::io::Errno;
            at = match rustix::fs::openat(&at, part, flags, Mode::empty()) {
                Ok(fd) => fd,
                // with NOFOLLOW a link is LOOP, or NOTDIR beside DIRECTORY
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(failed(e)),
            };
        }
        Ok(Some(at))
    }
}

/// The kind of `name` in the directory `dir`; none for what is not seen.
fn kind_at(dir: &OwnedFd, name: &OsStr, path: &str) -> Result<Option<EntryKind>, TreeError> {
    let stat = match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(TreeError::Read { path: path.to_owned(), cause: e.to_string() }),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(EntryKind::File { executable: stat.st_mode & 0o100 != 0 }),
        FileType::Directory => Some(EntryKind::Dir),
        FileType::Symlink => Some(EntryKind::Symlink),
        _ => None,
    })
}

impl Tree for DirTree {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        let path = clean_path(path)?;
        if path.is_empty() {
            return Ok(Some(TreeEntry { name: String::new(), kind: EntryKind::Dir, id: None }));
        }
        let Some((dir, name)) = self.parent_of(&path)? else { return Ok(None) };
        let kind = kind_at(&dir, OsStr::new(name), &path)?;
        Ok(kind.map(|kind| TreeEntry { name: name.to_owned(), kind, id: None }))
    }

    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        use std::os::unix::ffi::OsStrExt;
        let path = clean_path(path)?;
        let failed = |e: rustix::io::Errno| TreeError::Read { path: path.clone(), cause: e.to_string() };
        let Some(dir) = self.dir(&path)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if let Some(kind) = kind_at(&dir, OsStr::from_bytes(&name), &path)? {
                entries.push((name, kind));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let entry = |(name, kind): (Vec<u8>, EntryKind)| TreeEntry {
            name: String::from_utf8_lossy(&name).into_owned(),
            kind,
            id: None,
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let path = clean_path(path)?;
        let failed = |cause: String| TreeError::Read { path: path.clone(), cause };
        let Some((dir, name)) = self.parent_of(&path)? else { return Ok(None) };
        match kind_at(&dir, OsStr::new(name), &path)? {
            None => return Ok(None),
            Some(EntryKind::File { .. }) => {}
            Some(EntryKind::Symlink) => return Err(TreeError::Symlink { path }),
            Some(_) => return Err(TreeError::NotAFile { path }),
        }
        // NONBLOCK: should a pipe have come in the file's place, opening it does not wait
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(|e| failed(e.to_string()))?;
        let file = File::from(fd);
        let size_bytes = file.metadata().map_err(|e| failed(e.to_string()))?.len();
        if size_bytes > limit_bytes {
            return Err(TreeError::TooLarge { path, size_bytes, limit_bytes });
        }
        let mut content = Vec::new();
        file.take(limit_bytes + 1).read_to_end(&mut content).map_err(|e| failed(e.to_string()))?;
        if content.len() as u64 > limit_bytes {
            return Err(TreeError::TooLarge { path, size_bytes: content.len() as u64, limit_bytes });
        }
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A commit holding `a.txt`, `a/b` (executable), `link -> /etc/passwd`, a submodule `sub`, and a latin-1 name.
    fn repository(dir: &Path) -> Sha {
        let repository = git2::Repository::init_bare(dir).unwrap();
        let blob = repository.blob(b"hello\n").unwrap();
        let link = repository.blob(b"/etc/passwd").unwrap();
        let mut inner = repository.treebuilder(None).unwrap();
        inner.insert("b", blob, 0o100_755).unwrap();
        let inner = inner.write().unwrap();
        let mut root = repository.treebuilder(None).unwrap();
        root.insert("a.txt", blob, 0o100_644).unwrap();
        root.insert("a", inner, 0o040_000).unwrap();
        root.insert("link", link, 0o120_000).unwrap();
        root.insert("sub", blob, 0o160_000).unwrap();
        root.insert(&b"caf\xe9"[..], blob, 0o100_644).unwrap();
        let root = repository.find_tree(root.write().unwrap()).unwrap();
        let who = git2::Signature::new("t", "t@example.org", &git2::Time::new(1_700_000_000, 60)).unwrap();
        let oid =
            repository.commit(Some("refs/heads/main"), &who, &who, "\nFirst \u{7}line\n\nmore\n", &root, &[]);
        sha(oid.unwrap()).unwrap()
    }

    fn names(tree: &dyn Tree, path: &str) -> Vec<(String, EntryKind)> {
        tree.list(path).unwrap().into_iter().map(|e| (e.name, e.kind)).collect()
    }

    #[test]
    fn a_commit_is_read_from_its_objects() {
        let dir = tempfile::tempdir().unwrap();
        let sha = repository(dir.path());
        let tree = CommitTree::open(dir.path(), &sha).unwrap();
        assert_eq!(tree.commit_info().sha, sha);
        assert_eq!(tree.commit_info().committer_time_s, 1_700_000_000);
        assert_eq!(tree.commit_info().subject, "First line");
        let plain = EntryKind::File { executable: false };
        assert_eq!(
            names(&tree, ""),
            [
                ("a".to_owned(), EntryKind::Dir),
                ("a.txt".to_owned(), plain),
                ("caf\u{fffd}".to_owned(), plain),
                ("link".to_owned(), EntryKind::Symlink),
                ("sub".to_owned(), EntryKind::Submodule),
            ],
            "by name bytes, not as git sorts"
        );
        assert_eq!(names(&tree, "a"), [("b".to_owned(), EntryKind::File { executable: true })]);
        assert_eq!(tree.read("a/b", 6).unwrap().unwrap(), b"hello\n");
        assert!(matches!(
            tree.read("a/b", 5),
            Err(TreeError::TooLarge { size_bytes: 6, limit_bytes: 5, .. })
        ));
        assert!(matches!(tree.read("link", 99), Err(TreeError::Symlink { .. })));
        assert!(matches!(tree.read("a", 99), Err(TreeError::NotAFile { .. })));
        assert!(matches!(tree.read("../x", 99), Err(TreeError::Outside { .. })));
        assert!(tree.read("link/x", 99).unwrap().is_none() && tree.read("a/none", 99).unwrap().is_none());
        assert_eq!(tree.tree_id("").unwrap(), Some(tree.commit_info().tree.clone()));
        assert_ne!(tree.tree_id("a").unwrap(), tree.tree_id("").unwrap());
        assert_eq!(tree.tree_id("a.txt").unwrap(), None);
    }

    #[test]
    fn an_annotated_tag_is_peeled_where_a_ref_may_point_at_one() {
        let dir = tempfile::tempdir().unwrap();
        let sha = repository(dir.path());
        let repository = git2::Repository::open(dir.path()).unwrap();
        let object = repository.find_object(git2::Oid::from_str(sha.as_str()).unwrap(), None).unwrap();
        let who = git2::Signature::now("t", "t@example.org").unwrap();
        let tag: Sha =
            repository.tag("v1", &object, &who, "annotated", false).unwrap().to_string().parse().unwrap();
        for id in [&tag, &sha] {
            assert_eq!(CommitTree::open_ref_target(dir.path(), id).unwrap().commit_info().sha, sha);
        }
        let tree = CommitTree::open(dir.path(), &sha).unwrap().commit_info().tree.clone();
        for id in [&tag, &tree, &Sha::zero()] {
            assert!(matches!(CommitTree::open(dir.path(), id), Err(OpenTreeError::Commit { .. })), "{id}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(matches!(
            CommitTree::open(elsewhere.path(), &sha),
            Err(OpenTreeError::NotARepository { .. })
        ));
    }

    #[test]
    fn a_directory_is_read_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/file"), "12345").unwrap();
        symlink("sub", root.join("dirlink")).unwrap();
        symlink("sub/file", root.join("filelink")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR).unwrap();
        let tree = DirTree::new(root);
        assert_eq!(
            names(&tree, ""),
            [
                ("dirlink".to_owned(), EntryKind::Symlink),
                ("filelink".to_owned(), EntryKind::Symlink),
                ("sub".to_owned(), EntryKind::Dir),
            ]
        );
        assert_eq!(tree.entry("").unwrap().unwrap().kind, EntryKind::Dir);
        assert_eq!(tree.read("sub/file", 5).unwrap().unwrap(), b"12345");
        assert!(matches!(tree.read("sub/file", 4), Err(TreeError::TooLarge { .. })));
        assert!(matches!(tree.read("filelink", 99), Err(TreeError::Symlink { .. })));
        assert!(matches!(tree.read("sub", 99), Err(TreeError::NotAFile { .. })));
        assert!(tree.read("dirlink/file", 99).unwrap().is_none());
        assert!(tree.list("dirlink").unwrap().is_empty());
        assert!(tree.read("pipe", 99).unwrap().is_none());
        assert!(matches!(DirTree::new(root.join("none")).list(""), Err(TreeError::Read { .. })));
    }
}
