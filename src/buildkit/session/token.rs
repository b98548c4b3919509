//! The exchange of a credential for a token, as registries ask for it.
//!
//! A realm is a URL chosen by the registry: it must be https, or loopback for a registry on loopback, redirects are not
//! followed, and time and size are bounded. Sources: the distribution project's token and OAuth2 specifications;
//! moby/buildkit v0.32.2, session/auth/authprovider, for when the older exchange is tried.

use std::sync::OnceLock;
use std::time::Duration;

use lemnos_proto::session::{FetchTokenRequest, FetchTokenResponse};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use super::Credential;

/// Longest exchange, with its second attempt. The daemon gives up after 60 s.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer.
const ANSWER_LIMIT: usize = 1 << 20;
/// Most scopes and longest scope passed on.
pub(super) const SCOPE_COUNT: usize = 64;
/// How long a token counts that does not say so itself, in seconds.
const DEFAULT_LIFE: i64 = 60;
const CLIENT_ID: &str = "lemnos";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("its token service {0:?} is neither https nor on this machine, or not the registry's own")]
    Realm(String),
    #[error("its token service answered {0}")]
    Refused(StatusCode),
    #[error("its token service cannot be reached: {0}")]
    Unreachable(String),
    #[error("its token service did not answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("its token service's answer cannot be used: {0}")]
    Answer(String),
}

