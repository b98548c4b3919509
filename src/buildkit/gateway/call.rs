//! Subrequests: what a frontend tells of a build file without building it: its checks, its arguments, its stages.
//!
//! What a frontend answers is JSON and text for people; both are kept, and the JSON is read into types. Fields that a
//! newer frontend adds are passed over.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{Client, GatewayError, GatewayResult, GatewaySolve};
use crate::buildkit::error::SolveError;
use crate::buildkit::progress::{Position, Range, SolveEvent, Source};
use crate::buildkit::solve::SolveRequest;

/// The frontend that is asked where a file's own is too old: the one that buildx v0.36 asks, which knows every request.
const FALLBACK: &str =
    "docker/dockerfile:1.8.1@sha256:e87caa74dcb7d46cd820352bfea12591f3dba3ddc4285e19c7dcd13359f7cefd";

/// What to ask a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// What is questionable in the file.
    Check,
    /// What a target takes: arguments, secrets, agents, caches.
    Outline,
    /// The stages that can be built.
    Targets,
    /// What else the frontend can be asked.
    Describe,
    /// Any other, by its name without `frontend.`.
    Other(String),
}

impl Call {
    /// As the frontend knows it.
    pub fn id(&self) -> String {
        match self {
            Self::Check => "frontend.lint".to_owned(),
            Self::Outline => "frontend.outline".to_owned(),
            Self::Targets => "frontend.targets".to_owned(),
            Self::Describe => "frontend.subrequests.describe".to_owned(),
            Self::Other(name) => format!("frontend.{name}"),
        }
    }
}

