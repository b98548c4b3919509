//! Mach-O (macOS): segments for what is where, the section `__go_buildinfo` (or the first writable segment) for where to look.

use super::{At, Fields, Found, Layout, Range};

const SEGMENT_32: u64 = 0x1;
const SEGMENT_64: u64 = 0x19;
const READ_WRITE: u64 = 3;
const COMMANDS_LIMIT: u64 = 4 << 20;

/// The first architecture of several in one file.
pub(super) fn fat(executable: &mut impl At) -> Found<Layout> {
    let header = executable.at(0, 48)?;
    let fields = Fields { bytes: &header, big_endian: true };
    let wide = header.get(3) == Some(&0xbf);
    let start = if wide { fields.u64(16) } else { fields.u32(16) };
    match start {
        Some(start) if start > 0 => layout(executable, start),
        _ => Ok(None),
    }
}

/// Offsets in the file count from `start`.
pub(super) fn layout(executable: &mut impl At, start: u64) -> Found<Layout> {
    let header = executable.at(start, 32)?;
    let (big_endian, wide) = match header.as_slice() {
        [0xfe, 0xed, 0xfa, 0xce, ..] => (true, false),
        [0xfe, 0xed, 0xfa, 0xcf, ..] => (true, true),
        [0xce, 0xfa, 0xed, 0xfe, ..] => (false, false),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => (false, true),
        _ => return Ok(None),
    };
    let Some(size) = (Fields { bytes: &header, big_endian }).u32(20) else { return Ok(None) };
    let Some(first) = start.checked_add(if wide { 32 } else { 28 }) else { return Ok(None) };
    let commands = executable.at(first, size.min(COMMANDS_LIMIT))?;
    let mut found = Parts { start, wide, big_endian, layout: Layout::default(), named: false };
    let mut rest = commands.as_slice();
    while let Some(length) = (Fields { bytes: rest, big_endian }).u32(4) {
        let length = usize::try_from(length).unwrap_or(0);
        let Some((command, after)) = rest.split_at_checked(length).filter(|_| length >= 8) else { break };
        found.command(command);
        rest = after;
    }
    Ok(Some(found.layout))
}

struct Parts {
    start: u64,
    wide: bool,
    big_endian: bool,
    layout: Layout,
    named: bool,
}

impl Parts {
    fn command(&mut self, bytes: &[u8]) {
        let fields = Fields { bytes, big_endian: self.big_endian };
        let wanted = if self.wide { SEGMENT_64 } else { SEGMENT_32 };
        if fields.u32(0) != Some(wanted) {
            return;
        }
        let word = if self.wide { 8 } else { 4 };
        let number = |place: usize| fields.number(place, word).unwrap_or(0);
        let [address, memory_size, offset, size] = [0, 1, 2, 3].map(|at| number(24 + at * word));
        // maximum and initial protection
        let after = 24 + 4 * word;
        let writable = fields.u32(after) == Some(READ_WRITE) && fields.u32(after + 4) == Some(READ_WRITE);
        if !bytes.get(8..).is_some_and(|name| name.starts_with(b"__PAGEZERO\0")) {
            let offset = self.start.saturating_add(offset);
            self.layout.ranges.push(Range { address, offset, size });
        }
        if writable && !self.named && address != 0 && size != 0 && self.layout.size == 0 {
            (self.layout.start, self.layout.size) = (address, memory_size);
        }
        let length = if self.wide { 80 } else { 68 };
        for section in bytes.get(after + 16..).unwrap_or_default().chunks_exact(length) {
            let fields = Fields { bytes: section, big_endian: self.big_endian };
            if section.starts_with(b"__go_buildinfo\0") && !self.named {
                self.named = true;
                let [address, size] = [32, 32 + word].map(|place| fields.number(place, word).unwrap_or(0));
                (self.layout.start, self.layout.size) = (address, size);
            }
        }
    }
}
