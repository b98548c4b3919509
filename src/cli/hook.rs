//! `lemnos hook`: what the shims in hooks/ run. Carries git's question to the server and the answer back.
//!
//! It is on the path of every push, so: no runtime, no configuration, two threads. It decides nothing.

use std::io::{Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use crate::error::{Kind as ErrorKind, Report};
use crate::receive::frame::{self, Hello, Kind};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// pre-receive or proc-receive.
    name: String,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a command may read the environment, and this one's settings stand there"
)]
pub fn run(args: Args) -> Result<ExitCode, Report> {
    let (Some(socket), Some(token)) =
        (std::env::var_os(frame::ENV_SOCKET), std::env::var_os(frame::ENV_TOKEN))
    else {
        return Err(Report::new(
            ErrorKind::Forbidden,
            "this hook answers to a push that runs, and to nobody else",
        )
        .hint("push with git; there is nothing to call by hand"));
    };
    let quarantine = std::env::var_os(frame::ENV_QUARANTINE).unwrap_or_default();
    let hello = Hello {
        token: token.to_string_lossy().into_owned(),
        hook: args.name,
        quarantine: quarantine.as_bytes().to_vec(),
    };
    let unreachable = |e: std::io::Error| {
        Report::new(ErrorKind::Unavailable, format!("the server does not answer its hook: {e}"))
            .hint("push again when the server runs")
    };
    let mut server = UnixStream::connect(socket).map_err(unreachable)?;
    send(&mut server, Kind::Hello, &hello.encode()).map_err(unreachable)?;
    let input = server.try_clone().map_err(unreachable)?;
    std::thread::spawn(move || relay_input(input));
    relay_answer(server).map_err(unreachable)
}

/// Standard input to the server. Ends with the process when the answer comes first.
fn relay_input(mut server: UnixStream) {
    let mut buffer = vec![0; frame::MAX_PAYLOAD];
    let mut stdin = std::io::stdin().lock();
    while let Ok(length) = stdin.read(&mut buffer) {
        let bytes = buffer.get(..length).unwrap_or_default();
        // an empty frame says that there is no more
        if send(&mut server, Kind::Input, bytes).is_err() || length == 0 {
            return;
        }
    }
}

/// The server's words to git and the pusher, until it says how to exit.
fn relay_answer(mut server: UnixStream) -> std::io::Result<ExitCode> {
    let invalid = |e| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    loop {
        let mut header = [0; frame::HEADER];
        server.read_exact(&mut header)?;
        let (kind, length) = frame::parse_header(header).map_err(invalid)?;
        let mut payload = vec![0; length];
        server.read_exact(&mut payload)?;
        match kind {
            Kind::Output => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&payload)?;
                stdout.flush()?;
            }
            // a pusher who sees nothing any more still gets the push finished
            Kind::Error => drop(std::io::stderr().write_all(&payload)),
            Kind::Exit => return Ok(ExitCode::from(payload.first().copied().unwrap_or(1))),
            Kind::Hello | Kind::Input => return Err(invalid(frame::FrameError::Kind(kind as u8))),
        }
    }
}

fn send(server: &mut UnixStream, kind: Kind, bytes: &[u8]) -> std::io::Result<()> {
    server.write_all(&[&frame::header(kind, bytes.len()), bytes].concat())
}
