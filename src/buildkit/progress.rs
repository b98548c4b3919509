//! Progress as the daemon tells it, freed of the wire.
//!
//! Events are deltas: a later one about the same vertex or status replaces the earlier, and a vertex may start again.
//! Text is passed on as it came, which is whatever a build prints: escape it before showing it.

mod collect;
mod definition;
mod display;
mod moment;
mod plain;
mod rawjson;
mod shown;
mod tree;

use bytes::Bytes;
use lemnos_proto::control as wire;
use lemnos_proto::pb;
use prost::Message;

pub use display::{Display, Mode, NoTerminal, Size, UnknownMode};
pub use moment::Moment;
pub use shown::bytes as size_text;

/// One thing that happened in a solve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SolveEvent {
    Vertex(Vertex),
    Status(VertexStatus),
    Log(VertexLog),
    Warning(Warning),
}

/// The state of one step. Times are by the daemon's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vertex {
    /// What names the step in every other event.
    pub digest: String,
    /// As in `[linux/amd64 2/3] RUN make`.
    pub name: String,
    /// Digests of the steps it needs.
    pub inputs: Vec<String>,
    pub started: Option<Moment>,
    pub completed: Option<Moment>,
    pub cached: bool,
    /// Why it ended badly; `… context canceled` where another step's failure ended it.
    pub error: Option<String>,
    pub group: Option<ProgressGroup>,
}

/// Steps that are shown as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressGroup {
    pub id: String,
    pub name: String,
    /// Whether a step may also stand alone.
    pub weak: bool,
}

/// Progress of one action inside a step, such as a layer's download.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VertexStatus {
    pub vertex: String,
    pub id: String,
    pub name: String,
    /// Done of `total`, mostly bytes.
    pub current: i64,
    /// 0 where it is not known.
    pub total: i64,
    pub at: Option<Moment>,
    pub started: Option<Moment>,
    pub completed: Option<Moment>,
}

/// A piece of a step's output: not necessarily whole lines, nor whole characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VertexLog {
    pub vertex: String,
    /// 1 for standard output, 2 for standard error.
    pub stream: i64,
    pub at: Option<Moment>,
    pub data: Bytes,
}

/// Something a frontend found questionable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warning {
    pub vertex: String,
    pub level: i64,
    /// One line.
    pub short: String,
    pub detail: Vec<String>,
    pub url: Option<String>,
    pub source: Option<Source>,
}

/// A place in a definition file, with the file's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub filename: String,
    /// As in `Dockerfile`; empty where it is not known.
    pub language: String,
    pub text: String,
    pub ranges: Vec<Range>,
    /// The steps by which the file got to the daemon: a serialised `pb::Definition`, or nothing.
    pub definition: Bytes,
}

/// From `start` to `end`, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    pub start: Position,
    pub end: Position,
}

/// Lines count from 1, characters from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub line: u32,
    pub character: u32,
}

impl Source {
    /// First and last line that the ranges cover.
    pub fn lines(&self) -> Option<(u32, u32)> {
        let first = self.ranges.iter().map(|range| range.start.line).min()?;
        let last = self.ranges.iter().map(|range| range.end.line.max(range.start.line)).max()?;
        Some((first, last))
    }
}

/// The events of one message, steps first, so that whatever names a step comes after it.
pub(super) fn events(message: wire::StatusResponse) -> impl Iterator<Item = SolveEvent> {
    let vertexes = message.vertexes.into_iter().map(|v| SolveEvent::Vertex(v.into()));
    let statuses = message.statuses.into_iter().map(|s| SolveEvent::Status(s.into()));
    let logs = message.logs.into_iter().map(|l| SolveEvent::Log(l.into()));
    let warnings = message.warnings.into_iter().map(|w| SolveEvent::Warning(w.into()));
    vertexes.chain(statuses).chain(logs).chain(warnings)
}

fn some_text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl From<wire::Vertex> for Vertex {
    fn from(v: wire::Vertex) -> Self {
        Self {
            digest: v.digest,
            name: v.name,
            inputs: v.inputs,
            started: v.started.map(Moment::from),
            completed: v.completed.map(Moment::from),
            cached: v.cached,
            error: some_text(v.error),
            group: v.progress_group.map(|g| ProgressGroup { id: g.id, name: g.name, weak: g.weak }),
        }
    }
}

impl From<wire::VertexStatus> for VertexStatus {
    fn from(s: wire::VertexStatus) -> Self {
        Self {
            vertex: s.vertex,
            id: s.id,
            name: s.name,
            current: s.current,
            total: s.total,
            at: s.timestamp.map(Moment::from),
            started: s.started.map(Moment::from),
            completed: s.completed.map(Moment::from),
        }
    }
}

impl From<wire::VertexLog> for VertexLog {
    fn from(l: wire::VertexLog) -> Self {
        Self { vertex: l.vertex, stream: l.stream, at: l.timestamp.map(Moment::from), data: l.msg.into() }
    }
}

impl From<wire::VertexWarning> for Warning {
    fn from(w: wire::VertexWarning) -> Self {
        Self {
            vertex: w.vertex,
            level: w.level,
            short: text(&w.short),
            detail: w.detail.iter().map(|line| text(line)).collect(),
            url: some_text(w.url),
            source: w.info.map(|info| Source {
                filename: info.filename,
                language: info.language,
                text: text(&info.data),
                ranges: w.ranges.iter().map(Range::from).collect(),
                definition: info.definition.map(|steps| steps.encode_to_vec().into()).unwrap_or_default(),
            }),
        }
    }
}

impl From<&pb::Range> for Range {
    fn from(range: &pb::Range) -> Self {
        let position = |p: Option<&pb::Position>| {
            p.map_or_else(Position::default, |p| Position {
                line: u32::try_from(p.line).unwrap_or(0),
                character: u32::try_from(p.character).unwrap_or(0),
            })
        };
        Self { start: position(range.start.as_ref()), end: position(range.end.as_ref()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_events_with_steps_first() {
        let message = wire::StatusResponse {
            vertexes: vec![wire::Vertex {
                digest: "sha256:a".into(),
                name: "RUN make".into(),
                started: Some(prost_types::Timestamp { seconds: 2, nanos: 5_600_000 }),
                ..Default::default()
            }],
            logs: vec![wire::VertexLog {
                vertex: "sha256:a".into(),
                stream: 2,
                msg: vec![0xff],
                ..Default::default()
            }],
            warnings: vec![wire::VertexWarning {
                short: b"old".to_vec(),
                info: Some(pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: b"FROM a".to_vec(),
                    ..Default::default()
                }),
                ranges: vec![pb::Range {
                    start: Some(pb::Position { line: 4, character: 0 }),
                    end: Some(pb::Position { line: -1, character: 3 }),
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let events: Vec<SolveEvent> = events(message).collect();
        let [SolveEvent::Vertex(vertex), SolveEvent::Log(log), SolveEvent::Warning(warning)] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(
            (vertex.started.map(Moment::ms), vertex.completed, vertex.error.as_deref()),
            (Some(2005), None, None)
        );
        assert_eq!((log.stream, &log.data[..]), (2, &[0xff][..]));
        assert_eq!((warning.url.as_deref(), warning.source.as_ref().unwrap().lines()), (None, Some((4, 4))));
    }
}
