//! A session's byte streams between the SSH channel and whoever serves the request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, PollSender, WaitForCancellationFutureOwned};

/// The most that one write puts into one message.
const MAX_CHUNK: usize = 32 << 10;

/// What the client sends, until it says that this was all, or is gone.
pub(super) struct Stdin {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Stdin {
    pub(super) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self { chunks, rest: Bytes::new() }
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = buf.remaining().min(self.rest.len());
        buf.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// Which of the two a chunk of output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// A piece of output on its way to the client.
pub(super) struct Chunk {
    pub(super) stream: Stream,
    pub(super) data: Bytes,
}

/// What becomes of output that nobody will read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenGone {
    /// It is dropped, and the writer goes on.
    Discard,
    /// The writer gets a broken pipe, so that it stops working for nobody.
    BrokenPipe,
}

/// One of the output streams. Writing waits while the client does not take what was written before.
pub(super) struct Output {
    stream: Stream,
    chunks: PollSender<Chunk>,
    gone: CancellationToken,
    when_gone: WhenGone,
}

impl Output {
    pub(super) fn new(
        stream: Stream,
        chunks: mpsc::Sender<Chunk>,
        gone: CancellationToken,
        when_gone: WhenGone,
    ) -> Self {
        Self { stream, chunks: PollSender::new(chunks), gone, when_gone }
    }

    fn nobody(&self, len: usize) -> io::Result<usize> {
        match self.when_gone {
            WhenGone::Discard => Ok(len),
            WhenGone::BrokenPipe => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.gone.is_cancelled() || ready!(self.chunks.poll_reserve(cx)).is_err() {
            return Poll::Ready(self.nobody(buf.len()));
        }
        let data = Bytes::copy_from_slice(buf.get(..MAX_CHUNK).unwrap_or(buf));
        let (stream, len) = (self.stream, data.len());
        match self.chunks.send_item(Chunk { stream, data }) {
            Ok(()) => Poll::Ready(Ok(len)),
            Err(_) => Poll::Ready(self.nobody(len)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection that can be cut from outside: from then on every read and write fails.
pub(super) struct Severable<S> {
    inner: S,
    cut: CancellationToken,
    read: Pin<Box<WaitForCancellationFutureOwned>>,
    write: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Severable<S> {
    pub(super) fn new(inner: S, cut: CancellationToken) -> Self {
        let waiting = || Box::pin(cut.clone().cancelled_owned());
        Self { inner, read: waiting(), write: waiting(), cut }
    }
}

fn severed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.is_cancelled() {
            return severed();
        }
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending if self.read.as_mut().poll(cx).is_ready() => severed(),
            done => done,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.is_cancelled() {
            return severed();
        }
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending if self.write.as_mut().poll(cx).is_ready() => severed(),
            done => done,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn stdin_ends_with_its_sender() {
        let (tx, rx) = mpsc::channel(4);
        tx.send(Bytes::from_static(b"abc")).await.unwrap();
        tx.send(Bytes::new()).await.unwrap();
        tx.send(Bytes::from_static(b"defg")).await.unwrap();
        drop(tx);
        let mut stdin = Stdin::new(rx);
        let mut two = [0; 2];
        stdin.read_exact(&mut two).await.unwrap();
        let mut rest = Vec::new();
        stdin.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&two[..], &rest[..]), (&b"ab"[..], &b"cdefg"[..]));
    }

    #[tokio::test]
    async fn output_for_nobody_is_dropped_or_refused() {
        for (when_gone, expected) in
            [(WhenGone::Discard, None), (WhenGone::BrokenPipe, Some(io::ErrorKind::BrokenPipe))]
        {
            let (tx, rx) = mpsc::channel(1);
            let gone = CancellationToken::new();
            let mut output = Output::new(Stream::Stdout, tx.clone(), gone.clone(), when_gone);
            output.write_all(b"fills the queue").await.unwrap();
            gone.cancel();
            assert_eq!(output.write_all(&[0; 100_000]).await.err().map(|e| e.kind()), expected);
            let mut other = Output::new(Stream::Stderr, tx, CancellationToken::new(), when_gone);
            drop(rx);
            assert_eq!(other.write_all(b"x").await.err().map(|e| e.kind()), expected);
        }
    }

    #[tokio::test]
    async fn a_blocked_writer_wakes_when_the_reader_goes() {
        let (tx, rx) = mpsc::channel(1);
        let mut output = Output::new(Stream::Stdout, tx, CancellationToken::new(), WhenGone::Discard);
        output.write_all(b"fills the queue").await.unwrap();
        let (written, ()) = tokio::join!(output.write_all(b"waits"), async { drop(rx) });
        written.unwrap();
    }

    #[tokio::test]
    async fn a_cut_connection_fails_at_once() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let cut = CancellationToken::new();
        let mut stream = Severable::new(ours, cut.clone());
        let mut byte = [0];
        let (read, ()) = tokio::join!(stream.read(&mut byte), async { cut.cancel() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
