//! What can go wrong: before a build (`Error`) and in one (`SolveError`).
//!
//! Decided here and nowhere else: whether the build itself is to blame or the machinery, and whether the same request
//! may succeed later.

mod details;

use std::io;
use std::time::Duration;

use tonic::{Code, Status};

use super::connect::Address;
use super::progress::Source;
use details::Details;

/// Longest message taken from a daemon, in bytes.
const MESSAGE_LIMIT: usize = 64 << 10;
/// What the system calls a disk that is full.
const NO_SPACE: &str = "no space left on device";

/// Why a daemon could not be reached, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{given:?} is no buildkitd address: write unix:///PATH, tcp://HOST:PORT, docker-container://NAME, \
         podman-container://NAME, kube-pod://NAME, ssh://USER@HOST, or docker:// for the BuildKit of dockerd"
    )]
    Address { given: String },
    #[error("no buildkitd at {address}: {source}")]
    Connect { address: Address, source: io::Error },
    #[error("buildkitd at {address} did not answer within {} s", .timeout.as_secs_f32())]
    Timeout { address: Address, timeout: Duration },
    #[error("no TLS connection to buildkitd at {address}: {reason}")]
    Tls { address: Address, reason: String },
    #[error("what listens at {address} does not speak gRPC: {reason}")]
    Protocol { address: Address, reason: String },
    #[error("the connection to buildkitd at {address} broke: {reason}")]
    Gone { address: Address, reason: String },
    #[error("buildkitd at {address} refused: {message} ({code:?})")]
    Refused { address: Address, code: Code, message: String },
}

impl Error {
    /// Whether the same call may succeed later without anyone changing a setting.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Gone { .. } => true,
            Self::Refused { code, .. } => matches!(code, Code::Unavailable | Code::ResourceExhausted),
            Self::Address { .. } | Self::Tls { .. } | Self::Protocol { .. } => false,
        }
    }

    pub(super) fn from_status(address: &Address, status: &Status) -> Self {
        let address = address.clone();
        match is_local(status) {
            true => Self::Gone { address, reason: chain(status) },
            false => Self::Refused { address, code: status.code(), message: shortened(status.message()) },
        }
    }
}

/// Who is to blame for a failed solve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolveErrorKind {
    /// What was to be built: a step failed, a file is missing, an image does not exist.
    Build,
    /// The daemon, the connection, a disk, a registry that cannot be reached.
    Infrastructure,
    /// Nobody: the daemon was told to stop it.
    Canceled,
}

/// A step that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedVertex {
    pub digest: String,
    /// Empty where the daemon never named it.
    pub name: String,
}

/// Why a solve failed.
#[derive(Debug, Clone)]
pub struct SolveError {
    pub kind: SolveErrorKind,
    /// The daemon's own words, or ours where it said nothing.
    pub message: String,
    /// The gRPC code, `Unknown` for most failures of a build.
    pub code: Code,
    /// The step that failed first.
    pub vertex: Option<FailedVertex>,
    /// Where in the definition file.
    pub source: Option<Box<Source>>,
    /// How the failing process ended.
    pub exit_code: Option<i32>,
    /// Whether the same request may succeed later.
    pub temporary: bool,
    /// Whether the daemon went away, or stopped, in the middle of it: another one may well build the same.
    pub lost: bool,
    /// Whether a disk of the daemon's had no room left: dropping cache may help.
    pub full: bool,
}

impl std::fmt::Display for SolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

// by hand, because the place in the definition file is called `source` too
impl std::error::Error for SolveError {}

impl SolveError {
    /// The signal that the exit code speaks of (128 + signal), as shells and runc tell it.
    pub fn signal(&self) -> Option<i32> {
        self.exit_code.filter(|code| (129..=192).contains(code)).map(|code| code - 128)
    }

    pub(super) fn infrastructure(message: impl Into<String>) -> Self {
        Self {
            kind: SolveErrorKind::Infrastructure,
            message: message.into(),
            code: Code::Unavailable,
            vertex: None,
            source: None,
            exit_code: None,
            temporary: true,
            lost: false,
            full: false,
        }
    }

    pub(super) fn lost(message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::infrastructure(message) }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, temporary: false, ..Self::infrastructure(message) }
    }

    pub(super) fn from_status(status: &Status) -> Self {
        if is_local(status) {
            let message = format!("the connection to buildkitd broke: {}", chain(status));
            return Self { code: status.code(), ..Self::lost(message) };
        }
        let details = Details::of(status);
        let mut message = details.message.clone().unwrap_or_else(|| status.message().to_owned());
        if !details.denied.is_empty() {
            message = format!("{message}: {}", details.denied.join("; "));
        }
        let message = shortened(&message);
        let (kind, temporary) = blame(status.code(), &details, &message);
        Self {
            kind,
            full: kind == SolveErrorKind::Infrastructure && speaks_of_a_full_disk(&message),
            message,
            code: status.code(),
            vertex: details.vertex.map(|digest| FailedVertex { digest, name: details.vertex_name }),
            source: details.source.map(Box::new),
            exit_code: details.exit_code,
            temporary,
            // we never ask for a cancellation: the daemon is going down
            lost: kind == SolveErrorKind::Canceled
                || (kind, status.code()) == (SolveErrorKind::Infrastructure, Code::Unavailable),
        }
    }
}

