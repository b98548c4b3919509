//! A hook's side of the talk with the server: git's question is carried there, the answer back.
//!
//! It is on the path of every push, twice, so: no configuration, no threads, and nothing else of lemnos than the frames, for
//! `lemnos-hook` is made of these two files alone. It decides nothing.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::frame::{self, Hello, Kind};

/// Read of git's words at a time; more than most pushes have.
const INPUT_BYTES: usize = 8 * 1024;

/// What a caller is told who does not come from a push, and what to do instead.
pub const BY_HAND: (&str, &str) = (
    "this hook answers to a push that runs, and to nobody else",
    "push with git; there is nothing to call by hand",
);
/// What to do when the server does not answer.
pub const NO_ANSWER: &str = "push again when the server runs";

/// One call of a hook.
pub struct Call {
    socket: PathBuf,
    hello: Hello,
}

impl Call {
    /// The call of the hook of this name, by what the server left in the environment; none where it left nothing.
    pub fn of(hook: String, variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let (socket, token) = (variable(frame::ENV_SOCKET)?, variable(frame::ENV_TOKEN)?);
        let quarantine = variable(frame::ENV_QUARANTINE).unwrap_or_default();
        let token = token.to_string_lossy().into_owned();
        let hello = Hello { token, hook, quarantine: quarantine.as_bytes().to_vec() };
        Some(Self { socket: socket.into(), hello })
    }

    /// Asks the server, and returns the exit status that it says.
    pub fn carry(self) -> io::Result<u8> {
        let mut server = UnixStream::connect(self.socket)?;
        send(&mut server, Kind::Hello, &self.hello.encode())?;
        let stdin = io::stdin();
        let mut input = Some(stdin.as_fd());
        loop {
            let (answered, asked) = ready(&server, input)?;
            if asked && !carry_input(&mut server, input)? {
                input = None;
            }
            if answered && let Some(status) = carry_answer(&mut server)? {
                return Ok(status);
            }
        }
    }
}

/// Waits for the server or git; which of them has something to say.
fn ready(server: &UnixStream, input: Option<BorrowedFd<'_>>) -> io::Result<(bool, bool)> {
    let mut waiting = vec![PollFd::new(server, PollFlags::IN)];
    waiting.extend(input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN)));
    while let Err(error) = poll(&mut waiting, None) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    let mut ready = waiting.iter().map(|one| !one.revents().is_empty());
    Ok((ready.next().unwrap_or_default(), ready.next().unwrap_or_default()))
}

/// What git says now goes to the server. False when there is no more, or the server wants none: its answer says why.
fn carry_input(server: &mut UnixStream, input: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let Some(input) = input else { return Ok(false) };
    let mut buffer = [0; INPUT_BYTES];
    let length = match rustix::io::read(input, &mut buffer) {
        Err(Errno::INTR) => return Ok(true),
        length => length?,
    };
    let bytes = buffer.get(..length).unwrap_or_default();
    // an empty frame says that there is no more
    Ok(send(server, Kind::Input, bytes).is_ok() && length > 0)
}

/// One of the server's words to git and the pusher; the exit status where it is the last.
fn carry_answer(server: &mut UnixStream) -> io::Result<Option<u8>> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let mut header = [0; frame::HEADER];
    server.read_exact(&mut header)?;
    let (kind, length) = frame::parse_header(header).map_err(invalid)?;
    let mut payload = vec![0; length];
    server.read_exact(&mut payload)?;
    match kind {
        Kind::Output => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&payload)?;
            stdout.flush()?;
        }
        // a pusher who sees nothing any more still gets the push finished
        Kind::Error => drop(io::stderr().write_all(&payload)),
        Kind::Exit => return Ok(Some(payload.first().copied().unwrap_or(1))),
        Kind::Hello | Kind::Input => return Err(invalid(frame::FrameError::Kind(kind as u8))),
    }
    Ok(None)
}

fn send(server: &mut UnixStream, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    server.write_all(&[&frame::header(kind, bytes.len()), bytes].concat())
}
