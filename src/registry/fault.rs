//! What goes wrong with a registry, each with its own sentence and remedy.

use std::io;
use std::time::Duration;

use super::credentials::CredentialError;
use crate::model::Digest;

/// A call that failed: what was asked of which host, and why it did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct RegistryError {
    /// As the image name spells it, `localhost:5000`.
    pub host: String,
    /// `putting shop:main to localhost:5000`
    pub doing: String,
    pub problem: Box<Problem>,
}

impl std::ops::Deref for RegistryError {
    type Target = Problem;
    fn deref(&self) -> &Problem {
        &self.problem
    }
}

/// Why a call failed. `Display` is a clause that follows what was being done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the registry wants to know who asks, and there are no credentials for it (401)")]
    NoCredentials { config: Option<String> },
    #[error("the registry does not accept the credentials of {user:?} (401)")]
    BadCredentials { user: String },
    #[error("{} may not do this (403){}", who(.user.as_deref()), told(.detail))]
    Forbidden { user: Option<String>, detail: String },
    #[error("the registry has no such repository or manifest (404){}", told(.detail))]
    NotFound { detail: String },
    #[error(
        "the registry asks for fewer requests (429){}",
        .retry_after.map_or_else(String::new, |after| format!(", again in {} s", after.as_secs()))
    )]
    RateLimited { retry_after: Option<Duration> },
    #[error("the registry failed ({status}){}", told(.detail))]
    Server { status: u16, retry_after: Option<Duration>, detail: String },
    #[error("the registry refused ({status}){}", told(.detail))]
    Rejected { status: u16, detail: String },
    #[error("the registry sent the request elsewhere ({status}, to {to})")]
    Redirected { status: u16, to: String },
    #[error("nothing listens there: connection refused")]
    ConnectionRefused,
    #[error("its name does not resolve: {cause}")]
    Unresolved { cause: String },
    #[error("no connection: {cause}")]
    Unreachable { cause: String },
    #[error("the registry speaks plain http where TLS was expected")]
    PlainHttp,
    #[error("no TLS connection: {cause}")]
    Tls { cause: String },
    #[error("no answer within {} s", .after.as_secs())]
    Timeout { after: Duration },
    #[error("the connection broke: {cause}")]
    Broken { cause: String },
    #[error("the manifest has more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the blob has more than {limit_bytes} bytes")]
    BlobTooLarge { limit_bytes: u64 },
    #[error("the storage at {host} that the registry points to refused ({status})")]
    Storage { host: String, status: u16 },
    #[error("its content cannot be used: {cause}")]
    Source { cause: String },
    #[error("the registry answered with digest {found} where {expected} is right")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the registry's answer makes no sense: {what}")]
    Nonsense { what: String },
    #[error(
        "the registry's token service {realm} is in another domain, or in the clear, and gets no credentials"
    )]
    ForeignRealm { realm: String },
    #[error("the token service {realm} failed: {cause}")]
    TokenService { realm: String, cause: String, transient: bool },
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("the http client could not be set up: {cause}")]
    Client { cause: String },
}

