//! ko's layers: kodata, the binary, the debugger. Written in a stream, so that a big binary never lies in memory.
//!
//! A layer's uncompressed bytes, and so its diff ID, are ko's; its gzip stream is ours, the same for the same content.

use std::io::{Read, Write};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use super::KoError;
use super::capabilities::Capabilities;
use super::kodata::{Entry, KODATA_ROOT, Source};
use super::tar::{Records, Tar};
use super::time::Epoch;
use crate::model::Digest;

/// The directory of the binary.
pub const APP_DIRECTORY: &str = "/ko-app";
/// "no operating system named" in a gzip header (RFC 1952).
const GZIP_NO_SYSTEM: u8 = 255;

/// A layer that was written: what manifest and config say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the compressed bytes.
    pub digest: Digest,
    /// Compressed, bytes.
    pub size: u64,
    /// Of the uncompressed bytes.
    pub diff_id: Digest,
}

/// Writes the compressed layer to `out`. `level`: gzip's, 1 to 9. `tar` writes the uncompressed bytes: one of the functions
/// below.
pub fn compress<W: Write>(
    out: W,
    level: u32,
    tar: impl FnOnce(&mut dyn Write) -> Result<(), KoError>,
) -> Result<Layer, KoError> {
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(GZIP_NO_SYSTEM)
        .write(Counted::new(out), Compression::new(level.clamp(1, 9)));
    let mut plain = Counted::new(gzip);
    tar(&mut plain)?;
    let (gzip, diff_id, _) = plain.end();
    let (mut out, digest, size) = gzip.finish().map_err(KoError::Write)?.end();
    out.flush().map_err(KoError::Write)?;
    Ok(Layer { digest, size, diff_id })
}

/// The kodata layer, uncompressed. It is there also without any entries. `time`: `KO_DATA_DATE_EPOCH`.
pub fn kodata_tar(
    source: &dyn Source,
    entries: &[Entry],
    time: Option<Epoch>,
    out: &mut dyn Write,
) -> Result<(), KoError> {
    let mtime_s = time.map_or(0, Epoch::seconds);
    let mut tar = Tar::new(out);
    for directory in ["/var", "/var/run", KODATA_ROOT] {
        tar.directory(directory, mtime_s)?;
    }
    for Entry { name, file } in entries {
        match file {
            None => tar.directory(name, mtime_s)?,
            Some((path, size)) => {
                let mut content =
                    source.open(path).map_err(|cause| KoError::Read { name: path.clone(), cause })?;
                tar.file(name, *size, mtime_s, Records::new(), &mut content)?;
            }
        }
    }
    tar.finish().map(drop)
}

/// The layer of the binary, or of the debugger: `size` bytes of `content` as `/ko-app/<name>`. No time is ever told.
/// ko gives the debugger the binary's capabilities too.
pub fn binary_tar(
    name: &str,
    size: u64,
    capabilities: Option<&Capabilities>,
    content: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<(), KoError> {
    let mut records = Records::new();
    if let Some(capabilities) = capabilities {
        records.insert("SCHILY.xattr.security.capability".to_owned(), capabilities.xattr());
    }
    let mut tar = Tar::new(out);
    tar.directory(APP_DIRECTORY.trim_start_matches('/'), 0)?;
    tar.file(&format!("{APP_DIRECTORY}/{name}"), size, 0, records, content)?;
    tar.finish().map(drop)
}

/// The name of the binary in the image: the last part of the import path.
pub fn app_name(import_path: &str) -> &str {
    match import_path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | ".") => "ko-app",
        Some(name) => name,
    }
}

/// Counts and hashes what goes through it.
struct Counted<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W> Counted<W> {
    fn new(out: W) -> Self {
        Self { out, hash: Sha256::new(), size: 0 }
    }
    fn end(self) -> (W, Digest, u64) {
        let digest = format!("sha256:{}", hex::encode(self.hash.finalize()));
        (self.out, digest.parse().expect("a SHA-256 has 64 hexadecimal digits"), self.size)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_described_by_what_was_written() {
        let content = vec![3; 300_000];
        let write = |out: &mut dyn Write| binary_tar("app", 300_000, None, &mut &content[..], out);
        let mut plain = Vec::new();
        write(&mut plain).unwrap();
        let mut blob = Vec::new();
        let layer = compress(&mut blob, 6, write).unwrap();
        assert_eq!(
            layer,
            Layer { digest: Digest::of(&blob), size: blob.len() as u64, diff_id: Digest::of(&plain) }
        );
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        let mut again = Vec::new();
        assert_eq!(compress(&mut again, 6, write).unwrap(), layer);
        assert!(compress(&mut again, 6, |out| binary_tar("app", 9, None, &mut &content[..], out)).is_err());
    }

    #[test]
    fn the_binary_is_called_by_the_last_part_of_its_import_path() {
        for (path, name) in [
            ("example.com/Shop/cmd/Web", "Web"),
            ("example.com/shop/v2", "v2"),
            ("a/", "a"),
            (".", "ko-app"),
            ("/", "ko-app"),
        ] {
            assert_eq!(app_name(path), name);
        }
    }
}
