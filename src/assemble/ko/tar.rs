//! The tar archives of ko's layers, byte for byte as Go's `archive/tar` writes them for ko.
//!
//! USTAR where it can say everything, else PAX records before it; mode 0555, owner 0, no names, no trailing slash on
//! directories. The same entries always give the same bytes: the layers' diff IDs hang on it. Must not read a clock or a
//! file: names, sizes, times and content are handed in.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::KoError;

const BLOCK: usize = 512;
/// USTAR's fields: a name, what may stand before it, and the greatest number in eleven octal digits.
const NAME: usize = 100;
const PREFIX: usize = 155;
const OCTAL_LIMIT: u64 = 0o777_7777_7777;
/// Files and directories alike, whatever they were in the tree: images then do not depend on anybody's umask.
const MODE: u64 = 0o555;
const COPY_BUFFER: usize = 64 * 1024;

const FILE: u8 = b'0';
const DIRECTORY: u8 = b'5';
const RECORDS: u8 = b'x';

/// PAX records of one entry, by key.
pub(super) type Records = BTreeMap<String, Vec<u8>>;

/// Writes one archive to `out`; `finish` must be called, or it has no end.
pub(super) struct Tar<W> {
    out: W,
}

impl<W: Write> Tar<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// `mtime_s`: seconds since 1970.
    pub(super) fn directory(&mut self, name: &str, mtime_s: i64) -> Result<(), KoError> {
        self.header(name, DIRECTORY, 0, mtime_s, Records::new())
    }

    /// A regular file of exactly `size` bytes; content of another length is an error.
    pub(super) fn file(
        &mut self,
        name: &str,
        size: u64,
        mtime_s: i64,
        records: Records,
        content: &mut dyn Read,
    ) -> Result<(), KoError> {
        self.header(name, FILE, size, mtime_s, records)?;
        self.content(name, size, content)?;
        self.pad(size)
    }

    /// The two empty blocks that end an archive.
    pub(super) fn finish(mut self) -> Result<W, KoError> {
        self.write(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), KoError> {
        self.out.write_all(bytes).map_err(KoError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), KoError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.write([0; BLOCK].get(over..).unwrap_or_default()) }
    }

    fn content(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), KoError> {
        let length = |found: u64| KoError::Length { name: name.to_owned(), size, found };
        let mut buffer = vec![0; COPY_BUFFER];
        let mut left = size;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(KoError::Read { name: name.to_owned(), cause }),
            };
            if count == 0 {
                return if left == 0 { Ok(()) } else { Err(length(size - left)) };
            }
            left = left.checked_sub(count as u64).ok_or_else(|| length(size - left + count as u64))?;
            self.write(buffer.get(..count).unwrap_or_default())?;
        }
    }

    fn header(
        &mut self,
        name: &str,
        kind: u8,
        size: u64,
        mtime_s: i64,
        extra: Records,
    ) -> Result<(), KoError> {
        if name.contains('\0') {
            return Err(KoError::Name { name: name.to_owned() });
        }
        let mut records = Records::new();
        let mut plain = true;
        if !name.is_ascii() || name.len() > NAME {
            // USTAR may still take it in two parts; where it may not, or where there are records anyway, this one is there
            plain = split(name).is_some();
            records.insert("path".to_owned(), name.as_bytes().to_vec());
        }
        if size > OCTAL_LIMIT {
            plain = false;
            records.insert("size".to_owned(), size.to_string().into_bytes());
        }
        let mtime = u64::try_from(mtime_s).ok().filter(|&time| time <= OCTAL_LIMIT);
        if mtime.is_none() {
            plain = false;
            records.insert("mtime".to_owned(), mtime_s.to_string().into_bytes());
        }
        plain &= extra.is_empty();
        records.extend(extra);
        // a number that does not fit stands in the records, and the field says nothing
        let (size_field, mtime_field) = (if size > OCTAL_LIMIT { 0 } else { size }, mtime.unwrap_or(0));
        if plain {
            let (prefix, name) = split(name).unwrap_or(("", name));
            let mut block = Block::entry(kind, name, size_field, mtime_field);
            block.text(Field::Prefix, prefix);
            return self.write(&block.sealed());
        }
        self.records(name, &records)?;
        self.write(&Block::entry(kind, &ascii(name), size_field, mtime_field).sealed())
    }

    fn records(&mut self, name: &str, records: &Records) -> Result<(), KoError> {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let (dir, file) = name.rsplit_once('/').map_or(("", name), |(dir, file)| (dir, file));
        let place = match (dir, name.starts_with('/')) {
            ("", true) => format!("/PaxHeaders.0/{file}"),
            ("", false) => format!("PaxHeaders.0/{file}"),
            (dir, _) => format!("{dir}/PaxHeaders.0/{file}"),
        };
        let place = ascii(&place);
        let place = place.get(..NAME).unwrap_or(&place).trim_end_matches('/');
        let mut block = Block::empty(RECORDS);
        block.text(Field::Name, place);
        for (field, number) in [(Field::Mode, 0), (Field::Uid, 0), (Field::Gid, 0), (Field::Mtime, 0)] {
            block.octal(field, number);
        }
        block.octal(Field::Size, data.len() as u64);
        self.write(&block.sealed())?;
        self.write(&data)?;
        self.pad(data.len() as u64)
    }
}

/// `NUMBER KEY=VALUE\n`, where the number counts the record with its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut size = rest + rest.to_string().len();
    if rest + size.to_string().len() != size {
        size = rest + size.to_string().len();
    }
    [format!("{size} {key}=").as_bytes(), value, b"\n"].concat()
}

