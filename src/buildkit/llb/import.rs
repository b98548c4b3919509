//! A definition as a state, to build on: its operations keep their bytes, digests and metadata.
//!
//! Source: client/llb/definition.go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lemnos_proto::pb;

use super::constraints::Location;
use super::definition::{decode, digest};
use super::graph::{Kind, Node, Output};
use super::source_map::SourceMap;
use super::{Constraints, Definition, LlbError, State};

/// One operation of a definition, and all of them.
#[derive(Clone)]
pub(super) struct Imported {
    pub(super) graph: Arc<Graph>,
    pub(super) digest: String,
    pub(super) index: i64,
}

pub(super) struct Graph {
    ops: HashMap<String, Entry>,
    metadata: BTreeMap<String, pb::OpMetadata>,
    locations: HashMap<String, Vec<Location>>,
}

struct Entry {
    bytes: Vec<u8>,
    inputs: Vec<pb::Input>,
}

fn bad(reason: impl Into<String>) -> LlbError {
    LlbError::Definition { reason: reason.into() }
}

pub(super) fn state(definition: &Definition) -> Result<State, LlbError> {
    let mut ops = HashMap::new();
    let mut last = None;
    for bytes in &definition.ops {
        let inputs = decode(bytes)?.inputs;
        last = Some(inputs.first().cloned());
        ops.insert(digest(bytes), Entry { bytes: bytes.clone(), inputs });
    }
    let end = match last {
        None => return Ok(State::scratch()),
        Some(None) => return Err(bad("its last operation names no result")),
        Some(Some(input)) => input,
    };
    if end.index < 0 {
        return Err(bad("its result is an output that is thrown away"));
    }
    let locations = locations(definition.source.as_ref())?;
    let graph = Arc::new(Graph { ops, metadata: definition.metadata.clone(), locations });
    let index = end.index;
    let imported = Imported { graph, digest: end.digest, index };
    let node = Node {
        inputs: Vec::new(),
        kind: Kind::Imported(imported),
        constraints: Constraints::new(),
        mistake: None,
    };
    Ok(State::fresh(Some(Output { index: Ok(index), ..Output::first(node) })))
}

fn locations(source: Option<&pb::Source>) -> Result<HashMap<String, Vec<Location>>, LlbError> {
    let Some(source) = source else { return Ok(HashMap::new()) };
    let mut maps = Vec::new();
    for info in &source.infos {
        let from = match &info.definition {
            Some(definition) => Some(state(&Definition::from_pb(definition.clone()))?),
            None => None,
        };
        maps.push(SourceMap::new(from.as_ref(), &info.filename, &info.language, info.data.clone()));
    }
    let mut found: HashMap<String, Vec<Location>> = HashMap::new();
    for (digest, locations) in &source.locations {
        for location in &locations.locations {
            let map = usize::try_from(location.source_index).ok().and_then(|at| maps.get(at));
            let map = map.ok_or_else(|| bad(format!("it has no source map {}", location.source_index)))?;
            let location = Location { map: map.clone(), ranges: location.ranges.clone() };
            found.entry(digest.clone()).or_default().push(location);
        }
    }
    Ok(found)
}

impl Imported {
    fn entry(&self) -> Result<&Entry, LlbError> {
        self.graph.ops.get(&self.digest).ok_or_else(|| bad(format!("it lacks the operation {}", self.digest)))
    }

    pub(super) fn bytes(&self) -> Result<&[u8], LlbError> {
        Ok(&self.entry()?.bytes)
    }

    pub(super) fn inputs(&self) -> Result<Vec<Self>, LlbError> {
        let inputs = self.entry()?.inputs.iter();
        Ok(inputs
            .map(|input| Self { graph: self.graph.clone(), digest: input.digest.clone(), index: input.index })
            .collect())
    }

    pub(super) fn metadata(&self) -> Result<&pb::OpMetadata, LlbError> {
        let found = self.graph.metadata.get(&self.digest);
        found.ok_or_else(|| bad(format!("it lacks the metadata of {}", self.digest)))
    }

    pub(super) fn locations(&self) -> &[Location] {
        self.graph.locations.get(&self.digest).map_or(&[], Vec::as_slice)
    }
}
