//! The process between the server and an engine (`lemnos engine-child`): it outlives a killed server by as long as it takes
//! to end the engine and everything the engine left behind.
//!
//! server --dies--> keeper gets SIGTERM (its parent-death signal) --> engine gets SIGTERM, later SIGKILL --> what the engine
//! orphaned (runc's containers) falls to the keeper, the nearest subreaper, and is killed. A killed keeper takes the engine
//! along by the engine's own parent-death signal. The kernel sends that signal when the *thread* that started the child ends:
//! parents start children from a thread that lasts.
//! Must not: read the environment, log (its output is the engine's), or live on without a parent.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

/// What the keeper says on its output once the engine has been started: from then on a probe asks the right process.
pub(super) const STARTED: &str = "lemnos-engine-child: started";

/// The command of a keeper that runs `program` until this process ends: `lemnos engine-child …`. The caller adds the
/// program's arguments, and streams. `user` is whom the program becomes; the keeper stays who it is.
pub fn kept_command(
    lemnos: &Path,
    lock: &Path,
    grace: Duration,
    user: Option<u32>,
    program: &Path,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(lemnos);
    command.arg("engine-child").arg("--parent").arg(std::process::id().to_string());
    command.arg("--lock").arg(lock).arg("--grace").arg(grace.as_secs().to_string());
    if let Some(id) = user {
        command.arg("--user").arg(id.to_string());
    }
    command.arg("--").arg(program);
    command
}

/// How long a keeper waits for the one of a killed server to end its engine.
const PREDECESSOR: Duration = Duration::from_secs(30);

/// What to keep.
#[derive(Debug)]
pub struct Keep {
    /// The pid that started this process and without which it ends.
    pub parent: u32,
    /// Held while the engine runs, so that there is never a second one on the same state.
    pub lock: PathBuf,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// This very program.
    pub lemnos: PathBuf,
    /// User and group that the engine becomes; none: the server's.
    pub user: Option<u32>,
    /// The engine's program and arguments.
    pub command: Vec<OsString>,
}

/// Becomes `command`, which gets SIGTERM when the thread that started this process ends. Returns only when it cannot.
pub fn exec_bound_to(parent: u32, command: &[OsString]) -> std::io::Error {
    let Some((program, args)) = command.split_first() else {
        return std::io::Error::from(std::io::ErrorKind::InvalidInput);
    };
    match bind_to(parent) {
        Ok(()) => std::process::Command::new(program).args(args).exec(),
        Err(error) => error,
    }
}

/// Asks for the signal, then looks whether the parent had ended before that.
fn bind_to(parent: u32) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let now = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if now.is_some_and(|pid| u32::try_from(pid.get()) == Ok(parent)) {
        Ok(())
    } else {
        Err(std::io::Error::other("the server that started this has ended"))
    }
}

/// Runs the engine until it ends or this process is told to; the exit code is the engine's. To be run on the main thread.
pub async fn keep(keep: Keep) -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut children = signal(SignalKind::child())?;
    bind_to(keep.parent)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let _lock = tokio::select! {
        lock = lock(&keep.lock) => lock?,
        _ = terminate.recv() => return Ok(0),
    };
    let (mut engine, output) = start(&keep)?;
    let engine_pid = engine.id();
    let mut kill_at: Option<tokio::time::Instant> = None;
    let status = loop {
        let late = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = engine.wait() => break status?,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = children.recv() => { reap(engine_pid); continue }
            () = late => { engine.start_kill()?; kill_at = None; continue }
        }
        if let Some(pid) = engine_pid.and_then(pid) {
            // already gone: `wait` says so next
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        kill_at.get_or_insert(tokio::time::Instant::now() + keep.grace);
    };
    end_orphans();
    let deadline = Instant::now() + Duration::from_secs(1);
    while !output.is_finished() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Starts the engine, its output and errors in one pipe; a thread hands that on for as long as somebody listens.
fn start(keep: &Keep) -> std::io::Result<(tokio::process::Child, std::thread::JoinHandle<()>)> {
    let (mut from, to) = std::io::pipe()?;
    let mut command = tokio::process::Command::new(&keep.lemnos);
    command.arg("engine-child").arg("--exec").arg("--parent").arg(std::process::id().to_string()).arg("--");
    command.args(&keep.command).stdin(Stdio::null()).stdout(to.try_clone()?).stderr(to).kill_on_drop(true);
    if let Some(id) = keep.user {
        // before the program asks for its parent-death signal, which a change of user would take back
        command.uid(id).gid(id);
    }
    let engine = command.spawn()?;
    drop(command);
    let mut out = std::io::stdout();
    writeln!(out, "{STARTED}")?;
    out.flush()?;
    let output = std::thread::spawn(move || {
        let (mut buffer, mut heard) = ([0_u8; 8192], true);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let chunk = buffer.get(..n).unwrap_or_default();
            // a killed server hears nothing; the engine must still be able to say its last words and end in order
            heard = heard && out.write_all(chunk).and_then(|()| out.flush()).is_ok();
        }
    });
    Ok((engine, output))
}

async fn lock(path: &Path) -> std::io::Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(std::io::Error::other(format!(
                    "an earlier engine still holds {}",
                    path.display()
                )));
            }
            // the kernel tells nobody when a lock comes free, but to those who block a thread for it
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

/// Children of this process, those that fell to it as the subreaper included.
fn own_children() -> Vec<u32> {
    let me = std::process::id();
    let Ok(proc) = std::fs::read_dir("/proc") else { return Vec::new() };
    proc.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| parent_of(*pid) == Some(me))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid …`, and a name may hold anything
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Takes the exit status of orphans that ended, so that they do not pile up; the engine's own is left for `wait`.
fn reap(engine: Option<u32>) {
    for child in own_children().into_iter().filter(|c| Some(*c) != engine).filter_map(pid) {
        let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::NOHANG);
    }
}

/// Kills what the ended engine left behind, and what that leaves behind in turn.
fn end_orphans() {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let orphans = own_children();
        if orphans.is_empty() || Instant::now() > deadline {
            return;
        }
        for orphan in orphans.into_iter().filter_map(pid) {
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
        reap(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_parent_and_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        assert!(own_children().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent_of(child.id()), None);
    }

    #[tokio::test]
    async fn a_lock_waits_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock(&path).await.unwrap();
        let second = tokio::spawn({
            let path = path.clone();
            async move { lock(&path).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
