//! An OCI image layout as one gzipped tar, written as it comes: sizes are known beforehand, contents need not be.

use std::collections::BTreeSet;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What tar counts in.
const BLOCK: usize = 512;

/// A tar under gzip.
pub(super) struct Archive<W: Write> {
    out: GzEncoder<W>,
    written: BTreeSet<String>,
    /// Bytes that the current file still lacks, and what fills its last block.
    open: Option<(u64, usize)>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out: GzEncoder::new(out, Compression::default()), written: BTreeSet::new(), open: None }
    }

    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.out.write_all(&header(name, 0o755, 0, b'5')?)
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        if self.begin(name, mode, content.len() as u64)? {
            self.more(content)?;
            self.end()?;
        }
        Ok(())
    }

    /// Begins a file of that size; says no where it is in the archive already.
    pub fn begin(&mut self, name: &str, mode: u32, size: u64) -> io::Result<bool> {
        if !self.written.insert(name.to_owned()) {
            return Ok(false);
        }
        self.out.write_all(&header(name, mode, size, b'0')?)?;
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.open = Some((size, (BLOCK - over) % BLOCK));
        Ok(true)
    }

    pub fn more(&mut self, piece: &[u8]) -> io::Result<()> {
        let left = self.open.as_mut().map(|(left, _)| left);
        match left.and_then(|left| Some((left.checked_sub(piece.len() as u64)?, left))) {
            Some((rest, left)) => *left = rest,
            None => return Err(io::Error::other("it is longer than it was said to be")),
        }
        self.out.write_all(piece)
    }

    pub fn end(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((0, padding)) => self.out.write_all(&vec![0; padding]),
            _ => Err(io::Error::other("it is shorter than it was said to be")),
        }
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

/// A ustar header. Names are short here: a digest's hexadecimal is the longest part.
fn header(name: &str, mode: u32, size: u64, kind: u8) -> io::Result<[u8; BLOCK]> {
    if name.len() > 100 || size >= 1 << 33 {
        return Err(io::Error::other(format!("{name} of {size} bytes does not fit into a tar")));
    }
    let mut block = [0_u8; BLOCK];
    put(&mut block, 0, name.as_bytes());
    put(&mut block, 100, format!("{mode:07o}").as_bytes());
    put(&mut block, 108, b"0000000");
    put(&mut block, 116, b"0000000");
    put(&mut block, 124, format!("{size:011o}").as_bytes());
    put(&mut block, 136, b"00000000000");
    // the sum counts its own field as spaces
    put(&mut block, 148, b"        ");
    put(&mut block, 156, &[kind]);
    put(&mut block, 257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_tar_is_read_back_as_it_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("blobs/").unwrap();
        for _ in 0..2 {
            archive.file("blobs/a", 0o444, &[7; 513]).unwrap();
        }
        archive.file("empty", 0o644, b"").unwrap();
        let packed = archive.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut seen = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            seen.push((name, header.mode().unwrap(), header.entry_type().is_dir(), content.len()));
        }
        let want = [("blobs/", 0o755, true, 0), ("blobs/a", 0o444, false, 513), ("empty", 0o644, false, 0)];
        assert_eq!(seen, want.map(|(name, mode, dir, size)| (name.to_owned(), mode, dir, size)));
    }

    #[test]
    fn a_file_of_another_length_than_said_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        archive.begin("a", 0o444, 3).unwrap();
        assert!(archive.more(b"four").is_err());
        archive.more(b"ab").unwrap();
        assert!(archive.end().is_err());
    }
}