impl TokenError {
    pub(super) fn into_status(self, host: &str) -> Status {
        let message = format!("no token for {host}: {self}");
        match self {
            Self::Realm(_) => Status::permission_denied(message),
            Self::Refused(StatusCode::UNAUTHORIZED) => Status::unauthenticated(message),
            Self::Refused(code) if code.is_server_error() => Status::unavailable(message),
            Self::Refused(_) => Status::permission_denied(message),
            Self::Unreachable(_) => Status::unavailable(message),
            Self::Late => Status::deadline_exceeded(message),
            Self::Answer(_) => Status::unknown(message),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: i64,
    #[serde(default)]
    issued_at: String,
}

/// Which token services may be asked.
pub(super) struct RealmRules<'a> {
    /// Whether one that is not this machine may be asked without TLS.
    pub plain_http: bool,
    /// Whether the one on `HOST[:PORT]` may be sent the credential.
    pub trusted: &'a (dyn Fn(&str) -> bool + Send + Sync),
}

fn with_port(realm: &Url, host: &str) -> String {
    realm.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A token for `request`'s scopes, bought with the credential of `request`'s host.
pub(super) async fn fetch(
    request: &FetchTokenRequest,
    credential: Option<&Credential>,
    rules: &RealmRules<'_>,
) -> Result<FetchTokenResponse, TokenError> {
    let realm = realm(request, rules.plain_http)?;
    if credential.is_some() && !realm.host_str().is_some_and(|host| (rules.trusted)(&with_port(&realm, host)))
    {
        return Err(TokenError::Realm(request.realm.clone()));
    }
    let http = client()?;
    let exchange = async {
        let Some(credential) = credential else {
            return send(query(http, realm, request)).await;
        };
        match send(form(http, realm.clone(), request, credential)).await {
            Err(TokenError::Refused(code)) if older_exchange_may_do(code, credential) => {
                let (user, secret) = match &credential.identity_token {
                    Some(token) => ("", token),
                    None => (credential.username.as_str(), &credential.secret),
                };
                send(query(http, realm, request).basic_auth(user, Some(secret))).await
            }
            answer => answer,
        }
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(TokenError::Late))
}

/// Registries without the OAuth2 exchange say so with one of these.
fn older_exchange_may_do(code: StatusCode, credential: &Credential) -> bool {
    match code {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => true,
        StatusCode::METHOD_NOT_ALLOWED => credential.identity_token.is_none(),
        _ => false,
    }
}

/// The realm as a URL that a secret may be sent to.
fn realm(request: &FetchTokenRequest, plain_http: bool) -> Result<Url, TokenError> {
    let refused = || TokenError::Realm(request.realm.clone());
    let url = Url::parse(&request.realm).map_err(|_| refused())?;
    let host = url.host_str().ok_or_else(refused)?;
    let allowed = match url.scheme() {
        "https" => true,
        "http" => (is_loopback(host) && is_loopback(host_of(&request.host))) || plain_http,
        _ => false,
    };
    match allowed && url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        false => Err(refused()),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `HOST` of `HOST[:PORT]`.
fn host_of(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    }
}

fn query(http: &Client, mut realm: Url, request: &FetchTokenRequest) -> RequestBuilder {
    {
        let mut pairs = realm.query_pairs_mut();
        if !request.service.is_empty() {
            pairs.append_pair("service", &request.service);
        }
        for scope in request.scopes.iter().take(SCOPE_COUNT) {
            pairs.append_pair("scope", scope);
        }
    }
    http.get(realm)
}

fn form(http: &Client, realm: Url, request: &FetchTokenRequest, credential: &Credential) -> RequestBuilder {
    let scopes = request.scopes.iter().take(SCOPE_COUNT).map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut fields =
        vec![("client_id", CLIENT_ID), ("service", request.service.as_str()), ("scope", scopes.as_str())];
    match &credential.identity_token {
        Some(token) => fields.extend([("grant_type", "refresh_token"), ("refresh_token", token)]),
        None => fields.extend([
            ("grant_type", "password"),
            ("username", credential.username.as_str()),
            ("password", credential.secret.as_str()),
        ]),
    }
    // encoded with the means of a URL, which are a form's
    let mut encoder = realm.clone();
    encoder.set_query(None);
    encoder.query_pairs_mut().extend_pairs(fields);
    http.post(realm)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(encoder.query().unwrap_or_default().to_owned())
}

async fn send(request: RequestBuilder) -> Result<FetchTokenResponse, TokenError> {
    let unreachable = |e: reqwest::Error| TokenError::Unreachable(words(&e.without_url()));
    let mut response = request.send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(TokenError::Refused(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(TokenError::Answer(format!("larger than {ANSWER_LIMIT} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    // serde's message may quote the answer, which holds a token
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| TokenError::Answer("it is not the JSON expected".into()))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(TokenError::Answer("it holds no token".into()));
    }
    let issued_at =
        OffsetDateTime::parse(&answer.issued_at, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
    let expires_in = if answer.expires_in > 0 { answer.expires_in } else { DEFAULT_LIFE };
    Ok(FetchTokenResponse { token, expires_in, issued_at })
}

fn words(error: &reqwest::Error) -> String {
    crate::buildkit::error::chain(error)
}

/// One client for the process, because making one reads the system's certificate authorities. It keeps no connection
/// open, so nothing outlives a session.
fn client() -> Result<&'static Client, TokenError> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let client = Client::builder()
        .user_agent(concat!("lemnos/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_secs(10))
        .build()
        .map_err(|e| TokenError::Unreachable(words(&e)))?;
    Ok(CLIENT.get_or_init(|| client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_https_or_stay_on_this_machine() {
        let allowed = |host: &str, url: &str, plain| {
            let request = FetchTokenRequest { host: host.into(), realm: url.into(), ..Default::default() };
            realm(&request, plain).is_ok()
        };
        for (host, url, plain, want) in [
            ("r.example", "https://auth.example/token", false, true),
            ("r.example", "http://auth.example/token", false, false),
            ("r.example", "http://auth.example/token", true, true),
            ("localhost:5000", "http://localhost:5001/token", false, true),
            ("127.0.0.1:5000", "http://[::1]:5001/token", false, true),
            ("[::1]:5000", "http://127.0.0.1:5001/token", false, true),
            ("r.example", "http://127.0.0.1:5001/token", false, false),
            ("localhost:5000", "http://localhost.example/token", false, false),
            ("r.example", "https://user:pass@auth.example/", false, false),
            ("r.example", "file:///etc/passwd", true, false),
            ("r.example", "", true, false),
        ] {
            assert_eq!(allowed(host, url, plain), want, "{host} {url}");
        }
    }
}
