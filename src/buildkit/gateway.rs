//! The gateway: steering a build from here, in a frontend's place.
//!
//! A build is begun without a frontend; a function of ours then solves, reads files, runs containers, and what it returns
//! becomes the build's result. Invariants: every call names the build it belongs to; what a daemon cannot do is told before
//! it is asked to, by the capabilities it announced; the function's own error is the build's. References and containers
//! live as long as the build does and are let go by the daemon when it ends.

mod call;
mod container;
mod error;
mod process;
mod reference;
mod resolve;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lemnos_proto::apicaps::ApiCap;
use lemnos_proto::gateway as wire;
use lemnos_proto::gateway::llb_bridge_client::LlbBridgeClient;
use lemnos_proto::{pb, rpc};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use call::{
    Call, CallResult, Description, LintResults, LintWarning, Location, Outline, OutlineArg, OutlineCache,
    OutlineSecret, RequestDescription, Target, Targets,
};
pub use container::{CacheSharing, Container, ContainerSpec, FileMount, Mount, MountKind};
pub use error::GatewayError;
pub use process::{Collected, Exit, Output, Process, ProcessInput, ProcessSpec, SecretVariable};
pub use reference::{FileKind, FileStat, Reference};
pub(super) use resolve::resolve_request;
pub use resolve::{
    AttestationChain, Blob, GitSource, HttpSource, ImageConfig, ImageSource, ResolveOptions, SourceMetadata,
};

use super::connect::{Client, MESSAGE_LIMIT, one_by_one};
use super::error::SolveError;
use super::graph;
use super::progress::{Position, Range, SolveEvent, Source};
use super::solve::{self, Begun, CacheEntry, SolveRequest, SolveResult, SourcePolicy};

/// How long a build may take to begin.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the daemon may take to note a result down.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);
/// What names the build in a call's metadata.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

impl Client {
    /// Runs a build that `function` steers. `request` names exporters, caches, attestations and the session; frontend,
    /// definition and inputs are for the function's own solves. What it returns is exported. Dropping the future cancels
    /// the build, whatever the function is at.
    pub async fn build<Function, Running>(
        &self,
        request: SolveRequest,
        function: Function,
        on_event: impl FnMut(SolveEvent) + Send,
    ) -> Result<SolveResult, SolveError>
    where
        Function: FnOnce(Gateway) -> Running + Send,
        Running: Future<Output = Result<GatewayResult, GatewayError>> + Send,
    {
        self.build_by_message(request, function, one_by_one(on_event)).await
    }

    /// The same, told in the daemon's own portions: what [`super::Display::gather`] takes.
    pub async fn build_by_message<Function, Running>(
        &self,
        request: SolveRequest,
        function: Function,
        on_message: impl FnMut(Vec<SolveEvent>) + Send,
    ) -> Result<SolveResult, SolveError>
    where
        Function: FnOnce(Gateway) -> Running + Send,
        Running: Future<Output = Result<GatewayResult, GatewayError>> + Send,
    {
        let (control, wire, channel) = self.parts();
        let run = |begun| serve(channel, begun, function);
        solve::run_function(control, wire, request, run, on_message).await
    }
}

async fn serve<Function, Running>(
    channel: Channel,
    begun: Begun,
    function: Function,
) -> Result<(), SolveError>
where
    Function: FnOnce(Gateway) -> Running + Send,
    Running: Future<Output = Result<GatewayResult, GatewayError>> + Send,
{
    let failed = begun.failed.clone();
    let gateway = Gateway::open(channel, begun).await?;
    match function(gateway.clone()).await {
        Ok(result) => Ok(gateway.give_back(Ok(result)).await?),
        Err(error) => {
            let told = error.status();
            let error = SolveError::from(error);
            failed.get_or_init(|| error.clone());
            // the function's error is the one to tell, whether or not the daemon has heard of it
            let _ = gateway.give_back(Err(told)).await;
            Err(error)
        }
    }
}

