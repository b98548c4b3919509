//! A blob on its way to a registry: read piece by piece from where it lies, never held whole, never sent whole where it is not
//! what was said.
//!
//! The last piece leaves only when size and digest are right, so that a registry never gets as many bytes as it was promised of
//! something else.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};

use super::super::fault::{Problem, RegistryError};
use super::transfer::Incoming;
use crate::model::Digest;

/// Pieces that wait for the connection at most, and how long one of a file is.
const PIECES: usize = 2;
const PIECE_BYTES: usize = 128 << 10;

/// Opened anew for every try.
pub enum Reader {
    Bytes(Option<Bytes>),
    File(tokio::fs::File),
    Blob(Box<Incoming>),
}

impl Reader {
    pub async fn open(path: &PathBuf) -> Result<Self, Problem> {
        tokio::fs::File::open(path).await.map(Self::File).map_err(|error| unreadable(path, &error))
    }

    async fn piece(&mut self, fails: &Fails) -> Result<Option<Bytes>, RegistryError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.take().filter(|bytes| !bytes.is_empty())),
            Self::File(file) => {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let mut part = file.take(PIECE_BYTES as u64);
                part.read_to_end(&mut piece)
                    .await
                    .map_err(|error| fails.with(Problem::Source { cause: error.to_string() }))?;
                Ok((!piece.is_empty()).then(|| piece.into()))
            }
            Self::Blob(incoming) => incoming.piece().await,
        }
    }
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Problem {
    Problem::Source { cause: format!("{}: {error}", path.display()) }
}

/// What failures of an upload are called.
#[derive(Clone)]
pub struct Fails {
    pub host: String,
    pub doing: String,
}

impl Fails {
    pub fn with(&self, problem: Problem) -> RegistryError {
        RegistryError::new(&self.host, self.doing.clone(), problem)
    }
}

/// The body of a request, and what ends with an error when it could not be sent for a reason of its own.
pub struct Outgoing {
    pub body: Pieces,
    pub failed: oneshot::Receiver<RegistryError>,
}

/// What is promised of a blob, and how long nothing may move.
#[derive(Clone)]
pub struct Promise {
    pub digest: Digest,
    pub size: u64,
    pub stall: Duration,
}

/// Begins to read; must be called within a runtime.
pub fn outgoing(reader: Reader, promise: Promise, fails: Fails) -> Outgoing {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (tell, failed) = oneshot::channel();
    let left = promise.size;
    tokio::spawn(async move {
        if let Err(error) = feed(reader, &promise, &fails, &sender).await {
            let _ = tell.send(error);
        } else {
            // an end without an error is told by the registry's answer
            sender.closed().await;
        }
    });
    Outgoing { body: Pieces { pieces, left }, failed }
}

async fn feed(
    mut reader: Reader,
    promise: &Promise,
    fails: &Fails,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), RegistryError> {
    let mut hash = Sha256::new();
    let mut sent = 0_u64;
    let mut held: Option<Bytes> = None;
    loop {
        let piece = reader.piece(fails).await?;
        let Some(piece) = piece else { break };
        sent = sent.saturating_add(piece.len() as u64);
        if sent > promise.size {
            return Err(fails.with(wrong_size(promise.size, sent)));
        }
        hash.update(&piece);
        if let Some(before) = held.replace(piece) {
            pass(sender, before, promise, fails).await?;
        }
    }
    if sent != promise.size {
        return Err(fails.with(wrong_size(promise.size, sent)));
    }
    let found: Digest = format!("sha256:{}", hex::encode(hash.finalize()))
        .parse()
        .expect("a SHA-256 has 64 hexadecimal digits");
    if found != promise.digest {
        return Err(fails.with(Problem::WrongDigest { expected: promise.digest.clone(), found }));
    }
    match held {
        Some(last) => pass(sender, last, promise, fails).await,
        None => Ok(()),
    }
}

fn wrong_size(size: u64, found: u64) -> Problem {
    Problem::Source { cause: format!("{size} bytes were promised, {found} or more are there") }
}

async fn pass(
    sender: &mpsc::Sender<Bytes>,
    piece: Bytes,
    promise: &Promise,
    fails: &Fails,
) -> Result<(), RegistryError> {
    match tokio::time::timeout(promise.stall, sender.send(piece)).await {
        // nobody reads any more: the registry's answer, or the connection's end, says why
        Ok(_) => Ok(()),
        Err(_) => Err(fails.with(Problem::Timeout { after: promise.stall })),
    }
}

/// The pieces as a request's body of a known length.
pub struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            // cut off: the request must not look whole
            None => Some(Err(std::io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