/// A frontend's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallResult {
    /// `result.json`, `result.txt`, `result.statuscode`, `version`, …
    pub metadata: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Outline {
    pub name: String,
    pub description: String,
    pub args: Vec<OutlineArg>,
    pub secrets: Vec<OutlineSecret>,
    pub ssh: Vec<OutlineSecret>,
    pub cache: Vec<OutlineCache>,
    #[serde(deserialize_with = "texts")]
    pub sources: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutlineArg {
    pub name: String,
    pub description: String,
    pub value: String,
    pub location: Option<Location>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutlineSecret {
    pub name: String,
    pub required: bool,
    pub location: Option<Location>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutlineCache {
    #[serde(rename = "ID")]
    pub id: String,
    pub location: Option<Location>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Targets {
    #[serde(deserialize_with = "nullable")]
    pub targets: Vec<Target>,
    #[serde(deserialize_with = "texts")]
    pub sources: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Empty for a stage without a name.
    pub name: String,
    pub default: bool,
    pub description: String,
    pub base: String,
    pub platform: String,
    pub location: Option<Location>,
}

/// What checks found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LintResults {
    #[serde(deserialize_with = "nullable")]
    pub warnings: Vec<LintWarning>,
    #[serde(deserialize_with = "sources")]
    pub sources: Vec<Source>,
    /// Why the file cannot be built at all.
    #[serde(rename = "buildError")]
    pub error: Option<LintFailure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LintFailure {
    pub message: String,
    pub location: Location,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LintWarning {
    #[serde(rename = "ruleName")]
    pub rule: String,
    pub description: String,
    pub url: String,
    pub detail: String,
    pub location: Option<Location>,
}

/// A place in one of the sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Location {
    /// Negative where it is in none.
    #[serde(rename = "sourceIndex")]
    pub source: i64,
    #[serde(deserialize_with = "ranges")]
    pub ranges: Vec<Range>,
}

/// One of the requests that a frontend knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RequestDescription {
    pub name: String,
    pub version: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub description: String,
    #[serde(deserialize_with = "nullable")]
    pub opts: Vec<Description>,
    #[serde(deserialize_with = "nullable")]
    pub metadata: Vec<Description>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Description {
    pub name: String,
    pub description: String,
}

impl LintResults {
    /// The source of a warning, with the warning's lines as its ranges.
    pub fn place(&self, location: &Location) -> Option<Source> {
        let source = self.sources.get(usize::try_from(location.source).ok()?)?;
        Some(Source { ranges: location.ranges.clone(), ..source.clone() })
    }
}

impl CallResult {
    /// The version of the answer's form.
    pub fn version(&self) -> Option<String> {
        self.text_of("version")
    }

    /// For people.
    pub fn text(&self) -> Option<String> {
        self.text_of("result.txt")
    }

    /// For programs.
    pub fn json(&self) -> Option<String> {
        self.text_of("result.json")
    }

    /// What a command that asks this should exit with; 0 where the frontend says nothing.
    pub fn status_code(&self) -> i32 {
        self.text_of("result.statuscode").and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    pub fn outline(&self) -> Result<Outline, GatewayError> {
        self.read()
    }

    pub fn targets(&self) -> Result<Targets, GatewayError> {
        self.read()
    }

    pub fn lint(&self) -> Result<LintResults, GatewayError> {
        self.read()
    }

    pub fn describe(&self) -> Result<Vec<RequestDescription>, GatewayError> {
        self.read()
    }

    fn text_of(&self, key: &str) -> Option<String> {
        self.metadata.get(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, GatewayError> {
        let unusable = |reason: String| GatewayError::Answer { call: "Solve", reason };
        let json = self.metadata.get("result.json").ok_or_else(|| {
            unusable("the frontend gave no result.json: it may not know this request".to_owned())
        })?;
        serde_json::from_slice(json).map_err(|e| unusable(format!("result.json: {e}")))
    }
}

impl Client {
    /// Asks the request's frontend; one that is too old for checks, outlines and targets has a newer one of Docker's asked in
    /// its place. Nothing is built, exported or recorded.
    pub async fn call(
        &self,
        request: SolveRequest,
        call: &Call,
        on_event: impl FnMut(SolveEvent) + Send,
    ) -> Result<CallResult, SolveError> {
        if request.frontend.is_empty() {
            return Err(SolveError::invalid("only a frontend can be asked: set one"));
        }
        let solve = asking(&request, call);
        let request = SolveRequest {
            frontend: String::new(),
            frontend_inputs: BTreeMap::new(),
            exporters: Vec::new(),
            cache_exports: Vec::new(),
            internal: true,
            ..request
        };
        let mut answer = CallResult::default();
        let kept = &mut answer;
        let function = |gateway: super::Gateway| async move {
            let result = match gateway.solve(solve.clone()).await {
                Err(error) if is_too_old(&error, call) => in_its_place(&gateway, solve, error).await?,
                result => result?,
            };
            kept.metadata.clone_from(&result.metadata);
            Ok(GatewayResult { metadata: result.metadata, ..Default::default() })
        };
        self.build(request, function, on_event).await?;
        Ok(answer)
    }
}

/// Whether the frontend knows no such request, though newer ones of Docker's do. Its words are those of the typed error as
/// well, and all that daemons of BuildKit 0.8 say.
fn is_too_old(error: &GatewayError, call: &Call) -> bool {
    let known = matches!(call, Call::Check | Call::Outline | Call::Targets);
    known && error.to_string().contains(&format!("unsupported request {}", call.id()))
}

/// Asks [`FALLBACK`] where the file's own frontend is `error`'s cause.
async fn in_its_place(
    gateway: &super::Gateway,
    mut solve: GatewaySolve,
    error: GatewayError,
) -> Result<GatewayResult, GatewayError> {
    solve.options.insert("build-arg:BUILDKIT_SYNTAX".to_owned(), FALLBACK.to_owned());
    gateway.solve(solve).await.map_err(|second| {
        GatewayError::Failed(format!("{error}; {FALLBACK}, asked in its frontend's place: {second}"))
    })
}

fn asking(request: &SolveRequest, call: &Call) -> GatewaySolve {
    const FORWARD: &str = "moby.buildkit.frontend.subrequests+forward";
    let mut options = request.frontend_attrs.clone();
    // a frontend that would pass over the request, and build, then refuses
    options
        .entry("frontend.caps".to_owned())
        .and_modify(|caps| *caps = format!("{caps},{FORWARD}"))
        .or_insert_with(|| FORWARD.to_owned());
    options.insert("requestid".to_owned(), call.id());
    GatewaySolve {
        frontend: request.frontend.clone(),
        options,
        inputs: request.frontend_inputs.clone(),
        ..Default::default()
    }
}

/// Go writes an empty list as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let encoded: Vec<Option<String>> = nullable(from)?;
    Ok(encoded.iter().map(|text| decoded(text.as_deref().unwrap_or_default())).collect())
}

fn decoded(base64: &str) -> String {
    String::from_utf8_lossy(&STANDARD.decode(base64).unwrap_or_default()).into_owned()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SourceJson {
    filename: String,
    language: String,
    data: String,
}

fn sources<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Source>, D::Error> {
    let source = |json: Option<SourceJson>| {
        let SourceJson { filename, language, data } = json.unwrap_or_default();
        Source { filename, language, text: decoded(&data), ..Source::default() }
    };
    Ok(nullable(from)?.into_iter().map(source).collect())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PositionJson {
    line: u32,
    character: u32,
}

fn ranges<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Range>, D::Error> {
    let position = |p: PositionJson| Position { line: p.line, character: p.character };
    let range = |r: RangeJson| Range { start: position(r.start), end: position(r.end) };
    Ok(nullable(from)?.into_iter().map(range).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_what_they_may_leave_out() {
        let answer = |json: &str| CallResult {
            metadata: BTreeMap::from([("result.json".to_owned(), json.as_bytes().to_vec())]),
        };
        let lint = answer(
            r#"{"warnings":[{"ruleName":"R","detail":"d","location":{"ranges":[{"start":{"line":2},"end":{"line":3}}]}},
                {"ruleName":"S","location":{"sourceIndex":-1}}],
                "sources":[{"filename":"Dockerfile","data":"RlJPTSBhCg==","language":"Dockerfile"}],
                "buildError":{"message":"m","location":{"sourceIndex":0}}, "new": 1}"#,
        );
        let lint = lint.lint().unwrap();
        let place = lint.place(lint.warnings[0].location.as_ref().unwrap()).unwrap();
        assert_eq!((place.text.as_str(), place.lines()), ("FROM a\n", Some((2, 3))));
        assert_eq!(lint.place(lint.warnings[1].location.as_ref().unwrap()), None);
        assert_eq!(lint.error.unwrap().message, "m");
        assert_eq!(answer(r#"{"warnings":null,"sources":null}"#).lint().unwrap(), LintResults::default());
        let outline =
            answer(r#"{"args":[{"name":"A","value":"1"}],"cache":[{"ID":"c"}],"sources":["Rg==",null]}"#);
        let outline = outline.outline().unwrap();
        assert_eq!((outline.args[0].value.as_str(), outline.cache[0].id.as_str()), ("1", "c"));
        assert_eq!(outline.sources, ["F", ""]);
        assert!(answer("[").targets().is_err() && CallResult::default().targets().is_err());
    }
}
