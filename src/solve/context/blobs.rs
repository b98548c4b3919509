//! Content of git objects, for several readers at once.
//!
//! Small blobs are read whole by libgit2, which cannot stream from packs. Larger ones come through a `git cat-file`
//! child, which streams all but deltas, so that a file of any size costs a constant amount of our memory; without a git
//! program they are read whole, up to a bound and one at a time.

use std::io::{Cursor, Error, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::buildkit::session::filesync::{Entry, SourceError, shown};

use super::ContextError;

/// Larger blobs are streamed.
const STREAM_ABOVE_BYTES: u64 = 4 << 20;
/// The largest blob that is read whole.
const WHOLE_LIMIT_BYTES: u64 = 256 << 20;
/// Handles kept for the next reader.
const MAX_IDLE: usize = 8;
/// What of git's stderr is kept.
const STDERR_LIMIT_BYTES: u64 = 4096;

/// Readers of one repository's objects.
#[derive(Clone)]
pub(super) struct Blobs {
    repositories: Arc<Repositories>,
    git: Option<PathBuf>,
}

struct Repositories {
    /// As libgit2 found it: the directory with the objects, also where a work tree was named.
    gitdir: PathBuf,
    /// A handle is for one thread at a time.
    idle: Mutex<Vec<git2::Repository>>,
    /// Whether a large blob is in memory.
    large: Mutex<bool>,
    large_left: Condvar,
}

/// A large blob in memory; the next one waits until it has been sent.
struct Large {
    content: Cursor<Vec<u8>>,
    repositories: Arc<Repositories>,
}

impl Read for Large {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.content.read(into)
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        *lock(&self.repositories.large) = false;
        self.repositories.large_left.notify_one();
    }
}

/// What libgit2 says, for people.
pub(super) fn message(cause: &git2::Error) -> String {
    cause.message().to_owned()
}

fn open(path: &Path) -> Result<git2::Repository, git2::Error> {
    let none = std::iter::empty::<&std::ffi::OsStr>();
    git2::Repository::open_ext(path, git2::RepositoryOpenFlags::NO_SEARCH, none)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blobs {
    pub(super) fn open(repository: &Path) -> Result<Self, ContextError> {
        let first = open(repository).map_err(|cause| ContextError::NotARepository {
            path: repository.display().to_string(),
            cause: message(&cause),
        })?;
        let gitdir = first.path().to_owned();
        let repositories = Repositories {
            gitdir,
            idle: Mutex::new(vec![first]),
            large: Mutex::new(false),
            large_left: Condvar::new(),
        };
        Ok(Self { repositories: Arc::new(repositories), git: None })
    }

    pub(super) fn streaming_with(&self, git: PathBuf) -> Self {
        Self { repositories: self.repositories.clone(), git: Some(git) }
    }

    /// Runs `work` with a handle of its own.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&git2::Repository) -> Result<T, git2::Error>,
    ) -> Result<T, git2::Error> {
        let idle = lock(&self.repositories.idle).pop();
        let handle = match idle {
            Some(handle) => handle,
            None => open(&self.repositories.gitdir)?,
        };
        let result = work(&handle);
        let mut idle = lock(&self.repositories.idle);
        if idle.len() < MAX_IDLE {
            idle.push(handle);
        }
        result
    }

    /// The content of `oid`, which `entry` announces.
    pub(super) fn read(&self, oid: git2::Oid, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        let failed = |cause: String| SourceError::Read { path: shown(&entry.path), cause };
        if entry.size > STREAM_ABOVE_BYTES
            && let Some(git) = &self.git
        {
            return Ok(Box::new(self.stream(git, oid).map_err(|cause| failed(cause.to_string()))?));
        }
        if entry.size > WHOLE_LIMIT_BYTES {
            let path = shown(&entry.path);
            return Err(SourceError::TooLarge { path, size: entry.size, limit: WHOLE_LIMIT_BYTES });
        }
        let whole =
            || self.with(|git| Ok(git.odb()?.read(oid)?.data().to_vec())).map_err(|e| failed(message(&e)));
        if entry.size <= STREAM_ABOVE_BYTES {
            return Ok(Box::new(Cursor::new(whole()?)));
        }
        let repositories = self.repositories.clone();
        let taken = lock(&repositories.large);
        let taken = repositories.large_left.wait_while(taken, |taken| *taken);
        *taken.unwrap_or_else(PoisonError::into_inner) = true;
        // from here on dropping it makes room for the next
        let mut large = Large { content: Cursor::new(Vec::new()), repositories: self.repositories.clone() };
        large.content = Cursor::new(whole()?);
        Ok(Box::new(large))
    }

    fn stream(&self, git: &Path, oid: git2::Oid) -> Result<Streamed, Error> {
        let mut command = Command::new(git);
        command
            .env_clear()
            .envs([
                ("LC_ALL", "C"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_NO_LAZY_FETCH", "1"),
            ])
            .arg("--git-dir")
            .arg(&self.repositories.gitdir)
            // above this git streams a blob instead of building it in memory
            .args(["-c", "core.bigFileThreshold=1m", "cat-file", "blob", &oid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(id) = crate::owner::of(self.repositories.gitdir.components().as_path()) {
            command.uid(id).gid(id);
        }
        let mut child =
            command.spawn().map_err(|cause| Error::other(format!("{}: {cause}", git.display())))?;
        let content = child.stdout.take();
        Ok(Streamed { child, content })
    }
}

/// The output of a `git cat-file`. Ends well only if git did.
struct Streamed {
    child: Child,
    content: Option<ChildStdout>,
}

impl Read for Streamed {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let Some(content) = &mut self.content else { return Ok(0) };
        let read = content.read(into)?;
        if read > 0 || into.is_empty() {
            return Ok(read);
        }
        self.content = None;
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            // what git says is a help only; its status decides
            let _ = stderr.take(STDERR_LIMIT_BYTES).read_to_string(&mut said);
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(0);
        }
        Err(Error::other(format!("git cat-file ended with {status}: {}", said.trim())))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // fails only where it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
