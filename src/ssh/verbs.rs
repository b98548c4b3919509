//! A session that runs a verb: its streams, its terminal if it asked for one, and what ends it early.
//!
//! Whatever ends it, Ctrl-C, a signal, a client that is gone or a server that stops, ends the verb only: builds belong
//! to nobody's session.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::VerbIo;
use super::session::{BROKEN, CUT_OFF, Caller, Client, QUEUE};
use super::streams::{self, Chunk, Output, Stdin, Stream, WhenGone};
use super::terminal::{Keyboard, Terminal};

/// Exit status of what was ended by Ctrl-C, as a shell has it for SIGINT.
const INTERRUPTED: u32 = 130;
/// Exit status for a client that is gone, as a shell has it for SIGHUP; nobody sees it but the log.
const HUNG_UP: u32 = 129;

/// What the client gave a verb to work with.
pub(super) struct Ends {
    pub(super) stdin: Stdin,
    pub(super) terminal: Option<Terminal>,
    /// Cancelled by a signal that the client sends, or by Ctrl-C.
    pub(super) interrupted: CancellationToken,
}

impl Caller {
    /// Has the verb run, and carries its output to the client until it has ended or is ended.
    pub(super) async fn verb(&self, client: &Client, words: Vec<String>, ends: Ends) -> u32 {
        let Ends { stdin, terminal, interrupted } = ends;
        let screen = terminal.is_some();
        let (sender, mut chunks) = mpsc::channel::<Chunk>(QUEUE);
        let output =
            |stream, sender| Box::new(Output::new(stream, sender, client.gone.clone(), WhenGone::BrokenPipe));
        let stdin = stdin.whole();
        let (stdin, _typing) = match &terminal {
            None => (stdin, None),
            Some(_) => {
                let (inlet, typed, _) = streams::stdin();
                let typing = type_in(stdin, inlet, sender.downgrade(), interrupted.clone());
                (typed.whole(), Some(AbortOnDropHandle::new(tokio::spawn(typing))))
            }
        };
        let io = VerbIo {
            stdin: Box::new(stdin),
            stdout: output(Stream::Stdout, sender.clone()),
            stderr: output(Stream::Stderr, sender),
            terminal,
        };
        let (house, who) = (Arc::clone(&self.house), self.who.clone());
        // a task of its own, so that a verb that breaks down does not take the session's end with it
        let verb = self.house.tasks.spawn(async move { house.host.verb(&who, words, io).await });
        let verb = AbortOnDropHandle::new(verb);
        let carried = async {
            while let Some(chunk) = chunks.recv().await {
                client.say(screen, chunk).await;
            }
            verb.await
        };
        let ended = tokio::select! {
            biased;
            () = client.gone.cancelled() => return HUNG_UP,
            () = interrupted.cancelled() => return INTERRUPTED,
            ended = carried => ended,
            () = self.house.shutdown.cancelled() => {
                let text = "lemnos: the server is stopping; builds go on or are taken up again when it is back\n";
                client.say(screen, Chunk { stream: Stream::Stderr, data: text.into() }).await;
                return CUT_OFF;
            }
        };
        match ended {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(peer = %self.peer, user = %self.who.user, "a verb broke down: {error}");
                let text = "lemnos: internal error; the server's log knows more\n";
                client.say(screen, Chunk { stream: Stream::Stderr, data: text.into() }).await;
                BROKEN
            }
        }
    }
}

/// Makes lines of what is typed. Never waits for the verb or the screen: Ctrl-C must get through.
async fn type_in(
    mut keys: Stdin,
    lines: streams::Inlet,
    screen: mpsc::WeakSender<Chunk>,
    interrupted: CancellationToken,
) {
    let mut keyboard = Keyboard::default();
    let mut buffer = [0; 1024];
    let mut lines = Some(lines);
    while let Ok(n) = keys.read(&mut buffer).await {
        let pressed = match buffer.get(..n) {
            Some(bytes @ [_, ..]) => keyboard.press(bytes),
            _ => return lines.map_or((), streams::Inlet::end),
        };
        if !pressed.echo.is_empty()
            && let Some(screen) = screen.upgrade()
        {
            // an echo that finds no room is not missed: the screen is busy with the verb's output
            let _ = screen.try_send(Chunk { stream: Stream::Stdout, data: pressed.echo.into() });
        }
        if pressed.interrupt {
            return interrupted.cancel();
        }
        let nobody = lines
            .as_ref()
            .is_some_and(|lines| !pressed.input.is_empty() && !lines.offer(Bytes::from(pressed.input)));
        if (pressed.end || nobody)
            && let Some(lines) = lines.take()
        {
            lines.end();
        }
    }
}
