//! Reads ahead of russh, which takes each packet in two parts, and keeps no buffer while nothing comes: connections stand
//! idle by the thousand.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once, if it is there.
const AHEAD_BYTES: usize = 16 << 10;

pub(super) struct ReadAhead<S> {
    inner: S,
    /// Read, and not taken yet; without room of its own when it is empty.
    held: BytesMut,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, held: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            if buf.remaining() >= AHEAD_BYTES {
                return Pin::new(&mut self.inner).poll_read(cx, buf);
            }
            // dropped again when nothing has come
            let mut room = BytesMut::with_capacity(AHEAD_BYTES);
            ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.inner), cx, &mut room))?;
            self.held = room;
        }
        let length = self.held.len().min(buf.remaining());
        buf.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.advance(length);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn every_byte_comes_once_and_nothing_is_kept_between() {
        let sent: Vec<u8> = (0..3 * AHEAD_BYTES + 7).map(|n| (n % 251) as u8).collect();
        let (mut theirs, ours) = tokio::io::duplex(sent.len());
        let mut reader = ReadAhead::new(ours);
        theirs.write_all(&sent).await.unwrap();
        let mut four = [0; 4];
        reader.read_exact(&mut four).await.unwrap();
        assert_eq!(reader.held.len(), AHEAD_BYTES - four.len(), "read ahead");
        // the rest of what is held, then past it into the large buffer itself
        let mut rest = vec![0; sent.len() - four.len()];
        reader.read_exact(&mut rest).await.unwrap();
        assert_eq!([&four[..], &rest].concat(), sent);
        assert_eq!(reader.held.capacity(), 0);
        assert!(futures::poll!(std::pin::pin!(reader.read(&mut four))).is_pending());
        assert_eq!(reader.held.capacity(), 0, "kept while nothing comes");
        drop(theirs);
        assert_eq!(reader.read(&mut four).await.unwrap(), 0);
    }
}
