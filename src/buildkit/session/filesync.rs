//! FileSync: the daemon asks the session for directories, and gets those entries that its filters name.
//!
//! Invariants: entries go out parents first and siblings by raw name bytes; a transfer ends with a FIN or with a gRPC
//! status, never with silence; content has the length that its entry announced. Knows no git and no build: a
//! directory is a [`DirSource`]. Method and metadata: moby/buildkit `session/filesync`; packets: tonistiigi/fsutil.

pub mod filter;
pub mod followpaths;
mod localdir;
mod mapped;
pub mod paths;
pub mod patterns;
mod regexp;
mod request;
mod sender;
mod stats;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use lemnos_proto::fsutil::types::Packet;
use lemnos_proto::session::file_sync_server::{FileSync, FileSyncServer};
use tonic::{Request, Response, Status, Streaming};

pub use localdir::LocalDir;
pub use mapped::{Mapped, Verdict};
pub use stats::{Transfer, TransferStats};

/// Go's `io/fs.FileMode` bits, which are the wire's.
pub mod mode {
    pub const DIR: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const FIFO: u32 = 1 << 25;
    pub const SOCKET: u32 = 1 << 24;
    pub const SETUID: u32 = 1 << 23;
    pub const SETGID: u32 = 1 << 22;
    pub const CHAR_DEVICE: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    pub const IRREGULAR: u32 = 1 << 19;
    /// Any of these, and the entry has no content to ask for.
    pub const TYPE: u32 = DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;
    pub const PERMISSIONS: u32 = 0o777;
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Relative to the directory, clean, `/`-separated; any bytes but NUL.
    pub path: Vec<u8>,
    /// The bits of [`mode`].
    pub mode: u32,
    /// Of a file its bytes, of a link its target's, of a directory 0.
    pub size: u64,
    /// Unix time in nanoseconds.
    pub mtime_ns: i64,
    /// A symbolic link's target; of a regular entry, an earlier one that it is another name of.
    pub linkname: Vec<u8>,
    /// Owner and group, as the build will see them.
    pub uid: u32,
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Set where the content that a build would expect is not here.
    pub missing: Option<Missing>,
}

impl Entry {
    pub fn is_dir(&self) -> bool {
        self.mode & mode::DIR != 0
    }
    pub fn is_symlink(&self) -> bool {
        self.mode & mode::SYMLINK != 0
    }
    /// Whether it is another name of an entry before it.
    pub fn is_hard_link(&self) -> bool {
        self.is_regular() && !self.linkname.is_empty()
    }
    /// Whether the receiver may ask for content.
    pub fn is_regular(&self) -> bool {
        self.mode & mode::TYPE == 0
    }
}

/// Why content is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// A directory of another repository: never announced.
    Submodule,
    /// A small text that names a large file elsewhere: announced and sent as it is.
    LfsPointer,
    /// A directory that may not be listed: sending it fails.
    Unreadable,
}

/// An entry with missing content that the daemon's filters let through: a build that reads it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Concern {
    /// The name under which the daemon asked.
    pub dir: String,
    /// For people: bytes that cannot be shown are escaped.
    pub path: String,
    pub missing: Missing,
}

/// Why a directory could not be listed or a file not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("there is no {path}")]
    NotFound { path: String },
    #[error("{path} is not a regular file")]
    NotAFile { path: String },
    #[error("{path} has {size} bytes; {limit} are the most that can be read at once here")]
    TooLarge { path: String, size: u64, limit: u64 },
    #[error("more than {limit} entries")]
    TooManyEntries { limit: usize },
    #[error("{path} is nested deeper than {limit} directories")]
    TooDeep { path: String, limit: usize },
    #[error("reading {path}: {cause}")]
    Read { path: String, cause: String },
}

/// A directory that can be sent. Both methods block and are called from blocking threads only.
pub trait DirSource: Send + Sync + 'static {
    /// Every entry: parents before their children, siblings by raw name bytes.
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError>;
    /// The content of a regular entry of `entries`: exactly `entry.size` bytes, or the transfer fails.
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError>;
}

/// How long a call of any service waits before it gives the other side up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Something is ready and the receiver takes none of it.
    pub taking: Duration,
    /// It is the other side's turn, and it neither asks, nor sends, nor ends.
    pub asking: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { taking: Duration::from_secs(120), asking: Duration::from_secs(900) }
    }
}

/// The directories of a session, by the names under which the daemon asks for them (`context`, `dockerfile`, …).
pub struct Directories {
    dirs: BTreeMap<String, Arc<dyn DirSource>>,
    stats: Arc<TransferStats>,
    patience: Patience,
}

/// The session service over `dirs`; `stats` counts what it does.
///
/// Include and exclude patterns travel as headers, one each: the server that carries this service must accept header
/// lists of a megabyte, or a long `.dockerignore` breaks the build.
pub fn service(
    dirs: BTreeMap<String, Arc<dyn DirSource>>,
    stats: Arc<TransferStats>,
) -> FileSyncServer<Directories> {
    service_with(dirs, stats, Patience::default())
}

/// [`service`] with other waiting times.
pub fn service_with(
    dirs: BTreeMap<String, Arc<dyn DirSource>>,
    stats: Arc<TransferStats>,
    patience: Patience,
) -> FileSyncServer<Directories> {
    FileSyncServer::new(Directories { dirs, stats, patience })
}

#[tonic::async_trait]
impl FileSync for Directories {
    type DiffCopyStream = sender::Outgoing;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<sender::Outgoing>, Status> {
        let (metadata, _, inbound) = request.into_parts();
        let asked = request::Asked::parse(&metadata)?;
        let Some(source) = self.dirs.get(&asked.dir).cloned() else {
            let known: Vec<&str> = self.dirs.keys().map(String::as_str).collect();
            return Err(Status::not_found(format!(
                "this build has no directory {:?}; it has {}",
                asked.dir,
                known.join(", ")
            )));
        };
        let outgoing = sender::start(source, asked, inbound, &self.stats, self.patience);
        Ok(Response::new(outgoing))
    }
}

/// The order of entries: a directory, then what stands in it, then its next sibling by name bytes.
pub fn sending_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    // names hold no NUL, so it can stand for the slash and sort before every byte of a name
    let key = |b: &u8| if *b == b'/' { 0 } else { *b };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// The place of `path` in a list of entries.
pub fn find(entries: &[Entry], path: &[u8]) -> Option<usize> {
    entries.binary_search_by(|entry| sending_order(&entry.path, path)).ok()
}

/// `path` for people: as it is where it is text, else with escapes.
pub fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => path.escape_ascii().to_string(),
    }
}