/// The parts of a name that USTAR takes in two fields; none where it takes it in one, or not at all.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let searched = if name.len() > PREFIX + 1 {
        PREFIX + 1
    } else if name.ends_with('/') {
        name.len() - 1
    } else {
        name.len()
    };
    let at = name.get(..searched)?.rfind('/')?;
    let (prefix, suffix) = (name.get(..at)?, name.get(at + 1..)?);
    (!prefix.is_empty() && prefix.len() <= PREFIX && !suffix.is_empty() && suffix.len() <= NAME)
        .then_some((prefix, suffix))
}

/// What is left of `text` for readers that know no PAX records.
fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

#[derive(Clone, Copy)]
enum Field {
    Name,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Major,
    Minor,
    Prefix,
}

impl Field {
    /// Offset and length in the header block (POSIX ustar).
    fn place(self) -> std::ops::Range<usize> {
        match self {
            Self::Name => 0..NAME,
            Self::Mode => 100..108,
            Self::Uid => 108..116,
            Self::Gid => 116..124,
            Self::Size => 124..136,
            Self::Mtime => 136..148,
            Self::Major => 329..337,
            Self::Minor => 337..345,
            Self::Prefix => 345..345 + PREFIX,
        }
    }
}

const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: std::ops::Range<usize> = 156..157;
const MAGIC: std::ops::Range<usize> = 257..265;

struct Block([u8; BLOCK]);

impl Block {
    fn empty(kind: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.put(KIND, &[kind]);
        block
    }

    fn entry(kind: u8, name: &str, size: u64, mtime: u64) -> Self {
        let mut block = Self::empty(kind);
        block.text(Field::Name, name);
        let numbers = [
            (Field::Mode, MODE),
            (Field::Uid, 0),
            (Field::Gid, 0),
            (Field::Size, size),
            (Field::Mtime, mtime),
            (Field::Major, 0),
            (Field::Minor, 0),
        ];
        for (field, number) in numbers {
            block.octal(field, number);
        }
        block
    }

    fn put(&mut self, place: std::ops::Range<usize>, bytes: &[u8]) {
        for (to, from) in self.0.get_mut(place).unwrap_or_default().iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// As much of `text` as fits. A cut name never ends in a slash: some readers would take the file for a directory.
    fn text(&mut self, field: Field, text: &str) {
        let bytes = text.as_bytes();
        let room = field.place().len();
        let mut kept = bytes.get(..room).unwrap_or(bytes);
        if bytes.len() > room && kept.ends_with(b"/") {
            // Go looks at one byte less than the field has, and ends the name there
            kept = bytes.get(..room - 1).unwrap_or(kept);
            while let Some(shorter) = kept.strip_suffix(b"/") {
                kept = shorter;
            }
            let end = field.place().start + kept.len();
            self.put(field.place(), bytes);
            self.put(end..end + 1, &[0]);
            return;
        }
        self.put(field.place(), kept);
    }

    fn octal(&mut self, field: Field, number: u64) {
        let digits = field.place().len() - 1;
        self.put(field.place(), format!("{number:0digits$o}\0").as_bytes());
    }

    /// The finished block: magic and checksum, which is taken over the block with blanks in its own place.
    fn sealed(mut self) -> [u8; BLOCK] {
        self.put(MAGIC, b"ustar\x0000");
        self.put(CHECKSUM, &[b' '; 8]);
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Vec<(String, u64, u32, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let header = entry.header();
                let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
                let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                (name, entry.size(), mode, mtime, content)
            })
            .collect()
    }

    fn one(name: &str, content: &[u8], mtime_s: i64, records: Records) -> Vec<u8> {
        let mut tar = Tar::new(Vec::new());
        tar.file(name, content.len() as u64, mtime_s, records, &mut &content[..]).unwrap();
        tar.finish().unwrap()
    }

    #[test]
    fn another_reader_sees_what_was_written() {
        let long = format!("/var/run/ko/{}/{}", "d".repeat(140), "f".repeat(90));
        let longer = format!("/var/run/ko/{}", "x".repeat(300));
        for name in ["/ko-app/app", "/ko-app/grün", &long, &longer] {
            for content in [&b""[..], b"hello", &[7; 512], &[9; 1025]] {
                let bytes = one(name, content, 1_700_000_000, Records::new());
                assert_eq!(bytes.len() % 512, 0);
                let (found, size, mode, mtime, read) = entries(&bytes).remove(0);
                assert_eq!((found.as_str(), size, mode), (name, content.len() as u64, 0o555));
                assert_eq!((mtime, read.as_slice()), (1_700_000_000, content));
            }
        }
    }

    #[test]
    fn only_what_ustar_cannot_say_costs_records() {
        let blocks = |bytes: Vec<u8>| bytes.len() / BLOCK;
        assert_eq!(blocks(one("/a", b"", 0, Records::new())), 3);
        let split = format!("/{}/{}", "d".repeat(120), "f".repeat(90));
        assert_eq!(blocks(one(&split, b"", 0, Records::new())), 3);
        for (name, mtime_s) in [("/ä", 0), (&*"/".to_owned(), -1), (&*format!("/{}", "y".repeat(120)), 0)] {
            assert_eq!(blocks(one(name, b"", mtime_s, Records::new())), 5, "{name}");
        }
    }

    #[test]
    fn content_of_another_length_is_refused() {
        for content in [&b"12"[..], b"1234"] {
            let error = Tar::new(Vec::new())
                .file("/a", 3, 0, Records::new(), &mut &content[..])
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("/a is not as long as was said"), "{error}");
        }
        assert!(Tar::new(Vec::new()).directory("a\0b", 0).is_err());
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        assert_eq!(record("k", b"v"), b"6 k=v\n");
        for length in 0..1200 {
            let made = record("path", &vec![b'x'; length]);
            let text = String::from_utf8(made.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), made.len(), "{length}");
        }
    }
}
