//! The ledger: which time each file of a context was given, and for which content.
//!
//! Invariants: an unchanged file keeps its time; a changed one gets a second later than the end of the build before, so
//! that make and its like see it as newer than anything that build made, and nanoseconds from its object id, so that
//! two contents never share a time even when clocks fail. Layers keep whole seconds: digests do not see the rest.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::buildkit::session::filesync::mode;

/// Format, and version of it. The nanoseconds are computed, so their rule is part of the version.
const MAGIC: &[u8] = b"lemnos ledger 1\n";
/// More is not read: a ledger of half a million files has about 40 MB.
const MAX_BYTES: usize = 128 << 20;
/// Contexts of one ref that are remembered; the least recently built ones are forgotten.
const MAX_CONTEXTS: usize = 16;
const CHECKSUM_BYTES: usize = 16;
const OID_BYTES: usize = 20;

/// The files of one context by path.
pub(super) type Files = HashMap<Vec<u8>, Known>;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub oid: git2::Oid,
    /// 0644, 0755, or 0777 with the bit of a symbolic link.
    pub mode: u32,
    /// Unix seconds since which it is what it is.
    pub second: i64,
    pub size: u64,
    /// Of a symbolic link.
    pub linkname: Vec<u8>,
    pub lfs_pointer: bool,
}

impl Known {
    pub(super) fn mtime_ns(&self) -> i64 {
        let mut first = [0; 8];
        first.iter_mut().zip(self.oid.as_bytes()).for_each(|(to, from)| *to = *from);
        let nanos = i64::try_from(u64::from_be_bytes(first) % 1_000_000_000).unwrap_or(0);
        self.second.saturating_mul(1_000_000_000).saturating_add(nanos)
    }
}

/// The time that one build gives to what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub second: i64,
}

/// The times given to the contexts of one app's branch. Kept between builds as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The latest second given to a file, or at which a build was seen to end.
    latest_s: i64,
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Context {
    used_s: i64,
    files: Files,
}

