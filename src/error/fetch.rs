//! What went wrong with fetching as people see it.

use super::{Kind, Report};
use crate::fetch::FetchError;

impl From<FetchError> for Report {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        let (kind, hint) = match error {
            FetchError::Registry(error) => return error.into(),
            FetchError::Refused { refusal, .. } => (Kind::Forbidden, refusal.remedy().to_owned()),
            FetchError::Private { .. } => (
                Kind::Forbidden,
                "commit the file, or ask the operator to add the address to remote_sources (lemnos.toml)".to_owned(),
            ),
            FetchError::Address { .. } | FetchError::Redirects { .. } => {
                (Kind::User, "name the address at which the file itself is".to_owned())
            }
            FetchError::Status { .. } => (Kind::User, "correct the address, or wait until it answers".to_owned()),
            FetchError::TooLarge { .. } => (Kind::User, "make it smaller, or name another one".to_owned()),
            FetchError::Slow { .. } | FetchError::Broken { .. } => {
                (Kind::Unavailable, "try again; if it stays, commit the file".to_owned())
            }
            FetchError::WrongDigest { found, .. } => (
                Kind::User,
                format!("look at what stands there now; if it is what you mean, write digest = \"{found}\""),
            ),
            FetchError::Write { .. } => (Kind::Internal, "look at the disk".to_owned()),
            FetchError::NoRegistry { .. } => {
                (Kind::User, "add registry = \"HOST\" beside package and version".to_owned())
            }
            FetchError::Protocol { .. } => (
                Kind::User,
                "name one that speaks OCI; or download the package and name it by url and digest, or commit it".to_owned(),
            ),
            FetchError::Metadata { .. } | FetchError::Package { .. } => {
                (Kind::User, "name another version or registry; or commit the file".to_owned())
            }
        };
        Self::new(kind, message).hint(hint)
    }
}
