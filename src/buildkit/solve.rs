//! One build: session, solve and progress at the same time, and an end in every case.
//!
//! Invariants: the daemon's own verdict wins over what we notice on our side; no wait is without a bound; when a build
//! returns or is dropped, nothing of it is left running here, and the daemon stops it. What a request says in types
//! (`Dockerfile`, `Exporter`, `CacheEntry`, …) is put into the daemon's words here; no flag is parsed here (`flags`).

mod attest;
mod cache;
mod contexts;
mod dockerfile;
mod export;
mod following;
mod message;
mod platform;
mod policy;

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{FusedFuture, Future, FutureExt};
use lemnos_proto::control as wire;
use lemnos_proto::control::control_client::ControlClient;
use lemnos_proto::pb;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub use attest::{Attestation, DEFAULT_PROVENANCE, Provenance, ProvenanceMode, Sbom};
pub use cache::{CacheEntry, CacheMode};
pub use contexts::NamedContext;
pub use dockerfile::{
    Dockerfile, HostEntry, MainContext, NetworkMode, NoCache, ResolveMode, Resources, Ulimit,
};
pub use export::{Annotation, AnnotationLevel, Compression, Exporter, ImageOptions};
pub use platform::{Platform, PlatformError};
pub use policy::{
    Condition, Constraint, PolicyAction, PolicyError, PolicyMatch, PolicyRule, SourcePolicy, SourceRule,
};

use super::error::{SolveError, chain};
use super::liveness;
use super::progress::SolveEvent;
use super::session::{Session, Tunnel, filesend};
use super::wire::Wire;
use following::{Progress, Step};

/// How long the daemon gets to give its verdict after the session, the progress or a build function broke.
const VERDICT_GRACE: Duration = Duration::from_secs(2);

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// `dockerfile.v0`, or `gateway.v0` with the attribute `source`; empty for a `definition`.
    pub frontend: String,
    pub frontend_attrs: BTreeMap<String, String>,
    /// Build graphs that a frontend may name: `context`, `dockerfile`, or what a named context calls `input:NAME`.
    pub frontend_inputs: BTreeMap<String, pb::Definition>,
    /// A build graph to solve as it is, without a frontend.
    pub definition: Option<pb::Definition>,
    /// Each gets the same result. Its place in the list, from 0, is the id by which the daemon asks the session for
    /// somewhere to put files.
    pub exporters: Vec<Exporter>,
    pub cache_imports: Vec<CacheEntry>,
    pub cache_exports: Vec<CacheEntry>,
    /// What a step may do beyond the usual: `network.host`, `security.insecure`, `device`, `device=NAME`.
    pub entitlements: Vec<String>,
    /// Which sources the build may take: of the rules that match one, the last decides; none matches: it is allowed.
    /// The daemon holds them for whatever a frontend asks for. Go's regular expressions are linear in the text.
    pub source_rules: Vec<SourceRule>,
    /// More rules, in all that the daemon knows; they come after `source_rules`.
    pub source_policy: SourcePolicy,
    /// Whether the daemon asks the session about every source, in any case: it does where the session has a judge.
    pub policy_session: bool,
    /// Whether the daemon asks the session what else to export, in any case: it does where the session has a chooser.
    pub session_exporter: bool,
    /// Whether steps reach the network through the daemon's proxy only.
    pub proxy_network: bool,
    /// Asks for the behaviour of an older daemon; 0 for the current one.
    pub compatibility_version: i64,
    /// Whether to leave no record in the daemon's history.
    pub internal: bool,
    /// Names the build in the daemon's history; made up when absent.
    pub reference: Option<String>,
    pub session: Session,
}

/// What a build gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolveResult {
    /// What the exporters say: `containerimage.digest`, `containerimage.descriptor` (base64), `image.name`, …
    pub attrs: BTreeMap<String, String>,
    /// What names the build in the daemon's history.
    pub reference: String,
}

/// A build that has been named, for whoever steers it from here.
pub(super) struct Begun {
    pub reference: String,
    pub session: String,
    pub frontend_attrs: BTreeMap<String, String>,
    /// Why the function failed, to be set before the daemon is told: its verdict may overtake the answer.
    pub failed: Arc<OnceLock<SolveError>>,
}

/// Has the daemon build what the request names.
pub(super) async fn run(
    control: &ControlClient<Channel>,
    connection: &Wire,
    request: SolveRequest,
    on_message: impl FnMut(Vec<SolveEvent>) + Send,
) -> Result<SolveResult, SolveError> {
    message::one_of_frontend_and_definition(&request)?;
    drive(control, connection, request, |_| std::future::pending(), on_message).await
}

