//! One git child: its argument vector and environment, and the streams between it and the client.
//!
//! The environment is built from empty and the program's path is absolute; no shell, no configuration but ours. The
//! child is always read to its end, so that a client that goes away cannot stop what it began.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::ClientPackets;
use super::frame;
use super::limits::Limits;
use super::refs::HIDDEN;
use super::request::{GitIo, GitService};
use crate::model::Sha;

/// How long a child that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);
const BUFFER: usize = 64 * 1024;

/// Where the child finds its hooks, and the hooks the server.
pub(super) struct HookPlace<'a> {
    pub scripts: &'a Path,
    pub home: &'a Path,
    pub socket: &'a Path,
    pub executable: &'a Path,
    pub token: &'a str,
}

/// The command for one request; `repository` is absolute and chosen by the server.
pub(super) fn command(
    git: &Path,
    service: GitService,
    repository: &Path,
    protocol: Option<&str>,
    place: &HookPlace<'_>,
    limits: &Limits,
) -> Command {
    let mut command = Command::new(git);
    command.arg(service.subcommand()).arg(repository).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("HOME", place.home).env("LC_ALL", "C");
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1");
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    // one allocation above this ends the child: a few bytes of delta can claim any size
    let allocation = (limits.max_blob_bytes / (1024 * 1024)).saturating_add(64).max(512);
    command.env("GIT_ALLOC_LIMIT", format!("{allocation}m"));
    let settings = settings(place.scripts, limits);
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (n, (key, value)) in settings.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
    }
    if let Some(protocol) = protocol {
        command.env("GIT_PROTOCOL", protocol);
    }
    if service.writes() {
        command.env(frame::ENV_SOCKET, place.socket).env(frame::ENV_TOKEN, place.token);
        command.env(frame::ENV_EXECUTABLE, place.executable);
    }
    if let Some(id) = crate::owner::of(repository) {
        command.uid(id).gid(id);
    }
    // a group of its own: a Ctrl-C in the server's terminal is not for it, and it can be ended with its children
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// git's configuration for every service; it outranks what a repository says.
fn settings(hooks: &Path, limits: &Limits) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("core.hooksPath", hooks.to_string_lossy().into_owned()),
        ("receive.maxInputSize", limits.max_input_bytes.to_string()),
        ("transfer.hideRefs", HIDDEN.to_owned()),
        // of a repository whose objects are under git's own name: the quarantine's alternate is this very repository, whose
        // refs git looks at anyway; this says that it has no others, and starts faster than the git that would list them
        ("core.alternateRefsCommand", "true".to_owned()),
    ];
    let fixed = [
        ("safe.bareRepository", "explicit"),
        // ours by its place: its owner may be the server's user where this child's is another
        ("safe.directory", "*"),
        ("core.attributesFile", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.protectHFS", "true"),
        ("core.protectNTFS", "true"),
        ("core.logAllRefUpdates", "false"),
        // larger blobs are streamed instead of held in memory
        ("core.bigFileThreshold", "32m"),
        ("transfer.fsckObjects", "true"),
        ("receive.fsckObjects", "true"),
        ("receive.procReceiveRefs", "refs/"),
        ("receive.advertisePushOptions", "true"),
        ("receive.advertiseAtomic", "true"),
        ("receive.shallowUpdate", "false"),
        // deletions and moves of the current branch are decided by the server, not by git
        ("receive.denyDeletes", "false"),
        ("receive.denyNonFastForwards", "false"),
        ("receive.denyCurrentBranch", "ignore"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.autogc", "false"),
        ("receive.updateServerInfo", "false"),
        ("receive.keepAlive", "5"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("uploadpack.keepAlive", "5"),
        ("uploadpack.allowFilter", "false"),
        ("uploadpack.allowAnySHA1InWant", "false"),
        ("uploadpack.allowTipSHA1InWant", "false"),
        ("uploadpack.allowReachableSHA1InWant", "false"),
        ("uploadpack.allowRefInWant", "false"),
        ("uploadarchive.allowUnreachable", "false"),
        ("protocol.allow", "never"),
        ("protocol.version", "2"),
    ];
    settings.extend(fixed.map(|(key, value)| (key, value.to_owned())));
    settings
}

/// Why the server ended a child before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Stalled,
    TooLong,
    TooMuch,
    ClientGone,
}

/// What the streams, the hooks and the watch tell each other.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    moved_ms: AtomicU64,
    with_server: AtomicBool,
    complete: AtomicBool,
    /// The client's opening, of a push.
    client: Mutex<Option<ClientPackets>>,
    cut: Mutex<Option<Cut>>,
    cut_now: Notify,
}

