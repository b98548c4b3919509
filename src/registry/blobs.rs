//! Blobs of images: looked up, read, put, and taken over from another image, within one registry or between two.
//!
//! Memory is bounded whatever a blob's size: files and other registries' blobs are streamed, and each further try reads them
//! again. Every byte that is read is checked against its digest, and what is taken over is checked before it is whole.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::Registry;
use super::exchange::{Fails, Origin};
use super::fault::{Problem, RegistryError};
use crate::model::{Digest, ImageName};

/// What a blob is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    Bytes(Bytes),
    /// Opened anew for every try; it must not change meanwhile.
    File(PathBuf),
}

impl Registry {
    /// Whether the image's repository has the blob.
    pub async fn has_blob(&self, image: &ImageName, digest: &Digest) -> Result<bool, RegistryError> {
        self.exchange.has_blob(image, digest).await
    }

    /// A small blob, such as a config: more than `limit_bytes` are refused.
    pub async fn get_blob(
        &self,
        image: &ImageName,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Bytes, RegistryError> {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let mut sink = Sink::Memory { bytes: BytesMut::new(), limit_bytes };
            match self.read_blob(image, digest, &mut sink).await {
                Ok(()) => return Ok(sink.into_bytes()),
                Err(error) => self.exchange.pause(&error, tried, begun).await?,
            }
        }
    }

    /// A blob of `size` bytes into a new file at `path`.
    pub async fn fetch_blob(
        &self,
        image: &ImageName,
        digest: &Digest,
        size: u64,
        path: &Path,
    ) -> Result<(), RegistryError> {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let opened = tokio::fs::File::create(path).await;
            let file = opened.map_err(|error| {
                let doing = format!("getting {image}@{digest}");
                let cause = format!("{}: {error}", path.display());
                RegistryError::new(image.host(), doing, Problem::Source { cause })
            })?;
            let mut sink = Sink::File { file, left: size };
            match self.read_blob(image, digest, &mut sink).await {
                Ok(()) => return Ok(()),
                Err(error) => self.exchange.pause(&error, tried, begun).await?,
            }
        }
    }

    async fn read_blob(
        &self,
        image: &ImageName,
        digest: &Digest,
        sink: &mut Sink,
    ) -> Result<(), RegistryError> {
        let fails = Fails { host: image.host().to_owned(), doing: format!("getting {image}@{digest}") };
        let mut incoming = self.exchange.open_blob(image, digest).await?;
        let mut hash = Sha256::new();
        while let Some(piece) = incoming.piece().await? {
            hash.update(&piece);
            sink.take(&piece).await.map_err(|problem| fails.with(problem))?;
        }
        sink.end().await.map_err(|problem| fails.with(problem))?;
        let found: Digest = format!("sha256:{}", hex::encode(hash.finalize()))
            .parse()
            .expect("a SHA-256 has 64 hexadecimal digits");
        if found == *digest {
            return Ok(());
        }
        Err(fails.with(Problem::WrongDigest { expected: digest.clone(), found }))
    }

    /// Puts a blob of `size` bytes; one that is there already is not sent.
    pub async fn put_blob(
        &self,
        image: &ImageName,
        digest: &Digest,
        size: u64,
        source: BlobSource,
    ) -> Result<(), RegistryError> {
        let origin = match &source {
            BlobSource::Bytes(bytes) => Origin::Bytes(bytes.clone()),
            BlobSource::File(path) => Origin::File(path),
        };
        self.exchange.put_blob(image, digest, size, &origin).await
    }

    /// Takes a blob over from another image: mounted where one registry holds both and mounts, else read from the one and
    /// written to the other as it comes.
    pub async fn copy_blob(
        &self,
        from: &ImageName,
        to: &ImageName,
        digest: &Digest,
        size: u64,
    ) -> Result<(), RegistryError> {
        self.exchange.put_blob(to, digest, size, &Origin::Image(from)).await
    }
}

enum Sink {
    Memory { bytes: BytesMut, limit_bytes: u64 },
    File { file: tokio::fs::File, left: u64 },
}

impl Sink {
    async fn take(&mut self, piece: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Memory { bytes, limit_bytes } => {
                if bytes.len().saturating_add(piece.len()) as u64 > *limit_bytes {
                    return Err(Problem::BlobTooLarge { limit_bytes: *limit_bytes });
                }
                bytes.extend_from_slice(piece);
                Ok(())
            }
            Self::File { file, left } => {
                let Some(rest) = left.checked_sub(piece.len() as u64) else {
                    return Err(Problem::Nonsense {
                        what: "the blob is longer than its manifest says".to_owned(),
                    });
                };
                *left = rest;
                file.write_all(piece).await.map_err(unwritten)
            }
        }
    }

    /// What was kept in memory.
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Memory { bytes, .. } => bytes.freeze(),
            Self::File { .. } => Bytes::new(),
        }
    }

    async fn end(&mut self) -> Result<(), Problem> {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::File { file, .. } => file.flush().await.map_err(unwritten),
        }
    }
}

fn unwritten(error: std::io::Error) -> Problem {
    Problem::Source { cause: error.to_string() }
}
