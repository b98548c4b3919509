//! The BuildKit inside dockerd: gRPC behind an upgrade of Docker's own HTTP, at `POST /grpc`.
//!
//! A session is no call here but a second upgraded connection, `POST /session`, with the call's metadata as headers and
//! the session's HTTP/2 raw, without messages around its bytes. A relay makes up for that: it passes every call on as it
//! came, and the `Session` call it serves itself. So nothing above a connection knows of the difference.

mod host;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lemnos_proto::control::BytesMessage;
use prost::Message;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use tower::Service;

pub use host::{ByteStream, DockerHost};

use super::{CONNECTION_WINDOW, Programs, STREAM_WINDOW, Tls};
use crate::buildkit::error::chain;
use crate::buildkit::wire::{Watched, Wire};

/// The one call that is not passed on.
const SESSION: &str = "/moby.buildkit.v1.Control/Session";
/// What names a session's properties, in a call's metadata and in Docker's headers alike.
const SESSION_HEADERS: &str = "x-docker-expose-session-";
/// Largest slice of a session sent at once.
const SLICE: usize = 64 << 10;
/// How long what broke a connection may take to be known.
const REASON_GRACE: Duration = Duration::from_secs(1);
/// How much of Docker's words about a refusal is read.
const REFUSAL_LIMIT: usize = 4096;

/// Where dockerd is, and the connection that all of this belongs to.
#[derive(Clone)]
pub(super) struct Docker {
    pub host: DockerHost,
    pub tls: Option<Tls>,
    pub programs: Programs,
    pub wire: Arc<Wire>,
}

/// An upgraded connection.
pub(super) type Hijacked = Watched<TokioIo<Upgraded>>;

impl Docker {
    /// The connection itself.
    pub async fn connect(&self) -> io::Result<Hijacked> {
        Ok(Watched::new(self.hijack("/grpc", &HeaderMap::new()).await?, self.wire.clone()))
    }

    /// Asks for `path` to become a raw byte stream.
    async fn hijack(&self, path: &'static str, headers: &HeaderMap) -> io::Result<TokioIo<Upgraded>> {
        let stream = self.host.open(self.tls.as_ref(), &self.programs).await?;
        let (mut asking, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driving = tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        let fixed = [(HOST, "docker"), (CONNECTION, "Upgrade"), (UPGRADE, "h2c")];
        request.headers_mut().extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with(SESSION_HEADERS)) {
            request.headers_mut().append(name, value.clone());
        }
        let answer = match asking.send_request(request).await {
            Ok(answer) => answer,
            // a refused certificate shows here, and only whoever drives the connection knows of it
            Err(error) => {
                let broke = tokio::time::timeout(REASON_GRACE, driving).await;
                let cause = broke.ok().and_then(|ended| ended.ok()?.err()).unwrap_or(error);
                return Err(io::Error::other(chain(&cause)));
            }
        };
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let words = Limited::new(answer.into_body(), REFUSAL_LIMIT).collect().await;
            let words = words.map(|body| body.to_bytes()).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            return Err(io::Error::other(format!("POST {path} was answered {status}: {}", words.trim())));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
        Ok(TokioIo::new(upgraded))
    }

    /// Serves `client` until the connection ends: calls go to `daemon`, sessions to a connection of their own.
    pub async fn relay(self, client: DuplexStream, daemon: Channel) {
        let cut = self.wire.until_cut();
        let docker = self;
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (docker, mut daemon) = (docker.clone(), daemon.clone());
            async move {
                let request = request.map(tonic::body::Body::new);
                if request.uri().path() == SESSION {
                    let headers = request.headers().clone();
                    return Ok(Grpc::new(Slices).streaming(Session { docker, headers }, request).await);
                }
                std::future::poll_fn(|cx| daemon.poll_ready(cx)).await?;
                // an error ends the stream without a status: whoever asks sees a broken connection, as it is one
                daemon.call(request).await
            }
        });
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let serving = server.serve_connection(TokioIo::new(client), service);
        tokio::select! {
            _ = serving => {}
            () = cut => {}
        }
    }
}

/// One session: what the `Session` call carries, poured into and out of a hijacked connection.
struct Session {
    docker: Docker,
    headers: HeaderMap,
}

impl StreamingService<BytesMessage> for Session {
    type Response = BytesMessage;
    type ResponseStream = BoxStream<'static, Result<BytesMessage, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<BytesMessage>>) -> Self::Future {
        let (docker, headers) = (self.docker.clone(), self.headers.clone());
        async move {
            let hijacked = docker.hijack("/session", &headers).await;
            let hijacked = Watched::beside(hijacked.map_err(unavailable)?, docker.wire);
            let (read, mut write) = tokio::io::split(hijacked);
            let mut incoming = request.into_inner();
            tokio::spawn(async move {
                while let Ok(Some(message)) = incoming.message().await {
                    if write.write_all(&message.data).await.is_err() {
                        return;
                    }
                }
                let _ = write.shutdown().await;
            });
            let outgoing = ReaderStream::with_capacity(read, SLICE);
            let outgoing = outgoing.map_ok(|data| BytesMessage { data }).map_err(unavailable);
            Ok(Response::new(outgoing.boxed()))
        }
        .boxed()
    }
}

fn unavailable(error: io::Error) -> Status {
    Status::unavailable(format!("the session with dockerd: {error}"))
}

/// How a `BytesMessage` stands in a call.
#[derive(Clone, Copy)]
struct Slices;

impl Codec for Slices {
    type Encode = BytesMessage;
    type Decode = BytesMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Slices {
    type Item = BytesMessage;
    type Error = Status;

    fn encode(&mut self, message: BytesMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        let bytes = message.encode_to_vec();
        buffer.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Slices {
    type Item = BytesMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<BytesMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        BytesMessage::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
