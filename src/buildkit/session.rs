//! A session: what a daemon may ask of us while it builds.
//!
//! The daemon is the client here. It reaches a gRPC server of ours through the `Session` call of its own control
//! service (`tunnel`), and only the services that the build needs are there. Nothing is answered for another build.

mod auth;
pub mod filesync;
mod token;
mod tunnel;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use filesync::{DirSource, TransferStats};
pub use token::TokenError;

pub use auth::{AuthProvider, Credential, DOCKER_HUB_KEY, Grant, Scope};
pub(super) use tunnel::Tunnel;

/// What one build offers to the daemon.
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
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shared_key", &self.shared_key)
            .field("dirs", &self.dirs.keys().collect::<Vec<_>>())
            .field("auth", &self.auth.is_some())
            .finish()
    }
}
