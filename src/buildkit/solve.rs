//! One build: session, solve and progress at the same time, and an end in every case.
//!
//! Invariants: the daemon's own verdict wins over what we notice on our side; no wait is without a bound; when `run`
//! returns or is dropped, nothing of the build is left running here, and the daemon stops it.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{FusedFuture, Future, FutureExt};
use lemnos_proto::control as wire;
use lemnos_proto::control::control_client::ControlClient;
use lemnos_proto::sourcepolicy as policy;
use serde::Serialize;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use super::error::{FailedVertex, SolveError, chain};
use super::liveness;
use super::progress::{self, SolveEvent};
use super::session::{Session, Tunnel};
use super::wire::Wire;

/// How long the daemon gets to give its verdict after the session or the progress broke.
const VERDICT_GRACE: Duration = Duration::from_secs(2);
/// How long progress may be silent after the verdict, and how long it may go on.
const TAIL_IDLE: Duration = Duration::from_secs(5);
const TAIL_TOTAL: Duration = Duration::from_secs(30);
/// Most names of steps kept to name the one that fails.
const NAME_LIMIT: usize = 20_000;
/// How often progress is asked for again; the daemon waits about 6 s for a build to begin before it says no.
const REOPEN_LIMIT: u32 = 10;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// `dockerfile.v0`, or `gateway.v0` with the attribute `source`.
    pub frontend: String,
    pub frontend_attrs: BTreeMap<String, String>,
    pub exporters: Vec<Exporter>,
    pub cache_imports: Vec<CacheEntry>,
    pub cache_exports: Vec<CacheEntry>,
    /// What a step may do beyond the usual: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// Which sources the build may take: of the rules that match one, the last decides; none matches: it is allowed.
    /// The daemon holds them for whatever a frontend asks for. Go's regular expressions are linear in the text.
    pub source_rules: Vec<SourceRule>,
    /// Whether to leave no record in the daemon's history.
    pub internal: bool,
    pub session: Session,
}

/// One rule over sources, by BuildKit's name of them (`docker-image://…`, `https://…`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceRule {
    /// Regular expression, not anchored.
    pub pattern: String,
    /// Where set, `pattern` is matched against this attribute of the sources whose name begins with `git://`.
    pub attribute: Option<String>,
    pub allow: bool,
}

/// What to do with a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exporter {
    /// `image`, `oci`, `local`, …
    pub kind: String,
    pub attrs: BTreeMap<String, String>,
}

/// Where cached steps come from or go to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// `registry`, `inline`, `local`, …
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// What a build gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolveResult {
    /// What the exporters say: `containerimage.digest`, `containerimage.descriptor` (base64), `image.name`, …
    pub attrs: BTreeMap<String, String>,
    /// What names the build in the daemon's history.
    pub reference: String,
}

pub(super) async fn run(
    control: &ControlClient<Channel>,
    connection: &Wire,
    request: SolveRequest,
    on_event: impl FnMut(SolveEvent) + Send,
) -> Result<SolveResult, SolveError> {
    let reference = uuid::Uuid::now_v7().simple().to_string();
    let tunnel = Tunnel::open(control.clone(), &request.session)?;
    let message = message(&reference, tunnel.id(), request)?;
    let mut asking = control.clone();
    let solving = pin!(async move { asking.solve(message).await.map(Response::into_inner) }.fuse());
    let mut progress = Progress::new(control.clone(), reference.clone(), on_event);
    let lost = pin!(liveness::until_lost(control, connection));
    let outcome = Build { solving, tunnel, progress: &mut progress }.verdict(lost).await;
    match outcome {
        Ok(done) => {
            progress.finish().await;
            Ok(SolveResult { attrs: done.exporter_response, reference })
        }
        Err(failure) => {
            if !failure.peer_is_gone {
                progress.finish().await;
            }
            Err(progress.name(failure.error))
        }
    }
}

/// A build that has no verdict yet.
struct Build<'a, S, F> {
    solving: Pin<&'a mut S>,
    tunnel: Tunnel,
    progress: &'a mut Progress<F>,
}

struct Failure {
    error: SolveError,
    /// Whether waiting for more progress is pointless.
    peer_is_gone: bool,
}

