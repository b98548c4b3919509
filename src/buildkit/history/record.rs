//! One build as the daemon remembers it. As JSON it is what BuildKit's own tools print and export, name by name.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lemnos_proto::control as wire;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::buildkit::Moment;

/// One build.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Record {
    /// What names the build: `SolveResult::reference`.
    #[serde(rename = "Ref", skip_serializing_if = "String::is_empty")]
    pub reference: String,
    #[serde(rename = "Frontend", skip_serializing_if = "String::is_empty")]
    pub frontend: String,
    #[serde(rename = "FrontendAttrs", skip_serializing_if = "BTreeMap::is_empty")]
    pub frontend_attrs: BTreeMap<String, String>,
    #[serde(rename = "Exporters", skip_serializing_if = "Vec::is_empty")]
    pub exporters: Vec<ExporterRecord>,
    /// Why it failed.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(rename = "CreatedAt", skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    pub created_at: Option<Moment>,
    #[serde(rename = "CompletedAt", skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    pub completed_at: Option<Moment>,
    /// The blob of its progress.
    #[serde(rename = "logs", skip_serializing_if = "Option::is_none")]
    pub logs: Option<Descriptor>,
    #[serde(rename = "ExporterResponse", skip_serializing_if = "BTreeMap::is_empty")]
    pub exporter_response: BTreeMap<String, String>,
    #[serde(rename = "Result", skip_serializing_if = "Option::is_none")]
    pub result: Option<BuildResult>,
    /// By platform, as in `linux/amd64`.
    #[serde(rename = "Results", skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, BuildResult>,
    /// How often the record changed.
    #[serde(rename = "Generation", skip_serializing_if = "is_zero")]
    pub generation: i32,
    /// The blob of its OpenTelemetry trace, written some time after its end.
    #[serde(rename = "trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<Descriptor>,
    #[serde(rename = "pinned", skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    #[serde(rename = "numCachedSteps", skip_serializing_if = "is_zero")]
    pub cached_steps: i32,
    #[serde(rename = "numTotalSteps", skip_serializing_if = "is_zero")]
    pub total_steps: i32,
    #[serde(rename = "numCompletedSteps", skip_serializing_if = "is_zero")]
    pub completed_steps: i32,
    /// The blob of its failure with all details.
    #[serde(rename = "externalError", skip_serializing_if = "Option::is_none")]
    pub external_error: Option<Descriptor>,
    #[serde(rename = "numWarnings", skip_serializing_if = "is_zero")]
    pub warnings: i32,
}

/// How a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Completed,
    Failed,
    Canceled,
}

impl Record {
    pub fn state(&self) -> State {
        /// gRPC's number of a cancellation.
        const CANCELLED: i32 = 1;
        match &self.failure {
            _ if self.completed_at.is_none() => State::Running,
            None => State::Completed,
            Some(failure) if failure.code == CANCELLED => State::Canceled,
            Some(_) => State::Failed,
        }
    }
}

/// What was to be done with a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExporterRecord {
    #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// Why a build failed, as gRPC has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Failure {
    pub code: i32,
    pub message: String,
    /// Type and JSON of each detail.
    pub details: Vec<(String, Vec<u8>)>,
}

/// A blob in the daemon's content store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub size: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a build gave for one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BuildResult {
    #[serde(rename = "ResultDeprecated", skip_serializing_if = "Option::is_none")]
    pub result: Option<Descriptor>,
    #[serde(rename = "Attestations", skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Descriptor>,
    /// By the number of the exporter.
    #[serde(rename = "Results", skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<i64, Descriptor>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

#[allow(clippy::ref_option, reason = "serde hands fields over so")]
fn timestamp<S: Serializer>(at: &Option<Moment>, serializer: S) -> Result<S::Ok, S::Error> {
    let ns = at.map_or(0, Moment::ns);
    let (seconds, nanos) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let mut map = serializer.serialize_map(None)?;
    for (name, value) in [("seconds", seconds), ("nanos", nanos)] {
        if value != 0 {
            map.serialize_entry(name, &value)?;
        }
    }
    map.end()
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Detail<'a> {
            type_url: &'a str,
            value: String,
        }
        let mut map = serializer.serialize_map(None)?;
        if self.code != 0 {
            map.serialize_entry("code", &self.code)?;
        }
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if !self.details.is_empty() {
            let details: Vec<_> = self
                .details
                .iter()
                .map(|(type_url, value)| Detail { type_url, value: STANDARD.encode(value) })
                .collect();
            map.serialize_entry("details", &details)?;
        }
        map.end()
    }
}

impl From<wire::Descriptor> for Descriptor {
    fn from(d: wire::Descriptor) -> Self {
        Self { media_type: d.media_type, digest: d.digest, size: d.size, annotations: d.annotations }
    }
}

impl From<wire::BuildResultInfo> for BuildResult {
    fn from(r: wire::BuildResultInfo) -> Self {
        Self {
            result: r.result_deprecated.map(Descriptor::from),
            attestations: r.attestations.into_iter().map(Descriptor::from).collect(),
            results: r.results.into_iter().map(|(exporter, d)| (exporter, d.into())).collect(),
        }
    }
}

impl From<wire::BuildHistoryRecord> for Record {
    fn from(r: wire::BuildHistoryRecord) -> Self {
        let exporter = |e: wire::Exporter| ExporterRecord { kind: e.r#type, attrs: e.attrs };
        let failure = |status: lemnos_proto::rpc::Status| Failure {
            code: status.code,
            message: status.message,
            details: status.details.into_iter().map(|any| (any.type_url, any.value)).collect(),
        };
        Self {
            reference: r.r#ref,
            frontend: r.frontend,
            frontend_attrs: r.frontend_attrs,
            exporters: r.exporters.into_iter().map(exporter).collect(),
            failure: r.error.map(failure),
            created_at: r.created_at.map(Moment::from),
            completed_at: r.completed_at.map(Moment::from),
            logs: r.logs.map(Descriptor::from),
            exporter_response: r.exporter_response,
            result: r.result.map(BuildResult::from),
            results: r.results.into_iter().map(|(platform, result)| (platform, result.into())).collect(),
            generation: r.generation,
            trace: r.trace.map(Descriptor::from),
            pinned: r.pinned,
            cached_steps: r.num_cached_steps,
            total_steps: r.num_total_steps,
            completed_steps: r.num_completed_steps,
            external_error: r.external_error.map(Descriptor::from),
            warnings: r.num_warnings,
        }
    }
}
