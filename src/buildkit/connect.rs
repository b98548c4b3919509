//! Reaching a buildkitd: unix socket, TCP, TLS with client certificates.
//!
//! A `Client` is one connection and never a second one: when it breaks, it stays broken, and the caller connects anew.
//! No HTTP/2 ping is ever sent, because a buildkitd answers pings that come too often by closing the connection;
//! `liveness` asks a plain question instead.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lemnos_proto::control::control_client::ControlClient;
use lemnos_proto::control::{InfoRequest, ListWorkersRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport, Identity};

use super::error::{Error, chain};
use super::solve::{self, SolveRequest, SolveResult};
use super::wire::{Watched, Wire};
use super::{SolveError, SolveEvent};

/// Largest gRPC message in both directions: what buildkitd itself allows.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;
/// Longest wait for the answer to a question that needs no work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Receive windows: large enough that logs and progress never wait for a round trip.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest certificate or key file.
const PEM_LIMIT: u64 = 1 << 20;

/// Where a buildkitd listens: `unix:///path` or `tcp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Address { given: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(PathBuf::from(path))),
                false => Err(invalid()),
            };
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(invalid)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        let bare = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| is_host(host)),
        };
        Ok(Self::Tcp { host: bare.ok_or_else(invalid)?.to_owned(), port })
    }
}

/// Whether `host` is made of what host names and IPv4 addresses are made of.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && !host.starts_with(['-', '.'])
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// TLS towards a daemon. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the daemon's certificate; the system's authorities when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate; needs `key`.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name the daemon's certificate must bear, where it is not the address's host.
    pub server_name: Option<String>,
}

impl Tls {
    /// A connection that ends right after the handshake: the daemon's alert says why, but what we send first may meet a
    /// closed connection before the alert is read.
    fn refused(&self, seen: &str) -> String {
        let why = match &self.cert {
            None => "the daemon may want a client certificate, and none is set".to_owned(),
            Some(cert) => format!("the daemon may not take the client certificate {}", cert.display()),
        };
        format!("the connection ended right after the handshake: {why} ({seen})")
    }
}

/// A daemon as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub tls: Option<Tls>,
}

/// What a daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// As in `v0.32.2`.
    pub version: String,
    /// Go package of the build, which names a fork.
    pub package: String,
    /// Commit of the build.
    pub revision: String,
}

/// One worker of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worker {
    pub id: String,
    /// As in `linux/arm64` or `linux/arm/v7`, in the worker's order: its own platform first.
    pub platforms: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// One connection to a buildkitd. Dropping it ends all that runs over it.
#[derive(Debug)]
pub struct Client {
    control: ControlClient<Channel>,
    wire: Arc<Wire>,
    address: Address,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.wire.cut();
    }
}

