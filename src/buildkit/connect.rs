//! Reaching a buildkitd: unix socket, TCP, TLS with client certificates, a command's pipes, dockerd.
//!
//! A `Client` is one connection and never a second one: when it breaks, it stays broken, and the caller connects anew.
//! No HTTP/2 ping is ever sent, because a buildkitd answers pings that come too often by closing the connection;
//! `liveness` asks a plain question instead.

mod address;
mod command;
mod docker;
mod tls;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lemnos_proto::control::InfoRequest;
use lemnos_proto::control::control_client::ControlClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint as Transport};

pub use address::Address;
pub use command::Programs;
pub use docker::{ByteStream, DockerHost};
pub use tls::Tls;

use super::error::{Error, chain};
use super::liveness;
use super::solve::{self, SolveRequest, SolveResult};
use super::wire::{Watched, Wire};
use super::{SolveError, SolveEvent};
use docker::Docker;

/// Largest gRPC message in both directions: what buildkitd itself allows.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;
/// Largest block of headers: a failure that names a line comes with the whole file, and with the graph that has it, in one of
/// them. Of a larger one there is nothing but that the stream was reset, as where the daemon is lost.
const HEADER_LIMIT: u32 = 8 << 20;
/// Longest wait for the answer to a question that needs no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Receive windows: large enough that logs and progress never wait for a round trip. The connection's is so much larger
/// for the sake of small frames that wait, see `session::tunnel`: what comes through a tunnel has 30 bytes or more.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes the pipe to dockerd's relay holds in each direction.
const PIPE: usize = 256 << 10;

/// A daemon as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// For `tcp://` and `docker+tcp://` only.
    pub tls: Option<Tls>,
}

/// One connection to a buildkitd. Dropping it ends all that runs over it.
#[derive(Debug)]
pub struct Client {
    control: ControlClient<Channel>,
    /// The same connection, for other services than `control`.
    channel: Channel,
    wire: Arc<Wire>,
    address: Address,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.wire.cut();
    }
}

impl Client {
    /// Connects within `timeout`. Where a daemon, or what stands before it, refuses only after the connection is made
    /// (TLS, a command, dockerd), this includes one question; else no round trip is spent beyond the connection itself.
    pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, Error> {
        Self::connect_with(endpoint, timeout, &Programs::default()).await
    }

