//! The registry credentials that lemnos itself uses, offered to the builder's session host by host.

use async_trait::async_trait;

use crate::buildkit::session::DOCKER_HUB_KEY;
use crate::buildkit::{AuthProvider, Credential};
use crate::registry::Credentials;

/// Answers a daemon's questions from the same docker configuration that the registry client reads.
pub struct RegistryAuth {
    credentials: Credentials,
    /// Hosts that the operator lets be spoken to in plain http.
    plain_http: Vec<String>,
}

impl RegistryAuth {
    pub fn new(credentials: Credentials, plain_http: Vec<String>) -> Self {
        Self { credentials, plain_http }
    }
}

#[async_trait]
impl AuthProvider for RegistryAuth {
    async fn credentials(&self, host: &str) -> Option<Credential> {
        let host = if host == DOCKER_HUB_KEY { "docker.io" } else { host };
        match self.credentials.for_host(host).await {
            Ok(found) => found.map(|c| match c.identity_token {
                true => {
                    Credential { username: c.username, secret: String::new(), identity_token: Some(c.secret) }
                }
                false => Credential { username: c.username, secret: c.secret, identity_token: None },
            }),
            Err(error) => {
                // the daemon goes on anonymously, and the registry's refusal then names the image
                tracing::warn!(host, %error, "no credentials for the builder");
                None
            }
        }
    }

    fn allows_plain_http(&self, host: &str) -> bool {
        self.plain_http.iter().any(|known| known == host)
    }
}