impl<S, F> Build<'_, S, F>
where
    S: FusedFuture<Output = Result<wire::SolveResponse, Status>>,
    F: FnMut(SolveEvent) + Send,
{
    /// Follows the build until the daemon has decided, or cannot any more. The session ends here: what is left to tell
    /// needs none.
    async fn verdict(
        mut self,
        mut lost: Pin<&mut impl Future<Output = Duration>>,
    ) -> Result<wire::SolveResponse, Failure> {
        let broken = loop {
            tokio::select! {
                verdict = &mut self.solving => return judged(verdict),
                silence = &mut lost => {
                    let message = format!(
                        "buildkitd has gone silent: nothing heard for {} s, and no answer to a question",
                        silence.as_secs()
                    );
                    return Err(Failure { error: SolveError::lost(message), peer_is_gone: true });
                }
                ended = self.tunnel.ended() => break format!("the session with buildkitd ended during the build: {}", chain(&ended)),
                step = self.progress.step() => match step {
                    Step::Told | Step::Ended => {}
                    Step::Broken(status) => break format!("the progress of the build broke: {}", chain(&status)),
                },
            }
        };
        // what broke may be a sign of a verdict that is on its way
        match tokio::time::timeout(VERDICT_GRACE, self.solving).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(status)) => judged(Err(status)),
            Err(_) => Err(Failure { error: SolveError::lost(broken), peer_is_gone: true }),
        }
    }
}

fn judged(verdict: Result<wire::SolveResponse, Status>) -> Result<wire::SolveResponse, Failure> {
    verdict.map_err(|status| Failure { error: SolveError::from_status(&status), peer_is_gone: false })
}

