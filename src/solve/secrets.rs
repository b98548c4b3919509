//! What one build may mount, and how it is kept out of what the build says. Lives as long as the build.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::buildkit::session::secrets::{SecretError, SecretStore};
use crate::buildkit::session::ssh::{Agent, PrivateKey};
use crate::event::Masker;
use crate::model::{AppName, SecretName, SecretValue};

/// An app's secrets in the hands of its build.
#[derive(Clone, Default)]
pub struct BuildSecrets {
    /// Whose they are; none for a build without a server, which has none.
    app: Option<AppName>,
    mounts: Arc<Mounts>,
    agents: BTreeMap<String, Agent>,
    masker: Masker,
}

#[derive(Default)]
struct Mounts(BTreeMap<String, SecretValue>);

impl std::fmt::Debug for BuildSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildSecrets").field("names", &self.mounts.0.keys()).finish_non_exhaustive()
    }
}

impl BuildSecrets {
    pub fn new(
        app: AppName,
        mounts: impl IntoIterator<Item = (SecretName, SecretValue)>,
        masker: Masker,
    ) -> Self {
        let mounts = mounts.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Self { app: Some(app), mounts: Arc::new(Mounts(mounts)), agents: BTreeMap::new(), masker }
    }

    /// With private keys that sign for steps with `--mount=type=ssh`; the error names the key that cannot be used.
    pub fn with_keys(
        mut self,
        keys: impl IntoIterator<Item = (SecretName, SecretValue)>,
    ) -> Result<Self, String> {
        for (name, value) in keys {
            let text = std::str::from_utf8(value.expose()).map_err(|_| format!("{name}: it is not text"))?;
            let key = PrivateKey::parse(text).map_err(|problem| format!("{name}: {problem}"))?;
            self.agents.insert(name.to_string(), Agent::Keys(Arc::new([key])));
        }
        Ok(self)
    }

    /// Whether a step may mount a secret of this name.
    pub fn has(&self, name: &str) -> bool {
        self.mounts.0.contains_key(name)
    }

    /// Whether a key of this name signs.
    pub fn has_key(&self, name: &str) -> bool {
        self.agents.contains_key(name)
    }

    pub(super) fn agents(&self) -> BTreeMap<String, Agent> {
        self.agents.clone()
    }

    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// For the session. Also a build without any has one: it says which secret is missing.
    pub(super) fn store(&self) -> Arc<dyn SecretStore> {
        self.mounts.clone()
    }

    /// What to do about a secret that a step needs and the build does not have.
    pub(super) fn remedy(&self, name: &str) -> String {
        match &self.app {
            Some(app) => format!(
                "add it and push again: `lemnos secrets add {app} {name} <FILE`; a step that can do without says required=false"
            ),
            None => "secrets are for pushes: `lemnos secrets add APP NAME`; a step that can do without says required=false"
                .to_owned(),
        }
    }
}

#[async_trait]
impl SecretStore for Mounts {
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        Ok(self.0.get(id).map(|value| value.expose().to_vec()))
    }
}
