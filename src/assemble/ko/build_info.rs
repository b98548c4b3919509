//! What Go wrote into a program about itself: toolchain, main package, modules, settings (`go version -m`).
//!
//! Go from 1.18 on puts it inline behind a magic; older programs, with pointers there, are refused by name. The program is
//! read where it must be and never as a whole; whatever it holds, reading ends with a result or an error.

use std::io::{Read, Seek, SeekFrom};

use super::KoError;

mod elf;
mod mach_o;
mod pe;
mod quoted;

use quoted::unquoted;

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const ALIGN: u64 = 16;
const HEADER: u64 = 32;
/// Of the flags after the magic: the strings follow the header.
const INLINE: u8 = 2;
/// What frames the module text, on both sides.
const FRAME: usize = 16;

const CHUNK: u64 = 1 << 20;
/// A data section without the magic in this much is no Go program's.
const SEARCH_LIMIT: u64 = 1 << 30;
/// The text of a program with thousands of modules has some hundred kilobytes.
const TEXT_LIMIT: u64 = 16 << 20;

/// A module in a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    pub path: String,
    pub version: String,
    /// `h1:…`; empty for the main module and for replaced ones.
    pub sum: String,
    pub replace: Option<Box<Module>>,
}

/// A program's own account of its build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildInfo {
    /// `go1.26.3`
    pub go_version: String,
    /// The main package.
    pub path: String,
    pub main: Module,
    /// In Go's order, by path.
    pub deps: Vec<Module>,
    /// `-trimpath`, `vcs.revision` and others, in Go's order.
    pub settings: Vec<(String, String)>,
}

/// Where an executable's data lies: file ranges by address, and which addresses may hold the magic.
#[derive(Debug, Default)]
struct Layout {
    ranges: Vec<Range>,
    start: u64,
    size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    address: u64,
    offset: u64,
    size: u64,
}

/// Bytes of the executable at a place; fewer where it ends.
trait At {
    fn at(&mut self, offset: u64, length: u64) -> std::io::Result<Vec<u8>>;
}

