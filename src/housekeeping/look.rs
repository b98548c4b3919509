//! What a repository's object store looks like from outside: counts and times, no object is read.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Magic, version and hash id come before the times in a `.mtimes` file, two checksums after them (gitformat-pack(5)).
const MTIMES_HEADER_BYTES: usize = 12;
const MTIMES_TRAILER_BYTES: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    /// Counting stops at the bound that was given.
    pub loose: usize,
    /// Packs but cruft packs.
    pub packs: usize,
    /// The oldest time of an unreachable object that is in a cruft pack.
    pub oldest_cruft: Option<SystemTime>,
}

pub(super) fn look(objects: &Path, most_loose: usize) -> std::io::Result<Look> {
    let mut seen = Look::default();
    for entry in fs::read_dir(objects)? {
        let entry = entry?;
        let name = entry.file_name();
        let fan_out =
            name.len() == 2 && name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_hexdigit()));
        if fan_out && seen.loose < most_loose {
            seen.loose += fs::read_dir(entry.path())?.take(most_loose - seen.loose).count();
        }
    }
    let pack = objects.join("pack");
    let mut cruft = 0;
    for entry in fs::read_dir(&pack)? {
        let path = entry?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("pack") => seen.packs += 1,
            Some("mtimes") => {
                cruft += 1;
                // one that vanishes or is damaged says nothing
                let oldest = fs::read(&path).ok().and_then(|bytes| oldest(&bytes));
                seen.oldest_cruft = [seen.oldest_cruft, oldest].into_iter().flatten().min();
            }
            _ => {}
        }
    }
    seen.packs = seen.packs.saturating_sub(cruft);
    Ok(seen)
}

fn oldest(mtimes: &[u8]) -> Option<SystemTime> {
    let end = mtimes.len().checked_sub(MTIMES_TRAILER_BYTES)?;
    let times = mtimes.get(MTIMES_HEADER_BYTES..end)?;
    let seconds = times.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).min()?;
    Some(UNIX_EPOCH + Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_packs_are_counted_and_cruft_is_dated() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["ab", "cd", "pack", "info"] {
            fs::create_dir(dir.path().join(path)).unwrap();
        }
        for path in ["ab/1", "ab/2", "cd/3", "info/packs", "pack/a.pack", "pack/a.idx", "pack/b.pack"] {
            fs::write(dir.path().join(path), "").unwrap();
        }
        let mut mtimes = b"MTME\0\0\0\x01\0\0\0\x01".to_vec();
        mtimes.extend([0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 8]);
        mtimes.extend([0; 40]);
        fs::write(dir.path().join("pack/b.mtimes"), mtimes).unwrap();
        let at = |s| Some(UNIX_EPOCH + Duration::from_secs(s));
        let seen = look(dir.path(), 100).unwrap();
        assert_eq!(seen, Look { loose: 3, packs: 1, oldest_cruft: at(7) });
        assert_eq!(look(dir.path(), 2).unwrap().loose, 2);
        fs::write(dir.path().join("pack/b.mtimes"), "short").unwrap();
        assert_eq!(look(dir.path(), 0).unwrap().oldest_cruft, None);
    }
}
