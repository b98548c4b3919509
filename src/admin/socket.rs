//! `control.sock`: requests to the running server, as lines of JSON. The socket's mode is the permission.
//!
//! One connection, one call: the client sends a `Call`, the server answers with `Answer`s, the last of which is
//! `Done` or `Failed`. Everything read is bounded, and a peer that stalls is left.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Caller, Context, DataLock, Request, Response, Step};
use crate::error::{Kind, Report};
use crate::event::Recorded;
use crate::store::Store;

pub const FILE_NAME: &str = "control.sock";

/// The most bytes of a unix socket's path that every system takes, without the final NUL.
const SUN_PATH_BYTES: usize = 103;
const CALL_BYTES: u64 = 1 << 20;
const ANSWER_BYTES: u64 = 64 << 20;
const CALLS_AT_ONCE: usize = 64;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For all of one operation, a repository's removal included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Execute(Request),
    /// The events of a build from `from_seq` on, until it has ended.
    Follow {
        build: String,
        from_seq: u64,
    },
}

/// One line of the server's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Events(Vec<Recorded>),
    Done(Box<Response>),
    Failed(Report),
}

/// The server's side; the socket file goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, mode 0600. The lock says that one which is there already is a dead server's.
    pub fn bind(data_dir: &Path, _lock: &DataLock) -> Result<Self, Report> {
        let path = data_dir.join(FILE_NAME);
        let failed = |cause: io::Error| {
            Report::new(Kind::Unavailable, format!("listening on {}: {cause}", path.display()))
        };
        // it gets its mode before it gets its name: nobody connects in between
        let unnamed = data_dir.join(format!("{FILE_NAME}.new"));
        match std::fs::remove_file(&unnamed) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        let reachable = Reachable::of(&unnamed).map_err(failed)?;
        let listener = UnixListener::bind(&reachable.path).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&unnamed, mode).map_err(failed)?;
        std::fs::rename(&unnamed, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // nothing to do about a failure: the next server removes it
        drop(std::fs::remove_file(&self.path));
    }
}

