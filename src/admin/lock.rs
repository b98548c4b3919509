//! The data directory and who works in it: one server alone, or any number of commands while there is none.
//!
//! The lock is flock(2) on `lemnos.lock`: it goes with the process, however that ends, so it is never stale.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::error::{Kind, Report};

pub const FILE_NAME: &str = "lemnos.lock";

const POLL_MS: u64 = 25;
/// Commands hold the lock for moments only; a server waits for them.
const SERVER_WAIT_MS: u64 = 5_000;

/// Held while the data directory is in use.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// For the server: nobody else works here while it is held. Makes the directory where there is none.
    pub async fn for_server(data_dir: &Path) -> Result<Self, Report> {
        Self::for_server_within(data_dir, SERVER_WAIT_MS).await
    }

    pub(super) async fn for_server_within(data_dir: &Path, wait_ms: u64) -> Result<Self, Report> {
        prepare(data_dir)?;
        let mut file = open(data_dir)?;
        if !locked_within(&file, FlockOperation::NonBlockingLockExclusive, wait_ms, data_dir).await? {
            return Err(in_use(data_dir, &mut file));
        }
        let pid = std::process::id().to_string();
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
        written.map_err(|cause| failed("writing", &data_dir.join(FILE_NAME), &cause))?;
        Ok(Self { _file: file })
    }

    /// For a command that works on the store itself: none while a server holds the lock.
    pub fn for_command(data_dir: &Path) -> Result<Option<Self>, Report> {
        let file = open(data_dir)?;
        let locked = try_lock(&file, FlockOperation::NonBlockingLockShared, data_dir)?;
        Ok(locked.then_some(Self { _file: file }))
    }
}

/// Makes the data directory, private to its owner. One that others may write to is refused: what they put there
/// would be ours.
pub fn prepare(data_dir: &Path) -> Result<(), Report> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|cause| failed("making", data_dir, &cause))?;
    let mode = std::fs::metadata(data_dir).map_err(|cause| failed("reading", data_dir, &cause))?.mode();
    if mode & 0o022 != 0 {
        return Err(Report::user(format!("others may write to the data directory {}", data_dir.display()))
            .hint("give a directory of its own with --data or LEMNOS_DATA, or take their access away: chmod go-w DIR"));
    }
    Ok(())
}

/// What a server says of itself in the lock file.
fn in_use(data_dir: &Path, file: &mut File) -> Report {
    let mut pid = String::new();
    let read = file.take(20).read_to_string(&mut pid);
    let by = match pid.trim().parse::<u32>() {
        Ok(pid) if read.is_ok() => format!("by a server, process {pid}"),
        _ => "by another process".to_owned(),
    };
    Report::new(Kind::Conflict, format!("the data directory {} is in use {by}", data_dir.display()))
        .hint("stop that server first, or give this one another directory with --data")
}

async fn locked_within(
    file: &File,
    operation: FlockOperation,
    wait_ms: u64,
    data_dir: &Path,
) -> Result<bool, Report> {
    let mut waited_ms = 0;
    loop {
        if try_lock(file, operation, data_dir)? {
            return Ok(true);
        }
        if waited_ms >= wait_ms {
            return Ok(false);
        }
        // flock cannot be waited for with a limit
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        waited_ms += POLL_MS;
    }
}

fn try_lock(file: &File, operation: FlockOperation, data_dir: &Path) -> Result<bool, Report> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(failed("locking", &data_dir.join(FILE_NAME), &errno.into())),
    }
}

fn open(data_dir: &Path) -> Result<File, Report> {
    let path = data_dir.join(FILE_NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(&path).map_err(|cause| failed("opening", &path, &cause))
}

fn failed(doing: &str, path: &Path, cause: &std::io::Error) -> Report {
    let report = Report::new(Kind::Unavailable, format!("{doing} {}: {cause}", path.display()));
    report.hint("check that the data directory belongs to the user lemnos runs as, and is writable")
}
