//! Registry credentials for the daemon.
//!
//! Each answer is looked up by the very host that was asked for: no prefix, suffix or fallback, so that a registry whose
//! name resembles another's gets nothing of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lemnos_proto::session as wire;
use lemnos_proto::session::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::token;

/// Under this name Docker's configuration keeps the credential of Docker Hub.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The hosts that Docker Hub answers on.
const DOCKER_HUB_HOSTS: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];
/// Longest wait for a provider, which may run a credential helper. The daemon gives up after 60 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(25);

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

/// Who knows credentials.
#[async_trait]
pub trait AuthProvider: Send + Sync {
    /// The credential of `host`, which is `HOST[:PORT]` or `DOCKER_HUB_KEY`, and of no other host.
    async fn credentials(&self, host: &str) -> Option<Credential>;

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

    async fn look_up(&self, host: &str) -> Result<Option<Credential>, Status> {
        let key = if DOCKER_HUB_HOSTS.contains(&host) { DOCKER_HUB_KEY } else { host };
        tokio::time::timeout(LOOKUP_TIMEOUT, self.provider.credentials(key))
            .await
            .map_err(|_| Status::deadline_exceeded(format!("no credentials for {host} in time")))
    }
}

#[async_trait]
impl Auth for AuthService {
    async fn credentials(
        &self,
        request: Request<wire::CredentialsRequest>,
    ) -> Result<Response<wire::CredentialsResponse>, Status> {
        let answer = match self.look_up(&request.get_ref().host).await? {
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
        let request = request.into_inner();
        let credential = self.look_up(&request.host).await?;
        let plain_http = self.provider.allows_plain_http(&request.host);
        token::fetch(&request, credential.as_ref(), plain_http)
            .await
            .map(Response::new)
            .map_err(|error| error.into_status(&request.host))
    }

    /// Not offered: the daemon then asks for credentials instead.
    async fn get_token_authority(
        &self,
        _request: Request<wire::GetTokenAuthorityRequest>,
    ) -> Result<Response<wire::GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("no token authority"))
    }

    async fn verify_token_authority(
        &self,
        _request: Request<wire::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<wire::VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("no token authority"))
    }
}
