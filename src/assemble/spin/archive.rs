//! The files of a component as a tar archive: its headers as bytes, its contents to be streamed between them.
//!
//! Sorted, without directories, owned by nobody, from 1970: the archive depends on paths and contents alone. A runtime unpacks it
//! and looks for files by digest, so that nothing else counts. Must not hold a content.

use std::collections::BTreeMap;

use super::{Content, SpinAssembleError};

/// Zero bytes after the last entry.
pub const ARCHIVE_END_BYTES: usize = 1024;
const BLOCK_BYTES: usize = 512;
/// Names up to here stand in the header itself.
const NAME_BYTES: usize = 100;
/// Eleven octal digits.
const SIZE_LIMIT_BYTES: u64 = 1 << 33;

/// One file: the header, the content, and so many zero bytes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry<'a> {
    pub header: Vec<u8>,
    pub path: &'a str,
    pub content: &'a Content,
    pub padding_bytes: usize,
}

/// The entries of an archive; [`ARCHIVE_END_BYTES`] zero bytes come after the last.
pub fn archive_entries(
    files: &BTreeMap<String, Content>,
) -> Result<Vec<ArchiveEntry<'_>>, SpinAssembleError> {
    let mut entries = Vec::with_capacity(files.len());
    for (path, content) in files {
        let size_bytes = content.size_bytes;
        if size_bytes >= SIZE_LIMIT_BYTES {
            return Err(SpinAssembleError::FileTooLarge { path: path.clone(), size_bytes });
        }
        let (header, padding_bytes) = (headers(path, size_bytes), padding(size_bytes));
        entries.push(ArchiveEntry { header, path, content, padding_bytes });
    }
    Ok(entries)
}

/// What fills the last block.
fn padding(size_bytes: u64) -> usize {
    let over = usize::try_from(size_bytes % BLOCK_BYTES as u64).unwrap_or_default();
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

/// The header of a file; before it one that holds the path, where that is long.
fn headers(path: &str, size_bytes: u64) -> Vec<u8> {
    if path.len() <= NAME_BYTES {
        return header(path.as_bytes(), size_bytes, b'0');
    }
    let record = record("path", path);
    let mut bytes = header(b"pax", record.len() as u64, b'x');
    bytes.extend_from_slice(&record);
    bytes.resize(bytes.len() + padding(record.len() as u64), 0);
    bytes.extend(header(path.as_bytes().get(..NAME_BYTES).unwrap_or_default(), size_bytes, b'0'));
    bytes
}

/// `LENGTH key=value`, where the length counts itself.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

/// A ustar header with what is the same in all of them.
fn header(name: &[u8], size_bytes: u64, kind: u8) -> Vec<u8> {
    const CHECKSUM_AT: usize = 148;
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend_from_slice(name);
    bytes.resize(NAME_BYTES, 0);
    // mode, user, group
    bytes.extend_from_slice(b"0000644\x000000000\x000000000\x00");
    bytes.extend_from_slice(format!("{size_bytes:011o}\0{:011o}\0", 0).as_bytes());
    // the checksum counts as spaces in itself
    bytes.extend_from_slice(b"        ");
    bytes.push(kind);
    bytes.resize(257, 0);
    bytes.extend_from_slice(b"ustar\x0000");
    bytes.resize(BLOCK_BYTES, 0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes.splice(CHECKSUM_AT..CHECKSUM_AT + 8, format!("{sum:06o}\0 ").into_bytes());
    bytes
}
