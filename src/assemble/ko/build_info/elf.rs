//! ELF: program headers for what is where, the section `.go.buildinfo` (or the first writable segment) for where to look.

use super::{At, Fields, Found, Layout, Range};

const PT_LOAD: u64 = 1;
const WRITABLE: u64 = 2;
const EXECUTABLE: u64 = 1;
/// Tables of headers are read whole, up to here.
const TABLE_LIMIT: u64 = 4 << 20;
const NAMES_LIMIT: u64 = 1 << 20;

/// Where the fields stand, by class. (System V ABI, chapters 4 and 5.)
struct Places {
    word: usize,
    program_table: usize,
    section_table: usize,
    /// Entry sizes and counts: `e_phentsize`, `e_phnum`, `e_shentsize`, `e_shnum`, `e_shstrndx`.
    counts: usize,
    flags: usize,
    /// Of a program header: offset, address, size in the file, size in memory.
    program: [usize; 4],
    /// Of a section header: address, offset, size.
    section: [usize; 3],
}

const CLASS_32: Places = Places {
    word: 4,
    program_table: 28,
    section_table: 32,
    counts: 42,
    flags: 24,
    program: [4, 8, 16, 20],
    section: [12, 16, 20],
};
const CLASS_64: Places = Places {
    word: 8,
    program_table: 32,
    section_table: 40,
    counts: 54,
    flags: 4,
    program: [8, 16, 32, 40],
    section: [16, 24, 32],
};

pub(super) fn layout(executable: &mut impl At, ident: &[u8]) -> Found<Layout> {
    let (places, big_endian) = match ident {
        [_, _, _, _, 1, order @ (1 | 2), ..] => (CLASS_32, *order == 2),
        [_, _, _, _, 2, order @ (1 | 2), ..] => (CLASS_64, *order == 2),
        _ => return Ok(None),
    };
    let header = executable.at(0, 64)?;
    let header = Fields { bytes: &header, big_endian };
    let (Some(programs), Some(sections)) = (
        table(header, &places, places.program_table, places.counts),
        table(header, &places, places.section_table, places.counts + 4),
    ) else {
        return Ok(None);
    };
    let bytes = executable.at(programs.0, programs.1 * programs.2)?;
    let mut layout = Layout::default();
    for entry in bytes.chunks_exact(usize::try_from(programs.1).unwrap_or(0).max(1)) {
        let entry = Fields { bytes: entry, big_endian };
        let [offset, address, file_size, memory_size] =
            places.program.map(|place| entry.number(place, places.word).unwrap_or(0));
        layout.ranges.push(Range { address, offset, size: file_size });
        let writable = entry.u32(places.flags).is_some_and(|f| f & (WRITABLE | EXECUTABLE) == WRITABLE);
        if entry.u32(0) == Some(PT_LOAD) && writable && layout.size == 0 {
            (layout.start, layout.size) = (address, memory_size);
        }
    }
    let names = header.u16(places.counts + 8).unwrap_or(0);
    if let Some((address, size)) = named(executable, &places, big_endian, sections, names)? {
        (layout.start, layout.size) = (address, size);
    }
    Ok(Some(layout))
}

/// Offset, entry size and count of a table; none where they cannot be true.
fn table(header: Fields<'_>, places: &Places, offset: usize, counts: usize) -> Option<(u64, u64, u64)> {
    let (offset, size, count) =
        (header.number(offset, places.word)?, header.u16(counts)?, header.u16(counts + 2)?);
    (size * count <= TABLE_LIMIT).then_some((offset, size, count))
}

/// Address and size of `.go.buildinfo`.
fn named(
    executable: &mut impl At,
    places: &Places,
    big_endian: bool,
    (offset, size, count): (u64, u64, u64),
    names: u64,
) -> Found<(u64, u64)> {
    let bytes = executable.at(offset, size * count)?;
    let sections: Vec<Fields<'_>> = bytes
        .chunks_exact(usize::try_from(size).unwrap_or(0).max(1))
        .map(|bytes| Fields { bytes, big_endian })
        .collect();
    let place = |section: &Fields<'_>| {
        let [address, offset, size] = places.section.map(|place| section.number(place, places.word));
        Some((address?, offset?, size?))
    };
    let Some((_, offset, size)) = usize::try_from(names).ok().and_then(|at| sections.get(at)).and_then(place)
    else {
        return Ok(None);
    };
    let names = executable.at(offset, size.min(NAMES_LIMIT))?;
    let wanted = sections.iter().find(|section| {
        let at = section.u32(0).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| names.get(at..)).is_some_and(|name| name.starts_with(b".go.buildinfo\0"))
    });
    Ok(wanted.and_then(place).map(|(address, _, size)| (address, size)))
}
