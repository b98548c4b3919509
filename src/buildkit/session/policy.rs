//! Source policy asked over the session: before the daemon takes a source, it asks us, and takes nothing but a yes.
//!
//! Invariants: whoever judges is asked within a bounded time; what fails or takes too long allows nothing. The daemon ends
//! a build that is asked for more and more about one source, after ten times.
//! Source: moby/buildkit v0.32.2, sourcepolicy/policysession and solver/llbsolver/policy.go.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lemnos_proto::pb;
use lemnos_proto::policysession as wire;
use lemnos_proto::policysession::check_policy_response::Result as Answer;
use lemnos_proto::policysession::policy_verifier_server::PolicyVerifier;
use lemnos_proto::sourcepolicy::PolicyAction;
use tonic::{Request, Response, Status};

use crate::buildkit::gateway::{ResolveOptions, SourceMetadata, resolve_request};

/// Longest wait for a judgement, which may ask somebody else.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a build wants to take.
#[derive(Debug, Clone, Default)]
pub struct SourceQuestion {
    /// Whose image it would be.
    pub platform: Option<pb::Platform>,
    /// Its name; and what it stands for, once [`Judgement::LookUp`] has asked for that.
    pub found: SourceMetadata,
}

/// The answer.
#[derive(Debug, Clone)]
pub enum Judgement {
    Allow,
    /// No, and why, in words for whoever builds.
    Deny(Vec<String>),
    /// Another source in its place, which is judged in turn.
    Convert(pb::SourceOp),
    /// More must be known first: the question comes again with what the daemon finds.
    LookUp(Box<ResolveOptions>),
}

/// Who decides which sources a build may take.
#[async_trait]
pub trait SourceJudge: Send + Sync {
    /// The error is told to the daemon, and fails the build.
    async fn judge(&self, question: SourceQuestion) -> Result<Judgement, String>;
}

/// The session's `PolicyVerifier` service.
pub(super) struct PolicyService {
    judge: Arc<dyn SourceJudge>,
}

impl PolicyService {
    pub fn new(judge: Arc<dyn SourceJudge>) -> Self {
        Self { judge }
    }
}

#[async_trait]
impl PolicyVerifier for PolicyService {
    async fn check_policy(
        &self,
        request: Request<wire::CheckPolicyRequest>,
    ) -> Result<Response<wire::CheckPolicyResponse>, Status> {
        let asked = request.into_inner();
        let found = SourceMetadata::from(asked.source.unwrap_or_default());
        let source = found.source.clone();
        let question = SourceQuestion { platform: asked.platform.clone(), found };
        let judged = tokio::time::timeout(JUDGE_TIMEOUT, self.judge.judge(question)).await;
        let judged = judged.map_err(|_| {
            Status::deadline_exceeded(format!(
                "the source policy did not judge {} in time",
                source.identifier
            ))
        })?;
        let judgement = judged.map_err(|why| {
            Status::failed_precondition(format!(
                "the source policy cannot judge {}: {why}",
                source.identifier
            ))
        })?;
        let decided =
            |action: PolicyAction| wire::DecisionResponse { action: action.into(), ..Default::default() };
        let answer = match judgement {
            Judgement::Allow => Answer::Decision(decided(PolicyAction::Allow)),
            Judgement::Deny(reasons) => {
                let deny_messages =
                    reasons.into_iter().map(|message| wire::DenyMessage { message }).collect();
                Answer::Decision(wire::DecisionResponse { deny_messages, ..decided(PolicyAction::Deny) })
            }
            Judgement::Convert(other) => Answer::Decision(wire::DecisionResponse {
                update: Some(other),
                ..decided(PolicyAction::Convert)
            }),
            Judgement::LookUp(options) => {
                let mut request = resolve_request(source, &options);
                // an image is looked up for the platform that it is wanted for
                request.platform = request.platform.or(asked.platform);
                Answer::Request(request)
            }
        };
        Ok(Response::new(wire::CheckPolicyResponse { result: Some(answer) }))
    }
}
