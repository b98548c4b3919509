//! A directory whose entries are changed on the way out: owner, mode, time, whatever is announced.
//!
//! Invariants: paths stay as they are, and so does the content; what is left out takes everything in it along; the map is
//! asked once for each entry, so that all transfers of a build see the same.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use super::filter::{is_below, subtree_len};
use super::{DirSource, Entry, SourceError, find};

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Neither it nor, of a directory, what stands in it.
    LeaveOut,
    /// As `LeaveOut`; of what is no directory, the rest of its directory too.
    LeaveOutRest,
}

/// `source`, seen through a map.
pub struct Mapped<F> {
    source: Arc<dyn DirSource>,
    map: F,
    listing: OnceLock<Result<Arc<[Entry]>, SourceError>>,
}

impl<F> Mapped<F>
where
    F: Fn(&mut Entry) -> Verdict + Send + Sync + 'static,
{
    /// The map may change anything of an entry but its path; whether it is a regular file should stay as it is.
    pub fn new(source: Arc<dyn DirSource>, map: F) -> Self {
        Self { source, map, listing: OnceLock::new() }
    }

    fn list(&self) -> Result<Arc<[Entry]>, SourceError> {
        let all = self.source.entries()?;
        let mut mapped = Vec::with_capacity(all.len());
        let mut at = 0;
        while let Some(entry) = all.get(at) {
            at += 1;
            let mut changed = entry.clone();
            match (self.map)(&mut changed) {
                Verdict::Keep => {
                    changed.path.clone_from(&entry.path);
                    mapped.push(changed);
                }
                Verdict::LeaveOutRest if !entry.is_dir() => {
                    let parent = super::paths::dir(&entry.path);
                    let rest = all.get(at..).unwrap_or_default();
                    at += match parent.as_slice() {
                        b"." => rest.len(),
                        parent => rest.partition_point(|entry| is_below(&entry.path, parent)),
                    };
                }
                _ => at += subtree_len(&all, at, &entry.path),
            }
        }
        Ok(mapped.into())
    }
}

impl<F> DirSource for Mapped<F>
where
    F: Fn(&mut Entry) -> Verdict + Send + Sync + 'static,
{
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        self.listing.get_or_init(|| self.list()).clone()
    }

    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        let all = self.source.entries()?;
        let own = find(&all, &entry.path).and_then(|at| all.get(at));
        self.source.open(own.unwrap_or(entry))
    }
}
