//! `buildkit` errors as people see them.

use super::{Kind, Report};
use crate::buildkit::flags::FlagError;
use crate::buildkit::join::JoinError;
use crate::buildkit::{Error, SolveError, SolveErrorKind};

impl From<FlagError> for Report {
    fn from(error: FlagError) -> Self {
        Self::new(Kind::User, error.to_string())
    }
}

impl From<JoinError> for Report {
    fn from(error: JoinError) -> Self {
        let kind = if matches!(error, JoinError::Answer(_)) { Kind::Unavailable } else { Kind::User };
        Self::new(kind, error.to_string())
    }
}

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        let (kind, hint) = match &error {
            Error::Address { .. } => {
                (Kind::User, "for example unix:///run/buildkit/buildkitd.sock or tcp://10.0.0.5:1234")
            }
            Error::Connect { .. } => (
                Kind::Unavailable,
                "check that buildkitd runs and listens there, and that this user may connect",
            ),
            Error::Timeout { .. } | Error::Gone { .. } => {
                (Kind::Unavailable, "check the network and buildkitd's log; the same command may work later")
            }
            Error::Tls { .. } => (
                Kind::Unavailable,
                "compare the CA, the client certificate and its expiry, and the server name with buildkitd's own",
            ),
            Error::Protocol { .. } => {
                (Kind::Unavailable, "check the port, and whether buildkitd expects TLS there")
            }
            Error::Refused { .. } => {
                (Kind::Unavailable, "see buildkitd's log; version 0.28.1 or newer is needed")
            }
        };
        Self::new(kind, error.to_string()).hint(hint)
    }
}

impl From<SolveError> for Report {
    fn from(error: SolveError) -> Self {
        match error.kind {
            SolveErrorKind::Build => Self::new(Kind::Build, error.message),
            SolveErrorKind::Canceled => {
                Self::new(Kind::Unavailable, format!("buildkitd stopped the build: {}", error.message))
                    .hint("it may be shutting down; try again")
            }
            SolveErrorKind::Infrastructure if error.temporary => {
                Self::new(Kind::Unavailable, error.message).hint("this is not the build's fault; try again")
            }
            SolveErrorKind::Infrastructure => Self::new(Kind::Unavailable, error.message)
                .hint("this is not the build's fault; see buildkitd's log"),
        }
    }
}
