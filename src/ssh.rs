//! The SSH door: a public key becomes a user, an exec request becomes a git service on an app, or a verb.
//!
//! Invariants: the identity of a connection is the key that *signed*, never one that was merely offered; nothing that
//! a client says reaches a shell, a path or an environment; a client that goes away does not stop its push.
//! Must not run git or a verb itself: a [`GitHost`] knows users, apps and how both are served.

mod admission;
mod attempts;
mod certificate;
mod command;
mod connection;
mod door;
mod host_keys;
mod listener;
mod read_ahead;
mod session;
mod streams;
mod terminal;
mod transport;
mod trust;
mod verbs;
mod window;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::certificate::Certified;
pub use self::host_keys::host_keys;
pub use self::listener::{Listener, listen};
pub use self::terminal::Terminal;
pub use self::trust::TrustFiles;
pub use crate::receive::request::{GitIo, GitRequest, GitService};
pub use russh::keys::PrivateKey;

use crate::model::{App, AppName, Fingerprint, UserName};

/// Limits of the door. Every one of them bounds what a stranger can cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// From the TCP connection to a successful login.
    pub login_grace: Duration,
    /// Keys that a client may offer in vain.
    pub max_auth_tries: usize,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections that have not logged in: when new ones begin to be dropped.
    pub max_unauthenticated: EarlyDrop,
    /// Connections that have not logged in, of one IPv4 address or IPv6 /64.
    pub max_unauthenticated_per_source: usize,
    /// Sessions that are open at once in one connection (OpenSSH multiplexes).
    pub max_sessions_per_connection: usize,
    /// Silence after which the client is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Unanswered questions after which it is not.
    pub keepalive_max: usize,
    /// How long a logged-in connection may stand without a session.
    pub idle: Duration,
    /// How long a client may leave output untaken before it counts as gone.
    pub output_stall: Duration,
    /// At shutdown, how long sessions may take to end.
    pub drain: Duration,
    /// The largest channel window offered to clients, in bytes: what may be under way on a long line.
    pub window_bytes: u32,
    /// The largest packet that clients may send, in bytes.
    pub max_packet_bytes: u32,
    /// Whose certificates log in, and which keys and certificates no more.
    pub trust: TrustFiles,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            login_grace: Duration::from_secs(20),
            max_auth_tries: 6,
            max_connections: 1000,
            max_unauthenticated: EarlyDrop { start: 200, rate: 30, full: 500 },
            max_unauthenticated_per_source: 150,
            max_sessions_per_connection: 10,
            keepalive_interval: Duration::from_secs(20),
            keepalive_max: 6,
            idle: Duration::from_secs(600),
            output_stall: Duration::from_secs(300),
            drain: Duration::from_secs(600),
            window_bytes: 16 << 20,
            max_packet_bytes: 32 << 10,
            trust: TrustFiles::default(),
        }
    }
}

/// Random early drop, as OpenSSH's `MaxStartups start:rate:full` does it: beyond `start`, `rate` per cent of new
/// connections are dropped, rising to all of them at `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyDrop {
    pub start: usize,
    pub rate: u8,
    pub full: usize,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserName,
    /// The key that signed.
    pub key: Fingerprint,
    /// What vouched for the key, when it is not a registered one.
    pub certificate: Option<Arc<Certified>>,
}

/// What the door needs to know of the house, and where it hands requests to.
#[async_trait]
pub trait GitHost: Send + Sync + 'static {
    /// Whose key this is; none when it is not registered. The error is a sentence for the log.
    async fn user_of(&self, key: &Fingerprint) -> Result<Option<UserName>, String>;

    /// Whether there is such a user; asked for the principals of certificates. The error is a sentence for the log.
    async fn has_user(&self, user: &UserName) -> Result<bool, String>;

    /// Whether `who` may use `service` on the app. The error is a sentence for the user, and the same one for an app
    /// that is missing and one that is not theirs.
    async fn authorize(&self, who: &Identity, app: &AppName, service: GitService) -> Result<App, String>;

    /// Serves the request until it is done, and returns git's exit status. It runs to its end when the client goes away.
    async fn serve(&self, request: GitRequest, io: GitIo) -> u32;

    /// Runs the verb that these words ask for, and returns its exit status; no words ask for help. When the client goes
    /// away or breaks off, this is dropped: what must be done to its end belongs in a task of its own.
    async fn verb(&self, who: &Identity, words: Vec<String>, io: VerbIo) -> u32;

    /// How to register a key, for a client whose keys are all unknown. One or two short lines.
    fn registration_hint(&self) -> String;
}

/// The client's end of a verb. Writing to a client that is gone fails with a broken pipe, and waits for one that is slow.
pub struct VerbIo {
    /// Ends when the client says that this was all; with a terminal, lines as they were typed.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// None when the client asked for none.
    pub terminal: Option<Terminal>,
}

/// What can go wrong at the door.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for SSH on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("SSH host keys: {path}: {source}", path = path.display())]
    HostKeyFile { path: PathBuf, source: io::Error },
    #[error("SSH host key {path} can be read or written by others (mode {mode:03o})", path = path.display())]
    HostKeyExposed { path: PathBuf, mode: u32 },
    #[error("SSH host key directory {path} can be written by others (mode {mode:03o})", path = path.display())]
    HostKeyDirectoryExposed { path: PathBuf, mode: u32 },
    #[error("SSH host key {path}: {problem}", path = path.display())]
    HostKey { path: PathBuf, problem: String },
    #[error("{path}: {problem}", path = path.display())]
    Trust { path: PathBuf, problem: String },
    #[error("SSH: {0}")]
    Protocol(#[from] russh::Error),
    #[error("SSH: too many keys were offered")]
    TooManyAttempts,
}
