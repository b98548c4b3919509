//! One session: an exec request is authorised, served, and answered with its exit status. Verbs are in `verbs`.
//!
//! The task that serves is not the one that talks to the client: when the client is gone, or takes nothing for too
//! long, output has nowhere to go and serving runs to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::server::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::command::{Command, Refused};
use super::listener::House;
use super::streams::{self, Chunk, Gauge, Inlet, Output, Stdin, Stream, WhenGone};
use super::terminal::{self, Terminal};
use super::verbs::Ends;
use super::{GitIo, GitRequest, GitService, Identity, certificate};
use crate::audit::{self, Entry, Event, Who};
use crate::metrics::{self, GitStatus};
use crate::model::{App, AppName};

/// Messages of up to a packet each between the connection and the one who serves.
pub(super) const QUEUE: usize = 32;
/// Of an explanation.
const MAX_TEXT_BYTES: usize = 2000;
/// Exit status of a git request that was refused.
const REFUSED: u32 = 1;
/// Exit status of a verb that may not be asked for any more, as the command line has it.
const FORBIDDEN: u32 = 4;
/// Exit status of a command that is none, as `error` has it for wrong input.
const MISTYPED: u32 = 2;
/// Exit status when serving was cut off, as of a process ended by SIGTERM.
pub(super) const CUT_OFF: u32 = 143;
/// Exit status when serving broke down, as sysexits has it for internal errors.
pub(super) const BROKEN: u32 = 70;

/// A channel that is open and has not been asked for anything.
pub(super) struct Waiting {
    pub(super) write: ChannelWriteHalf<Msg>,
    pub(super) protocol: Option<String>,
    /// Set when the client asked for a terminal: whether it shows colours.
    color: Option<bool>,
    columns: watch::Sender<u32>,
    interrupted: CancellationToken,
    stdin: Stdin,
    gauge: Gauge,
    running: Arc<AtomicBool>,
    gone: CancellationToken,
    open: Open,
}

/// Counts a channel as open for as long as it lives.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(sessions: watch::Sender<usize>) -> Self {
        sessions.send_modify(|n| *n += 1);
        Self(sessions)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Waiting {
    /// Takes a channel; what the client sends on it is read from now on, so that it never holds up the connection.
    pub(super) fn new(
        read: ChannelReadHalf,
        write: ChannelWriteHalf<Msg>,
        sessions: watch::Sender<usize>,
    ) -> Self {
        let (inlet, stdin, gauge) = streams::stdin();
        let running = Arc::new(AtomicBool::new(false));
        let gone = CancellationToken::new();
        let (columns, interrupted) = (watch::Sender::new(0), CancellationToken::new());
        let told =
            Told { running: running.clone(), columns: columns.clone(), interrupted: interrupted.clone() };
        let carry = take_in(read, inlet, told);
        let over = gone.clone();
        tokio::spawn(async move {
            carry.await;
            over.cancel();
        });
        let open = Open::new(sessions);
        Self { write, protocol: None, color: None, columns, interrupted, stdin, gauge, running, gone, open }
    }

    /// Notes the terminal that the client has; a verb will be told of it.
    pub(super) fn terminal(&mut self, name: &str, columns: u32) {
        self.color = Some(terminal::shows_color(name));
        self.columns.send_replace(columns);
    }
}

/// What a client may say besides input.
struct Told {
    running: Arc<AtomicBool>,
    columns: watch::Sender<u32>,
    interrupted: CancellationToken,
}

/// Carries what the client sends to `stdin` while a request runs; returns when the client is gone.
async fn take_in(mut read: ChannelReadHalf, inlet: Inlet, told: Told) {
    let mut inlet = Some(inlet);
    loop {
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if let Some(open) = &inlet
                    && told.running.load(Ordering::Acquire)
                    && !open.put(data).await
                {
                    inlet = None;
                }
            }
            Some(ChannelMsg::Eof) => {
                if let Some(open) = inlet.take() {
                    open.end();
                }
            }
            Some(ChannelMsg::WindowChange { col_width, .. }) => drop(told.columns.send_replace(col_width)),
            Some(ChannelMsg::Signal { signal: Sig::INT | Sig::TERM | Sig::QUIT | Sig::HUP }) => {
                told.interrupted.cancel();
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}

/// A session's way to the client.
pub(super) struct Client {
    write: ChannelWriteHalf<Msg>,
    gauge: Gauge,
    pub(super) gone: CancellationToken,
    /// Cuts the connection.
    cut: CancellationToken,
    stall: Duration,
}

impl Client {
    /// Sends, unless the client is gone or does not take it within the stall limit, which makes it gone.
    async fn send(&self, message: impl Future<Output = Result<(), russh::Error>>) {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => {}
            sent = tokio::time::timeout(self.stall, message) => match sent {
                Ok(Ok(())) => {}
                // The connection ended, or the client allows packets of no bytes.
                Ok(Err(_)) => {
                    self.gone.cancel();
                    self.cut.cancel();
                }
                Err(_) => {
                    tracing::warn!("a client took no output for {} s: it counts as gone", self.stall.as_secs());
                    self.gone.cancel();
                    self.cut.cancel();
                }
            }
        }
    }

    pub(super) async fn put(&self, stream: Stream, data: Bytes) {
        let _waits = self.gauge.output_waits();
        match stream {
            Stream::Stdout => self.send(self.write.data_bytes(data)).await,
            Stream::Stderr => self.send(self.write.extended_data_bytes(1, data)).await,
        }
    }

    /// The same for somebody who may have a terminal, which has one screen for both streams.
    pub(super) async fn say(&self, screen: bool, chunk: Chunk) {
        if screen {
            self.put(Stream::Stdout, terminal::for_screen(&chunk.data)).await;
        } else {
            self.put(chunk.stream, chunk.data).await;
        }
    }

    /// The exit status, then the end of output, then the end of the channel: clients need this order.
    async fn end(&self, status: u32) {
        self.send(self.write.exit_status(status)).await;
        self.send(self.write.eof()).await;
        self.send(self.write.close()).await;
    }
}