/// The daemon's side of one build. Clones speak for the same build.
#[derive(Clone)]
pub struct Gateway {
    bridge: LlbBridgeClient<Channel>,
    build: Arc<BuildIdentity>,
}

struct BuildIdentity {
    id: AsciiMetadataValue,
    session: String,
    attrs: BTreeMap<String, String>,
    /// What the gateway can do, and what the build graph may hold; the value says why it cannot.
    capabilities: Capabilities,
    graph: Capabilities,
}

type Capabilities = BTreeMap<String, Result<(), String>>;

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("session", &self.build.session).finish_non_exhaustive()
    }
}

/// One solve within a build: a frontend, or a definition.
#[derive(Debug, Clone, Default)]
pub struct GatewaySolve {
    pub frontend: String,
    /// The frontend's attributes.
    pub options: BTreeMap<String, String>,
    pub inputs: BTreeMap<String, pb::Definition>,
    pub definition: Option<pb::Definition>,
    pub cache_imports: Vec<CacheEntry>,
    /// Builds at once; otherwise a step runs when its files are asked for, or when the result is exported.
    pub evaluate: bool,
    pub policies: Vec<SourcePolicy>,
}

/// What a solve gave, or what a build function returns.
#[derive(Debug, Clone, Default)]
pub struct GatewayResult {
    pub references: References,
    /// `containerimage.config`, `refs.platforms`, a subrequest's `result.json`, …
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// By the key of the reference they speak of.
    pub attestations: BTreeMap<String, wire::Attestations>,
}

/// The results themselves. A key is a platform's, mostly; an empty image has no reference.
#[derive(Debug, Clone, Default)]
pub enum References {
    #[default]
    None,
    One(Box<Reference>),
    Many(BTreeMap<String, Option<Reference>>),
}

impl References {
    pub fn iter(&self) -> impl Iterator<Item = &Reference> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(reference) => (Some(&**reference), None),
            Self::Many(map) => (None, Some(map.values().flatten())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

impl GatewayResult {
    /// The only reference there is.
    pub fn sole(&self) -> Result<&Reference, GatewayError> {
        let mut all = self.references.iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(GatewayError::Failed("the solve gave no reference: its result is empty".into())),
            (Some(_), Some(_)) => Err(GatewayError::Failed(
                "the solve gave several references, one for each platform: take one by its key".into(),
            )),
        }
    }
}

/// A warning for whoever follows the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warn {
    /// The step it is about.
    pub vertex: String,
    /// 1 and up.
    pub level: i64,
    /// One line.
    pub short: String,
    pub detail: Vec<String>,
    pub url: Option<String>,
    pub source: Option<Source>,
}

impl Gateway {
    async fn open(channel: Channel, begun: Begun) -> Result<Self, GatewayError> {
        let id = AsciiMetadataValue::try_from(&begun.reference)
            .map_err(|_| GatewayError::Failed(format!("{:?} cannot name a build", begun.reference)))?;
        let identity = |capabilities, graph| BuildIdentity {
            id: id.clone(),
            session: begun.session.clone(),
            attrs: begun.frontend_attrs.clone(),
            capabilities,
            graph,
        };
        let bridge = LlbBridgeClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let first = Self { bridge, build: Arc::new(identity(BTreeMap::new(), BTreeMap::new())) };
        // the daemon answers as soon as the build has begun there
        let mut asking = first.bridge.clone();
        let pong = tokio::time::timeout(PING_TIMEOUT, asking.ping(first.request(wire::PingRequest {})));
        let late = || Status::deadline_exceeded(format!("no answer within {} s", PING_TIMEOUT.as_secs()));
        let pong = answered("Ping", pong.await.unwrap_or_else(|_| Err(late())))?;
        let build = identity(capabilities(pong.frontend_api_caps), capabilities(pong.llb_caps));
        Ok(Self { bridge: first.bridge, build: Arc::new(build) })
    }

