//! PE (Windows): sections for what is where; the first one of writable data is where to look.

use super::{At, Fields, Found, Layout, Range};

/// Initialised data that is read and written; an alignment flag beside it means nothing in an image.
const DATA: u64 = 0xc000_0040;
const ALIGNMENT: u64 = 0x0060_0000;
const SECTION: usize = 40;
const SECTIONS_LIMIT: u64 = 96;

pub(super) fn layout(executable: &mut impl At) -> Found<Layout> {
    let start = executable.at(0x3c, 4)?;
    let Some(start) = (Fields { bytes: &start, big_endian: false }).u32(0) else { return Ok(None) };
    let header = executable.at(start, 24 + 112)?;
    let header = Fields { bytes: &header, big_endian: false };
    if header.bytes.get(..4) != Some(b"PE\0\0") {
        return Ok(None);
    }
    let (Some(count), Some(optional)) = (header.u16(6), header.u16(20)) else { return Ok(None) };
    let image_base = match header.u16(24) {
        Some(0x10b) => header.u32(24 + 28),
        Some(0x20b) => header.u64(24 + 24),
        _ => None,
    };
    let Some(image_base) = image_base else { return Ok(None) };
    let table = executable.at(start + 24 + optional, count.min(SECTIONS_LIMIT) * SECTION as u64)?;
    let mut layout = Layout::default();
    for section in table.chunks_exact(SECTION) {
        let section = Fields { bytes: section, big_endian: false };
        let [virtual_size, address, size, offset] =
            [8, 12, 16, 20].map(|place| section.u32(place).unwrap_or(0));
        let Some(mapped) = image_base.checked_add(address) else { continue };
        layout.ranges.push(Range { address: mapped, offset, size });
        let data = section.u32(36).is_some_and(|flags| flags & !ALIGNMENT == DATA);
        if data && address != 0 && size != 0 && layout.size == 0 {
            (layout.start, layout.size) = (mapped, virtual_size);
        }
    }
    Ok(Some(layout))
}
