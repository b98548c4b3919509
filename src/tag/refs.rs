//! A ref transaction in a `git update-ref --stdin` child: locked and verified, then committed or aborted.
//!
//! The child lives on our end of its stdin: when that closes, because we abort, die or are killed, git aborts and takes its
//! lock files away. So it is never killed by us. It runs in its own process group, with an environment built from empty.
//! After a transaction that went well it waits a few seconds for the repository's next one (`idle`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::model::{RefName, RefUpdate, Sha};

mod idle;
use idle::Idle;

/// The git program that moves refs.
#[derive(Debug, Clone)]
pub struct Git {
    /// Absolute: PATH is not consulted.
    pub program: PathBuf,
    /// For one step of a transaction.
    pub timeout: Duration,
    /// Its children that wait for a repository's next transaction.
    idle: Idle,
}

impl Git {
    pub fn new(program: PathBuf, timeout: Duration) -> Self {
        Self { program, timeout, idle: Idle::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// It does not stand where the push found it.
    #[error("{} moved meanwhile\n{detail}", .names.join(", "))]
    Moved { names: Vec<String>, detail: String },
    /// Another git holds its lock file.
    #[error("{} is locked by another git process: {detail}", .names.join(", "))]
    Locked { names: Vec<String>, detail: String },
    /// `a` and `a/b` cannot both be refs.
    #[error("{} and another ref exclude each other: {detail}", .names.join(", "))]
    Clash { names: Vec<String>, detail: String },
    #[error("git update-ref failed: {detail}")]
    Git { detail: String },
    #[error("git update-ref did not answer within {} s", .after.as_secs())]
    Timeout { after: Duration },
    #[error("{}: {cause}", .program.display())]
    Spawn { program: PathBuf, cause: String },
}

/// What of git's stderr is kept.
const STDERR_LIMIT_BYTES: u64 = 16 << 10;
/// How long git waits for another git's lock file.
const LOCK_PATIENCE_MS: u64 = 1000;

/// Refs that are locked, with their old values verified. Dropping it aborts.
#[derive(Debug)]
pub struct RefTransaction {
    keeper: Keeper,
    names: Vec<String>,
    timeout: Duration,
    /// Where the child goes when all went well.
    idle: Idle,
    repository: PathBuf,
}

/// One `git update-ref --stdin`, for one transaction after the other.
#[derive(Debug)]
struct Keeper {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    /// Transactions that it has begun.
    begun: u32,
}

impl Keeper {
    fn start(git: &Git, repository: &Path) -> Result<Self, RefError> {
        let spawn = |cause: String| RefError::Spawn { program: git.program.clone(), cause };
        let mut child = command(git, repository)
            .args(["update-ref", "--no-deref", "--stdin"])
            .spawn()
            .map_err(|error| spawn(error.to_string()))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(spawn("its pipes are missing".to_owned()));
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), stderr, begun: 0 })
    }

    /// Writes `text` and reads the answers: false when git ended instead.
    async fn say(&mut self, text: &str, answers: &[&str]) -> bool {
        if self.stdin.write_all(text.as_bytes()).await.is_err() {
            return false;
        }
        let mut line = String::new();
        for answer in answers {
            line.clear();
            let read = (&mut self.stdout).take(256).read_line(&mut line).await;
            if read.is_err() || line.trim_end() != *answer {
                return false;
            }
        }
        true
    }
}

