//! The byte stream under a connection: knows when the peer was last heard, and can be cut at once.
//!
//! Cutting matters because HTTP/2 says goodbye politely: with a peer that no longer reads, that goodbye, and the task
//! that sends it, would wait until the kernel gives up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What is known of one connection's byte stream.
#[derive(Debug)]
pub(super) struct Wire {
    opened: Instant,
    /// Milliseconds after `opened`.
    last_heard: AtomicU64,
    cut: CancellationToken,
    closed: AtomicBool,
}

impl Wire {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            last_heard: AtomicU64::new(0),
            cut: CancellationToken::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// When the last byte came in, or when the connection was opened.
    pub fn last_heard(&self) -> Instant {
        self.opened + Duration::from_millis(self.last_heard.load(Ordering::Relaxed))
    }

    /// Ends the byte stream, and with it every call on the connection.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Ends when the byte stream has been cut, for whatever else is to end with it.
    pub fn until_cut(&self) -> WaitForCancellationFutureOwned {
        self.cut.clone().cancelled_owned()
    }

    /// Whether the peer may still say something: it has not closed, and nothing broke.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !self.cut.is_cancelled()
    }

    fn heard(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_heard.store(now, Ordering::Relaxed);
    }
}

/// `inner`, watched by `wire`.
pub(super) struct Watched<T> {
    inner: T,
    wire: Arc<Wire>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether the connection ends with it.
    main: bool,
}

impl<T> Watched<T> {
    pub fn new(inner: T, wire: Arc<Wire>) -> Self {
        let cut = Box::pin(wire.cut.clone().cancelled_owned());
        Self { inner, wire, cut, main: true }
    }

    /// A stream beside the connection's own: it ends with the connection, but not the other way round.
    pub fn beside(inner: T, wire: Arc<Wire>) -> Self {
        let mut beside = Self::new(inner, wire);
        beside.main = false;
        beside
    }
}

/// Whoever dropped it heard, or had, enough.
impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.main {
            self.wire.closed.store(true, Ordering::Relaxed);
        }
    }
}

fn cut_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up")
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut_error()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.wire.heard();
        } else if read.is_ready() && buf.remaining() > 0 && self.main {
            self.wire.closed.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.wire.cut.is_cancelled() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.wire.cut.is_cancelled() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.cut.is_cancelled() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.cut.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_cut_wakes_a_reader_that_waits() {
        let wire = Wire::new();
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut watched = Watched::new(ours, wire.clone());
        let reader = tokio::spawn(async move { watched.read_u8().await });
        tokio::task::yield_now().await;
        wire.cut();
        let ended = tokio::time::timeout(Duration::from_secs(5), reader).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn hearing_is_noted_and_speaking_is_not() {
        let wire = Wire::new();
        let opened = wire.last_heard();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut watched = Watched::new(ours, wire.clone());
        tokio::time::sleep(Duration::from_millis(5)).await;
        watched.write_u8(1).await.unwrap();
        assert_eq!(wire.last_heard(), opened);
        theirs.write_u8(2).await.unwrap();
        watched.read_u8().await.unwrap();
        assert!(wire.last_heard() >= opened + Duration::from_millis(5));
    }
}
