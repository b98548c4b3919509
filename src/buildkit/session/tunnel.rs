//! The tunnel: an HTTP/2 connection of its own, carried as byte slices by the control service's `Session` call.
//!
//! A stock gRPC server sits at one end of an in-memory pipe; the other end is pumped into and out of the call. The
//! daemon checks the health service every few seconds and gives the session up after two misses, so that service is
//! always there. Dropping the tunnel ends the pumps and the call, and the closed pipe ends the server.

use std::fmt;

use futures::StreamExt;
use lemnos_proto::control::BytesMessage;
use lemnos_proto::control::control_client::ControlClient;
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status, Streaming};

use super::Session;
use super::services::services;
use crate::buildkit::SolveError;

/// Bytes the pipe holds in each direction; below 64 KiB it costs speed.
const PIPE: usize = 256 << 10;
/// Largest slice sent at once.
const SLICE: usize = 64 << 10;
/// Receive windows of our server. h2 ends a connection on which small frames wait to be read: each costs 256 bytes of a budget,
/// less its own, and the budget is half of the connection's window. A daemon asks for each file of a context in a frame
/// of some 10 bytes, as many as a stream's window holds, so the budget has to be 25 times that window.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;
const _: () = assert!(CONNECTION_WINDOW / 2 > 2 * 25 * STREAM_WINDOW, "two streams of small frames must fit");
/// Calls that the daemon may have open at once.
const CALL_LIMIT: u32 = 256;
/// Headers of one call: each pattern of a `.dockerignore` is one.
const HEADER_LIMIT: u32 = 4 << 20;

/// A running session.
pub(in crate::buildkit) struct Tunnel {
    id: String,
    running: JoinHandle<Status>,
    _close: DropGuard,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Tunnel {
    /// Starts the session and returns at once: the daemon waits for a session that it was promised.
    pub fn open(control: ControlClient<Channel>, session: &Session) -> Result<Self, SolveError> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let (routes, methods) = services(session, session.patience);
        let headers = headers(&id, &session.shared_key, &methods)?;
        let close = CancellationToken::new();
        let running = tokio::spawn(run(control, routes, headers, close.clone()));
        Ok(Self { id, running, _close: close.drop_guard() })
    }

    /// What names the session in a solve request.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the session's end, which no session reaches in good order while a build needs it.
    pub async fn ended(&mut self) -> Status {
        (&mut self.running).await.unwrap_or_else(|_| Status::cancelled("the session was stopped"))
    }
}

/// The session's name, its shared key and its methods, as the daemon reads them from the call's metadata.
fn headers(id: &str, shared_key: &str, methods: &[&'static str]) -> Result<MetadataMap, SolveError> {
    let value = |text: &str| {
        AsciiMetadataValue::try_from(text)
            .map_err(|_| SolveError::invalid(format!("{text:?} cannot be a session's shared key")))
    };
    let mut headers = MetadataMap::new();
    headers.insert("x-docker-expose-session-uuid", value(id)?);
    headers.insert("x-docker-expose-session-sharedkey", value(shared_key)?);
    for method in methods {
        headers.append("x-docker-expose-session-grpc-method", AsciiMetadataValue::from_static(method));
    }
    Ok(headers)
}

async fn run(
    mut control: ControlClient<Channel>,
    routes: Routes,
    headers: MetadataMap,
    close: CancellationToken,
) -> Status {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (from_server, to_server) = tokio::io::split(theirs);
    // a pipe that is read to its end, or cannot be read, ends the call; so does dropping the tunnel
    let outgoing = ReaderStream::with_capacity(from_server, SLICE)
        .take_until(close.cancelled_owned())
        .take_while(|read| std::future::ready(read.is_ok()))
        .map(|read| BytesMessage { data: read.unwrap_or_default() });
    let mut request = Request::new(outgoing);
    *request.metadata_mut() = headers;
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CALL_LIMIT)
        .http2_max_header_list_size(HEADER_LIMIT)
        .add_routes(routes)
        .serve_with_incoming(futures::stream::iter([Ok::<_, std::io::Error>(ours)]));
    if let Err(error) = served.await {
        return Status::internal(format!("the session's server did not start: {error}"));
    }
    match control.session(request).await {
        Ok(answer) => receive(answer.into_inner(), to_server).await,
        Err(status) => status,
    }
}

/// Pumps the daemon's bytes to our server until either side has had enough.
async fn receive(mut incoming: Streaming<BytesMessage>, mut to_server: WriteHalf<DuplexStream>) -> Status {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if let Err(error) = to_server.write_all(&message.data).await {
                    return Status::aborted(format!("the session's connection ended: {error}"));
                }
            }
            Ok(None) => return Status::unavailable("the daemon closed the session"),
            Err(status) => return status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_key_that_no_header_can_carry_is_refused() {
        let error = headers("id", "a\nb", &[]).unwrap_err();
        assert!(error.message.contains("shared key"), "{error}");
        let good = headers("id", "app:main", &["/a.B/C", "/a.B/D"]).unwrap();
        assert_eq!(good.get_all("x-docker-expose-session-grpc-method").iter().count(), 2);
    }
}
