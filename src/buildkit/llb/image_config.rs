//! The part of an image's configuration that a build on it takes over.
//!
//! Resolving a reference to its configuration needs a registry or the daemon: the caller does that.

use serde::Deserialize;

use super::{LlbError, Platform};

/// Of the OCI image specification's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value`, as written.
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// Only where both the architecture and the system are named.
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
    #[serde(default, rename = "os.version")]
    os_version: String,
    #[serde(default, rename = "os.features")]
    os_features: Option<Vec<String>>,
    #[serde(default)]
    config: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default, rename = "Env")]
    env: Option<Vec<String>>,
    #[serde(default, rename = "WorkingDir")]
    working_dir: String,
    #[serde(default, rename = "User")]
    user: String,
}

impl ImageConfig {
    pub fn parse(json: &[u8]) -> Result<Self, LlbError> {
        let bad = |reason: String| LlbError::ImageConfig { reason };
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(bad("it is no JSON object".into()));
        }
        let document: Document = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let named = !document.architecture.is_empty() && !document.os.is_empty();
        let platform = named.then(|| Platform {
            os: document.os,
            architecture: document.architecture,
            variant: document.variant,
            os_version: document.os_version,
            os_features: document.os_features.unwrap_or_default(),
        });
        let inner = document.config.unwrap_or_default();
        Ok(Self {
            env: inner.env.unwrap_or_default(),
            working_dir: inner.working_dir,
            user: inner.user,
            platform,
        })
    }

    /// Entries without a name are left out.
    pub(super) fn env_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env
            .iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
            .filter(|(key, _)| !key.is_empty())
    }
}
