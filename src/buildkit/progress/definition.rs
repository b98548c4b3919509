//! A build graph as JSON, name by name as Go's encoding/json writes BuildKit's `pb.Definition`: it is part of a warning
//! that tells by which steps its file got to the daemon.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lemnos_proto::pb;
use prost::Message;
use serde_json::{Map, Value};

/// Graphs in the sources of graphs: as deep as any frontend goes, and no deeper.
const DEPTH: usize = 4;

/// The serialised graph as JSON; none where it is none.
pub(super) fn json(serialised: &[u8]) -> Option<Value> {
    let definition = pb::Definition::decode(serialised).ok()?;
    Some(graph(&definition, DEPTH))
}

/// An object of what is there: as in Go, what is empty has no name.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(_) => true,
    };
    let said = fields.into_iter().filter(|(_, value)| is_said(value));
    Value::Object(said.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn map<T>(map: &BTreeMap<String, T>, value: impl Fn(&T) -> Value) -> Value {
    match map.is_empty() {
        true => Value::Null,
        false => map.iter().map(|(name, one)| (name.clone(), value(one))).collect::<Map<_, _>>().into(),
    }
}

fn bytes(data: &[u8]) -> Value {
    STANDARD.encode(data).into()
}

fn graph(definition: &pb::Definition, depth: usize) -> Value {
    object([
        ("def", definition.def.iter().map(|op| bytes(op)).collect::<Vec<_>>().into()),
        ("metadata", map(&definition.metadata, metadata)),
        ("Source", definition.source.as_ref().map_or(Value::Null, |source| places(source, depth))),
    ])
}

fn metadata(metadata: &pb::OpMetadata) -> Value {
    let group = |group: &pb::ProgressGroup| {
        object([
            ("id", group.id.as_str().into()),
            ("name", group.name.as_str().into()),
            ("weak", group.weak.into()),
        ])
    };
    let resources = |limits: &pb::LinuxResources| {
        object([
            ("memory", limits.memory.into()),
            ("memorySwap", limits.memory_swap.into()),
            ("cpuShares", limits.cpu_shares.into()),
            ("cpuPeriod", limits.cpu_period.into()),
            ("cpuQuota", limits.cpu_quota.into()),
            ("cpusetCpus", limits.cpuset_cpus.as_str().into()),
            ("cpusetMems", limits.cpuset_mems.as_str().into()),
        ])
    };
    let export = |export: &pb::ExportCache| object([("Value", export.value.into())]);
    object([
        ("ignore_cache", metadata.ignore_cache.into()),
        ("description", map(&metadata.description, |text| text.as_str().into())),
        ("export_cache", metadata.export_cache.as_ref().map_or(Value::Null, export)),
        ("caps", map(&metadata.caps, |cap| (*cap).into())),
        ("progress_group", metadata.progress_group.as_ref().map_or(Value::Null, group)),
        ("linux_resources", metadata.linux_resources.as_ref().map_or(Value::Null, resources)),
    ])
}

/// Which lines of which file the steps come from.
fn places(source: &pb::Source, depth: usize) -> Value {
    let position = |p: &pb::Position| object([("line", p.line.into()), ("character", p.character.into())]);
    let range = |range: &pb::Range| {
        object([
            ("start", range.start.as_ref().map_or(Value::Null, position)),
            ("end", range.end.as_ref().map_or(Value::Null, position)),
        ])
    };
    let location = |location: &pb::Location| {
        object([
            ("sourceIndex", location.source_index.into()),
            ("ranges", location.ranges.iter().map(range).collect::<Vec<_>>().into()),
        ])
    };
    let locations = |places: &pb::Locations| {
        object([("locations", places.locations.iter().map(location).collect::<Vec<_>>().into())])
    };
    let info = |info: &pb::SourceInfo| {
        let deeper = info.definition.as_ref().filter(|_| depth > 0);
        object([
            ("filename", info.filename.as_str().into()),
            ("data", bytes(&info.data)),
            ("definition", deeper.map_or(Value::Null, |inner| graph(inner, depth - 1))),
            ("language", info.language.as_str().into()),
        ])
    };
    object([
        ("locations", map(&source.locations, locations)),
        ("infos", source.infos.iter().map(info).collect::<Vec<_>>().into()),
    ])
}
