//! Where the bytes of an exported stream go.
//!
//! Invariants: a stream that is dropped before it is finished leaves nothing under the output's name; nor does one of a
//! build that fails afterwards. A daemon whose export breaks in the middle ends the stream as if it were whole, and says
//! only with its verdict on the build that it is not.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

/// Bytes gathered for one write; the daemon may send as few as four thousand at once.
const BUFFER: usize = 256 << 10;

/// Something that takes an exported stream.
#[async_trait]
pub trait Output: Send + Sync {
    /// Begins a stream; `about` is what the exporter tells of it. An error of kind `AlreadyExists` says that it was
    /// begun before. What an error says is told to the daemon.
    async fn open(&self, about: &BTreeMap<String, String>) -> io::Result<Box<dyn OutputStream>>;

    /// The build has ended, and well or not: what was finished becomes final, or is thrown away.
    async fn decide(&self, well: bool) -> io::Result<()> {
        let _ = well;
        Ok(())
    }
}

/// A stream that has begun.
#[async_trait]
pub trait OutputStream: Send {
    async fn write(&mut self, data: Bytes) -> io::Result<()>;
    /// The stream is whole.
    async fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A file, replaced when the stream is whole and the build has ended well. What is there and is no regular file (a pipe, a terminal) is written to.
#[derive(Debug, Clone)]
pub struct FileOutput {
    path: PathBuf,
    finished: Finished,
}

/// Where the bytes of a whole stream wait for the verdict. Dropping it removes them.
type Finished = Arc<Mutex<Option<tempfile::TempPath>>>;

fn finished(slot: &Finished) -> MutexGuard<'_, Option<tempfile::TempPath>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileOutput {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), finished: Finished::default() }
    }

    fn begin(&self) -> io::Result<FileStream> {
        if std::fs::metadata(&self.path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let file = std::fs::File::options().write(true).open(&self.path)?;
            return Ok(FileStream { file: buffered(file), place: None });
        }
        if self.path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let temporary = tempfile::Builder::new()
            .prefix(".lemnos-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            // its message names the directory
            .map_err(|cause| io::Error::from(cause.kind()))?;
        let (file, temporary) = temporary.into_parts();
        Ok(FileStream { file: buffered(file), place: Some((temporary, self.finished.clone())) })
    }
}

fn buffered(file: std::fs::File) -> BufWriter<tokio::fs::File> {
    BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file))
}

#[async_trait]
impl Output for FileOutput {
    async fn open(&self, _: &BTreeMap<String, String>) -> io::Result<Box<dyn OutputStream>> {
        let this = self.clone();
        let begun = tokio::task::spawn_blocking(move || this.begin()).await;
        Ok(Box::new(begun.map_err(io::Error::other)??))
    }

    async fn decide(&self, well: bool) -> io::Result<()> {
        let temporary = finished(&self.finished).take();
        let Some(temporary) = temporary.filter(|_| well) else { return Ok(()) };
        let path = self.path.clone();
        let moved = tokio::task::spawn_blocking(move || temporary.persist(path)).await;
        moved.map_err(io::Error::other)?.map_err(|problem| io::Error::from(problem.error.kind()))
    }
}

struct FileStream {
    file: BufWriter<tokio::fs::File>,
    /// Where the bytes are until they are all there, and where they wait then. Dropping the first removes it.
    place: Option<(tempfile::TempPath, Finished)>,
}

#[async_trait]
impl OutputStream for FileStream {
    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.file.write_all(&data).await
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.file.flush().await?;
        if let Some((temporary, slot)) = self.place.take() {
            *finished(&slot) = Some(temporary);
        }
        Ok(())
    }
}

/// A writer, for one stream.
pub struct WriterOutput<W> {
    writer: Mutex<Option<W>>,
}

impl<W> WriterOutput<W> {
    pub fn new(writer: W) -> Self {
        Self { writer: Mutex::new(Some(writer)) }
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin + 'static> Output for WriterOutput<W> {
    async fn open(&self, _: &BTreeMap<String, String>) -> io::Result<Box<dyn OutputStream>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let used = || io::Error::new(io::ErrorKind::AlreadyExists, "it has been written already");
        Ok(Box::new(WriterStream(writer.ok_or_else(used)?)))
    }
}

struct WriterStream<W>(W);

#[async_trait]
impl<W: AsyncWrite + Send + Unpin + 'static> OutputStream for WriterStream<W> {
    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.0.write_all(&data).await
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.shutdown().await
    }
}
