//! Source maps: which lines of which file an operation comes from, so that the daemon can show them with a failure.

use std::sync::Arc;

use lemnos_proto::pb;

use super::constraints::Location;
use super::{Constraints, LlbError, State};

/// A file that operations come from. Copies are the same map.
#[derive(Clone)]
pub struct SourceMap(Arc<Map>);

struct Map {
    state: Option<State>,
    filename: String,
    language: String,
    data: Vec<u8>,
}

impl SourceMap {
    /// `state` is what the file itself was read from, where it came from a build; `language` is a name from GitHub's
    /// linguist, such as `Dockerfile`.
    pub fn new(
        state: Option<&State>,
        filename: impl Into<String>,
        language: impl Into<String>,
        data: impl Into<Vec<u8>>,
    ) -> Self {
        Self(Arc::new(Map {
            state: state.cloned(),
            filename: filename.into(),
            language: language.into(),
            data: data.into(),
        }))
    }

    fn is(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        Arc::ptr_eq(a, b) || (a.filename == b.filename && a.language == b.language && a.data == b.data)
    }
}

impl std::fmt::Debug for SourceMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SourceMap").field(&self.0.filename).finish()
    }
}

/// From one (line, character) to another, both included; lines count from 1, characters from 0.
pub fn range(start: (i32, i32), end: (i32, i32)) -> pb::Range {
    let position = |(line, character)| Some(pb::Position { line, character });
    pb::Range { start: position(start), end: position(end) }
}

/// The maps and locations met while a graph is marshalled.
#[derive(Default)]
pub(super) struct Collector {
    maps: Vec<SourceMap>,
    locations: std::collections::BTreeMap<String, pb::Locations>,
}

impl Collector {
    pub(super) fn add(&mut self, digest: &str, locations: &[Location]) {
        let found: Vec<pb::Location> = locations
            .iter()
            .map(|location| pb::Location {
                source_index: self.index(&location.map),
                ranges: location.ranges.clone(),
            })
            .collect();
        self.locations.entry(digest.into()).or_default().locations.extend(found);
    }

    fn index(&mut self, map: &SourceMap) -> i32 {
        let at = self.maps.iter().position(|known| known.is(map)).unwrap_or_else(|| {
            self.maps.push(map.clone());
            self.maps.len() - 1
        });
        i32::try_from(at).unwrap_or(i32::MAX)
    }

    /// `depth` is how many source maps this graph lies within.
    pub(super) fn finish(self, constraints: &Constraints, depth: usize) -> Result<pb::Source, LlbError> {
        let infos = self
            .maps
            .iter()
            .map(|map| {
                let definition = match &map.0.state {
                    Some(state) => Some(super::marshal::definition(state, constraints, depth + 1)?.to_pb()),
                    None => None,
                };
                Ok(pb::SourceInfo {
                    filename: map.0.filename.clone(),
                    data: map.0.data.clone(),
                    definition,
                    language: map.0.language.clone(),
                })
            })
            .collect::<Result<_, LlbError>>()?;
        Ok(pb::Source { locations: self.locations, infos })
    }
}
