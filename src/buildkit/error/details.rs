//! Typed details of a daemon's error: `Any` values whose bytes are JSON, in the `grpc-status-details-bin` trailer.
//!
//! Sources: moby/buildkit v0.32.2, util/grpcerrors and solver/errdefs; frontend/gateway/pb for the exit code. Binary
//! fields are base64. What cannot be read is passed over: an error must not be lost to its own details.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::buildkit::progress::{Position, Range, Source};

/// Most details looked at, and most bytes of one.
const COUNT_LIMIT: usize = 64;
const SIZE_LIMIT: usize = 4 << 20;

/// What the details said. Where several of a kind exist the first counts: the daemon writes the outermost first.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// The status as the daemon built it: not cut to what fits a header.
    pub message: Option<String>,
    /// Digest of the step that failed.
    pub vertex: Option<String>,
    pub vertex_name: String,
    pub source: Option<Source>,
    pub exit_code: Option<i32>,
    /// What a source policy said to a source that it denied.
    pub denied: Vec<String>,
}

#[derive(Deserialize)]
struct DecisionJson {
    #[serde(rename = "denyMessages", default)]
    messages: Vec<DenyJson>,
}

#[derive(Deserialize)]
struct DenyJson {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct VertexJson {
    #[serde(default)]
    digest: String,
}

#[derive(Deserialize)]
struct SourceJson {
    info: Option<InfoJson>,
    #[serde(default)]
    ranges: Vec<RangeJson>,
}

#[derive(Deserialize)]
struct InfoJson {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    language: String,
}

#[derive(Deserialize)]
struct RangeJson {
    #[serde(default)]
    start: PositionJson,
    #[serde(default)]
    end: PositionJson,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PositionJson {
    line: u32,
    character: u32,
}

#[derive(Deserialize)]
struct SolveJson {
    #[serde(default)]
    description: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ExitJson {
    #[serde(rename = "Code", default)]
    code: u32,
}

impl Details {
    pub fn of(status: &Status) -> Self {
        let mut found = Self::default();
        let Ok(full) = lemnos_proto::rpc::Status::decode(status.details()) else { return found };
        found.message = Some(full.message).filter(|message| !message.is_empty());
        for detail in full.details.iter().take(COUNT_LIMIT).filter(|d| d.value.len() <= SIZE_LIMIT) {
            found.read(&detail.type_url, &detail.value);
        }
        found
    }

    /// Whether no detail says what was being built.
    pub fn is_empty(&self) -> bool {
        self.vertex.is_none() && self.source.is_none() && self.exit_code.is_none()
    }

    fn read(&mut self, type_url: &str, json: &[u8]) {
        match type_url {
            "github.com/moby/buildkit/errdefs.Vertex+json" if self.vertex.is_none() => {
                self.vertex = parse(json).map(|v: VertexJson| v.digest).filter(|digest| !digest.is_empty());
            }
            "github.com/moby/buildkit/errdefs.Source+json" if self.source.is_none() => {
                self.source = parse(json).and_then(source);
            }
            "github.com/moby/buildkit/errdefs.Solve+json" if self.vertex_name.is_empty() => {
                self.vertex_name = parse(json)
                    .and_then(|mut s: SolveJson| s.description.remove("llb.customname"))
                    .unwrap_or_default();
            }
            "github.com/moby/buildkit/gatewayapi.ExitMessage+json" if self.exit_code.is_none() => {
                self.exit_code = parse(json).and_then(|e: ExitJson| i32::try_from(e.code).ok());
            }
            "github.com/moby/buildkit/policysession.DecisionResponse+json" if self.denied.is_empty() => {
                let said = parse(json).map(|d: DecisionJson| d.messages).unwrap_or_default();
                self.denied = said.into_iter().map(|d| d.message).filter(|text| !text.is_empty()).collect();
            }
            _ => {}
        }
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json)
        .inspect_err(|error| tracing::debug!(%error, "an error detail of buildkitd cannot be read"))
        .ok()
}

fn source(json: SourceJson) -> Option<Source> {
    let info = json.info?;
    let text = STANDARD.decode(info.data).unwrap_or_default();
    let position = |p: PositionJson| Position { line: p.line, character: p.character };
    Some(Source {
        filename: info.filename,
        language: info.language,
        text: String::from_utf8_lossy(&text).into_owned(),
        ranges: json
            .ranges
            .into_iter()
            .map(|r| Range { start: position(r.start), end: position(r.end) })
            .collect(),
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn status(details: &[(&str, &str)]) -> Status {
        let full = lemnos_proto::rpc::Status {
            code: 2,
            message: "process \"make\" did not complete successfully: exit code: 2".into(),
            details: details
                .iter()
                .map(|(name, json)| prost_types::Any {
                    type_url: format!("github.com/moby/buildkit/{name}+json"),
                    value: json.as_bytes().to_vec(),
                })
                .collect(),
        };
        Status::with_details(Code::Unknown, "process", full.encode_to_vec().into())
    }

    #[test]
    fn every_detail_is_read() {
        let found = Details::of(&status(&[
            ("stack.Stack", r#"{"frames":[]}"#),
            ("errdefs.Vertex", r#"{"digest":"sha256:ab"}"#),
            (
                "errdefs.Source",
                r#"{"info":{"filename":"Dockerfile","data":"RlJPTSBhClJVTiBtYWtlCg==","language":"Dockerfile"},"ranges":[{"start":{"line":2},"end":{"line":2,"character":8}}]}"#,
            ),
            (
                "errdefs.Solve",
                r#"{"inputIDs":["x"],"op":{"exec":{}},"description":{"llb.customname":"[2/2] RUN make"}}"#,
            ),
            ("gatewayapi.ExitMessage", r#"{"Code":2}"#),
            ("errdefs.Source", r#"{"info":{"filename":"other"}}"#),
        ]));
        assert_eq!(found.vertex.as_deref(), Some("sha256:ab"));
        assert_eq!(found.vertex_name, "[2/2] RUN make");
        assert_eq!(found.exit_code, Some(2));
        assert!(found.message.unwrap().ends_with("exit code: 2"));
        let source = found.source.unwrap();
        assert_eq!((source.filename.as_str(), source.text.as_str()), ("Dockerfile", "FROM a\nRUN make\n"));
        assert_eq!(source.lines(), Some((2, 2)));
    }

    #[test]
    fn broken_details_do_not_hide_the_error() {
        let found =
            Details::of(&status(&[("errdefs.Vertex", "{"), ("gatewayapi.ExitMessage", "{\"Code\":7}")]));
        assert_eq!((found.vertex, found.exit_code), (None, Some(7)));
        let garbage = Status::with_details(Code::Unknown, "plain", vec![0xff, 0xff].into());
        assert!(Details::of(&garbage).is_empty());
    }
}