fn message(reference: &str, session: &str, request: SolveRequest) -> Result<wire::SolveRequest, SolveError> {
    let mut frontend_attrs = request.frontend_attrs;
    if !request.frontend.is_empty() && !request.cache_imports.is_empty() {
        // a frontend does not see the request's cache entries; it reads them from this attribute
        let imports = serde_json::to_string(&request.cache_imports)
            .map_err(|e| SolveError::invalid(format!("cache imports: {e}")))?;
        frontend_attrs.entry("cache-imports".into()).or_insert(imports);
    }
    let entries = |entries: Vec<CacheEntry>| {
        entries.into_iter().map(|e| wire::CacheOptionsEntry { r#type: e.kind, attrs: e.attrs }).collect()
    };
    Ok(wire::SolveRequest {
        r#ref: reference.to_owned(),
        session: session.to_owned(),
        frontend: request.frontend,
        frontend_attrs,
        cache: Some(wire::CacheOptions {
            exports: entries(request.cache_exports),
            imports: entries(request.cache_imports),
        }),
        entitlements: request.entitlements,
        internal: request.internal,
        source_policy: source_policy(request.source_rules),
        exporters: request
            .exporters
            .into_iter()
            .map(|e| wire::Exporter { r#type: e.kind, attrs: e.attrs })
            .collect(),
    })
}

fn source_policy(rules: Vec<SourceRule>) -> Option<policy::Policy> {
    if rules.is_empty() {
        return None;
    }
    let rule = |rule: SourceRule| {
        let (identifier, constraints) = match rule.attribute {
            None => (rule.pattern, Vec::new()),
            Some(key) => {
                let condition = policy::AttrMatch::Matches.into();
                ("^git://".to_owned(), vec![policy::AttrConstraint { key, value: rule.pattern, condition }])
            }
        };
        let action = if rule.allow { policy::PolicyAction::Allow } else { policy::PolicyAction::Deny };
        let match_type = policy::MatchType::Regex.into();
        let selector = policy::Selector { identifier, match_type, constraints };
        policy::Rule { action: action.into(), selector: Some(selector) }
    };
    Some(policy::Policy { version: 1, rules: rules.into_iter().map(rule).collect() })
}

/// The daemon's progress stream, and what must be remembered of it.
struct Progress<F> {
    control: ControlClient<Channel>,
    reference: String,
    on_event: F,
    stream: Stream,
    names: BTreeMap<String, String>,
    failed: Option<FailedVertex>,
    reopened: u32,
}

enum Stream {
    /// Being asked for; boxed because it is kept between steps.
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<wire::StatusResponse>, Status>> + Send>>),
    Open(Box<Streaming<wire::StatusResponse>>),
    Ended,
}

enum Step {
    Told,
    Ended,
    Broken(Status),
}

impl<F: FnMut(SolveEvent) + Send> Progress<F> {
    fn new(control: ControlClient<Channel>, reference: String, on_event: F) -> Self {
        let stream = Self::open(&control, &reference);
        Self { control, reference, on_event, stream, names: BTreeMap::new(), failed: None, reopened: 0 }
    }

    fn open(control: &ControlClient<Channel>, reference: &str) -> Stream {
        let mut asking = control.clone();
        let request = wire::StatusRequest { r#ref: reference.to_owned() };
        Stream::Opening(Box::pin(async move { asking.status(request).await.map(Response::into_inner) }))
    }

    /// Takes one step: the stream opens, tells something, ends or breaks. After the end it waits for ever. Nothing is
    /// lost when a step is dropped before it is done.
    async fn step(&mut self) -> Step {
        let outcome = match &mut self.stream {
            Stream::Opening(opening) => match opening.await {
                Ok(stream) => {
                    self.stream = Stream::Open(Box::new(stream));
                    return Step::Told;
                }
                Err(status) => Err(status),
            },
            Stream::Open(stream) => stream.message().await,
            Stream::Ended => std::future::pending().await,
        };
        match outcome {
            Ok(Some(message)) => {
                self.tell(message);
                Step::Told
            }
            Ok(None) => {
                self.stream = Stream::Ended;
                Step::Ended
            }
            // a busy daemon may take longer to begin a build than it lets us wait for its progress
            Err(status) if status.code() == Code::NotFound && self.names.is_empty() => {
                self.reopened += 1;
                if self.reopened > REOPEN_LIMIT {
                    self.stream = Stream::Ended;
                    return Step::Ended;
                }
                self.stream = Self::open(&self.control, &self.reference);
                Step::Told
            }
            Err(status) => {
                self.stream = Stream::Ended;
                Step::Broken(status)
            }
        }
    }

    fn tell(&mut self, message: wire::StatusResponse) {
        for event in progress::events(message) {
            if let SolveEvent::Vertex(vertex) = &event {
                if self.names.len() < NAME_LIMIT || self.names.contains_key(&vertex.digest) {
                    self.names.insert(vertex.digest.clone(), vertex.name.clone());
                }
                let failed = vertex.error.as_ref().is_some_and(|error| !error.contains("context canceled"));
                if failed && self.failed.is_none() {
                    let (digest, name) = (vertex.digest.clone(), vertex.name.clone());
                    self.failed = Some(FailedVertex { digest, name });
                }
            }
            (self.on_event)(event);
        }
    }

    /// Tells what is left after the verdict.
    async fn finish(&mut self) {
        let end = Instant::now() + TAIL_TOTAL;
        while !matches!(self.stream, Stream::Ended) && Instant::now() < end {
            match tokio::time::timeout(TAIL_IDLE, self.step()).await {
                Ok(Step::Told) => {}
                Ok(Step::Ended | Step::Broken(_)) | Err(_) => return,
            }
        }
    }

    /// `error` with the failing step's name, as far as it can be known.
    fn name(&self, mut error: SolveError) -> SolveError {
        match &mut error.vertex {
            Some(vertex) => {
                if let Some(name) = self.names.get(&vertex.digest) {
                    vertex.name.clone_from(name);
                }
            }
            None => error.vertex.clone_from(&self.failed),
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_told_of_cache_imports() {
        let attrs = BTreeMap::from([("ref".to_owned(), "r.example/c".to_owned())]);
        let request = SolveRequest {
            frontend: "dockerfile.v0".into(),
            cache_imports: vec![CacheEntry { kind: "registry".into(), attrs }],
            ..Default::default()
        };
        let message = message("r", "s", request).unwrap();
        assert_eq!(
            message.frontend_attrs["cache-imports"],
            r#"[{"Type":"registry","Attrs":{"ref":"r.example/c"}}]"#
        );
        assert_eq!(message.cache.unwrap().imports.len(), 1);
    }
}