impl Client {
    /// Connects within `timeout`. With TLS this includes one question, because a daemon refuses a client certificate
    /// only after the handshake; without TLS no round trip is spent beyond the connection itself.
    pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, Error> {
        let address = &endpoint.address;
        let late = || Error::Timeout { address: address.clone(), timeout };
        let deadline = Instant::now() + timeout;
        let client =
            tokio::time::timeout_at(deadline, Self::dial(endpoint)).await.unwrap_or_else(|_| Err(late()))?;
        if let Some(tls) = &endpoint.tls {
            match tokio::time::timeout_at(deadline, client.ask_info()).await {
                Err(_) => return Err(late()),
                Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                    return Err(Error::Tls {
                        address: address.clone(),
                        reason: tls.refused(&chain(&status)),
                    });
                }
                Ok(_) => {}
            }
        }
        Ok(client)
    }

    async fn dial(endpoint: &Endpoint) -> Result<Self, Error> {
        let address = endpoint.address.clone();
        let unreachable = |source| Error::Connect { address: address.clone(), source };
        match (&endpoint.address, &endpoint.tls) {
            (Address::Unix(path), None) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                Self::over(stream, Transport::from_static("http://localhost"), &address).await
            }
            (Address::Unix(_), Some(_)) => {
                Err(Error::Tls { address, reason: "TLS is for tcp:// addresses only".into() })
            }
            (Address::Tcp { host, port }, tls) => {
                let transport = transport(&address, tls.as_ref()).await?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Self::over(stream, transport, &address).await
            }
        }
    }

    async fn over<T>(stream: T, transport: Transport, address: &Address) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = Wire::new();
        // given out once: there is no second connection
        let mut stream = Some(TokioIo::new(Watched::new(stream, wire.clone())));
        let connector = tower::service_fn(move |_| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| std::io::Error::other("the connection is closed")) }
        });
        let encrypted = transport.uri().scheme_str() == Some("https");
        let channel = transport
            .user_agent(concat!("lemnos/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| Error::Protocol { address: address.clone(), reason: chain(&e) })?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector(connector)
            .await
            .map_err(|e| match encrypted {
                true => Error::Tls { address: address.clone(), reason: chain(&e) },
                false => Error::Protocol { address: address.clone(), reason: chain(&e) },
            })?;
        let control = ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        Ok(Self { control, wire, address: address.clone() })
    }

    /// The daemon's version.
    pub async fn info(&self) -> Result<Info, Error> {
        let version = self.answer(self.ask_info()).await?.buildkit_version.unwrap_or_default();
        Ok(Info { version: version.version, package: version.package, revision: version.revision })
    }

    async fn ask_info(&self) -> Result<lemnos_proto::control::InfoResponse, tonic::Status> {
        Ok(self.control.clone().info(InfoRequest {}).await?.into_inner())
    }

    /// The daemon's workers, with the platforms each of them can run.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let asked = async {
            Ok(self.control.clone().list_workers(ListWorkersRequest::default()).await?.into_inner().record)
        };
        let records = self.answer(asked).await?;
        Ok(records
            .into_iter()
            .map(|record| Worker {
                id: record.id,
                platforms: record.platforms.iter().map(platform_name).collect(),
                labels: record.labels,
            })
            .collect())
    }

    async fn answer<T>(&self, asked: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(answer) => answer.map_err(|status| Error::from_status(&self.address, &status)),
            Err(_) => Err(Error::Timeout { address: self.address.clone(), timeout: ANSWER_TIMEOUT }),
        }
    }

    /// Runs one build to its end and returns once its progress has been told: session, solve and progress run at the
    /// same time over this connection. `on_event` is called in the order of arrival and must not block. Dropping the
    /// future cancels the build.
    pub async fn solve(
        &self,
        request: SolveRequest,
        on_event: impl FnMut(SolveEvent) + Send,
    ) -> Result<SolveResult, SolveError> {
        solve::run(&self.control, &self.wire, request, on_event).await
    }
}

fn platform_name(platform: &lemnos_proto::pb::Platform) -> String {
    let mut name = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        name.push('/');
        name.push_str(&platform.variant);
    }
    name
}

/// What tonic must know of a TCP address: the authority, and TLS.
async fn transport(address: &Address, tls: Option<&Tls>) -> Result<Transport, Error> {
    let authority = address.to_string().replacen("tcp://", "", 1);
    let bad = |reason: String| Error::Tls { address: address.clone(), reason };
    let Some(tls) = tls else {
        return Transport::from_shared(format!("http://{authority}"))
            .map_err(|_| Error::Address { given: address.to_string() });
    };
    let mut config = match &tls.ca {
        Some(ca) => ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem(address, ca, "CERTIFICATE").await?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => config.identity(Identity::from_pem(
            pem(address, cert, "CERTIFICATE").await?,
            pem(address, key, "PRIVATE KEY").await?,
        )),
        (None, None) => config,
        _ => return Err(bad("a client certificate and its key belong together: only one is set".into())),
    };
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Transport::from_shared(format!("https://{authority}"))
        .map_err(|_| Error::Address { given: address.to_string() })?
        .tls_config(config)
        .map_err(|e| bad(chain(&e)))
}

/// A PEM file that holds at least one block whose label ends in `label`.
async fn pem(address: &Address, path: &Path, label: &str) -> Result<Vec<u8>, Error> {
    let bad = |reason: String| Error::Tls {
        address: address.clone(),
        reason: format!("{}: {reason}", path.display()),
    };
    let size = tokio::fs::metadata(path).await.map_err(|e| bad(e.to_string()))?.len();
    if size > PEM_LIMIT {
        return Err(bad(format!("{size} bytes are too many for a {label} file")));
    }
    let text = tokio::fs::read(path).await.map_err(|e| bad(e.to_string()))?;
    let mark = format!("{label}-----");
    match text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        true => Ok(text),
        false => Err(bad(format!("holds no PEM block of the kind {label}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["unix:///run/b.sock", "tcp://b.example:1234", "tcp://10.0.0.1:1", "tcp://[::1]:1234"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn addresses_that_are_none() {
        for text in [
            "",
            "unix://",
            "unix://rel",
            "/run/b.sock",
            "tcp://",
            "tcp://h",
            "tcp://h:",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://:1",
            "tcp://::1:1",
            "tcp://[h]:1",
            "tcp://u@h:1",
            "tcp://h/p:1",
            "tcp://-h:1",
            "http://h:1",
            "tcp://h h:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