/// Bytes that are no ledger of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a ledger of this version, or damaged: {0}")]
pub struct CorruptLedger(&'static str);

impl Ledger {
    /// The stored ledger. One that is missing, damaged or of another version is taken as empty: the next build then sends
    /// all files once more, and is right.
    pub fn load(stored: Option<&[u8]>) -> Self {
        stored.map_or_else(Self::default, |bytes| {
            Self::from_bytes(bytes).unwrap_or_else(|problem| {
                tracing::warn!(%problem, "the context ledger is replaced by an empty one: all files are sent again");
                Self::default()
            })
        })
    }

    /// Notes that a build ended at `at_s`, Unix seconds: what changes from now on is later.
    pub fn finished(&mut self, at_s: i64) {
        self.latest_s = self.latest_s.max(at_s);
    }

    /// The time for what changes in a build that begins at `now_s`; later than all before, whatever the clock says.
    pub(super) fn begin(&self, now_s: i64) -> Times {
        Times { second: now_s.max(self.latest_s.saturating_add(1)) }
    }

    /// The files of a context as the last build saw them.
    pub(super) fn take(&self, context: &str) -> Files {
        self.contexts.get(context).map(|context| context.files.clone()).unwrap_or_default()
    }

    /// Replaces the files of a context.
    pub(super) fn put(&mut self, context: &str, files: Files, times: Times) {
        if files.values().any(|known| known.second == times.second) {
            self.latest_s = self.latest_s.max(times.second);
        }
        self.contexts.insert(context.to_owned(), Context { used_s: times.second, files });
        while self.contexts.len() > MAX_CONTEXTS {
            let oldest = self.contexts.iter().min_by_key(|(_, c)| c.used_s).map(|(name, _)| name.clone());
            oldest.map(|name| self.contexts.remove(&name));
        }
    }

    /// For the store: about 35 bytes and the end of its path for each file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_signed(&mut out, self.latest_s);
        put_number(&mut out, self.contexts.len() as u64);
        for (name, context) in &self.contexts {
            put_bytes(&mut out, name.as_bytes());
            put_signed(&mut out, context.used_s);
            put_number(&mut out, context.files.len() as u64);
            let mut files: Vec<_> = context.files.iter().collect();
            files.sort_unstable_by_key(|(path, _)| *path);
            let mut last: &[u8] = b"";
            for (path, known) in files {
                let shared = path.iter().zip(last).take_while(|(a, b)| a == b).count();
                put_number(&mut out, shared as u64);
                put_bytes(&mut out, path.get(shared..).unwrap_or_default());
                out.extend_from_slice(known.oid.as_bytes());
                let link = known.mode & mode::SYMLINK != 0;
                let executable = known.mode & 0o111 != 0;
                out.push(u8::from(executable) | u8::from(link) << 1 | u8::from(known.lfs_pointer) << 2);
                put_signed(&mut out, known.second);
                put_number(&mut out, known.size);
                if link {
                    put_bytes(&mut out, &known.linkname);
                }
                last = path;
            }
        }
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(checksum.get(..CHECKSUM_BYTES).unwrap_or_default());
        out
    }

    /// The inverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptLedger> {
        if bytes.len() > MAX_BYTES {
            return Err(CorruptLedger("too large"));
        }
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(CorruptLedger("too short"))?;
        let (body, checksum) = bytes.split_at_checked(split).ok_or(CorruptLedger("too short"))?;
        let rest = body.strip_prefix(MAGIC).ok_or(CorruptLedger("another format"))?;
        if Sha256::digest(body).get(..CHECKSUM_BYTES) != Some(checksum) {
            return Err(CorruptLedger("the checksum differs"));
        }
        let mut reader = Reader { rest };
        let mut ledger = Self { latest_s: reader.signed()?, contexts: BTreeMap::new() };
        for _ in 0..reader.number()? {
            let name = String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| CorruptLedger("a name"))?;
            let used_s = reader.signed()?;
            let files = reader.files()?;
            ledger.contexts.insert(name, Context { used_s, files });
        }
        if reader.rest.is_empty() { Ok(ledger) } else { Err(CorruptLedger("more than it says")) }
    }
}

/// Seven bits a byte, the low ones first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CorruptLedger> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CorruptLedger("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, CorruptLedger> {
        self.take(1)?.first().copied().ok_or(CorruptLedger("it ends early"))
    }

    fn number(&mut self) -> Result<u64, CorruptLedger> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(CorruptLedger("a number"))
    }

    fn signed(&mut self) -> Result<i64, CorruptLedger> {
        let bytes = self.take(8)?.try_into().map_err(|_| CorruptLedger("a number"))?;
        Ok(i64::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> Result<&'a [u8], CorruptLedger> {
        let len = self.number()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn files(&mut self) -> Result<Files, CorruptLedger> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        // every file takes this much at least, so that a wrong count cannot make us reserve more than was read
        let mut files = Files::with_capacity(count.min(self.rest.len() / (OID_BYTES + 12)));
        let mut path: Vec<u8> = Vec::new();
        for _ in 0..count {
            let shared = usize::try_from(self.number()?).unwrap_or(usize::MAX);
            if shared > path.len() {
                return Err(CorruptLedger("a path"));
            }
            path.truncate(shared);
            path.extend_from_slice(self.bytes()?);
            let oid = git2::Oid::from_bytes(self.take(OID_BYTES)?).map_err(|_| CorruptLedger("an id"))?;
            let flags = self.byte()?;
            let mode = match flags & 3 {
                0 => 0o644,
                1 => 0o755,
                3 => mode::SYMLINK | 0o777,
                _ => return Err(CorruptLedger("a mode")),
            };
            let second = self.signed()?;
            let size = self.number()?;
            let linkname = if mode & mode::SYMLINK != 0 { self.bytes()?.to_vec() } else { Vec::new() };
            let known = Known { oid, mode, second, size, linkname, lfs_pointer: flags & 4 != 0 };
            files.insert(path.clone(), known);
        }
        Ok(files)
    }
}
