//! One git child of the housekeeper: low priority, bounded, ended with the server and by whoever needs the repository. It is
//! the repository's own user, as a push's git is: what a push made, root does not read.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::engine::kept_command;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// What of its words is kept for an error.
const OUTPUT_BYTES: u64 = 16 << 10;
const NICENESS: i32 = 15;

/// Settings of every child. One thread and bounded windows: housekeeping takes the time it takes.
const SETTINGS: [&str; 12] = [
    "safe.bareRepository=explicit",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.fsmonitor=false",
    "core.bigFileThreshold=32m",
    "core.fsync=all",
    "gc.auto=0",
    "maintenance.auto=false",
    "pack.threads=1",
    "pack.windowMemory=64m",
    "pack.deltaCacheSize=64m",
    "core.packedRefsTimeout=2000",
];

/// How git is run.
#[derive(Debug, Clone)]
pub struct KeptGit {
    /// Absolute.
    pub program: PathBuf,
    /// This very program, which keeps the child from outliving the server.
    pub lemnos: PathBuf,
    /// Held while a child runs.
    pub lock: PathBuf,
    /// For one command.
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git {command}: {cause}")]
    Run { command: String, cause: std::io::Error },
    #[error("git {command} ended with {status}: {said}")]
    Failed { command: String, status: String, said: String },
    #[error("git {command} took longer than {} s", .after.as_secs())]
    TooLong { command: String, after: Duration },
    /// Somebody needed the repository, or the server stops.
    #[error("git {command} was stopped: it was in the way")]
    Stopped { command: String },
    #[error("{}: {cause}", .path.display())]
    Io { path: PathBuf, cause: std::io::Error },
}

impl GitError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { path, cause }
    }
}

impl KeptGit {
    /// Runs `git ARGS` on the repository; when it returns, in whatever way, nothing of the child is left.
    pub(super) async fn run(
        &self,
        repository: &Path,
        args: &[&str],
        stop: &[&CancellationToken],
    ) -> Result<(), GitError> {
        let name = || args.first().copied().unwrap_or_default().to_owned();
        let failed = |cause| GitError::Run { command: name(), cause };
        let user = crate::owner::of(repository);
        let mut command = kept_command(&self.lemnos, &self.lock, GRACE, user, &self.program);
        command.arg("--git-dir").arg(repository);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(args).env_clear().envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // its children inherit it; that it may fail costs nothing but niceness
        let _ = rustix::process::setpriority_process(pid, NICENESS);
        let output = child.stdout.take();
        let reader = tokio::spawn(async move {
            let mut said = Vec::new();
            if let Some(mut output) = output {
                let _ = (&mut output).take(OUTPUT_BYTES).read_to_end(&mut said).await;
                // what is too much is read and dropped, so that nobody waits for room in the pipe
                let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
            }
            String::from_utf8_lossy(&said).lines().skip(1).collect::<Vec<_>>().join("; ")
        });
        let status = tokio::select! {
            status = child.wait() => Ok(status.map_err(failed)?),
            () = any(stop) => Err(GitError::Stopped { command: name() }),
            () = tokio::time::sleep(self.timeout) => Err(GitError::TooLong { command: name(), after: self.timeout }),
        };
        let status = match status {
            Ok(status) => status,
            Err(why) => {
                if let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, Signal::TERM);
                }
                // the keeper ends when git and what git started have ended
                let _ = child.wait().await;
                reader.abort();
                return Err(why);
            }
        };
        let said = reader.await.unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(GitError::Failed { command: name(), status: status.to_string(), said })
    }
}

/// Until one of them is cancelled.
async fn any(tokens: &[&CancellationToken]) {
    futures::future::select_all(tokens.iter().map(|token| Box::pin(token.cancelled()))).await;
}
