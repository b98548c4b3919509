//! One process in a container: its input, its output, its end.
//!
//! Each process has a call of its own, so that one that cannot start takes no other with it, and dropping a `Process`
//! ends it. Output is passed on as it comes, under HTTP/2's flow control: who does not read holds the process up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lemnos_proto::gateway as wire;
use lemnos_proto::gateway::exec_message::Input as Part;
use lemnos_proto::pb;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Gateway, GatewayError, answered};

/// Messages that wait to be sent, and the largest piece of input in one.
const QUEUE: usize = 8;
const PIECE: usize = 64 << 10;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `/` when empty.
    pub cwd: String,
    /// The image's own when empty.
    pub user: String,
    /// Whether it has an input; without one it reads the end at once.
    pub stdin: bool,
    /// A terminal: input is echoed, and both outputs are one.
    pub tty: bool,
    /// Needs the entitlement `security.insecure`.
    pub insecure: bool,
    /// The session's secrets as variables.
    pub secrets: Vec<SecretVariable>,
    /// Removes the empty files and directories that mounts were put on.
    pub remove_mount_stubs: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretVariable {
    pub id: String,
    /// The variable's name.
    pub name: String,
    pub optional: bool,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// 255 also where the daemon does not know.
    pub code: u32,
    /// What the daemon says of an end other than 0.
    pub message: String,
}

/// A whole output, up to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A running process. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    input: ProcessInput,
    output: Streaming<wire::ExecMessage>,
    exit: Option<Exit>,
    /// Whether its input is still to be ended: without that the daemon never says that it is done.
    owed: bool,
    done: bool,
}

/// The sending side of a process: for a task of its own, beside the one that reads.
#[derive(Debug, Clone)]
pub struct ProcessInput {
    id: String,
    sender: mpsc::Sender<wire::ExecMessage>,
    /// Whether the input has been ended; the daemon takes a second end for an error.
    closed: Arc<AtomicBool>,
}

pub(super) async fn start(
    gateway: &Gateway,
    container: &str,
    spec: ProcessSpec,
) -> Result<Process, GatewayError> {
    if !spec.secrets.is_empty() {
        gateway.needs("gateway.exec.secretenv")?;
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    let id = format!("{container}:{}", uuid::Uuid::now_v7().simple());
    let input = ProcessInput { id, sender, closed: Arc::new(AtomicBool::new(!spec.stdin)) };
    input.send(Part::Init(init(container, spec))).await?;
    let request = gateway.request(ReceiverStream::new(receiver));
    let output = answered("ExecProcess", gateway.bridge.clone().exec_process(request).await)?;
    let mut process = Process { input, output, exit: None, owed: false, done: false };
    match process.part().await? {
        Some(Part::Started(_)) => Ok(process),
        other => Err(GatewayError::Answer {
            call: "ExecProcess",
            reason: format!("it does not begin with the process's start but with {other:?}"),
        }),
    }
}

fn init(container: &str, spec: ProcessSpec) -> wire::InitMessage {
    let secret = |s: SecretVariable| pb::SecretEnv { id: s.id, name: s.name, optional: s.optional };
    let meta = pb::Meta {
        args: spec.args,
        env: spec.env,
        cwd: if spec.cwd.is_empty() { "/".to_owned() } else { spec.cwd },
        user: spec.user,
        remove_mount_stubs_recursive: spec.remove_mount_stubs,
        ..Default::default()
    };
    let security = if spec.insecure { pb::SecurityMode::Insecure } else { pb::SecurityMode::Sandbox };
    wire::InitMessage {
        container_id: container.to_owned(),
        meta: Some(meta),
        fds: if spec.stdin { vec![0, 1, 2] } else { vec![1, 2] },
        tty: spec.tty,
        security: security.into(),
        secretenv: spec.secrets.into_iter().map(secret).collect(),
    }
}

impl ProcessInput {
    /// Writes to the process's input; waits while the daemon takes no more.
    pub async fn write(&self, data: &[u8]) -> Result<(), GatewayError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(GatewayError::Failed("the process's input is at its end, or it has none".to_owned()));
        }
        for piece in data.chunks(PIECE) {
            self.send(Part::File(wire::FdMessage { fd: 0, eof: false, data: piece.to_vec() })).await?;
        }
        Ok(())
    }

    /// Ends the process's input; once more is nothing more.
    pub async fn close(&self) -> Result<(), GatewayError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.send(Part::File(wire::FdMessage { fd: 0, eof: true, data: Vec::new() })).await
    }

    /// Tells a terminal's new size.
    pub async fn resize(&self, rows: u32, cols: u32) -> Result<(), GatewayError> {
        self.send(Part::Resize(wire::ResizeMessage { rows, cols })).await
    }

    /// Sends a signal by its name: `TERM`, `SIGTERM`.
    pub async fn signal(&self, name: &str) -> Result<(), GatewayError> {
        let name = name.strip_prefix("SIG").unwrap_or(name);
        // an unknown name would end the call, and the process with it
        match SIGNALS.contains(&name) {
            true => self.send(Part::Signal(wire::SignalMessage { name: name.to_owned() })).await,
            false => Err(GatewayError::Failed(format!("{name:?} is no signal: write its name, as in TERM"))),
        }
    }

    async fn send(&self, part: Part) -> Result<(), GatewayError> {
        let message = wire::ExecMessage { process_id: self.id.clone(), input: Some(part) };
        self.sender.send(message).await.map_err(|_| GatewayError::Call {
            call: "ExecProcess",
            status: Box::new(Status::unavailable("the process has ended")),
        })
    }
}