    /// The same, with commands looked for in `programs`.
    pub async fn connect_with(
        endpoint: &Endpoint,
        timeout: Duration,
        programs: &Programs,
    ) -> Result<Self, Error> {
        let address = &endpoint.address;
        let late = || Error::Timeout { address: address.clone(), timeout };
        let deadline = Instant::now() + timeout;
        let dialled = tokio::time::timeout_at(deadline, Self::dial(endpoint, programs)).await;
        let client = dialled.unwrap_or_else(|_| Err(late()))?;
        if endpoint.tls.is_none() && matches!(address, Address::Unix(_) | Address::Tcp { .. }) {
            return Ok(client);
        }
        let asked = client.control.clone();
        let asked = async move { asked.clone().info(InfoRequest {}).await };
        match tokio::time::timeout_at(deadline, asked).await {
            Err(_) => Err(late()),
            // any answer will do: an old daemon does not know the question
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                let reason = chain(&status);
                Err(match &endpoint.tls {
                    Some(tls) => Error::Tls { address: address.clone(), reason: tls.refused(&reason) },
                    None => Error::Connect { address: address.clone(), source: io::Error::other(reason) },
                })
            }
            Ok(_) => Ok(client),
        }
    }

    async fn dial(endpoint: &Endpoint, programs: &Programs) -> Result<Self, Error> {
        let address = endpoint.address.clone();
        let unreachable = |source| Error::Connect { address: address.clone(), source };
        let plain = || Transport::from_static("http://localhost");
        let by_tcp = matches!(address, Address::Tcp { .. } | Address::Docker(DockerHost::Tcp { .. }));
        if endpoint.tls.is_some() && !by_tcp {
            let reason = "TLS is for tcp:// and docker+tcp:// addresses only".into();
            return Err(Error::Tls { address, reason });
        }
        if let Some(words) = command::arguments(&address) {
            let stream = command::start(&words, programs).map_err(unreachable)?;
            return Self::over(stream, plain(), &address).await;
        }
        match &endpoint.address {
            Address::Tcp { host, port } => {
                let transport = tls::transport(&address, endpoint.tls.as_ref()).await?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Self::over(stream, transport, &address).await
            }
            Address::Docker(host) => {
                let docker = Docker {
                    host: host.clone(),
                    tls: endpoint.tls.clone(),
                    programs: programs.clone(),
                    wire: Wire::new(),
                };
                let hijacked = docker.connect().await.map_err(unreachable)?;
                let daemon = channel(hijacked, plain(), &address).await?;
                let (ours, theirs) = tokio::io::duplex(PIPE);
                let wire = docker.wire.clone();
                tokio::spawn(docker.relay(theirs, daemon));
                Ok(Self::new(channel(ours, plain(), &address).await?, wire, &address))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                Self::over(stream, plain(), &address).await
            }
            _ => Err(Error::Address { given: address.to_string() }),
        }
    }

    async fn over<T>(stream: T, transport: Transport, address: &Address) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = Wire::new();
        let channel = channel(Watched::new(stream, wire.clone()), transport, address).await?;
        Ok(Self::new(channel, wire, address))
    }

    fn new(channel: Channel, wire: Arc<Wire>, address: &Address) -> Self {
        let control = ControlClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        Self { control, channel, wire, address: address.clone() }
    }

    /// Where this connection leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it is of any use still: the daemon has not closed it, as far as is known without asking.
    pub fn is_open(&self) -> bool {
        self.wire.is_open()
    }

    /// How long nothing has been heard over it.
    pub(super) fn silence(&self) -> Duration {
        self.wire.last_heard().elapsed()
    }

    pub(super) fn control(&self) -> ControlClient<Channel> {
        self.control.clone()
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The answer to a question that needs no work.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Error> {
        self.answer_within(ANSWER_TIMEOUT, asked).await
    }

    pub(super) async fn answer_within<T>(
        &self,
        timeout: Duration,
        asked: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer.map_err(|status| self.error(&status)),
            Err(_) => Err(Error::Timeout { address: self.address.clone(), timeout }),
        }
    }

    /// What a stream does that may be silent for as long as it likes, while the daemon is there.
    pub(super) async fn while_alive<T>(
        &self,
        work: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Error> {
        tokio::select! {
            done = work => done.map_err(|status| self.error(&status)),
            silence = liveness::until_lost(&self.control, &self.wire) => {
                let reason = format!("nothing heard for {} s, and no answer to a question", silence.as_secs());
                Err(Error::Gone { address: self.address.clone(), reason })
            }
        }
    }

    pub(super) fn error(&self, status: &tonic::Status) -> Error {
        Error::from_status(&self.address, status)
    }

    /// What a build over this connection needs.
    pub(super) fn parts(&self) -> (&ControlClient<Channel>, &Wire, Channel) {
        (&self.control, &self.wire, self.channel.clone())
    }

    /// Runs one build to its end and returns once its progress has been told: session, solve and progress run at the
    /// same time over this connection. `on_event` is called in the order of arrival and must not block. Dropping the
    /// future cancels the build.
    pub async fn solve(
        &self,
        request: SolveRequest,
        on_event: impl FnMut(SolveEvent) + Send,
    ) -> Result<SolveResult, SolveError> {
        self.solve_by_message(request, one_by_one(on_event)).await
    }

    /// The same, told in the daemon's own portions: what [`super::Display::gather`] takes.
    pub async fn solve_by_message(
        &self,
        request: SolveRequest,
        on_message: impl FnMut(Vec<SolveEvent>) + Send,
    ) -> Result<SolveResult, SolveError> {
        solve::run(&self.control, &self.wire, request, on_message).await
    }
}

pub(super) fn one_by_one(mut on_event: impl FnMut(SolveEvent) + Send) -> impl FnMut(Vec<SolveEvent>) + Send {
    move |events| events.into_iter().for_each(&mut on_event)
}

/// A channel over `stream`, which is given out once: there is no second connection.
async fn channel<T>(stream: T, transport: Transport, address: &Address) -> Result<Channel, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::other("the connection is closed")) }
    });
    let encrypted = transport.uri().scheme_str() == Some("https");
    transport
        .user_agent(concat!("lemnos/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| Error::Protocol { address: address.clone(), reason: chain(&e) })?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIMIT)
        .connect_with_connector(connector)
        .await
        .map_err(|e| {
            let (address, reason) = (address.clone(), chain(&e));
            match address {
                _ if encrypted => Error::Tls { address, reason },
                Address::Unix(_) | Address::Tcp { .. } => Error::Protocol { address, reason },
                // what broke is the way there
                _ => Error::Connect { address, source: io::Error::other(reason) },
            }
        })
}
