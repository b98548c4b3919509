//! SSH agents: what steps reach through `--mount=type=ssh`, read-only.
//!
//! Invariants: a step can list keys and have things signed, and nothing else: whatever would add, remove or lock keys, or
//! is unknown, is answered with a failure here and never reaches an agent; a message is bounded before it is read; a key
//! file's secret stays in this process, and is printed by nothing. Protocol: RFC draft-ietf-sshm-ssh-agent.

mod agent;
mod key;
mod pem;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lemnos_proto::sshforward::ssh_server::Ssh;
use lemnos_proto::sshforward::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::io::StreamReader;
use tonic::{Request, Response, Status, Streaming};

pub use key::{KeyError, PrivateKey};

use super::filesync::Patience;
use super::outgoing::{self, Outbox, Outgoing};

/// The id of a mount that names none.
pub const DEFAULT_AGENT: &str = "default";
/// Which agent a connection is for.
const AGENT_ID: &str = "buildkit.ssh.id";
/// Connections of one session at the same time.
const CONNECTIONS: usize = 32;
/// How long a socket may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an agent may take to answer: it may be waiting for a person.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);

/// Who signs.
#[derive(Clone)]
pub enum Agent {
    /// The agent that listens at this socket.
    Socket(PathBuf),
    /// Ourselves, with these keys.
    Keys(Arc<[PrivateKey]>),
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(_) => f.write_str("Socket"),
            Self::Keys(keys) => f.debug_tuple("Keys").field(&keys.len()).finish(),
        }
    }
}

impl Agent {
    pub fn socket(path: &Path) -> Self {
        Self::Socket(path.to_owned())
    }

    /// An agent of our own with the private keys of these files.
    pub fn key_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, KeyError> {
        let keys: Result<Vec<PrivateKey>, KeyError> =
            paths.into_iter().map(|path| PrivateKey::read(path.as_ref())).collect();
        Ok(Self::Keys(keys?.into()))
    }
}

/// The session's `SSH` service.
pub(super) struct SshService {
    agents: BTreeMap<String, Agent>,
    room: Arc<Semaphore>,
    patience: Patience,
}

impl SshService {
    pub fn new(agents: BTreeMap<String, Agent>, patience: Patience) -> Self {
        Self { agents, room: Arc::new(Semaphore::new(CONNECTIONS)), patience }
    }

    fn agent(&self, id: &str) -> Result<Agent, Status> {
        let id = if id.is_empty() { DEFAULT_AGENT } else { id };
        let known = self.agents.get(id).cloned();
        known.ok_or_else(|| Status::not_found(format!("this build has no SSH agent {id:?}")))
    }
}

#[tonic::async_trait]
impl Ssh for SshService {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.agent(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = Outgoing<BytesMessage>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id =
            request.metadata().get(AGENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let agent = self.agent(&id.unwrap_or_default())?;
        let room = self.room.clone().try_acquire_owned();
        let room = room.map_err(|_| {
            Status::resource_exhausted(format!("more than {CONNECTIONS} connections to SSH agents"))
        })?;
        let patience = self.patience;
        let pieces = request.into_inner().map(|message| match message {
            Ok(message) => Ok(message.data),
            Err(status) => Err(std::io::Error::other(status)),
        });
        Ok(Response::new(outgoing::run(1, patience.taking, move |outbox| async move {
            let _room = room;
            match agent {
                Agent::Keys(keys) => {
                    serve(StreamReader::new(pieces), &outbox, Signer::Own(keys), patience).await
                }
                Agent::Socket(path) => {
                    let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
                    let connected =
                        connected.map_err(|_| Status::deadline_exceeded("the SSH agent lets nobody in"))?;
                    let socket = connected
                        .map_err(|cause| Status::unavailable(format!("reaching the SSH agent: {cause}")))?;
                    serve(StreamReader::new(pieces), &outbox, Signer::Forwarded(socket), patience).await
                }
            }
        })))
    }
}

/// Who answers what has passed.
enum Signer {
    Own(Arc<[PrivateKey]>),
    Forwarded(UnixStream),
}

/// One connection: requests are answered one by one, until the step closes it.
async fn serve(
    mut requests: impl AsyncRead + Unpin,
    outbox: &Outbox<BytesMessage>,
    mut signer: Signer,
    patience: Patience,
) -> Result<(), Status> {
    loop {
        let received = tokio::time::timeout(patience.asking, wire::read_message(&mut requests)).await;
        let received =
            received.map_err(|_| Status::deadline_exceeded("the SSH connection was silent too long"))?;
        let Some(message) = received.map_err(|cause| Status::invalid_argument(cause.to_string()))? else {
            return Ok(());
        };
        let answer = match agent::allowed(&message) {
            false => agent::failure(),
            true => tokio::time::timeout(ANSWER_TIMEOUT, signer.answer(message))
                .await
                .map_err(|_| Status::deadline_exceeded("the SSH agent did not answer"))?
                .map_err(|cause| Status::unavailable(format!("asking the SSH agent: {cause}")))?,
        };
        outbox.put(BytesMessage { data: Bytes::from(wire::framed(&answer)) }).await?;
    }
}

impl Signer {
    async fn answer(&mut self, message: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Own(keys) => {
                let keys = keys.clone();
                // a signature by a large RSA key takes milliseconds
                let answered = tokio::task::spawn_blocking(move || agent::answer(&keys, &message)).await;
                Ok(answered.unwrap_or_else(|_| agent::failure()))
            }
            Self::Forwarded(socket) => {
                wire::write_message(socket, &message).await?;
                let answer = wire::read_message(socket).await?;
                let closed =
                    || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it closed the connection");
                Ok(agent::expected(&message, answer.ok_or_else(closed)?))
            }
        }
    }
}
