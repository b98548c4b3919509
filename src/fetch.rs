//! Files of the network that a build takes besides its tree: bounded, verified, and from where the rules allow only.
//!
//! Every address on the way, redirects too, is asked of the rules; one that the operator has not named is resolved here and
//! must be public, whatever its name says, and no proxy is asked for it. A file appears under its name when its digest was
//! seen to be right, never before. Must not know what the files are for, and sends no credentials.

mod address;
mod package;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

pub use address::is_public;

use crate::model::{Digest, Refusal, SourceRules};
use crate::registry::{RegistryError, host};
use address::PublicOnly;

const USER_AGENT: &str = concat!("lemnos/", env!("CARGO_PKG_VERSION"));
const REDIRECTS: usize = 5;
const ATTEMPTS: u32 = 3;
/// The first pause before another attempt; the second is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Bounds of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchConfig {
    pub bytes_limit: u64,
    /// For one file, all attempts included.
    pub timeout: Duration,
    /// `host[:port]` that are spoken to in plain http besides loopback, where an address is made up here.
    pub plain_http: Vec<String>,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { bytes_limit: 512 * 1024 * 1024, timeout: Duration::from_secs(300), plain_http: Vec::new() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url} is no address that can be fetched: {problem}")]
    Address { url: String, problem: String },
    #[error("{url} is refused: {}", .refusal.policy())]
    Refused { url: String, refusal: Refusal },
    #[error("{url} is refused: {host} is an address inside this network")]
    Private { url: String, host: String },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} leads on and on: more than {REDIRECTS} redirects")]
    Redirects { url: String },
    #[error("{url} has more than {limit_bytes} bytes")]
    TooLarge { url: String, limit_bytes: u64 },
    #[error("fetching {url} took longer than {} s", .timeout.as_secs())]
    Slow { url: String, timeout: Duration },
    #[error("fetching {url}: {cause}")]
    Broken { url: String, cause: String },
    #[error("{url} is another file than was asked for: its digest is {found}, not {expected}")]
    WrongDigest { url: String, expected: Digest, found: Digest },
    #[error("keeping {url} on this machine: {cause}")]
    Write { url: String, cause: std::io::Error },
    #[error("the package {package} names no registry, and none is known for its name space")]
    NoRegistry { package: String },
    #[error("the package registry {registry} speaks {protocol}, not OCI")]
    Protocol { registry: String, protocol: String },
    #[error("what the package registry {registry} says of itself: {problem}")]
    Metadata { registry: String, problem: String },
    #[error("the package {package} ({image}) is not one WebAssembly file: {problem}")]
    Package { package: String, image: String, problem: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl FetchError {
    /// Whether another attempt may do better.
    fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// Fetches. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Fetcher {
    config: FetchConfig,
    /// For addresses that somebody vouches for.
    named: Client,
    /// For all others.
    public: Client,
}

impl Fetcher {
    pub fn new(config: FetchConfig) -> Result<Self, FetchError> {
        let client = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::none())
                .connect_timeout(SILENCE)
                .read_timeout(SILENCE)
        };
        let broken =
            |e: reqwest::Error| FetchError::Broken { url: "the network".to_owned(), cause: said(&e) };
        Ok(Self {
            named: client().build().map_err(broken)?,
            public: client().no_proxy().dns_resolver(Arc::new(PublicOnly)).build().map_err(broken)?,
            config,
        })
    }

    /// Puts the file at `url`, whose digest is known, at `into`. Returns its size.
    pub async fn file(
        &self,
        url: &str,
        digest: &Digest,
        rules: &SourceRules,
        into: &Path,
    ) -> Result<u64, FetchError> {
        let timeout = self.config.timeout;
        let fetching = async {
            let mut tried = 0;
            loop {
                let error = match self.attempt(url, digest, rules, into).await {
                    Ok(size_bytes) => return Ok(size_bytes),
                    Err(error) => error,
                };
                tried += 1;
                if tried >= ATTEMPTS || !error.is_transient() {
                    return Err(error);
                }
                tracing::info!(%error, tried, "fetching once more");
                tokio::time::sleep(PAUSE * tried).await;
            }
        };
        let slow = |_| FetchError::Slow { url: url.to_owned(), timeout };
        tokio::time::timeout(timeout, fetching).await.map_err(slow)?
    }

    async fn attempt(
        &self,
        url: &str,
        digest: &Digest,
        rules: &SourceRules,
        into: &Path,
    ) -> Result<u64, FetchError> {
        let write = |cause| FetchError::Write { url: url.to_owned(), cause };
        let response = self.answer(url, rules).await?;
        let partial = into.with_extension("part");
        let mut file = tokio::fs::File::create(&partial).await.map_err(write)?;
        let (found, size_bytes) = pour(url, response, self.config.bytes_limit, &mut file).await?;
        file.flush().await.map_err(write)?;
        if found != *digest {
            return Err(FetchError::WrongDigest { url: url.to_owned(), expected: digest.clone(), found });
        }
        tokio::fs::rename(&partial, into).await.map_err(write)?;
        Ok(size_bytes)
    }

    /// A short text; none where nothing stands there.
    async fn text(
        &self,
        url: &str,
        limit_bytes: u64,
        rules: &SourceRules,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let fetching = async {
            let response = match self.answer(url, rules).await {
                Ok(response) => response,
                Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut text = Vec::new();
            pour(url, response, limit_bytes, &mut text).await?;
            Ok(Some(text))
        };
        let slow = |_| FetchError::Slow { url: url.to_owned(), timeout: SILENCE };
        tokio::time::timeout(SILENCE, fetching).await.map_err(slow)?
    }

    /// The answer at the end of the redirects, a good one.
    async fn answer(&self, url: &str, rules: &SourceRules) -> Result<Response, FetchError> {
        let mut at = parsed(url)?;
        for _ in 0..=REDIRECTS {
            let client = self.client_for(&at, rules)?;
            let response = client.get(at.clone()).send().await.map_err(|error| self.failed(&at, &error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Err(FetchError::Status { url: shown(&at), status });
            };
            let next = at.join(location);
            let bad = |problem: String| FetchError::Address { url: shown(&at), problem };
            let next = next.map_err(|e| bad(format!("it leads to {location:?}: {e}")))?;
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(bad(format!(
                    "it leads to {}, which anybody on the way could change",
                    shown(&next)
                )));
            }
            at = parsed(next.as_str())?;
        }
        Err(FetchError::Redirects { url: url.to_owned() })
    }

    /// What an address may be asked with; an error where it may not be asked at all.
    fn client_for(&self, at: &Url, rules: &SourceRules) -> Result<&Client, FetchError> {
        let name = at.as_str();
        if let Some(refusal) = rules.refuses(name) {
            return Err(FetchError::Refused { url: shown(at), refusal: refusal.clone() });
        }
        if rules.vouches(name) {
            return Ok(&self.named);
        }
        // an address in place of a name is never resolved
        if let Some(address) = address::literal(at).filter(|address| !address::is_public(*address)) {
            return Err(FetchError::Private { url: shown(at), host: address.to_string() });
        }
        Ok(&self.public)
    }

    fn failed(&self, at: &Url, error: &reqwest::Error) -> FetchError {
        match address::refused(error) {
            Some(host) => FetchError::Private { url: shown(at), host },
            None => FetchError::Broken { url: shown(at), cause: said(error) },
        }
    }

    fn scheme(&self, named: &str) -> &'static str {
        if host::is_plain_http(named, &self.config.plain_http) { "http" } else { "https" }
    }
}

