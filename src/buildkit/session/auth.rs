//! Registry credentials for the daemon.
//!
//! Each answer is looked up by the very host that was asked for: no prefix, suffix or fallback, so that a registry whose
//! name resembles another's gets nothing of it.

mod docker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lemnos_proto::session as wire;
use lemnos_proto::session::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::token;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
pub use docker::{DockerConfig, DockerConfigError};

/// Under this name Docker's configuration keeps the credential of Docker Hub.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The hosts that Docker Hub answers on.
const DOCKER_HUB_HOSTS: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];
/// Longest wait for a provider, which may run a credential helper. The daemon gives up after 60 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(25);
/// What the daemon has signed is so long, and nothing else is signed for it.
const CHALLENGE_BYTES: usize = 32;

/// What opens one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub username: String,
    pub secret: String,
    /// A refresh token; where set, it stands for user name and secret.
    pub identity_token: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A repository of a registry, and what is to be done with it: `pull`, `push`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub repository: String,
    pub actions: Vec<String>,
}

impl Scope {
    /// Reads `repository:NAME:ACTION,…`; everything else that a registry may be asked for is not for builds.
    fn parse(text: &str) -> Option<Self> {
        let (repository, actions) = text.strip_prefix("repository:")?.rsplit_once(':')?;
        let actions = actions.split(',').map(str::to_owned).collect();
        (!repository.is_empty()).then(|| Self { repository: repository.to_owned(), actions })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:{}", self.repository, self.actions.join(","))
    }
}

/// What a token may be bought for, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub scopes: Vec<Scope>,
    pub credential: Option<Credential>,
}

/// Who knows credentials.
#[async_trait]
pub trait AuthProvider: Send + Sync {
    /// The credential of `host`, which is `HOST[:PORT]` or `DOCKER_HUB_KEY`, and of no other host, to be handed to the
    /// daemon as it is. The error, for one that is not to leave, is told to the daemon.
    async fn credentials(&self, host: &str) -> Result<Option<Credential>, String>;

    /// The part of `asked` that the build may have tokens for. The error says why there is none.
    async fn grant(&self, host: &str, asked: Vec<Scope>) -> Result<Grant, String> {
        Ok(Grant { scopes: asked, credential: self.credentials(host).await? })
    }

    /// Whether the token service on `realm_host` may be sent the credential of `host`.
    fn trusts_realm(&self, _host: &str, _realm_host: &str) -> bool {
        true
    }

    /// The seed of the key that stands for our right to buy tokens for `host`: the daemon lends one session's tokens to
    /// another that proves to have the same key, so equal seeds must mean equal rights. None: the daemon asks for
    /// credentials, or goes without.
    async fn token_key(&self, _host: &str, _salt: &[u8]) -> Option<[u8; 32]> {
        None
    }

    /// Whether `host`, which is not this machine, may be asked for tokens without TLS.
    fn allows_plain_http(&self, _host: &str) -> bool {
        false
    }
}

/// The session's `Auth` service.
pub(super) struct AuthService {
    provider: Arc<dyn AuthProvider>,
}

impl AuthService {
    pub fn new(provider: Arc<dyn AuthProvider>) -> Self {
        Self { provider }
    }

    /// `work` on the name that the host's credential is kept under.
    async fn bounded<T>(&self, host: &str, work: impl Future<Output = T>) -> Result<T, Status> {
        tokio::time::timeout(LOOKUP_TIMEOUT, work)
            .await
            .map_err(|_| Status::deadline_exceeded(format!("no credentials for {host} in time")))
    }

    async fn key_of(&self, host: &str, salt: &[u8]) -> Result<Option<Ed25519KeyPair>, Status> {
        let seed = self.bounded(host, self.provider.token_key(kept_under(host), salt)).await?;
        let key = seed.map(|seed| Ed25519KeyPair::from_seed_unchecked(&seed));
        key.transpose().map_err(|_| Status::internal("no key can be made for this registry"))
    }
}

fn kept_under(host: &str) -> &str {
    if DOCKER_HUB_HOSTS.contains(&host) { DOCKER_HUB_KEY } else { host }
}

#[async_trait]
impl Auth for AuthService {
    async fn credentials(
        &self,
        request: Request<wire::CredentialsRequest>,
    ) -> Result<Response<wire::CredentialsResponse>, Status> {
        let host = &request.get_ref().host;
        let found = self.bounded(host, self.provider.credentials(kept_under(host))).await?;
        let answer = match found.map_err(Status::permission_denied)? {
            None => wire::CredentialsResponse::default(),
            Some(Credential { identity_token: Some(secret), .. }) => {
                wire::CredentialsResponse { username: String::new(), secret }
            }
            Some(Credential { username, secret, .. }) => wire::CredentialsResponse { username, secret },
        };
        Ok(Response::new(answer))
    }

    async fn fetch_token(
        &self,
        request: Request<wire::FetchTokenRequest>,
    ) -> Result<Response<wire::FetchTokenResponse>, Status> {
        let mut request = request.into_inner();
        let asked: Vec<Scope> =
            request.scopes.iter().take(token::SCOPE_COUNT).filter_map(|scope| Scope::parse(scope)).collect();
        let granted =
            self.bounded(&request.host, self.provider.grant(kept_under(&request.host), asked)).await?;
        let granted = granted.map_err(Status::permission_denied)?;
        request.scopes = granted.scopes.iter().map(Scope::to_string).collect();
        let rules = token::RealmRules {
            plain_http: self.provider.allows_plain_http(&request.host),
            trusted: &|realm| self.provider.trusts_realm(&request.host, realm),
        };
        token::fetch(&request, granted.credential.as_ref(), &rules)
            .await
            .map(Response::new)
            .map_err(|error| error.into_status(&request.host))
    }

    /// The public key that stands for our right to tokens of the host. Where there is none the daemon asks for
    /// credentials instead.
    async fn get_token_authority(
        &self,
        request: Request<wire::GetTokenAuthorityRequest>,
    ) -> Result<Response<wire::GetTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.key_of(&request.host, &request.salt).await?;
        let key = key.ok_or_else(|| Status::unimplemented("no token authority"))?;
        let public_key = key.public_key().as_ref().to_vec();
        Ok(Response::new(wire::GetTokenAuthorityResponse { public_key }))
    }

    /// Proves that we have the key: the signature, then what was signed, as NaCl's `sign` puts them.
    async fn verify_token_authority(
        &self,
        request: Request<wire::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<wire::VerifyTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.key_of(&request.host, &request.salt).await?;
        let key = key.ok_or_else(|| Status::unimplemented("no token authority"))?;
        if request.payload.len() != CHALLENGE_BYTES {
            return Err(Status::invalid_argument("a challenge of another length is not signed"));
        }
        let mut signed = key.sign(&request.payload).as_ref().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(wire::VerifyTokenAuthorityResponse { signed }))
    }
}
