//! The registry credentials of one app's build, offered to the builder's session as sparingly as the registry allows.
//!
//! A registry that sells tokens never has its password handed to the builder: we buy the tokens, for the app's own
//! repositories (pull and push) and those it may build on (pull). A registry that knows passwords only gets one; what the
//! builder may do with it is then held by the source rules alone.

use async_trait::async_trait;
use aws_lc_rs::hmac;

use crate::buildkit::session::DOCKER_HUB_KEY;
use crate::buildkit::{AuthProvider, Credential, Grant, Scope};
use crate::model::{ImageName, SourceRules};
use crate::registry::{self, Registry};

use std::sync::{Arc, OnceLock};

/// Answers a daemon's questions with the credentials that the registry client itself would use for this app.
pub struct RegistryAuth {
    registry: Registry,
    /// Hosts that the operator lets be spoken to in plain http.
    plain_http: Vec<String>,
    /// The app, by id; none for a build without a server.
    app_id: Option<String>,
    own: ImageName,
    rules: Arc<SourceRules>,
}

impl RegistryAuth {
    pub fn new(
        registry: Registry,
        plain_http: Vec<String>,
        app_id: Option<String>,
        own: ImageName,
        rules: Arc<SourceRules>,
    ) -> Self {
        Self { registry, plain_http, app_id, own, rules }
    }

    /// The app's credential for the host, or for one repository there.
    async fn look_up(
        &self,
        host: &str,
        repository: Option<&str>,
    ) -> Result<Option<registry::Credential>, String> {
        // the image that is pushed decides, where the registry has it
        let own =
            crate::model::image::canonical_host(self.own.host()) == crate::model::image::canonical_host(host);
        let repository = repository.or_else(|| own.then(|| self.own.path()));
        let credentials = self.registry.credentials();
        credentials.for_app(self.app_id.as_deref(), host, repository).await.map_err(|error| {
            tracing::warn!(host, %error, "no credentials for the builder");
            format!("the credentials of {host} cannot be read: {error}; {}", error.remedy())
        })
    }
}

fn named(host: &str) -> &str {
    if host == DOCKER_HUB_KEY { "docker.io" } else { host }
}

fn for_daemon(found: registry::Credential) -> Credential {
    let registry::Credential { username, secret, identity_token } = found;
    match identity_token {
        true => Credential { username, secret: String::new(), identity_token: Some(secret) },
        false => Credential { username, secret, identity_token: None },
    }
}

/// What the keys of this process are made from: they mean nothing to another one.
fn process_key() -> Option<&'static hmac::Key> {
    static KEY: OnceLock<Option<hmac::Key>> = OnceLock::new();
    KEY.get_or_init(|| hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new()).ok())
        .as_ref()
}

#[async_trait]
impl AuthProvider for RegistryAuth {
    async fn credentials(&self, host: &str) -> Result<Option<Credential>, String> {
        let host = named(host);
        let Some(found) = self.look_up(host, None).await? else { return Ok(None) };
        match self.registry.sells_tokens(host).await {
            Ok(true) => Err(format!("{host} sells tokens: its password is not handed out")),
            Ok(false) => Ok(Some(for_daemon(found))),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn grant(&self, host: &str, asked: Vec<Scope>) -> Result<Grant, String> {
        let host = named(host);
        let mut scopes = Vec::new();
        let mut credential = None;
        for Scope { repository, actions } in &asked {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            let granted = self.rules.actions(host, repository, &actions);
            if granted.is_empty() {
                continue;
            }
            let found = self.look_up(host, Some(repository)).await?.map(for_daemon);
            // one token has one buyer: the first repository's
            if scopes.is_empty() {
                credential = found;
            } else if credential != found {
                continue;
            }
            let actions = granted.into_iter().map(str::to_owned).collect();
            scopes.push(Scope { repository: repository.clone(), actions });
        }
        if scopes.is_empty() {
            let names: Vec<&str> = asked.iter().map(|scope| scope.repository.as_str()).collect();
            return Err(format!("this app may not use {} of {host}", names.join(", ")));
        }
        Ok(Grant { scopes, credential })
    }

    fn trusts_realm(&self, host: &str, realm_host: &str) -> bool {
        self.registry.trusts_realm(named(host), realm_host)
    }

    fn allows_plain_http(&self, host: &str) -> bool {
        self.plain_http.iter().any(|known| known == host)
    }

    async fn token_key(&self, host: &str, salt: &[u8]) -> Option<[u8; 32]> {
        let host = named(host);
        let found = self.look_up(host, None).await.ok().flatten()?;
        // the same app with the same credential: whoever differs in one of them gets tokens of its own
        let app = self.app_id.as_deref().unwrap_or_default();
        let mut context = hmac::Context::with_key(process_key()?);
        for part in [app, self.own.as_str(), host, &found.username, &found.secret] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(salt);
        context.sign().as_ref().try_into().ok()
    }
}