/// The body, piece by piece; its digest and size.
async fn pour(
    url: &str,
    mut response: Response,
    limit_bytes: u64,
    into: &mut (impl AsyncWrite + Unpin),
) -> Result<(Digest, u64), FetchError> {
    let too_large = || FetchError::TooLarge { url: url.to_owned(), limit_bytes };
    if response.content_length().is_some_and(|length| length > limit_bytes) {
        return Err(too_large());
    }
    let (mut hash, mut size_bytes) = (Sha256::new(), 0_u64);
    let broken = |e: reqwest::Error| FetchError::Broken { url: url.to_owned(), cause: said(&e) };
    while let Some(bytes) = response.chunk().await.map_err(broken)? {
        size_bytes += bytes.len() as u64;
        if size_bytes > limit_bytes {
            return Err(too_large());
        }
        hash.update(&bytes);
        into.write_all(&bytes).await.map_err(|cause| FetchError::Write { url: url.to_owned(), cause })?;
    }
    Ok((Digest::of_hash(&hash.finalize().into()), size_bytes))
}

fn parsed(url: &str) -> Result<Url, FetchError> {
    let bad = |problem: &str| FetchError::Address { url: url.to_owned(), problem: problem.to_owned() };
    let at = Url::parse(url).map_err(|e| bad(&e.to_string()))?;
    if !matches!(at.scheme(), "http" | "https") {
        return Err(bad("only http and https are"));
    }
    if !at.username().is_empty() || at.password().is_some() {
        return Err(bad("there is a user's name in it"));
    }
    Ok(at)
}

/// Without what may be a secret: a query may hold a signature.
fn shown(at: &Url) -> String {
    let mut at = at.clone();
    at.set_query(at.query().map(|_| "…"));
    at.set_fragment(None);
    at.to_string()
}

/// The error and its causes, without the address, which stands before it.
fn said(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.pop().unwrap_or_else(|| "the connection broke".to_owned())
}

#[cfg(test)]
mod tests;