impl Process {
    /// What sends to the process while this reads from it.
    pub fn input(&self) -> ProcessInput {
        self.input.clone()
    }

    /// The next piece of output; none when there is no more. Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Result<Option<Output>, GatewayError> {
        loop {
            if self.owed {
                // a process that is gone altogether needs no end of its input
                let _ = self.input.close().await;
                self.owed = false;
            }
            match self.part().await? {
                Some(Part::File(file)) if file.data.is_empty() => {}
                Some(Part::File(file)) if file.fd == 2 => return Ok(Some(Output::Stderr(file.data.into()))),
                Some(Part::File(file)) => return Ok(Some(Output::Stdout(file.data.into()))),
                Some(Part::Exit(exit)) => {
                    let message = exit.error.map(|e| e.message).unwrap_or_default();
                    self.exit = Some(Exit { code: exit.code, message });
                    self.owed = true;
                }
                Some(Part::Done(_)) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// Waits for the end; what output is left is passed over.
    pub async fn wait(mut self) -> Result<Exit, GatewayError> {
        while self.next().await?.is_some() {}
        self.ended()
    }

    /// Reads both outputs to their end; more than `limit` bytes of one is an error.
    pub async fn collect(mut self, limit: usize) -> Result<Collected, GatewayError> {
        let mut collected = Collected::default();
        while let Some(piece) = self.next().await? {
            let (kept, data) = match piece {
                Output::Stdout(data) => (&mut collected.stdout, data),
                Output::Stderr(data) => (&mut collected.stderr, data),
            };
            if kept.len() + data.len() > limit {
                return Err(GatewayError::Failed(format!("the process wrote more than {limit} bytes")));
            }
            kept.extend_from_slice(&data);
        }
        collected.exit = self.ended()?;
        Ok(collected)
    }

    /// Joins the process to three streams until it ends. What is left of `stdin` then is not read.
    pub async fn attach(
        mut self,
        stdin: Option<impl AsyncRead + Unpin>,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> Result<Exit, GatewayError> {
        let input = self.input();
        let feeding = async {
            if let Some(stdin) = stdin {
                feed(stdin, &input).await;
            }
            std::future::pending::<()>().await;
        };
        let reading = async {
            while let Some(piece) = self.next().await? {
                let written = match &piece {
                    Output::Stdout(data) => write(&mut stdout, data).await,
                    Output::Stderr(data) => write(&mut stderr, data).await,
                };
                written.map_err(|e| GatewayError::Failed(format!("passing output on: {e}")))?;
            }
            Ok(())
        };
        tokio::select! {
            read = reading => read?,
            () = feeding => {}
        }
        self.ended()
    }

    fn ended(&mut self) -> Result<Exit, GatewayError> {
        self.exit.take().ok_or_else(|| GatewayError::Answer {
            call: "ExecProcess",
            reason: "the process's end is not told".to_owned(),
        })
    }

    async fn part(&mut self) -> Result<Option<Part>, GatewayError> {
        if self.done {
            return Ok(None);
        }
        let message = match self.output.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.done = true;
                return Ok(None);
            }
            Err(status) => {
                self.done = true;
                return Err(GatewayError::Call { call: "ExecProcess", status: Box::new(status) });
            }
        };
        self.done = matches!(message.input, Some(Part::Done(_)));
        Ok(message.input)
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

/// Passes input on to its end. That it cannot be read, or that the process is gone, ends it too.
async fn feed(mut from: impl AsyncRead + Unpin, to: &ProcessInput) {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                let Some(data) = buffer.get(..read) else { break };
                if to.write(data).await.is_err() {
                    return;
                }
            }
        }
    }
    // a process that has ended needs no end of its input
    let _ = to.close().await;
}

const SIGNALS: [&str; 31] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE", "PROF", "PWR",
    "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2",
    "VTALRM", "WINCH", "XCPU", "XFSZ",
];