    /// Asks whether the build is still there.
    pub async fn ping(&self) -> Result<(), GatewayError> {
        answered("Ping", self.bridge.clone().ping(self.request(wire::PingRequest {})).await).map(|_| ())
    }

    /// The session that the build's files and secrets come from.
    pub fn session(&self) -> &str {
        &self.build.session
    }

    /// The frontend attributes that the build was begun with.
    pub fn attrs(&self) -> &BTreeMap<String, String> {
        &self.build.attrs
    }

    /// Whether the daemon's gateway has the capability, `gateway.exec` say.
    pub fn supports(&self, capability: &str) -> bool {
        matches!(self.build.capabilities.get(capability), Some(Ok(())))
    }

    /// Whether a build graph may use the capability, `exec.mount.bind` say.
    pub fn graph_supports(&self, capability: &str) -> bool {
        matches!(self.build.graph.get(capability), Some(Ok(())))
    }

    /// Solves a frontend's build or a definition within this build.
    pub async fn solve(&self, solve: GatewaySolve) -> Result<GatewayResult, GatewayError> {
        for caps in solve.definition.iter().flat_map(|d| d.metadata.values()).map(|m| &m.caps) {
            for capability in caps.keys() {
                available(&self.build.graph, capability)?;
            }
        }
        let mut frontend_opt = solve.options;
        for inherited in ["cache-imports", "cache-from"] {
            if let Some(value) = self.build.attrs.get(inherited) {
                frontend_opt.entry(inherited.to_owned()).or_insert_with(|| value.clone());
            }
        }
        let entry = |e: CacheEntry| wire::CacheOptionsEntry { r#type: e.kind, attrs: e.attrs };
        let message = wire::SolveRequest {
            definition: solve.definition.map(graph::spelled_out),
            frontend: solve.frontend,
            frontend_opt,
            allow_result_return: true,
            allow_result_array_ref: true,
            cache_imports: solve.cache_imports.into_iter().map(entry).collect(),
            frontend_inputs: graph::inputs(solve.inputs),
            evaluate: solve.evaluate,
            source_policies: solve.policies.into_iter().filter_map(SourcePolicy::message).collect(),
        };
        if message.evaluate {
            self.needs("gateway.solve.evaluate")?;
        }
        let answer = answered("Solve", self.bridge.clone().solve(self.request(message)).await)?;
        Ok(self.result(answer.result.unwrap_or_default()))
    }

    /// The build graphs that a frontend in our place would be given.
    pub async fn inputs(&self) -> Result<BTreeMap<String, pb::Definition>, GatewayError> {
        self.needs("frontend.inputs")?;
        let answer = self.bridge.clone().inputs(self.request(wire::InputsRequest {})).await;
        Ok(answered("Inputs", answer)?.definitions)
    }

    /// Tells whoever follows the build.
    pub async fn warn(&self, warn: Warn) -> Result<(), GatewayError> {
        self.needs("gateway.warnings")?;
        let (info, ranges) = match warn.source {
            None => (None, Vec::new()),
            Some(source) => {
                let ranges = source.ranges.iter().map(pb::Range::from).collect();
                let data = source.text.into_bytes();
                (Some(pb::SourceInfo { filename: source.filename, data, ..Default::default() }), ranges)
            }
        };
        let message = wire::WarnRequest {
            digest: warn.vertex,
            level: warn.level,
            short: warn.short.into_bytes(),
            detail: warn.detail.into_iter().map(String::into_bytes).collect(),
            url: warn.url.unwrap_or_default(),
            info,
            ranges,
        };
        answered("Warn", self.bridge.clone().warn(self.request(message)).await).map(|_| ())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(BUILD_ID, self.build.id.clone());
        request
    }

    fn needs(&self, capability: &str) -> Result<(), GatewayError> {
        available(&self.build.capabilities, capability)
    }

    fn result(&self, result: wire::Result) -> GatewayResult {
        let reference = |r: wire::Ref| (!r.id.is_empty()).then(|| Reference::new(self.clone(), r));
        let references = match result.result {
            None => References::None,
            Some(wire::result::Result::Ref(one)) => {
                reference(one).map_or(References::None, |one| References::One(Box::new(one)))
            }
            Some(wire::result::Result::Refs(many)) => {
                References::Many(many.refs.into_iter().map(|(key, r)| (key, reference(r))).collect())
            }
        };
        GatewayResult { references, metadata: result.metadata, attestations: result.attestations }
    }

    /// Hands the outcome to the daemon.
    async fn give_back(&self, outcome: Result<GatewayResult, rpc::Status>) -> Result<(), GatewayError> {
        let message = match outcome {
            Ok(result) => wire::ReturnRequest { result: Some(result.into()), error: None },
            Err(error) => wire::ReturnRequest { result: None, error: Some(error) },
        };
        let mut bridge = self.bridge.clone();
        let returning = tokio::time::timeout(RETURN_TIMEOUT, bridge.r#return(self.request(message)));
        let late = || Status::deadline_exceeded("the result was not taken in time");
        answered("Return", returning.await.unwrap_or_else(|_| Err(late()))).map(|_| ())
    }
}

impl From<GatewayResult> for wire::Result {
    fn from(result: GatewayResult) -> Self {
        let reference =
            |r: Option<Reference>| graph::reference(r.map(|r| r.id().to_owned()).unwrap_or_default());
        let references = match result.references {
            References::None => wire::result::Result::Ref(reference(None)),
            References::One(one) => wire::result::Result::Ref(reference(Some(*one))),
            References::Many(many) => wire::result::Result::Refs(wire::RefMap {
                refs: many.into_iter().map(|(key, r)| (key, reference(r))).collect(),
            }),
        };
        let mut attestations = result.attestations;
        attestations.retain(|_, of_one| !of_one.attestation.is_empty());
        for attestation in attestations.values_mut().flat_map(|of_one| &mut of_one.attestation) {
            // the daemon's own are without a graph too
            attestation.r#ref = attestation.r#ref.take().map(|r| graph::reference(r.id));
        }
        Self { result: Some(references), metadata: result.metadata, attestations }
    }
}

impl From<&Range> for pb::Range {
    fn from(range: &Range) -> Self {
        let position = |p: Position| {
            let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
            Some(pb::Position { line: number(p.line), character: number(p.character) })
        };
        Self { start: position(range.start), end: position(range.end) }
    }
}

fn capabilities(announced: Vec<ApiCap>) -> Capabilities {
    let reason = |cap: &ApiCap| match cap.disabled_reason_msg.is_empty() {
        true => cap.disabled_reason.clone(),
        false => cap.disabled_reason_msg.clone(),
    };
    announced
        .into_iter()
        .map(|cap| {
            let state = if cap.enabled { Ok(()) } else { Err(reason(&cap)) };
            (cap.id, state)
        })
        .collect()
}

fn available(capabilities: &Capabilities, capability: &str) -> Result<(), GatewayError> {
    let reason = match capabilities.get(capability) {
        Some(Ok(())) => return Ok(()),
        Some(Err(reason)) => reason.clone(),
        None => "it is too old, or too new".to_owned(),
    };
    Err(GatewayError::Unsupported { capability: capability.to_owned(), reason })
}

fn answered<T>(call: &'static str, answer: Result<Response<T>, Status>) -> Result<T, GatewayError> {
    answer.map(Response::into_inner).map_err(|status| GatewayError::Call { call, status: Box::new(status) })
}

/// The details of a status, to be passed on.
fn details(status: &Status) -> Vec<prost_types::Any> {
    use prost::Message;
    rpc::Status::decode(status.details()).map(|full| full.details).unwrap_or_default()
}