/// Begins a build whose result a function of ours returns over the gateway. `function` ends when it has returned it, or
/// when it failed and the daemon has been told.
pub(super) async fn run_function<Function, Running>(
    control: &ControlClient<Channel>,
    connection: &Wire,
    request: SolveRequest,
    function: Function,
    on_message: impl FnMut(Vec<SolveEvent>) + Send,
) -> Result<SolveResult, SolveError>
where
    Function: FnOnce(Begun) -> Running,
    Running: Future<Output = Result<(), SolveError>>,
{
    message::neither_frontend_nor_definition(&request)?;
    drive(control, connection, request, function, on_message).await
}

async fn drive<Function, Running>(
    control: &ControlClient<Channel>,
    connection: &Wire,
    request: SolveRequest,
    function: Function,
    on_message: impl FnMut(Vec<SolveEvent>) + Send,
) -> Result<SolveResult, SolveError>
where
    Function: FnOnce(Begun) -> Running,
    Running: Future<Output = Result<(), SolveError>>,
{
    let reference = request.reference.clone().unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let tunnel = Tunnel::open(control.clone(), &request.session)?;
    let exports = request.session.exports.clone();
    let message = message::message(&reference, tunnel.id(), request)?;
    let begun = Begun {
        reference: reference.clone(),
        session: tunnel.id().to_owned(),
        frontend_attrs: message.frontend_attrs.clone(),
        failed: Arc::default(),
    };
    let failed = begun.failed.clone();
    let mut asking = control.clone();
    let solving = pin!(async move { asking.solve(message).await.map(Response::into_inner) }.fuse());
    let function = pin!(function(begun).fuse());
    let mut progress = Progress::new(control.clone(), reference.clone(), on_message);
    let lost = pin!(liveness::until_lost(control, connection));
    let outcome = Build { solving, function, failed, tunnel, progress: &mut progress }.verdict(lost).await;
    let kept = filesend::decide(&exports, outcome.is_ok()).await;
    match outcome {
        Ok(done) => {
            progress.finish().await;
            kept.map_err(|cause| {
                SolveError::invalid(format!("the export cannot be put in its place: {cause}"))
            })?;
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
struct Build<'a, S, G, F> {
    solving: Pin<&'a mut S>,
    function: Pin<&'a mut G>,
    failed: Arc<OnceLock<SolveError>>,
    tunnel: Tunnel,
    progress: &'a mut Progress<F>,
}

struct Failure {
    error: SolveError,
    /// Whether waiting for more progress is pointless.
    peer_is_gone: bool,
}

impl<S, G, F> Build<'_, S, G, F>
where
    S: FusedFuture<Output = Result<wire::SolveResponse, Status>>,
    G: FusedFuture<Output = Result<(), SolveError>>,
    F: FnMut(Vec<SolveEvent>) + Send,
{
    /// Follows the build until the daemon has decided, or cannot any more. The session ends here: what is left to tell
    /// needs none.
    async fn verdict(
        mut self,
        mut lost: Pin<&mut impl Future<Output = Duration>>,
    ) -> Result<wire::SolveResponse, Failure> {
        let broken = loop {
            tokio::select! {
                verdict = &mut self.solving => return self.judged(verdict),
                returned = &mut self.function, if !self.function.is_terminated() => match returned {
                    Ok(()) => {}
                    Err(error) => return Err(self.ended(error).await),
                },
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
        match tokio::time::timeout(VERDICT_GRACE, &mut self.solving).await {
            Ok(verdict) => self.judged(verdict),
            Err(_) => Err(Failure { error: SolveError::lost(broken), peer_is_gone: true }),
        }
    }

    /// The function has failed; the daemon is given the time to end the build in its own order.
    async fn ended(mut self, error: SolveError) -> Failure {
        match tokio::time::timeout(VERDICT_GRACE, &mut self.solving).await {
            Ok(verdict) => self.judged(verdict).err().unwrap_or(Failure { error, peer_is_gone: false }),
            Err(_) => Failure { error, peer_is_gone: true },
        }
    }

    /// A function's own error is the build's: what the daemon then says is about that and tells less.
    fn judged(&self, verdict: Result<wire::SolveResponse, Status>) -> Result<wire::SolveResponse, Failure> {
        verdict.map_err(|status| {
            let own = self.failed.get().cloned();
            let error = own.unwrap_or_else(|| SolveError::from_status(&status));
            Failure { error, peer_is_gone: false }
        })
    }
}
