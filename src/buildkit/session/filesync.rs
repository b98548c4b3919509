//! Files for the daemon: what it asks for, it gets from a `DirSource`.

use std::io::Read;
use std::sync::Arc;

/// One entry of a tree that is served to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the root, `/` between the names, neither `.` nor `..`.
    pub path: Vec<u8>,
    /// The bits of Go's io/fs.FileMode.
    pub mode: u32,
    pub size: u64,
    /// Nanoseconds since 1970. The daemon compares it, never the content.
    pub mtime_ns: i64,
    /// Target of a symbolic link, else empty.
    pub linkname: String,
}

/// Why a source could not give what it promised.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// A tree of files. Methods may block: they are called off the runtime's threads.
pub trait DirSource: Send + Sync + 'static {
    /// All entries in any order, directories included.
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError>;
    /// The content of a regular file.
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError>;
}
