//! Secrets: what steps mount with `--mount=type=secret`, read when a step asks and never before.
//!
//! Invariants: only a secret that was offered by its id is given; at most 500 KiB leave here; what the daemon is told of
//! a failure names the id, never the place or the value. A secret is printed by nothing in this module.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lemnos_proto::secrets as wire;
use lemnos_proto::secrets::secrets_server::Secrets as Service;
use tonic::{Request, Response, Status};

/// The largest secret, as BuildKit's own clients have it.
pub const SECRET_LIMIT: usize = 500 << 10;
/// Longest wait for a store, which may ask somebody else.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(25);

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("two secrets are called {0:?}")]
    Duplicate(String),
    #[error("a secret needs an id")]
    Unnamed,
    #[error("the secret {id:?} has more than {SECRET_LIMIT} bytes")]
    TooLarge { id: String },
    #[error("the secret {id:?} cannot be read: {cause}")]
    Unreadable { id: String, cause: String },
}

/// Who knows secrets.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The secret of that id; none where there is none. What the error says is told to the daemon.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError>;
}

/// Where one secret is.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Value(Vec<u8>),
}

/// Secrets from files, and from memory: an environment variable is read by whoever may, and handed in as a value.
#[derive(Clone, Default)]
pub struct Secrets {
    sources: BTreeMap<String, Source>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.sources.keys()).finish()
    }
}

impl Secrets {
    /// The file must be there and small enough now; it is read when a step asks.
    pub fn file(self, id: &str, path: &Path) -> Result<Self, SecretError> {
        let unreadable = |cause: String| SecretError::Unreadable { id: id.to_owned(), cause };
        let found = std::fs::metadata(path).map_err(|cause| unreadable(cause.to_string()))?;
        if !found.is_file() {
            return Err(unreadable("it is not a regular file".to_owned()));
        }
        if found.len() > SECRET_LIMIT as u64 {
            return Err(SecretError::TooLarge { id: id.to_owned() });
        }
        self.add(id, Source::File(path.to_owned()))
    }

    pub fn value(self, id: &str, value: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let value = value.into();
        if value.len() > SECRET_LIMIT {
            return Err(SecretError::TooLarge { id: id.to_owned() });
        }
        self.add(id, Source::Value(value))
    }

    /// The variable's value as it is now. One that is not set is no secret, rather than an empty one.
    pub fn env(self, id: &str, variable: &str) -> Result<Self, SecretError> {
        #[allow(clippy::disallowed_methods, reason = "the caller names the variable: it is its setting")]
        let value = std::env::var_os(variable).ok_or_else(|| SecretError::Unreadable {
            id: id.to_owned(),
            cause: format!("the environment variable {variable} is not set"),
        })?;
        self.value(id, std::os::unix::ffi::OsStringExt::into_vec(value))
    }

    fn add(mut self, id: &str, source: Source) -> Result<Self, SecretError> {
        if id.is_empty() {
            return Err(SecretError::Unnamed);
        }
        if self.sources.insert(id.to_owned(), source).is_some() {
            return Err(SecretError::Duplicate(id.to_owned()));
        }
        Ok(self)
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        let path = match self.sources.get(id) {
            None => return Ok(None),
            Some(Source::Value(value)) => return Ok(Some(value.clone())),
            Some(Source::File(path)) => path.clone(),
        };
        let unreadable = |cause: String| SecretError::Unreadable { id: id.to_owned(), cause };
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        let content = read
            .map_err(|_| unreadable("reading it broke off".to_owned()))?
            .map_err(|cause| unreadable(cause.to_string()))?;
        if content.len() > SECRET_LIMIT {
            return Err(SecretError::TooLarge { id: id.to_owned() });
        }
        Ok(Some(content))
    }
}

/// The whole file, or one byte more than is allowed.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(SECRET_LIMIT as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The session's `Secrets` service.
pub(super) struct SecretService {
    store: Arc<dyn SecretStore>,
}

impl SecretService {
    pub fn new(store: Arc<dyn SecretStore>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Service for SecretService {
    async fn get_secret(
        &self,
        request: Request<wire::GetSecretRequest>,
    ) -> Result<Response<wire::GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.store.secret(&id)).await;
        let found = found.map_err(|_| Status::deadline_exceeded(format!("no secret {id:?} in time")))?;
        let secret = found.map_err(|problem| match &problem {
            SecretError::TooLarge { .. } => Status::resource_exhausted(problem.to_string()),
            _ => Status::failed_precondition(problem.to_string()),
        })?;
        match secret {
            None => Err(Status::not_found(format!("this build has no secret {id:?}"))),
            Some(data) if data.len() > SECRET_LIMIT => {
                Err(Status::resource_exhausted(SecretError::TooLarge { id }.to_string()))
            }
            Some(data) => Ok(Response::new(wire::GetSecretResponse { data })),
        }
    }
}