impl<R: Read + Seek> At for R {
    fn at(&mut self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        self.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        self.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Why a program told nothing; `None`: it could be read, and is none of Go's.
type Found<T> = std::io::Result<Option<T>>;

impl BuildInfo {
    /// What the executable (ELF, PE or Mach-O) says of itself.
    pub fn read(executable: &mut (impl Read + Seek)) -> Result<Self, KoError> {
        let failed = |cause| KoError::Read { name: "the program".to_owned(), cause };
        let raw = raw(executable).map_err(failed)?;
        let Some((go_version, text)) = raw else {
            return Err(KoError::BuildInfo {
                problem: "it is no Go program that tells of its build".to_owned(),
            });
        };
        Ok(Self { go_version, ..Self::parse(&text)? })
    }

    /// The text form, as `go version -m` prints it without its first line.
    pub fn parse(text: &str) -> Result<Self, KoError> {
        let mut info = Self::default();
        let mut replaceable = Replaceable::Nothing;
        for (number, line) in text.lines().enumerate() {
            let refuse =
                |problem: &str| KoError::BuildInfo { problem: format!("line {}: {problem}", number + 1) };
            let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
            match word {
                "path" => rest.clone_into(&mut info.path),
                "mod" => {
                    info.main = module(rest).ok_or_else(|| refuse("a module has a path and a version"))?;
                    replaceable = Replaceable::Main;
                }
                "dep" => {
                    info.deps.push(module(rest).ok_or_else(|| refuse("a module has a path and a version"))?);
                    replaceable = Replaceable::LastDep;
                }
                "=>" => {
                    let replaced = match std::mem::replace(&mut replaceable, Replaceable::Nothing) {
                        Replaceable::Main => Some(&mut info.main),
                        Replaceable::LastDep => info.deps.last_mut(),
                        Replaceable::Nothing => None,
                    };
                    let replaced = replaced.ok_or_else(|| refuse("a replacement of no module"))?;
                    let by = module(rest).ok_or_else(|| refuse("a module has a path and a version"))?;
                    replaced.replace = Some(Box::new(by));
                }
                "build" => info.settings.push(setting(rest).ok_or_else(|| refuse("a setting is KEY=VALUE"))?),
                _ => {}
            }
        }
        Ok(info)
    }
}

enum Replaceable {
    Nothing,
    Main,
    LastDep,
}

fn module(columns: &str) -> Option<Module> {
    let mut columns = columns.split('\t').map(str::to_owned);
    let (path, version, sum) = (columns.next()?, columns.next()?, columns.next().unwrap_or_default());
    columns.next().is_none().then_some(Module { path, version, sum, replace: None })
}

fn setting(text: &str) -> Option<(String, String)> {
    let (key, value) = match quoted::prefix(text) {
        Some((key, rest)) => (unquoted(key)?, rest.strip_prefix('=')?),
        None => {
            let (key, value) = text.split_once('=')?;
            (key.to_owned(), value)
        }
    };
    let value = if value.starts_with(['"', '`']) { unquoted(value)? } else { value.to_owned() };
    (!key.is_empty()).then_some((key, value))
}

/// Go's version and the module text without its frame.
fn raw(executable: &mut impl At) -> Found<(String, String)> {
    let Some(layout) = layout(executable)? else { return Ok(None) };
    let Some(at) = layout.magic(executable)? else { return Ok(None) };
    let header = layout.read(executable, at, HEADER)?;
    if header.len() as u64 != HEADER || header.get(15).is_none_or(|flags| flags & INLINE == 0) {
        return Ok(None);
    }
    let Some((version, next)) = layout.string(executable, at + HEADER)? else { return Ok(None) };
    let Some((text, _)) = layout.string(executable, next)? else { return Ok(None) };
    if version.is_empty() {
        return Ok(None);
    }
    let framed = text.len() > 2 * FRAME && text.get(text.len() - FRAME - 1) == Some(&b'\n');
    let text = if framed { text.get(FRAME..text.len() - FRAME).unwrap_or_default() } else { &[] };
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some((utf8(&version), utf8(text))))
}

fn layout(executable: &mut impl At) -> Found<Layout> {
    let ident = executable.at(0, 16)?;
    match ident.as_slice() {
        [0x7f, b'E', b'L', b'F', ..] => elf::layout(executable, &ident),
        [b'M', b'Z', ..] => pe::layout(executable),
        [0xfe, 0xed, 0xfa, ..] | [_, 0xfa, 0xed, 0xfe, ..] => mach_o::layout(executable, 0),
        [0xca, 0xfe, 0xba, 0xbe | 0xbf, ..] => mach_o::fat(executable),
        _ => Ok(None),
    }
}

impl Layout {
    /// Up to `length` bytes from `address` on, within the range that holds it.
    fn read(&self, executable: &mut impl At, address: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let inside = |range: &&Range| address >= range.address && address - range.address < range.size;
        let Some(range) = self.ranges.iter().find(inside) else { return Ok(Vec::new()) };
        let into = address - range.address;
        match range.offset.checked_add(into) {
            Some(offset) => executable.at(offset, length.min(range.size - into)),
            None => Ok(Vec::new()),
        }
    }

    /// The address of the magic, which stands at a multiple of 16.
    fn magic(&self, executable: &mut impl At) -> Found<u64> {
        let size = self.size.min(SEARCH_LIMIT);
        let Some(end) = self.start.checked_add(size) else { return Ok(None) };
        let Some(mut at) = self.start.checked_next_multiple_of(ALIGN) else { return Ok(None) };
        while at < end {
            let chunk = self.read(executable, at, CHUNK.min(end - at))?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let found = chunk.chunks(16).position(|place| place.starts_with(MAGIC));
            if let Some(found) = found {
                return Ok(Some(at + found as u64 * ALIGN));
            }
            at += CHUNK;
        }
        Ok(None)
    }

    /// A string with its length before it, and the address after it.
    fn string(&self, executable: &mut impl At, address: u64) -> Found<(Vec<u8>, u64)> {
        let Some((length, digits)) = varint(&self.read(executable, address, 10)?) else { return Ok(None) };
        if length > TEXT_LIMIT {
            return Ok(None);
        }
        let bytes = self.read(executable, address + digits, length)?;
        Ok((bytes.len() as u64 == length).then_some((bytes, address + digits + length)))
    }
}

/// Seven bits a byte, the lowest first; and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut value: u64 = 0;
    for (place, &byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * place).ok()?)?;
        value |= bits;
        if byte & 0x80 == 0 {
            return Some((value, place as u64 + 1));
        }
    }
    None
}

/// Numbers in a header, by offset.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn number(&self, offset: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }
    fn u16(&self, offset: usize) -> Option<u64> {
        self.number(offset, 2)
    }
    fn u32(&self, offset: usize) -> Option<u64> {
        self.number(offset, 4)
    }
    fn u64(&self, offset: usize) -> Option<u64> {
        self.number(offset, 8)
    }
}

#[cfg(test)]
mod tests;
