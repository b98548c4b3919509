//! Standard input, read by a thread of its own: one that waits for a terminal must not keep the command from ending.

use std::io::{self, Read as _};
use std::path::Path;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use crate::error::Report;

/// Bytes read at once, and pieces waiting for whoever takes them.
const PIECE: usize = 64 << 10;
const WAITING: usize = 4;
/// A header of a tar, and the block behind it.
const PEEKED: usize = 1024;
/// Largest context that is kept for several builders.
const SPOOL_LIMIT: u64 = 64 << 30;
/// Largest Dockerfile.
pub const DOCKERFILE_LIMIT: usize = 2 << 20;

/// Standard input, of which the first bytes are known.
pub struct Stdin {
    first: Bytes,
    rest: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stdin {
    /// Reads the first bytes, as many as it takes to know what this is.
    pub async fn open() -> Result<Self, Report> {
        let (send, mut rest) = mpsc::channel(WAITING);
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE];
                let read = input.read(&mut piece).map(|length| {
                    piece.truncate(length);
                    Bytes::from(piece)
                });
                match read {
                    Ok(piece) if piece.is_empty() => return,
                    read => {
                        let failed = read.is_err();
                        // nobody wants any more of it, or there is no more
                        if send.blocking_send(read).is_err() || failed {
                            return;
                        }
                    }
                }
            }
        });
        let mut first = BytesMut::new();
        while first.len() < PEEKED
            && let Some(piece) = rest.recv().await
        {
            first.extend_from_slice(&piece.map_err(unreadable)?);
        }
        Ok(Self { first: first.freeze(), rest })
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// What an archive this is; none where it is text.
    pub fn archive(&self) -> Option<Archive> {
        archive(&self.first)
    }

    /// All of it, for a Dockerfile.
    pub async fn text(mut self) -> Result<Vec<u8>, Report> {
        let mut text = BytesMut::from(&*self.first);
        while let Some(piece) = self.rest.recv().await {
            text.extend_from_slice(&piece.map_err(unreadable)?);
            if text.len() > DOCKERFILE_LIMIT {
                let message =
                    format!("the Dockerfile on standard input has more than {DOCKERFILE_LIMIT} bytes");
                return Err(Report::user(message)
                    .hint("a context must be a tar, plain or packed with gzip, bzip2 or xz"));
            }
        }
        Ok(text.to_vec())
    }

    /// All of it, into a file: what is to be read more than once.
    pub async fn spool(mut self, path: &Path) -> Result<(), Report> {
        let failed =
            |cause: io::Error| Report::user(format!("keeping standard input in {}: {cause}", path.display()));
        let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
        let mut length = self.first.len() as u64;
        file.write_all(&self.first).await.map_err(failed)?;
        while let Some(piece) = self.rest.recv().await {
            let piece = piece.map_err(unreadable)?;
            length = length.saturating_add(piece.len() as u64);
            if length > SPOOL_LIMIT {
                let message = format!("the context on standard input has more than {SPOOL_LIMIT} bytes");
                return Err(Report::user(message).hint("unpack it into a directory, or name one --builder"));
            }
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }

    pub fn reader(self) -> Pin<Box<dyn AsyncRead + Send>> {
        let first = futures::stream::iter([Ok(self.first)]);
        Box::pin(StreamReader::new(first.chain(ReceiverStream::new(self.rest))))
    }
}

fn unreadable(cause: io::Error) -> Report {
    Report::user(format!("standard input cannot be read: {cause}"))
}

/// What a frontend unpacks, and the one packing that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// A tar, or one packed with gzip, bzip2 or xz.
    Tar,
    Zstd,
}

fn archive(first: &[u8]) -> Option<Archive> {
    const PACKED: [&[u8]; 3] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0"];
    if first.starts_with(b"\x28\xb5\x2f\xfd") {
        return Some(Archive::Zstd);
    }
    (PACKED.iter().any(|magic| first.starts_with(magic)) || is_tar(first)).then_some(Archive::Tar)
}

/// Whether a header begins here: its sum, which counts its own field as spaces, is right.
fn is_tar(first: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(header) = first.get(..512) else { return false };
    let field = header.get(SUM).unwrap_or_default();
    let digits: String = field.iter().map(|b| char::from(*b)).filter(|c| !matches!(c, ' ' | '\0')).collect();
    let counted = header.iter().enumerate().map(|(at, b)| if SUM.contains(&at) { b' ' } else { *b });
    let sum: u32 = counted.map(u32::from).sum();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_first_bytes() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_cksum();
        tar.append_data(&mut header, "Dockerfile", &b"x\n\n"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        assert_eq!(archive(&tar), Some(Archive::Tar));
        let mut broken = tar.clone();
        broken[0] ^= 1;
        assert_eq!(archive(&broken), None);
        for (first, want) in [
            (&b"\x1f\x8b\x08\0"[..], Some(Archive::Tar)),
            (b"BZh9", Some(Archive::Tar)),
            (b"\xfd7zXZ\0\0", Some(Archive::Tar)),
            (b"\x28\xb5\x2f\xfd\0", Some(Archive::Zstd)),
            (b"FROM scratch\n", None),
            (b"", None),
            (&[0; 1024], None),
        ] {
            assert_eq!(archive(first), want, "{}", first.escape_ascii());
        }
    }
}
