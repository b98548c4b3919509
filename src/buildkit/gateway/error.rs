//! What can go wrong within a build function, and what of it the build's own error tells.

use lemnos_proto::rpc;
use tonic::{Code, Status};

use super::details;
use crate::buildkit::error::{SolveError, SolveErrorKind};

/// Why a build function, or one of its calls, failed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The daemon refused a call, or what it was to build failed.
    #[error("{call}: {}", status.message())]
    Call { call: &'static str, status: Box<Status> },
    #[error("this buildkitd lacks {capability}: {reason}")]
    Unsupported { capability: String, reason: String },
    #[error("buildkitd's answer to {call} cannot be used: {reason}")]
    Answer { call: &'static str, reason: String },
    /// The function's own reason.
    #[error("{0}")]
    Failed(String),
}

impl GatewayError {
    /// The gRPC code of a failed call.
    pub fn code(&self) -> Code {
        match self {
            Self::Call { status, .. } => status.code(),
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::Answer { .. } => Code::Internal,
            Self::Failed(_) => Code::Unknown,
        }
    }

    /// With all its details, so that the daemon's record of the build tells what its own failure would.
    pub(super) fn status(&self) -> rpc::Status {
        let (message, details) = match self {
            Self::Call { status, .. } => (status.message().to_owned(), details(status)),
            other => (other.to_string(), Vec::new()),
        };
        rpc::Status { code: self.code() as i32, message, details }
    }
}

impl From<GatewayError> for SolveError {
    fn from(error: GatewayError) -> Self {
        let message = error.to_string();
        match error {
            GatewayError::Call { status, .. } => Self::from_status(&status),
            GatewayError::Unsupported { .. } => Self { code: Code::Unimplemented, ..Self::invalid(message) },
            GatewayError::Answer { .. } => Self { code: Code::Internal, ..Self::invalid(message) },
            GatewayError::Failed(_) => {
                Self { kind: SolveErrorKind::Build, code: Code::Unknown, ..Self::invalid(message) }
            }
        }
    }
}
