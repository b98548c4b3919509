//! `registry` errors as people see them.

use super::{Kind, Report};
use crate::registry::{Problem, RegistryError};

impl From<RegistryError> for Report {
    fn from(error: RegistryError) -> Self {
        let kind = match &*error.problem {
            Problem::NoCredentials { .. }
            | Problem::BadCredentials { .. }
            | Problem::Forbidden { .. }
            | Problem::ForeignRealm { .. } => Kind::Forbidden,
            Problem::NotFound { .. } => Kind::NotFound,
            Problem::Rejected { .. } => Kind::Conflict,
            Problem::TooLarge { .. } | Problem::BlobTooLarge { .. } | Problem::PlainHttp => Kind::User,
            Problem::Client { .. } | Problem::Credentials(_) | Problem::Source { .. } => Kind::Internal,
            Problem::RateLimited { .. }
            | Problem::Server { .. }
            | Problem::Redirected { .. }
            | Problem::ConnectionRefused
            | Problem::Unresolved { .. }
            | Problem::Unreachable { .. }
            | Problem::Tls { .. }
            | Problem::Timeout { .. }
            | Problem::Broken { .. }
            | Problem::WrongDigest { .. }
            | Problem::Nonsense { .. }
            | Problem::Storage { .. }
            | Problem::TokenService { .. } => Kind::Unavailable,
        };
        Self::new(kind, error.to_string()).hint(error.remedy())
    }
}
