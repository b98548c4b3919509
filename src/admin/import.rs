//! Public keys from a forge: fetched with bounds, and from no address inside.
//!
//! A URL that an administrator types makes this machine ask another one: the guard looks at every address that is really
//! connected to, at each hop, so that neither a name that resolves inside nor a redirect reaches what only this machine
//! can. No proxy is used: it would resolve names where the guard does not see it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use super::keys;
use crate::error::{Kind, Report};
use crate::fetch::is_public;
use crate::model::{UserKey, UserName};
use crate::store::{Store, now_ms};

const LIMIT_BYTES: usize = 256 << 10;
const LIMIT_KEYS: usize = 100;
const LIMIT_URL_BYTES: usize = 2_048;
const MAX_HOPS: usize = 3;
/// For all of it: names, connections, redirects, the body.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Where keys are fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// A user's name on github.com.
    Github(String),
    /// A page of public keys, one a line.
    Url(String),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Github(name) => write!(f, "github {name}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl KeySource {
    fn url(&self, reach: Reach) -> Result<Url, Report> {
        let text = match self {
            Self::Github(name) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if name.is_empty() || name.len() > 39 || !name.bytes().all(plain) {
                    return Err(Report::user(format!("{name:?} is no name of a GitHub user"))
                        .hint("use 1 to 39 letters, digits and '-', as in github.com/NAME"));
                }
                format!("https://github.com/{name}.keys")
            }
            Self::Url(text) => text.clone(),
        };
        let shown: String = text.chars().take(120).collect();
        let wrong = |why: &str| {
            Report::user(format!("{shown:?} cannot be fetched: {why}"))
                .hint("give a page of public keys, as in https://gitlab.example.com/NAME.keys")
        };
        // what parsers of URLs disagree about is not sent to one
        if text.len() > LIMIT_URL_BYTES
            || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(wrong("it is too long, or holds white space, control characters or a backslash"));
        }
        let url = Url::parse(&text).map_err(|cause| wrong(&cause.to_string()))?;
        reach.check(&url).map_err(|why| wrong(&why))?;
        Ok(url)
    }
}

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// Also addresses of private networks and of this machine, and this machine without TLS.
    Inside,
}

impl Reach {
    /// Whether the URL may be asked, as far as it says by itself.
    fn check(self, url: &Url) -> Result<(), String> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it names a user; keys are fetched without logging in".to_owned());
        }
        let host = url.host_str().ok_or("it names no host")?;
        // the parser has brought every way to write an IPv4 address into one; IPv6 ones stand in brackets
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let this_machine =
            address.is_some_and(|address| address.to_canonical().is_loopback()) || host == "localhost";
        match url.scheme() {
            "https" => {}
            "http" if self == Self::Inside && this_machine => {}
            _ => return Err("only https is trusted with keys".to_owned()),
        }
        match address {
            Some(address) if !self.reaches(address) => Err(refused(address)),
            _ => Ok(()),
        }
    }

    fn reaches(self, address: IpAddr) -> bool {
        self == Self::Inside || is_public(address)
    }
}

fn refused(address: IpAddr) -> String {
    format!("{address} is no public address")
}

/// Resolves names to what may be reached alone; what it answers is what is connected to.
struct Guard(Reach);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let within: Vec<SocketAddr> =
                found.iter().copied().filter(|address| reach.reaches(address.ip())).collect();
            match (within.is_empty(), found.first()) {
                (true, Some(first)) => Err(refused(first.ip()).into()),
                _ => Ok(Box::new(within.into_iter()) as Addrs),
            }
        })
    }
}

/// Fetches a user's keys and registers them; says of each whether it is new. `inside` lets private addresses through.
pub(super) async fn import(
    store: &Store,
    user: &UserName,
    source: &KeySource,
    inside: bool,
) -> Result<Vec<(UserKey, bool)>, Report> {
    super::users::must_be_person(user)?;
    let reach = if inside { Reach::Inside } else { Reach::Public };
    let url = source.url(reach)?;
    let from = format!("{}{}", url.host_str().unwrap_or_default(), url.path());
    let text = match tokio::time::timeout(TIME_LIMIT, fetch(url, reach)).await {
        Ok(text) => text?,
        Err(_) => {
            let message = format!("{from} did not answer within {} seconds", TIME_LIMIT.as_secs());
            return Err(Report::new(Kind::Unavailable, message)
                .hint("try again, or give the keys to `lemnos keys add`"));
        }
    };
    let mut found = keys::parse(user, &text, now_ms()).map_err(|report| {
        let message = format!("what {from} says is not taken: {}", report.message);
        Report { message, ..report }
    })?;
    if found.len() > LIMIT_KEYS {
        return Err(Report::user(format!("{from} has more than {LIMIT_KEYS} keys")));
    }
    for key in &mut found {
        if key.comment.is_empty() {
            key.comment = keys::comment(&from);
        }
    }
    let new = store.add_keys(&found).await?;
    Ok(found.into_iter().zip(new).collect())
}

async fn fetch(mut url: Url, reach: Reach) -> Result<String, Report> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .dns_resolver(Arc::new(Guard(reach)))
        .user_agent(concat!("lemnos/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|cause| Report::internal(format!("preparing to fetch keys: {cause}")))?;
    for _ in 0..=MAX_HOPS {
        let failed = |why: String| {
            Report::new(Kind::Unavailable, format!("fetching {}: {why}", url.host_str().unwrap_or_default()))
                .hint("see whether the page opens in a browser, or give the keys to `lemnos keys add`")
        };
        let mut response = client.get(url.clone()).send().await.map_err(|error| failed(causes(&error)))?;
        let status = response.status();
        if status.is_redirection() {
            url = next_hop(&url, &response, reach).map_err(failed)?;
            continue;
        }
        if status == StatusCode::NOT_FOUND {
            return Err(Report::new(Kind::NotFound, format!("there is no page {url}"))
                .hint("see whether the user's name is right"));
        }
        if !status.is_success() {
            return Err(failed(format!("it answers {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(causes(&error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > LIMIT_BYTES {
                return Err(failed(format!("it sends more than {LIMIT_BYTES} bytes")));
            }
        }
        return String::from_utf8(body).map_err(|_| failed("what it sends is not text".to_owned()));
    }
    Err(Report::new(Kind::Unavailable, format!("the page redirects more than {MAX_HOPS} times")))
}

fn next_hop(url: &Url, response: &Response, reach: Reach) -> Result<Url, String> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or("it redirects to nowhere")?;
    let next = url.join(location).map_err(|cause| format!("it redirects to what is no URL: {cause}"))?;
    reach.check(&next).map_err(|why| format!("it redirects elsewhere: {why}"))?;
    Ok(next)
}

/// The innermost causes say what happened; the outer ones repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
