//! Events as JSON, one object a line, name by name as buildx and buildctl print it with `--progress=rawjson`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::definition;
use super::{Moment, Position, ProgressGroup, SolveEvent, Vertex, VertexLog, VertexStatus, Warning};

/// One message of a daemon's.
#[derive(Default, Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<VertexJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<StatusJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VertexJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    inputs: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Moment>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_group: Option<GroupJson<'a>>,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    weak: bool,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    current: i64,
    timestamp: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Moment>,
}

#[derive(Serialize)]
struct LogJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    stream: i64,
    #[serde(serialize_with = "as_base64")]
    data: &'a [u8],
    timestamp: Moment,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    level: i64,
    #[serde(skip_serializing_if = "<[u8]>::is_empty", serialize_with = "as_base64")]
    short: &'a [u8],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<RangeJson>,
}

#[derive(Serialize)]
struct SourceJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    filename: &'a str,
    #[serde(skip_serializing_if = "<[u8]>::is_empty", serialize_with = "as_base64")]
    data: &'a [u8],
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    language: &'a str,
}

#[derive(Serialize)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Serialize)]
struct PositionJson {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
    #[serde(skip_serializing_if = "is_zero")]
    character: u32,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

fn as_base64<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

/// `events` as one line, with its end; no event, no line.
pub(super) fn line(events: &[SolveEvent]) -> String {
    if events.is_empty() {
        return String::new();
    }
    let mut status = Status::default();
    for event in events {
        match event {
            SolveEvent::Vertex(vertex) => status.vertexes.push(vertex.into()),
            SolveEvent::Status(action) => status.statuses.push(action.into()),
            SolveEvent::Log(log) => status.logs.push(log.into()),
            SolveEvent::Warning(warning) => status.warnings.push(warning.into()),
        }
    }
    let json = serde_json::to_string(&status).unwrap_or_default();
    let mut line = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            // Go writes these so; all else that could steer a terminal joins them, which changes no value
            '<' | '>' | '&' => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if c.is_control() || ('\u{200e}'..='\u{2069}').contains(&c) => {
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => line.push(c),
        }
    }
    line.push('\n');
    line
}

impl<'a> From<&'a Vertex> for VertexJson<'a> {
    fn from(v: &'a Vertex) -> Self {
        let group = |g: &'a ProgressGroup| GroupJson { id: &g.id, name: &g.name, weak: g.weak };
        Self {
            digest: &v.digest,
            inputs: &v.inputs,
            name: &v.name,
            started: v.started,
            completed: v.completed,
            cached: v.cached,
            error: v.error.as_deref(),
            progress_group: v.group.as_ref().map(group),
        }
    }
}

impl<'a> From<&'a VertexStatus> for StatusJson<'a> {
    fn from(s: &'a VertexStatus) -> Self {
        Self {
            id: &s.id,
            vertex: &s.vertex,
            name: &s.name,
            total: s.total,
            current: s.current,
            timestamp: s.at.unwrap_or_default(),
            started: s.started,
            completed: s.completed,
        }
    }
}

impl<'a> From<&'a VertexLog> for LogJson<'a> {
    fn from(l: &'a VertexLog) -> Self {
        Self { vertex: &l.vertex, stream: l.stream, data: &l.data, timestamp: l.at.unwrap_or_default() }
    }
}

impl<'a> From<&'a Warning> for WarningJson<'a> {
    fn from(w: &'a Warning) -> Self {
        let position = |p: Position| PositionJson { line: p.line, character: p.character };
        Self {
            vertex: &w.vertex,
            level: w.level,
            short: w.short.as_bytes(),
            detail: w.detail.iter().map(|line| STANDARD.encode(line)).collect(),
            url: w.url.as_deref(),
            source_info: w.source.as_ref().map(|source| SourceJson {
                filename: &source.filename,
                data: source.text.as_bytes(),
                definition: Some(&source.definition)
                    .filter(|steps| !steps.is_empty())
                    .and_then(|steps| definition::json(steps)),
                language: &source.language,
            }),
            range: w
                .source
                .iter()
                .flat_map(|source| &source.ranges)
                .map(|range| RangeJson { start: position(range.start), end: position(range.end) })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_escapes_is_escaped_and_a_terminal_sees_no_control_character() {
        let name = "<a> & \u{1b}[31m\u{9b}\u{202e}".to_owned();
        let vertex = Vertex { digest: "sha256:a".into(), name: name.clone(), ..Vertex::default() };
        let line = line(&[SolveEvent::Vertex(vertex)]);
        let escaped = r"\u003ca\u003e \u0026 \u001b[31m\u009b\u202e";
        assert_eq!(line, format!("{{\"vertexes\":[{{\"digest\":\"sha256:a\",\"name\":\"{escaped}\"}}]}}\n"));
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["vertexes"][0]["name"], name);
    }

    #[test]
    fn no_event_is_no_line() {
        assert_eq!(line(&[]), "");
    }
}
