//! Uploads, fetched as the daemon fetches a context that is a stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use lemnos::buildkit::Session;
use lemnos::buildkit::session::upload::Upload;
use lemnos_proto::upload::BytesMessage;
use lemnos_proto::upload::upload_client::UploadClient;
use tokio::io::{AsyncRead, ReadBuf};
use tonic::{Code, Request, Status, Streaming};

use super::served::{SHORT, SOON, Served, serve};

pub async fn pull(session: &Served, path: &str) -> Result<Streaming<BytesMessage>, Status> {
    let mut request = Request::new(tokio_stream::pending());
    request.metadata_mut().insert("urlpath", path.parse().unwrap());
    request.metadata_mut().insert("urlhost", "buildkit-session".parse().unwrap());
    Ok(UploadClient::new(session.channel.clone()).pull(request).await?.into_inner())
}

async fn fetch(session: &Served, path: &str) -> Result<Vec<u8>, Status> {
    let mut stream = pull(session, path).await?;
    let mut content = Vec::new();
    while let Some(message) = tokio::time::timeout(SOON, stream.message()).await.unwrap()? {
        assert!(message.data.len() <= 3 << 20);
        content.extend_from_slice(&message.data);
    }
    Ok(content)
}

#[tokio::test]
async fn a_stream_is_given_whole_and_once() {
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let session = Session::builder("k")
        .upload("tar", io::Cursor::new(content.clone()))
        .upload("empty", tokio::io::empty())
        .build()
        .unwrap();
    assert_eq!(Upload::url("tar"), "http://buildkit-session/tar");
    let session = serve(session).await;
    for unknown in ["", "/", "/other", "/tar/x", "//tar"] {
        assert_eq!(fetch(&session, unknown).await.unwrap_err().code(), Code::NotFound, "{unknown}");
    }
    assert!(fetch(&session, "/tar").await.unwrap() == content);
    assert_eq!(fetch(&session, "/tar").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(fetch(&session, "/empty").await.unwrap(), b"");
}

/// Notes when it is dropped.
struct Watched<R>(R, Option<tokio::sync::oneshot::Sender<()>>);

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        let _ = self.1.take().unwrap().send(());
    }
}

fn watched<R>(reader: R) -> (Watched<R>, tokio::sync::oneshot::Receiver<()>) {
    let (dropped, gone) = tokio::sync::oneshot::channel();
    (Watched(reader, Some(dropped)), gone)
}

#[tokio::test]
async fn a_reader_that_stalls_or_breaks_fails_the_stream() {
    let (stalled, _writer) = tokio::io::duplex(64);
    let broken = breaking();
    let mut session =
        Session::builder("k").upload("stalled", stalled).upload("broken", broken).build().unwrap();
    session.patience = SHORT;
    let session = serve(session).await;
    assert_eq!(fetch(&session, "/stalled").await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(fetch(&session, "/broken").await.unwrap_err().code(), Code::DataLoss);
}

/// Some bytes, then an error.
fn breaking() -> impl AsyncRead + Send + Unpin {
    let pieces = [Ok(bytes::Bytes::from_static(b"some")), Err(io::Error::other("the disk is gone"))];
    tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
}

#[tokio::test]
async fn a_daemon_that_takes_nothing_or_goes_away_frees_the_reader() {
    let (slow, slow_gone) = watched(tokio::io::repeat(7));
    let (left, left_gone) = watched(tokio::io::repeat(7));
    let mut session = Session::builder("k").upload("slow", slow).upload("left", left).build().unwrap();
    session.patience.taking = SHORT.taking;
    let session = serve(session).await;
    // never read: the windows fill, and then the wait is over
    let _stalled = pull(&session, "/slow").await.unwrap();
    tokio::time::timeout(SOON, slow_gone).await.expect("given up").unwrap();
    let mut dropped = pull(&session, "/left").await.unwrap();
    dropped.message().await.unwrap().unwrap();
    drop(dropped);
    tokio::time::timeout(SOON, left_gone).await.expect("given up").unwrap();
}
