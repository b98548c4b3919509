//! What a door hands to `receive`: one authorised git service request and its byte streams.
//!
//! Everything here was checked at the door: the user signed in with `key`, may use `service` on `app`, and `protocol` is
//! of the charset that git's own variable may have. Must not know SSH.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::model::{App, Fingerprint, UserName};

/// The git services that a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GitService {
    /// `git push`.
    ReceivePack,
    /// `git fetch` and `git clone`.
    UploadPack,
    /// `git archive --remote`.
    UploadArchive,
}

impl GitService {
    pub const ALL: [Self; 3] = [Self::ReceivePack, Self::UploadPack, Self::UploadArchive];

    /// git's name for it, without `git-` before it: the subcommand to run.
    pub fn subcommand(self) -> &'static str {
        match self {
            Self::ReceivePack => "receive-pack",
            Self::UploadPack => "upload-pack",
            Self::UploadArchive => "upload-archive",
        }
    }

    /// Whether it changes the repository; the other two only read it.
    pub fn writes(self) -> bool {
        self == Self::ReceivePack
    }
}

impl fmt::Display for GitService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git-{}", self.subcommand())
    }
}

impl GitRequest {
    /// What every line of the log about this request stands in. Of the level `error`, so that no filter takes the id from
    /// the lines that it lets through.
    pub fn span(&self) -> tracing::Span {
        if self.service.writes() {
            tracing::error_span!("push", push = %self.id)
        } else {
            tracing::error_span!("request", request = %self.id)
        }
    }
}

/// One request to run a git service.
#[derive(Debug, Clone)]
pub struct GitRequest {
    /// Follows the request through logs; 32 hexadecimal digits.
    pub id: String,
    pub service: GitService,
    pub app: App,
    pub user: UserName,
    /// The key that signed.
    pub key: Fingerprint,
    /// A value for `GIT_PROTOCOL`, as in `version=2`.
    pub protocol: Option<String>,
    pub peer: SocketAddr,
}

/// The client's end of the request.
///
/// When the client goes away, `stdin` ends. What is then written to `stdout` and `stderr` of a service that writes is
/// dropped without an error, so that it can be finished; for one that only reads, writing fails with a broken pipe, so
/// that nothing is packed for nobody. Dropping `stdin` early is fine: what the client still sends is thrown away.
pub struct GitIo {
    /// Cancelled when the client is gone for good.
    pub gone: CancellationToken,
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

impl fmt::Debug for GitIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GitIo")
    }
}