impl Progress {
    pub(super) fn new(service: GitService, limits: &Limits) -> Self {
        Self {
            began: Instant::now(),
            moved_ms: AtomicU64::new(0),
            with_server: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            client: Mutex::new(service.writes().then(|| ClientPackets::new(limits))),
            cut: Mutex::new(None),
            cut_now: Notify::new(),
        }
    }

    /// The server has all objects: from now on only a stall can end the request.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// While the server itself works, nothing stalls.
    pub(super) fn with_server(&self, working: bool) {
        self.moved();
        self.with_server.store(working, Ordering::Relaxed);
    }

    /// What the client has said so far, before its pack: how many commands, and where its clone is cut off.
    pub(super) fn opening(&self) -> (usize, Vec<Sha>) {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.as_ref().map(|c| (c.commands, c.shallow.clone())).unwrap_or_default()
    }

    fn moved(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(elapsed, Ordering::Relaxed);
    }

    fn cut(&self, why: Cut) {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.cut_now.notify_one();
    }

    /// Returns when the child is to be ended, and why.
    async fn watch(&self, limits: &Limits) -> Cut {
        let stall = Duration::from_secs(limits.stall_seconds);
        let whole = Duration::from_secs(limits.transfer_seconds);
        loop {
            let now = self.began.elapsed();
            let still = now.saturating_sub(Duration::from_millis(self.moved_ms.load(Ordering::Relaxed)));
            let mut wait = stall;
            if !self.with_server.load(Ordering::Relaxed) {
                if still >= stall {
                    return Cut::Stalled;
                }
                wait = stall.saturating_sub(still);
                if !self.complete.load(Ordering::Relaxed) {
                    if now >= whole {
                        return Cut::TooLong;
                    }
                    wait = wait.min(whole.saturating_sub(now));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cut_now.notified() => {}
            }
            if let Some(why) = *self.cut.lock().unwrap_or_else(PoisonError::into_inner) {
                return why;
            }
        }
    }
}

/// How a request ended.
pub(super) struct Ended {
    pub status: u32,
    pub cut: Option<Cut>,
    /// What is left of the client's end, for a last word.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Moves bytes until the child has ended and everything it said was passed on.
pub(super) async fn relay(
    mut child: Child,
    service: GitService,
    io: GitIo,
    progress: &Arc<Progress>,
    limits: &Limits,
) -> std::io::Result<Ended> {
    let missing = || std::io::Error::other("the child has no pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let GitIo { stdin: client_in, stdout: client_out, stderr: mut client_err, .. } = io;

    let inward = tokio::spawn(pump_in(client_in, stdin, Arc::clone(progress)));
    let keep_on = service.writes();
    let cut = {
        let mut client_out = client_out;
        let pumps = async {
            tokio::join!(
                pump_out(stdout, &mut client_out, progress, keep_on),
                pump_out(stderr, &mut client_err, progress, true)
            );
        };
        tokio::pin!(pumps);
        tokio::select! {
            () = &mut pumps => None,
            why = progress.watch(limits) => {
                signal(&child, Signal::TERM);
                if tokio::time::timeout(GRACE, &mut pumps).await.is_err() {
                    signal(&child, Signal::KILL);
                    // a pump may also be held up by the client; the child is dead in any case
                    let _ = tokio::time::timeout(GRACE, &mut pumps).await;
                }
                Some(why)
            }
        }
    };
    let status = match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            signal(&child, Signal::KILL);
            child.wait().await?
        }
    };
    inward.abort();
    Ok(Ended { status: exit_status(status), cut, stderr: client_err })
}

/// As a shell would say it: the exit code, or 128 and the signal.
fn exit_status(status: std::process::ExitStatus) -> u32 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u32::try_from(code).unwrap_or(255)
}

/// The child was not waited for yet, so its id is still its own.
fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        let _ = kill_process_group(id, signal);
    }
}

/// Client to child. Ends the child's input when the client's ends, in whatever way.
async fn pump_in(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    mut to: tokio::process::ChildStdin,
    progress: Arc<Progress>,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        progress.moved();
        let verdict = match progress.client.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(client) => client.feed(bytes),
            None => Ok(()),
        };
        if verdict.is_err() {
            return progress.cut(Cut::TooMuch);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Child to client, until the child closes its end. When the client cannot be written to any more, the rest is read and
/// dropped (`keep_on`), or the child is ended.
async fn pump_out(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
    keep_on: bool,
) {
    let mut buffer = vec![0; BUFFER];
    let mut gone = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        progress.moved();
        let bytes = buffer.get(..length).unwrap_or_default();
        if !gone && (to.write_all(bytes).await.is_err() || to.flush().await.is_err()) {
            gone = true;
            if !keep_on {
                progress.cut(Cut::ClientGone);
            }
        }
        progress.moved();
    }
}