/// Whether the status was made on this side, because there was no answer to take one from.
fn is_local(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Who is to blame, and whether trying again may help.
fn blame(code: Code, details: &Details, message: &str) -> (SolveErrorKind, bool) {
    use SolveErrorKind::{Build, Canceled, Infrastructure};
    if details.exit_code.is_some() {
        return (Build, false);
    }
    match code {
        Code::Cancelled => (Canceled, true),
        // the daemon keeps these two for errors of its own kernel: disk full, no memory, failing disk
        Code::ResourceExhausted => (Infrastructure, true),
        Code::Internal | Code::DataLoss => (Infrastructure, false),
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => (Infrastructure, true),
        Code::Unimplemented | Code::Unauthenticated if details.is_empty() => (Infrastructure, false),
        _ if speaks_of_machinery(message) => (Infrastructure, true),
        _ => (Build, false),
    }
}

/// A registry that has no room says the same words; the daemon puts its own before them.
fn speaks_of_a_full_disk(message: &str) -> bool {
    message.contains(NO_SPACE) && !message.contains("failed to push ")
}

/// Most of what goes wrong under a daemon reaches us as text only: these are the sentences of Go's network and system
/// libraries, of registries that are overloaded, and of the daemon about sessions.
fn speaks_of_machinery(message: &str) -> bool {
    const SIGNS: [&str; 22] = [
        NO_SPACE,
        "connection refused",
        "connection reset by peer",
        "broken pipe",
        "i/o timeout",
        "TLS handshake timeout",
        "network is unreachable",
        "no route to host",
        "no such host",
        "server misbehaving",
        "temporary failure in name resolution",
        "unexpected EOF",
        "context deadline exceeded",
        "Client.Timeout exceeded",
        "429 Too Many Requests",
        "toomanyrequests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
        "no active session",
        "session healthcheck failed",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// `error` and its causes in one line, without repetitions.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        // its Display repeats the causes and the metadata
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    shortened(&text)
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, message: &str) -> (SolveErrorKind, bool) {
        let error = SolveError::from_status(&Status::new(code, message));
        (error.kind, error.temporary)
    }

    #[test]
    fn blame_falls_on_the_machinery_only_with_a_reason() {
        use SolveErrorKind::{Build, Canceled, Infrastructure};
        for (code, message, want) in [
            (Code::Unknown, "docker.io/library/nope:latest: not found", (Build, false)),
            (Code::InvalidArgument, "dockerfile parse error on line 2", (Build, false)),
            (Code::PermissionDenied, "network.host is not allowed", (Build, false)),
            (Code::Unknown, "dial tcp 1.2.3.4:443: i/o timeout", (Infrastructure, true)),
            (Code::Unknown, "failed commit: write /x: no space left on device", (Infrastructure, true)),
            (Code::ResourceExhausted, "x", (Infrastructure, true)),
            (Code::Internal, "x", (Infrastructure, false)),
            (Code::Unimplemented, "unknown service moby.buildkit.v1.Control", (Infrastructure, false)),
            (Code::Cancelled, "context canceled", (Canceled, true)),
        ] {
            assert_eq!(kind(code, message), want, "{message}");
        }
    }

    #[test]
    fn a_full_disk_is_the_daemons_own_and_not_a_registrys() {
        let full = |code, message: &str| SolveError::from_status(&Status::new(code, message)).full;
        assert!(full(Code::ResourceExhausted, "write /b/content/ingest/8f/data: no space left on device"));
        assert!(full(Code::Unknown, "failed to copy: write /b/x: no space left on device"));
        assert!(!full(Code::ResourceExhausted, "cannot allocate memory"));
        assert!(!full(
            Code::Unknown,
            "failed to push r.example.com/shop: 500: write: no space left on device"
        ));
    }

    #[test]
    fn signals_are_read_from_exit_codes() {
        let ended = |exit_code| SolveError { exit_code, ..SolveError::infrastructure("x") }.signal();
        assert_eq!(
            [ended(Some(137)), ended(Some(1)), ended(Some(255)), ended(None)],
            [Some(9), None, None, None]
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "é".repeat(MESSAGE_LIMIT);
        assert_eq!(shortened(&long).len(), MESSAGE_LIMIT);
        assert_eq!(shortened(&format!("x{long}")).len(), MESSAGE_LIMIT - 1);
    }
}
