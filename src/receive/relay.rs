//! A hook's side of the talk with the server: git's question is carried there, the answer back.
//!
//! It is on the path of every push, twice, so: the standard library alone, no configuration, two threads. It decides nothing.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::frame::{self, Hello, Kind};

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
        let input = server.try_clone()?;
        std::thread::spawn(move || carry_input(input));
        carry_answer(server)
    }
}

/// Standard input to the server. Ends with the process when the answer comes first.
fn carry_input(mut server: UnixStream) {
    let mut buffer = vec![0; frame::MAX_PAYLOAD];
    let mut stdin = io::stdin().lock();
    while let Ok(length) = stdin.read(&mut buffer) {
        let bytes = buffer.get(..length).unwrap_or_default();
        // an empty frame says that there is no more
        if send(&mut server, Kind::Input, bytes).is_err() || length == 0 {
            return;
        }
    }
}

/// The server's words to git and the pusher, until it says how to exit.
fn carry_answer(mut server: UnixStream) -> io::Result<u8> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    loop {
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
            Kind::Exit => return Ok(payload.first().copied().unwrap_or(1)),
            Kind::Hello | Kind::Input => return Err(invalid(frame::FrameError::Kind(kind as u8))),
        }
    }
}

fn send(server: &mut UnixStream, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    server.write_all(&[&frame::header(kind, bytes.len()), bytes].concat())
}