/// Who asks, and over which connection.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) house: Arc<House>,
    pub(super) who: Identity,
    pub(super) peer: SocketAddr,
    pub(super) cut: CancellationToken,
}

impl Caller {
    /// Answers a channel's one request, in a task of its own.
    pub(super) fn answer(self, waiting: Waiting, asked: Result<Command, Refused>) {
        let Waiting { write, protocol, color, columns, interrupted, stdin, gauge, running, gone, open } =
            waiting;
        // Before the callback returns, and so before any of the request's input arrives.
        running.store(true, Ordering::Release);
        let client =
            Client { write, gauge, gone, cut: self.cut.clone(), stall: self.house.config.output_stall };
        let house = Arc::clone(&self.house);
        house.tasks.spawn(async move {
            let _open = open;
            let status = match asked.and_then(|command| self.allowed(command)) {
                Ok(Command::Git { service, app }) => match self.admit(service, &app).await {
                    Ok(app) => {
                        let request = GitRequest { protocol, ..self.request(service, app) };
                        let span = request.span();
                        self.git(&client, request, stdin).instrument(span).await
                    }
                    Err(text) => {
                        let reason = text.lines().next().unwrap_or_default().to_owned();
                        metrics::git_request(&service.to_string(), GitStatus::Refused);
                        let event = Event::RequestRefused { service: Some(service.to_string()), reason };
                        self.note(event, |entry| entry.app(app));
                        client.put(Stream::Stdout, git_error(&text)).await;
                        REFUSED
                    }
                },
                Ok(Command::Verb(words)) => {
                    let terminal = color.map(|color| Terminal { columns: columns.subscribe(), color });
                    match self.still().await {
                        Ok(()) => self.verb(&client, words, Ends { stdin, terminal, interrupted }).await,
                        Err(reason) => {
                            let text = format!("error: {reason}\n");
                            self.note(Event::RequestRefused { service: None, reason }, |entry| entry);
                            client
                                .say(color.is_some(), Chunk { stream: Stream::Stderr, data: text.into() })
                                .await;
                            FORBIDDEN
                        }
                    }
                }
                Err(refused) => {
                    let event = Event::RequestRefused { service: None, reason: refused.to_string() };
                    self.note(event, |entry| entry);
                    refuse(&client, &refused, color.is_some()).await
                }
            };
            client.end(status).await;
        });
    }

    /// Leaves an entry of this caller's in the audit record.
    fn note(&self, event: Event, more: impl FnOnce(Entry) -> Entry) {
        let actor = Who::of(&self.who.user);
        let entry = audit::entry(actor, event).key(self.who.key.clone()).peer(self.peer);
        let entry = match &self.who.certificate {
            Some(certificate) => entry.detail(certificate.about()),
            None => entry,
        };
        self.house.trail.note(more(entry));
    }

    /// Whether the request may run now: the key may have been removed since it signed.
    async fn admit(&self, service: GitService, app: &AppName) -> Result<App, String> {
        if self.house.shutdown.is_cancelled() {
            return Err("the server is stopping: try again in a moment".to_owned());
        }
        self.still().await?;
        self.house.host.authorize(&self.who, app, service).await
    }

    /// Whether what opened the connection still would: asked again at each request.
    pub(super) async fn still(&self) -> Result<(), String> {
        let failed = |e: String| {
            tracing::error!(peer = %self.peer, key = %self.who.key, "looking up a key: {e}");
            "the server cannot look up keys at the moment: try again later".to_owned()
        };
        let trust = self.house.config.trust.read().await.map_err(|e| failed(e.to_string()))?;
        let Some(certificate) = &self.who.certificate else {
            if trust.revokes_key(&self.who.key) {
                return Err(format!("the key {} is revoked", self.who.key));
            }
            return match self.house.host.user_of(&self.who.key).await.map_err(failed)? {
                Some(user) if user == self.who.user => Ok(()),
                _ => Err(format!("the key {} is no longer registered", self.who.key)),
            };
        };
        certificate.judge(&trust, certificate::now_s(), self.peer.ip()).map_err(|unfit| {
            format!("the certificate that you logged in with is not taken any more: {unfit}")
        })?;
        if self.house.host.has_user(&self.who.user).await.map_err(failed)? {
            return Ok(());
        }
        Err(format!("there is no user {} any more", self.who.user))
    }

