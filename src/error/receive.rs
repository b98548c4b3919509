//! `receive` errors as people see them.

use super::{Kind, Report};
use crate::receive::{ReceiveError, Refusal};

impl From<ReceiveError> for Report {
    fn from(error: ReceiveError) -> Self {
        use ReceiveError as E;
        let (kind, hint) = match &error {
            E::NoGit { .. } => (Kind::Internal, Some("install git, or say where it is")),
            E::GitTooOld { .. } => (Kind::Internal, Some("install a newer git, or say where one is")),
            E::NotAbsolute { .. } => (Kind::User, Some("give the whole path, beginning with /")),
            E::SocketPath { .. } => (Kind::User, Some("choose a data directory with a shorter path")),
            E::Io { .. } | E::Repository { .. } => (
                Kind::Internal,
                Some(
                    "check that the data directory belongs to the user lemnos runs as, and that its disk has room",
                ),
            ),
            E::BadId(_) => (Kind::Internal, None),
            E::Object { .. } => (Kind::NotFound, Some("push the commit again, or check the id")),
        };
        let report = Self::new(kind, error.to_string());
        match hint {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

impl From<Refusal> for Report {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Forged(_) => Kind::Forbidden,
            _ => Kind::User,
        };
        let report = Self::new(kind, refusal.to_string());
        match refusal.remedy() {
            Some(remedy) => report.hint(remedy),
            None => report,
        }
    }
}