/// Answers calls until dropped. A call that is cut off by that has been done or not, as with any crash.
pub async fn serve(listener: Listener, store: Store, context: Context) {
    let places = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    let mut calls = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while calls.try_join_next().is_some() {}
        let stream = match listener.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(cause) => {
                tracing::warn!(error = %cause, "accepting a control connection");
                // out of file descriptors, most likely: trying again at once would spin
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (store, context) = (store.clone(), context.clone());
        calls.spawn(async move {
            if let Err(cause) = answer(stream, &store, &context).await {
                tracing::debug!(error = %cause, "a control connection ended early");
            }
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, store: &Store, context: &Context) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let call = match tokio::time::timeout(CALL_TIMEOUT, read_line::<Call>(&mut read, CALL_BYTES)).await {
        Ok(Ok(Some(call))) => call,
        // somebody looked whether a server is there
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(cause)) => {
            let report = Report::user(format!("the server does not understand this request: {cause}"))
                .hint("command and server must be of one version: restart the server after an upgrade");
            return send(&mut write, &Answer::Failed(report)).await;
        }
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let last = match call {
        Call::Execute(request) => super::execute(store, context, &Caller::Operator, request).await,
        Call::Follow { build, from_seq } => {
            // a client that goes away is noticed while nothing is to be sent
            let mut gone = [0_u8; 1];
            tokio::select! {
                result = follow(store, &build, from_seq, &mut write) => result?,
                _ = read.read(&mut gone) => return Ok(()),
            }
        }
    };
    let last = last.map_or_else(Answer::Failed, |response| Answer::Done(Box::new(response)));
    send(&mut write, &last).await
}

/// Streams events; the outer error is the connection's.
async fn follow(
    store: &Store,
    build: &str,
    from_seq: u64,
    write: &mut OwnedWriteHalf,
) -> io::Result<Result<Response, Report>> {
    let mut follow = match super::follow(store, &Caller::Operator, build, from_seq).await {
        Ok(follow) => follow,
        Err(report) => return Ok(Err(report)),
    };
    loop {
        match follow.next().await {
            Ok(Step::Events(events)) => send(write, &Answer::Events(events)).await?,
            Ok(Step::Ended(build)) => return Ok(Ok(Response::Build(build))),
            Err(report) => return Ok(Err(report)),
        }
    }
}

/// A call under way, on the client's side.
#[derive(Debug)]
pub struct Connection {
    read: BufReader<tokio::net::unix::OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    /// Connects to the server of a data directory; none where no server listens.
    pub async fn open(data_dir: &Path) -> Result<Option<Self>, Report> {
        let path = data_dir.join(FILE_NAME);
        let connected = match Reachable::of(&path) {
            Ok(reachable) => UnixStream::connect(&reachable.path).await,
            Err(cause) => Err(cause),
        };
        match connected {
            Ok(stream) => {
                let (read, write) = stream.into_split();
                Ok(Some(Self { read: BufReader::new(read), write }))
            }
            Err(cause)
                if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(cause) => {
                let report =
                    Report::new(Kind::Unavailable, format!("connecting to {}: {cause}", path.display()));
                Err(if cause.kind() == io::ErrorKind::PermissionDenied {
                    Report { kind: Kind::Forbidden, ..report }
                        .hint("run this as the user that the server runs as")
                } else {
                    report
                })
            }
        }
    }

    /// Does one operation.
    pub async fn execute(mut self, request: Request) -> Result<Response, Report> {
        let answered = async {
            send(&mut self.write, &Call::Execute(request)).await.map_err(broken)?;
            match self.answer().await? {
                Answer::Done(response) => Ok(*response),
                Answer::Failed(report) => Err(report),
                Answer::Events(_) => Err(broken(io::ErrorKind::InvalidData.into())),
            }
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(result) => result,
            Err(_) => Err(broken(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Begins to follow a build's log from `from_seq` on.
    pub async fn follow(mut self, build: &str, from_seq: u64) -> Result<Followed, Report> {
        let call = Call::Follow { build: build.to_owned(), from_seq };
        send(&mut self.write, &call).await.map_err(broken)?;
        Ok(Followed(self))
    }

    async fn answer(&mut self) -> Result<Answer, Report> {
        let answer = read_line(&mut self.read, ANSWER_BYTES).await.map_err(broken)?;
        answer.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// A build's log on its way.
#[derive(Debug)]
pub struct Followed(Connection);

impl Followed {
    /// The next events; after the end there is nothing more to ask for.
    pub async fn next(&mut self) -> Result<Step, Report> {
        match self.0.answer().await? {
            Answer::Events(events) => Ok(Step::Events(events)),
            Answer::Done(response) => match *response {
                Response::Build(build) => Ok(Step::Ended(build)),
                _ => Err(broken(io::ErrorKind::InvalidData.into())),
            },
            Answer::Failed(report) => Err(report),
        }
    }
}

fn broken(cause: io::Error) -> Report {
    Report::new(Kind::Unavailable, format!("the server did not answer: {cause}"))
        .hint("if it was stopped, see whether the change was made, then try again")
}

/// One line of JSON; none at the end of the stream.
async fn read_line<T: DeserializeOwned>(
    read: &mut (impl tokio::io::AsyncBufRead + Unpin),
    limit_bytes: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    read.take(limit_bytes).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if line.len() as u64 == limit_bytes => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line has more than {limit_bytes} bytes"),
        )),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn send(write: &mut OwnedWriteHalf, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    match tokio::time::timeout(WRITE_TIMEOUT, write.write_all(&line)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A path that fits into a socket address: a long one goes through an open handle of its directory.
struct Reachable {
    path: PathBuf,
    /// Keeps the short path valid.
    _directory: Option<OwnedFd>,
}

impl Reachable {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= SUN_PATH_BYTES {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if !cfg!(target_os = "linux") {
            let message =
                format!("the path has more than {SUN_PATH_BYTES} bytes; use a shorter data directory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let handle = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(handle) })
    }
}
