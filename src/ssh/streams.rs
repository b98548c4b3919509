//! A session's byte streams between the SSH channel and whoever serves the request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, PollSender, WaitForCancellationFutureOwned};

/// The most that one write puts into one message.
const MAX_CHUNK: usize = 32 << 10;

/// Bytes that may wait to be read before the connection is held back.
const BACKLOG: usize = 2 << 20;
/// The same while the reader may be waiting for its own output to be taken: holding back the connection would then also
/// hold back that output, for ever. russh refills a channel's window by what arrives, not by what was read.
const BACKLOG_WHILE_OUTPUT_WAITS: usize = 32 << 20;
/// What a chunk costs beside its bytes.
const CHUNK_COST: usize = 128;

/// How much is under way in a session.
#[derive(Debug, Default)]
struct Flow {
    backlog: usize,
    output_waits: bool,
    /// The client has said that this was all.
    ended: bool,
}

impl Flow {
    fn has_room(&self) -> bool {
        self.backlog < if self.output_waits { BACKLOG_WHILE_OUTPUT_WAITS } else { BACKLOG }
    }
}

/// What is written here can be read from `Stdin`.
pub(super) struct Inlet {
    chunks: mpsc::UnboundedSender<Bytes>,
    flow: watch::Sender<Flow>,
}

/// What the client sends, until it says that this was all, or is gone.
pub(super) struct Stdin {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    flow: watch::Sender<Flow>,
    rest: Bytes,
    /// Input that breaks off is an error, not an end.
    to_the_end: bool,
}

/// Says, while it lives, that output waits to be taken by the client.
pub(super) struct OutputWaits<'a>(&'a Gauge);

/// Where the one who carries output says that it waits.
pub(super) struct Gauge(watch::Sender<Flow>);

/// A session's input, and the gauge that keeps it from standing in the way of its output.
pub(super) fn stdin() -> (Inlet, Stdin, Gauge) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let flow = watch::Sender::new(Flow::default());
    (
        Inlet { chunks: sender, flow: flow.clone() },
        Stdin { chunks: receiver, flow: flow.clone(), rest: Bytes::new(), to_the_end: false },
        Gauge(flow),
    )
}

impl Stdin {
    /// For who acts on the whole of it: half of it, of a client that is gone, cannot be read as if it were all.
    pub(super) fn whole(mut self) -> Self {
        self.to_the_end = true;
        self
    }
}

impl Inlet {
    /// This was all.
    pub(super) fn end(self) {
        self.flow.send_modify(|flow| flow.ended = true);
    }

    /// Passes data on, and waits until there is room for more. False when nobody reads any more.
    pub(super) async fn put(&self, data: Bytes) -> bool {
        self.flow.send_modify(|flow| flow.backlog += data.len() + CHUNK_COST);
        if self.chunks.send(data).is_err() {
            return false;
        }
        // The sender is ours, so that waiting cannot fail.
        self.flow.subscribe().wait_for(Flow::has_room).await.is_ok()
    }

    /// Passes data on where there is room, and drops it where there is none. False when nobody reads any more.
    pub(super) fn offer(&self, data: Bytes) -> bool {
        if !self.flow.borrow().has_room() {
            return true;
        }
        self.flow.send_modify(|flow| flow.backlog += data.len() + CHUNK_COST);
        self.chunks.send(data).is_ok()
    }
}

impl Gauge {
    pub(super) fn output_waits(&self) -> OutputWaits<'_> {
        self.0.send_modify(|flow| flow.output_waits = true);
        OutputWaits(self)
    }
}

impl Drop for OutputWaits<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|flow| flow.output_waits = false);
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
                Some(chunk) => {
                    let cost = chunk.len() + CHUNK_COST;
                    self.flow.send_modify(|flow| flow.backlog = flow.backlog.saturating_sub(cost));
                    self.rest = chunk;
                }
                None if self.to_the_end && !self.flow.borrow().ended => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = buf.remaining().min(self.rest.len());
        buf.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    /// What comes from now on is thrown away, and holds nobody up.
    fn drop(&mut self) {
        self.chunks.close();
        self.flow.send_modify(|flow| flow.backlog = 0);
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

/// A TCP connection whose small messages are acknowledged at once.
///
/// OpenSSH's client leaves Nagle's algorithm on for sessions without a terminal: its next small message waits until the
/// one before is acknowledged, which the kernel puts off by 40 ms when there is nothing to answer yet.
pub(super) struct Prompt(pub(super) TcpStream);

/// Longer reads are bulk, which needs no help.
const SMALL_READ: usize = 4 << 10;

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        #[cfg(target_os = "linux")]
        if buf.filled().len() - before < SMALL_READ {
            // The kernel forgets the option, so it is set each time; without it all is the same, but slower.
            let _ = rustix::net::sockopt::set_tcp_quickack(&self.0, true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
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
    async fn stdin_ends_with_its_inlet() {
        let (inlet, mut stdin, _gauge) = stdin();
        for data in [&b"abc"[..], b"", b"defg"] {
            assert!(inlet.put(Bytes::from_static(data)).await);
        }
        drop(inlet);
        let mut two = [0; 2];
        stdin.read_exact(&mut two).await.unwrap();
        let mut rest = Vec::new();
        stdin.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&two[..], &rest[..]), (&b"ab"[..], &b"cdefg"[..]));
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end_for_who_needs_all() {
        for ends in [true, false] {
            let (inlet, stdin, _gauge) = stdin();
            let mut stdin = stdin.whole();
            assert!(inlet.put(Bytes::from_static(b"half of a secret")).await);
            if ends {
                inlet.end();
            } else {
                drop(inlet);
            }
            let mut read = Vec::new();
            let all = stdin.read_to_end(&mut read).await;
            assert_eq!(
                all.map_err(|error| error.kind()),
                if ends { Ok(16) } else { Err(io::ErrorKind::UnexpectedEof) }
            );
        }
    }

    #[tokio::test]
    async fn input_is_held_back_but_never_against_waiting_output() {
        let (inlet, mut stdin, gauge) = stdin();
        let block = Bytes::from(vec![0; BACKLOG]);
        let held = |put: std::task::Poll<bool>| put.is_pending();
        {
            let mut put = std::pin::pin!(inlet.put(block.clone()));
            assert!(held(futures::poll!(put.as_mut())));
            let waits = gauge.output_waits();
            assert!(put.await, "held back although output waits");
            drop(waits);
        }
        {
            let mut put = std::pin::pin!(inlet.put(block.clone()));
            assert!(held(futures::poll!(put.as_mut())));
            let mut read = vec![0; 2 * BACKLOG];
            stdin.read_exact(&mut read).await.unwrap();
            assert!(put.await, "held back although all was read");
        }
        let _waits = gauge.output_waits();
        let huge = Bytes::from(vec![0; BACKLOG_WHILE_OUTPUT_WAITS]);
        let mut put = std::pin::pin!(inlet.put(huge));
        assert!(held(futures::poll!(put.as_mut())), "nothing bounds the backlog");
        drop(stdin);
        assert!(put.await, "held back although nobody reads");
        assert!(!inlet.put(block).await);
    }

    #[tokio::test]
    async fn what_is_typed_and_not_read_is_dropped_at_last() {
        let (inlet, mut stdin, _gauge) = stdin();
        let block = Bytes::from(vec![0; BACKLOG / 2]);
        for _ in 0..5 {
            assert!(inlet.offer(block.clone()));
        }
        drop(inlet);
        let mut read = Vec::new();
        stdin.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), BACKLOG);
        let (inlet, stdin, _gauge) = super::stdin();
        drop(stdin);
        assert!(!inlet.offer(block));
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