fn command(git: &Git, repository: &Path) -> Command {
    let mut command = Command::new(&git.program);
    command
        .env_clear()
        .envs([
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ])
        .arg("--git-dir")
        .arg(repository)
        .args(["-c", "safe.bareRepository=explicit", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "core.logAllRefUpdates=false", "-c", "core.fsync=reference"])
        .arg("-c")
        .arg(format!("core.filesRefLockTimeout={LOCK_PATIENCE_MS}"))
        .arg("-c")
        .arg(format!("core.packedRefsTimeout={LOCK_PATIENCE_MS}"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(id) = crate::owner::of(repository) {
        command.uid(id).gid(id);
    }
    command
}

impl RefTransaction {
    /// Locks the refs of `updates` and verifies their old values; nothing has moved yet.
    pub async fn prepare(git: &Git, repository: &Path, updates: &[RefUpdate]) -> Result<Self, RefError> {
        let mut script = String::from("start\n");
        for update in updates {
            let RefUpdate { name, old, new } = update;
            let line = if update.is_delete() {
                format!("delete {name} {old}\n")
            } else {
                // an old value of zeros means that the ref must not be there
                format!("update {name} {new} {old}\n")
            };
            script.push_str(&line);
        }
        script.push_str("prepare\n");
        let names = updates.iter().map(|update| update.name.to_string()).collect();
        let mut keeper = match git.idle.take(repository) {
            Some(keeper) => keeper,
            None => Keeper::start(git, repository)?,
        };
        keeper.begun += 1;
        let (idle, repository) = (git.idle.clone(), repository.to_owned());
        let mut transaction = Self { keeper, names, timeout: git.timeout, idle, repository };
        if transaction.say(&script, &["start: ok", "prepare: ok"]).await? {
            return Ok(transaction);
        }
        Err(transaction.death().await)
    }

    /// Moves the refs.
    pub async fn commit(mut self) -> Result<(), RefError> {
        if !self.say("commit\n", &["commit: ok"]).await? {
            return Err(self.death().await);
        }
        self.rest();
        Ok(())
    }

    /// Lets the refs go unmoved; returns when their lock files are gone.
    pub async fn abort(mut self) {
        match self.say("abort\n", &["abort: ok"]).await {
            Ok(true) => self.rest(),
            Ok(false) => self.end().await,
            Err(error) => {
                tracing::warn!("aborting a ref transaction: {error}");
                self.end().await;
            }
        }
    }

    async fn say(&mut self, text: &str, answers: &[&str]) -> Result<bool, RefError> {
        let after = self.timeout;
        tokio::time::timeout(after, self.keeper.say(text, answers))
            .await
            .map_err(|_| RefError::Timeout { after })
    }

    fn rest(self) {
        self.idle.put(&self.repository, self.keeper);
    }

    /// Why git ended.
    async fn death(self) -> RefError {
        let Self { keeper: Keeper { mut child, stdin, stderr, .. }, names, timeout, .. } = self;
        drop(stdin);
        let mut text = Vec::new();
        let last_words = async {
            let _ = stderr.take(STDERR_LIMIT_BYTES).read_to_end(&mut text).await;
            let _ = child.wait().await;
        };
        if tokio::time::timeout(timeout, last_words).await.is_err() {
            return RefError::Timeout { after: timeout };
        }
        classify(&String::from_utf8_lossy(&text), names)
    }

    /// When git is gone, so are its locks.
    async fn end(self) {
        let Self { keeper: Keeper { mut child, stdin, .. }, timeout, .. } = self;
        drop(stdin);
        let _ = tokio::time::timeout(timeout, child.wait()).await;
    }
}

/// What git's message (LC_ALL=C) means.
fn classify(stderr: &str, names: Vec<String>) -> RefError {
    let detail = stderr.trim().trim_start_matches("fatal: ").trim_start_matches("prepare: ").to_owned();
    let says = |text: &str| detail.contains(text);
    // the refs that the message names, else all
    let named: Vec<String> = names.iter().filter(|name| says(&format!("'{name}'"))).cloned().collect();
    let names = if named.is_empty() { names } else { named };
    if says(".lock': File exists") {
        RefError::Locked { names, detail }
    } else if says("but expected")
        || says("reference already exists")
        || says("unable to resolve reference")
        || says("reference is missing")
    {
        RefError::Moved { names, detail }
    } else if says("exists; cannot create") || says("cannot process") {
        RefError::Clash { names, detail }
    } else {
        RefError::Git { detail }
    }
}

/// Where the refs stand, in the order asked; zeros where there is none.
pub async fn read(git: &Git, repository: &Path, names: &[&RefName]) -> Result<Vec<Sha>, RefError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = command(git, repository);
    command.args(["for-each-ref", "--format=%(objectname) %(refname)", "--"]);
    command.args(names.iter().map(|name| name.as_str())).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(git.timeout, command.output())
        .await
        .map_err(|_| RefError::Timeout { after: git.timeout })?
        .map_err(|error| RefError::Spawn { program: git.program.clone(), cause: error.to_string() })?;
    if !output.status.success() {
        return Err(RefError::Git { detail: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    // a pattern also matches what lies below it, so the names are compared whole
    let listing = String::from_utf8_lossy(&output.stdout);
    let find = |name: &RefName| {
        let mut lines = listing.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(_, listed)| *listed == name.as_str())
            .map_or_else(|| Ok(Sha::zero()), |(id, _)| id.parse())
    };
    let found: Result<Vec<Sha>, crate::model::Invalid> = names.iter().map(|name| find(name)).collect();
    found.map_err(|error| RefError::Git { detail: error.to_string() })
}

/// Takes away the lock files that a killed git left in a repository; returns them. For the start only, when no git of ours
/// can be running: one whose server died a moment ago gets `grace` to end by itself.
pub async fn clear_stale_locks(repository: &Path, grace: Duration) -> std::io::Result<Vec<PathBuf>> {
    let begun = std::time::Instant::now();
    loop {
        let root = repository.to_owned();
        let left =
            tokio::task::spawn_blocking(move || lock_files(&root)).await.map_err(std::io::Error::other)??;
        if left.is_empty() {
            return Ok(left);
        }
        if begun.elapsed() < grace {
            // nothing tells when another process' child removes a file
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        for path in &left {
            tracing::warn!(git.lock = %path.display(), "removing the lock file of a git that was killed");
            match tokio::fs::remove_file(path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        return Ok(left);
    }
}

fn lock_files(repository: &Path) -> std::io::Result<Vec<PathBuf>> {
    let at_root = ["packed-refs.lock", "HEAD.lock"].map(|name| repository.join(name));
    let mut found: Vec<PathBuf> = at_root.into_iter().filter(|path| path.exists()).collect();
    let mut folders = vec![repository.join("refs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.path().extension().is_some_and(|end| end == "lock") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