fn told(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

fn who(user: Option<&str>) -> String {
    user.map_or_else(|| "an anonymous client".to_owned(), |user| format!("{user:?}"))
}

impl Problem {
    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Server { .. }
            | Self::ConnectionRefused
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            // a link of the registry's is good for a while only
            | Self::Storage { .. } => true,
            Self::TokenService { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Whether a write may have taken effect although it failed: the request was sent and no verdict came back.
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self,
            Self::Server { .. }
                | Self::Timeout { .. }
                | Self::Broken { .. }
                | Self::WrongDigest { .. }
                | Self::TooLarge { .. }
                | Self::Nonsense { .. }
        )
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl RegistryError {
    pub fn new(host: &str, doing: impl Into<String>, problem: Problem) -> Self {
        Self { host: host.to_owned(), doing: doing.into(), problem: Box::new(problem) }
    }

    /// What someone can do about it.
    pub fn remedy(&self) -> String {
        let host = &self.host;
        match &*self.problem {
            Problem::NoCredentials { config: Some(file) } => {
                format!("add credentials for {host} to {file}, as `docker login {host}` does")
            }
            Problem::NoCredentials { config: None } => format!(
                "name a docker config file with credentials for {host} (registry.docker_config), as `docker login {host}` writes it"
            ),
            Problem::BadCredentials { .. } => {
                format!("sign in again (`docker login {host}`): the password or token may have expired")
            }
            Problem::Forbidden { user: None, .. } => {
                format!("give the server credentials that may push to {host}, as `docker login {host}` does")
            }
            Problem::Forbidden { .. } => {
                "grant this user the right to pull and push there, or choose another image name (lemnos apps set)".to_owned()
            }
            Problem::NotFound { .. } => {
                "create the repository in the registry if it does not do so itself, and check the image name (lemnos apps show)"
                    .to_owned()
            }
            Problem::RateLimited { .. } => "wait, then push again".to_owned(),
            Problem::Server { .. } => format!("look into the log of the registry at {host}, then push again"),
            Problem::Rejected { .. } => {
                format!("the registry at {host} does not allow this: look at its rules for tags and media types")
            }
            Problem::Redirected { .. } => "use the registry's final host in the image name".to_owned(),
            Problem::ConnectionRefused => format!("start the registry at {host}, or correct its address"),
            Problem::Unresolved { .. } => format!("correct the registry's host name {host}, or its DNS entry"),
            Problem::Unreachable { .. } | Problem::Timeout { .. } | Problem::Broken { .. } => {
                format!("check the network between this server and {host}, then push again")
            }
            Problem::PlainHttp => format!(
                "give the registry a certificate; or, if the network between is trusted, list {host:?} in registry.plain_http"
            ),
            Problem::Tls { .. } => {
                format!("check the certificate of {host}: its name, its dates, and that this machine trusts who issued it")
            }
            Problem::TooLarge { .. } => "use fewer platforms or annotations".to_owned(),
            Problem::BlobTooLarge { .. } => "use an image with a smaller config".to_owned(),
            Problem::Storage { host, .. } => {
                format!("check that this machine may reach {host}, then try again")
            }
            Problem::Source { .. } => "check the disk, and that nothing writes to the file meanwhile".to_owned(),
            Problem::WrongDigest { .. } | Problem::Nonsense { .. } => {
                format!("check what stands between this server and the registry at {host} (a proxy?), and the registry's log")
            }
            Problem::ForeignRealm { realm } => {
                format!("if {realm} is right for {host}, list its host in registry.token_hosts")
            }
            Problem::TokenService { transient: true, .. } => "try again in a moment".to_owned(),
            Problem::TokenService { .. } => format!("sign in again (`docker login {host}`)"),
            Problem::Credentials(error) => error.remedy(),
            Problem::Client { .. } => "check this machine's certificate store".to_owned(),
        }
    }
}

/// What reqwest's error says about the connection. `after` is the time limit that held.
pub(super) fn connection_problem(error: &reqwest::Error, after: Duration) -> Problem {
    if error.is_timeout() {
        return Problem::Timeout { after };
    }
    let causes = causes(error);
    let cause = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // rustls wraps its errors as InvalidData; the text is all that tells a plain http answer from a bad certificate
    match io {
        Some(io::ErrorKind::ConnectionRefused) => Problem::ConnectionRefused,
        Some(io::ErrorKind::TimedOut) => Problem::Timeout { after },
        Some(io::ErrorKind::InvalidData) if cause.contains("InvalidContentType") => Problem::PlainHttp,
        Some(io::ErrorKind::InvalidData) if error.is_connect() => Problem::Tls { cause },
        _ if error.is_dns() => Problem::Unresolved { cause },
        _ if error.is_connect() => Problem::Unreachable { cause },
        _ => Problem::Broken { cause },
    }
}

fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> Vec<&'a (dyn std::error::Error + 'static)> {
    let mut chain = vec![error];
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push(cause);
        // an io::Error that wraps another error does not name it as its source, but the one below that
        next = cause
            .downcast_ref::<io::Error>()
            .and_then(|io| io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)))
            .or_else(|| cause.source());
    }
    chain
}
