//! A session: what a daemon may ask of us while it builds.
//!
//! The daemon is the client here. It reaches a gRPC server of ours through the `Session` call of its own control
//! service (`tunnel`), and only the services that the build needs are there. Nothing is answered for another build.

mod auth;
mod builder;
pub mod content;
pub mod exporter;
pub mod filesend;
pub mod filesync;
mod outgoing;
pub mod policy;
pub mod secrets;
mod services;
pub mod ssh;
mod token;
mod tunnel;
pub mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use content::ContentStore;
use exporter::ExportChooser;
use filesend::Export;
use filesync::{DirSource, LocalDir, Patience, TransferStats};
use policy::SourceJudge;
use secrets::SecretStore;
use ssh::Agent;
pub use token::TokenError;
use upload::Upload;

pub use auth::{AuthProvider, Credential, DOCKER_HUB_KEY, DockerConfig, DockerConfigError, Grant, Scope};
pub use builder::{SessionBuilder, SessionError};
pub(super) use tunnel::Tunnel;

/// What one build offers to the daemon. What is empty is not offered.
#[derive(Clone, Default)]
pub struct Session {
    /// Names the daemon's mirror of our directories: builds with the same key send only what changed. Never empty for
    /// builds that send files, because the empty key is everybody's.
    pub shared_key: String,
    /// Directories by the name that the frontend asks for: `context`, `dockerfile`.
    pub dirs: BTreeMap<String, Arc<dyn DirSource>>,
    /// Counts what is sent of them.
    pub transfers: Arc<TransferStats>,
    /// Who knows the registries' credentials; without it the daemon pulls and pushes anonymously.
    pub auth: Option<Arc<dyn AuthProvider>>,
    /// Who knows what steps mount with `type=secret`.
    pub secrets: Option<Arc<dyn SecretStore>>,
    /// SSH agents by the id that steps mount with `type=ssh`.
    pub agents: BTreeMap<String, Agent>,
    /// Where exporters' output goes, by their number in the request.
    pub exports: BTreeMap<u32, Export>,
    /// Streams to be fetched once.
    pub uploads: BTreeMap<String, Upload>,
    /// Content stores by the whole name that the daemon asks for: `oci:ID`, `local:DIR`, `export`.
    pub stores: BTreeMap<String, Arc<ContentStore>>,
    /// Who judges every source that the build wants to take; without it, the request's own rules do alone.
    pub judge: Option<Arc<dyn SourceJudge>>,
    /// Who decides, once the result is there, what else to export.
    pub chooser: Option<Arc<dyn ExportChooser>>,
    /// How long calls wait for the daemon.
    pub patience: Patience,
}

impl Session {
    /// A session put together piece by piece, in which no name is taken twice.
    pub fn builder(shared_key: &str) -> SessionBuilder {
        SessionBuilder::new(shared_key)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shared_key", &self.shared_key)
            .field("dirs", &self.dirs.keys().collect::<Vec<_>>())
            .field("auth", &self.auth.is_some())
            .field("secrets", &self.secrets.is_some())
            .field("agents", &self.agents)
            .field("exports", &self.exports.keys().collect::<Vec<_>>())
            .field("uploads", &self.uploads)
            .field("stores", &self.stores.len())
            .field("judge", &self.judge.is_some())
            .field("chooser", &self.chooser.is_some())
            .finish()
    }
}