    /// A certificate may allow one command only.
    fn allowed(&self, command: Command) -> Result<Command, Refused> {
        match &self.who.certificate {
            Some(certificate) if !certificate.allows(&command) => {
                Err(Refused::Forced { git: matches!(command, Command::Git { .. }) })
            }
            _ => Ok(command),
        }
    }

    fn request(&self, service: GitService, app: App) -> GitRequest {
        GitRequest {
            id: uuid::Uuid::now_v7().simple().to_string(),
            service,
            app,
            user: self.who.user.clone(),
            key: self.who.key.clone(),
            protocol: None,
            peer: self.peer,
        }
    }

    /// Has the request served, and carries its output to the client until it is done.
    async fn git(&self, client: &Client, request: GitRequest, stdin: Stdin) -> u32 {
        let began = Instant::now();
        let (id, service, app) = (request.id.clone(), request.service, request.app.name.clone());
        let event = Event::RequestAccepted { service: service.to_string() };
        self.note(event, |entry| entry.app(app.clone()).request(&id));
        let when_gone = if service.writes() { WhenGone::Discard } else { WhenGone::BrokenPipe };
        let (sender, mut chunks) = mpsc::channel::<Chunk>(QUEUE);
        let output = |stream, sender| Box::new(Output::new(stream, sender, client.gone.clone(), when_gone));
        let io = GitIo {
            gone: client.gone.clone(),
            stdin: Box::new(stdin),
            stdout: output(Stream::Stdout, sender.clone()),
            stderr: output(Stream::Stderr, sender),
        };
        let (house, cut_off) = (Arc::clone(&self.house), self.house.cut_off.clone());
        let serving = async move {
            tokio::select! {
                status = house.host.serve(request, io) => status,
                () = cut_off.cancelled() => CUT_OFF,
            }
        };
        let serving = self.house.tasks.spawn(serving.in_current_span());
        // The writers live in `serve`'s arguments: when it returns, they are dropped and the queue ends. One that was
        // kept elsewhere must not hold the client: what is queued when serving is done still goes out, no more.
        let mut serving = serving;
        let status = loop {
            tokio::select! {
                chunk = chunks.recv() => match chunk {
                    Some(chunk) => client.put(chunk.stream, chunk.data).await,
                    None => break (&mut serving).await,
                },
                status = &mut serving => {
                    chunks.close();
                    while let Some(chunk) = chunks.recv().await {
                        client.put(chunk.stream, chunk.data).await;
                    }
                    break status;
                }
            }
        };
        let status = match status {
            Ok(status) => status,
            Err(e) => {
                tracing::error!(request = %id, "serving broke down: {e}");
                let text =
                    format!("lemnos: internal error; the server's log knows more about request {id}\n");
                client.put(Stream::Stderr, text.into()).await;
                BROKEN
            }
        };
        let ended = if status == 0 { GitStatus::Ok } else { GitStatus::Failed };
        metrics::git_request(&service.to_string(), ended);
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(event = "served", request = %id, peer = %self.peer, user = %self.who.user, app = %app, service = %service, status, ms, client_gone = client.gone.is_cancelled(), "git request served");
        status
    }
}

/// A refusal in git's wire format, which every git client prints as `fatal: remote error: …`.
fn git_error(text: &str) -> Bytes {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').take(MAX_TEXT_BYTES).collect();
    let line = format!("ERR {}\n", text.trim_end());
    format!("{:04x}{line}", line.len() + 4).into()
}

async fn refuse(client: &Client, refused: &Refused, screen: bool) -> u32 {
    if refused.is_git() {
        client.put(Stream::Stdout, git_error(&refused.to_string())).await;
        return REFUSED;
    }
    let text = format!("error: {refused}\nhint: `help` lists what can be asked for here\n");
    client.say(screen, Chunk { stream: Stream::Stderr, data: text.into() }).await;
    MISTYPED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_git_s_format_counts_its_bytes() {
        assert_eq!(
            git_error("no app \"x\"\n\x1b[31mred\x07"),
            Bytes::from_static(b"001bERR no app \"x\"\n[31mred\n")
        );
        let long = git_error(&"é".repeat(10_000));
        assert_eq!(usize::from_str_radix(std::str::from_utf8(&long[..4]).unwrap(), 16).unwrap(), long.len());
        assert!(long.len() < 65_520);
    }
}
