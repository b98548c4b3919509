//! One call to a registry: signed, retried within bounds, its failure typed.
//!
//! A call costs one request when nothing needs a signature, or when the signature is known already: there is no question
//! ahead of it. Bodies are read up to a bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use oci_distribution::errors::OciEnvelope;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use tokio::sync::Semaphore;

use super::challenge::{self, Challenge};
use super::credentials::{Credential, Credentials, Logins};
use super::fault::{Problem, RegistryError, connection_problem};
use super::token::{self, Authorization, Question};
use super::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, Reference, RegistryConfig, host, retry};
use crate::metrics;
use crate::model::{Digest, ImageName};

mod outgoing;
mod target;
mod transfer;

pub use outgoing::Fails;
pub use transfer::Origin;

use transfer::signed_by;

/// How long a registry's way of signing in is taken for granted, and of how many.
const SCHEME_FRESH: Duration = Duration::from_secs(300);
const SCHEME_LIMIT: usize = 1024;
const USER_AGENT: &str = concat!("lemnos/", env!("CARGO_PKG_VERSION"));
const DIGEST_HEADER: &str = "docker-content-digest";
/// Said by registries that list referrers (OCI distribution 1.1).
const SUBJECT_HEADER: &str = "oci-subject";
/// What of an error body is shown, and of a token service's answer read.
const DETAIL_CHARS: usize = 300;
const ANSWER_LIMIT_BYTES: usize = 256 << 10;

/// A request for one manifest.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    /// As the image name spells it.
    host: String,
    path: String,
    /// Below the repository: `manifests/…`, or what a registry said where to go on.
    place: String,
    body: Option<(String, Bytes)>,
    /// What a token has to allow.
    access: Access,
    /// Another repository of the host, that is to be pulled from.
    also_pulls: Option<String>,
    /// What messages call it.
    doing: String,
}

impl Call {
    pub fn manifest(method: Method, image: &ImageName, reference: &Reference) -> Self {
        let verb = match method {
            Method::PUT => "putting",
            Method::HEAD => "looking up",
            Method::DELETE => "removing",
            _ => "getting",
        };
        let joint = match reference {
            Reference::Digest(_) => '@',
            Reference::Tag(_) => ':',
        };
        Self {
            doing: format!("{verb} {image}{joint}{reference}"),
            method,
            host: image.host().to_owned(),
            path: host::api_path(image),
            place: format!("manifests/{reference}"),
            body: None,
            access: Access::Pull,
            also_pulls: None,
        }
        .with_access()
    }

    /// As the method has it.
    fn with_access(mut self) -> Self {
        self.access = match self.method {
            Method::DELETE => Access::Delete,
            Method::PUT | Method::POST | Method::PATCH => Access::Push,
            _ => Access::Pull,
        };
        self
    }

    /// Begins the upload of a blob.
    pub fn upload(image: &ImageName) -> Self {
        Self {
            doing: format!("beginning an upload to {image}"),
            method: Method::POST,
            host: image.host().to_owned(),
            path: host::api_path(image),
            place: "blobs/uploads/".to_owned(),
            body: Some(("application/octet-stream".to_owned(), Bytes::new())),
            access: Access::Push,
            also_pulls: None,
        }
    }

    /// Calls off an upload that goes on at `location`; none where that is not below the image's own repository.
    pub fn cancel_upload(image: &ImageName, location: &str) -> Option<Self> {
        let (_, place) = location.split_once(&format!("/v2/{}/", host::api_path(image)))?;
        place.starts_with("blobs/uploads/").then(|| Self {
            doing: format!("calling off an upload to {image}"),
            method: Method::DELETE,
            place: place.to_owned(),
            ..Self::upload(image)
        })
    }

    pub fn with_body(mut self, media_type: &str, bytes: Bytes) -> Self {
        self.body = Some((media_type.to_owned(), bytes));
        self
    }

    pub fn fails(&self, problem: Problem) -> RegistryError {
        RegistryError::new(&self.host, self.doing.clone(), problem)
    }

    fn url_path(&self) -> String {
        format!("/v2/{}/{}", self.path, self.place)
    }

    /// What a token is asked for; several are parted by spaces.
    fn scope(&self) -> String {
        let own = format!("repository:{}:{}", self.path, self.access.actions());
        match &self.also_pulls {
            Some(other) if *other != self.path => format!("{own} repository:{other}:pull"),
            _ => own,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,push,delete",
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: Option<String>,
    digest: Option<String>,
    pub body: Bytes,
    /// Where the registry points to; empty for nowhere.
    pub location: String,
    /// The registry lists what was put at its subject.
    pub lists_subject: bool,
    date: Option<std::time::SystemTime>,
}

impl Reply {
    /// The digest in the header; an error where it is none that we know.
    pub fn announced_digest(&self, call: &Call) -> Result<Option<Digest>, RegistryError> {
        let Some(text) = self.digest.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let digest = text.parse().map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            call.fails(Problem::Nonsense { what: format!("its digest header is {shown:?}") })
        })?;
        Ok(Some(digest))
    }
}

/// An answer before its status is judged.
struct Raw {
    status: StatusCode,
    challenge: Option<Challenge>,
    retry_after: Option<Duration>,
    location: String,
    reply: Reply,
    /// The body of a success, where it is left to be read.
    rest: Option<Response>,
}

/// The http clients, and what is known of who signs what.
pub struct Exchange {
    config: RegistryConfig,
    /// For https, through the system's proxies.
    encrypted: Client,
    /// For plain http, which never takes a proxy: it is loopback, or a host next door.
    plain: Client,
    credentials: Credentials,
    signatures: token::Cache,
    /// Which hosts sell tokens, as they said it last.
    schemes: Mutex<HashMap<String, (Instant, bool)>>,
    slots: Semaphore,
    /// Blobs under way at once.
    transfers: Semaphore,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Exchange {
    pub fn new(
        config: RegistryConfig,
        logins: Option<std::sync::Arc<dyn Logins>>,
    ) -> Result<Self, RegistryError> {
        let client = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::none())
                .connect_timeout(config.connect_timeout)
                .timeout(config.request_timeout)
                .tcp_nodelay(true)
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| {
                RegistryError::new(
                    "",
                    "preparing to speak to registries",
                    Problem::Client { cause: error.to_string() },
                )
            })
        };
        Ok(Self {
            encrypted: build(client().https_only(true))?,
            plain: build(client().no_proxy())?,
            credentials: Credentials::new(config.docker_config.clone(), config.helper_timeout)
                .with_logins(logins),
            schemes: Mutex::default(),
            signatures: token::Cache::default(),
            slots: Semaphore::new(config.concurrency.max(1)),
            transfers: Semaphore::new(config.blob_transfers.max(1)),
            config,
        })
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where an image is looked for, the last of them its own registry.
    pub fn places(&self, image: &ImageName) -> Vec<ImageName> {
        host::places(image, &self.config.mirrors)
    }

    /// Makes the call, again when it failed for a moment only. The last failure is returned.
    pub async fn call(&self, call: &Call) -> Result<Reply, RegistryError> {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.signed(call).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            self.pause(&error, tried, begun).await?;
        }
    }

    /// Waits before the next try after `error`, which is given back where there is to be none.
    pub async fn pause(
        &self,
        error: &RegistryError,
        tried: u32,
        begun: Instant,
    ) -> Result<(), RegistryError> {
        let pause = Some(error.retry_after())
            .filter(|_| error.is_transient())
            .and_then(|asked| retry::pause(&self.config, tried, begun.elapsed(), asked));
        let Some(pause) = pause else { return Err(error.clone()) };
        tracing::info!(registry.host = %error.host, registry.tried = tried, "{error}; again in {} ms", pause.as_millis());
        metrics::registry_retry();
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Whether the API's root answers at all.
    pub async fn ping(&self, named: &str) -> Result<Option<std::time::SystemTime>, RegistryError> {
        let fails = |problem| {
            RegistryError::new(named, format!("asking the registry at {named} whether it is there"), problem)
        };
        let url = self.url(named, "/v2/").map_err(fails)?;
        let raw = self.send(self.client(named).get(url), ANSWER_LIMIT_BYTES).await.map_err(fails)?;
        match raw.status {
            status if status.is_success() || status == StatusCode::UNAUTHORIZED => Ok(raw.reply.date),
            _ => Err(fails(refusal(&raw, None))),
        }
    }

    /// Whether the host asks for tokens, where it asks for anything.
    pub async fn sells_tokens(&self, named: &str) -> Result<bool, RegistryError> {
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(named).copied();
        if let Some((at, tokens)) = known
            && at.elapsed() < SCHEME_FRESH
        {
            return Ok(tokens);
        }
        let fails = |problem| {
            RegistryError::new(named, format!("asking the registry at {named} how to sign in"), problem)
        };
        let url = self.url(named, "/v2/").map_err(fails)?;
        let raw = self.send(self.client(named).get(url), ANSWER_LIMIT_BYTES).await.map_err(fails)?;
        let tokens = matches!(raw.challenge, Some(Challenge::Bearer { .. }));
        if !tokens && raw.status != StatusCode::UNAUTHORIZED && !raw.status.is_success() {
            return Err(fails(refusal(&raw, None)));
        }
        let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        if schemes.len() >= SCHEME_LIMIT {
            schemes.clear();
        }
        schemes.insert(named.to_owned(), (Instant::now(), tokens));
        Ok(tokens)
    }

    /// As the exchange's own questions are judged: the registry's own site, or a listed host.
    pub fn trusts_realm(&self, named: &str, realm_host: &str) -> bool {
        host::is_same_site(host::api_host(named), realm_host)
            || self.config.token_hosts.iter().any(|entry| entry.eq_ignore_ascii_case(realm_host))
    }

    /// One try of a call whose answer is small.
    async fn signed(&self, call: &Call) -> Result<Reply, RegistryError> {
        let _slot = self.slots.acquire().await;
        let send = |signature: Option<Authorization>| -> BoxFuture<'_, Result<Raw, RegistryError>> {
            Box::pin(async move { self.request(call, signature.as_ref()).await })
        };
        self.signing(call, &send).await.map(|raw| raw.reply)
    }

    /// One try: unsigned, or with what signed the last one; signed anew when the registry asks for it.
    async fn signing<'a>(&self, call: &Call, send: &Send<'a>) -> Result<Raw, RegistryError> {
        // a login that was changed or taken away signs nothing any more
        let keys = signature_keys(call, self.credentials.changes());
        let known = keys.iter().find_map(|key| self.signatures.get(key));
        let mut raw = send(known.clone()).await?;
        let mut user = known.as_ref().and_then(user_of);
        if raw.status == StatusCode::UNAUTHORIZED {
            if known.is_some() {
                for key in &keys {
                    self.signatures.forget(key);
                }
                self.credentials.forget(&call.host);
            }
            let credential = self.credentials.for_repository(&call.host, &call.path).await;
            let credential = credential.map_err(|error| call.fails(error.into()))?;
            user = credential.as_ref().map(shown_user);
            let authorization = self.sign(call, raw.challenge.take(), credential).await?;
            raw = send(Some(authorization.clone())).await?;
            let [_, token, basic] = keys;
            match (raw.status, &authorization) {
                (StatusCode::UNAUTHORIZED, _) => self.credentials.forget(&call.host),
                (_, Authorization::Basic { .. }) => self.signatures.put(basic, authorization),
                (_, Authorization::Bearer { .. }) => self.signatures.put(token, authorization),
            }
        }
        match raw.status {
            status if status.is_success() => Ok(raw),
            StatusCode::UNAUTHORIZED => Err(call.fails(match user {
                Some(user) => Problem::BadCredentials { user },
                None => Problem::NoCredentials { config: self.credentials.file() },
            })),
            _ => Err(call.fails(refusal(&raw, user))),
        }
    }

    /// What answers the registry's challenge.
    async fn sign(
        &self,
        call: &Call,
        challenge: Option<Challenge>,
        credential: Option<Credential>,
    ) -> Result<Authorization, RegistryError> {
        match (challenge, credential) {
            (Some(Challenge::Bearer { realm, service }), credential) => {
                self.token(call, &realm, service.as_deref(), &call.scope(), credential.as_ref()).await
            }
            (Some(Challenge::Basic), Some(credential)) if !credential.identity_token => {
                Ok(Authorization::Basic { username: credential.username, secret: credential.secret })
            }
            (Some(Challenge::Basic), Some(credential)) => {
                Err(call.fails(Problem::BadCredentials { user: shown_user(&credential) }))
            }
            (Some(Challenge::Basic), None) => {
                Err(call.fails(Problem::NoCredentials { config: self.credentials.file() }))
            }
            (None, _) => Err(call.fails(Problem::Nonsense {
                what: "401 without a Basic or Bearer challenge in WWW-Authenticate".to_owned(),
            })),
        }
    }

    async fn token(
        &self,
        call: &Call,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<Authorization, RegistryError> {
        let rules =
            token::Rules { plain_http: &self.config.plain_http, token_hosts: &self.config.token_hosts };
        let api = host::api_host(&call.host);
        let question = token::question(api, realm, service, scope, credential, &rules)
            .map_err(|realm| call.fails(Problem::ForeignRealm { realm }))?;
        let (request, asked) = match question {
            Question::Get { url, basic } => {
                let asked = url.clone();
                let request = self.client_for(&url).get(url);
                match basic {
                    Some((username, secret)) => (request.basic_auth(username, Some(secret)), asked),
                    None => (request, asked),
                }
            }
            Question::Post { url, form } => {
                let asked = url.clone();
                let request = self.client_for(&url).post(url);
                (request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form), asked)
            }
        };
        let realm = asked.host_str().unwrap_or_default().to_owned();
        let raw = self.send(request, ANSWER_LIMIT_BYTES).await.map_err(|problem| {
            let transient = problem.is_transient();
            call.fails(Problem::TokenService { realm: realm.clone(), cause: problem.to_string(), transient })
        })?;
        if raw.status.is_success() {
            let user = credential.map(shown_user);
            let signed = token::answer(&raw.reply.body).map(|token| Authorization::Bearer { token, user });
            return signed.ok_or_else(|| {
                let cause = "its answer holds no token".to_owned();
                call.fails(Problem::TokenService { realm, cause, transient: false })
            });
        }
        Err(call.fails(match (raw.status, credential) {
            (StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST, Some(credential)) => {
                Problem::BadCredentials { user: shown_user(credential) }
            }
            (StatusCode::UNAUTHORIZED, None) => Problem::NoCredentials { config: self.credentials.file() },
            _ => match refusal(&raw, credential.map(shown_user)) {
                problem @ (Problem::Forbidden { .. } | Problem::RateLimited { .. }) => problem,
                problem => {
                    let transient = problem.is_transient();
                    Problem::TokenService { realm, cause: problem.to_string(), transient }
                }
            },
        }))
    }

    async fn request(&self, call: &Call, signature: Option<&Authorization>) -> Result<Raw, RegistryError> {
        let url = self.url(&call.host, &call.url_path()).map_err(|problem| call.fails(problem))?;
        let mut request = self.client(&call.host).request(call.method.clone(), url);
        request = match &call.body {
            Some((media_type, bytes)) => {
                let limit_bytes = self.config.manifest_bytes_limit;
                if bytes.len() > limit_bytes {
                    return Err(call.fails(Problem::TooLarge { limit_bytes }));
                }
                request.header(CONTENT_TYPE, media_type).body(bytes.clone())
            }
            None => request.header(ACCEPT, [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ")),
        };
        request = signed_by(request, signature);
        self.send(request, self.config.manifest_bytes_limit).await.map_err(|problem| call.fails(problem))
    }

    fn url(&self, named: &str, path: &str) -> Result<Url, Problem> {
        let scheme = if self.is_plain(named) { "http" } else { "https" };
        format!("{scheme}://{}{path}", host::api_host(named))
            .parse()
            .map_err(|_| Problem::Nonsense { what: format!("{named:?} makes no URL") })
    }

    fn is_plain(&self, named: &str) -> bool {
        host::is_plain_http(named, &self.config.plain_http)
    }

    fn client(&self, named: &str) -> &Client {
        if self.is_plain(named) { &self.plain } else { &self.encrypted }
    }

    fn client_for(&self, url: &Url) -> &Client {
        if url.scheme() == "http" { &self.plain } else { &self.encrypted }
    }

    async fn send(&self, request: RequestBuilder, limit_bytes: usize) -> Result<Raw, Problem> {
        let sent = request.send().await;
        metrics::registry_request(sent.as_ref().ok().map(|response| response.status().as_u16()));
        self.read(sent.map_err(|error| connection_problem(&error, self.config.request_timeout))?, limit_bytes)
            .await
    }

    /// The whole of an answer, its body up to `limit_bytes`.
    async fn read(&self, response: Response, limit_bytes: usize) -> Result<Raw, Problem> {
        let mut raw = Raw::of_head(response);
        let Some(mut response) = raw.rest.take() else { return Ok(raw) };
        let mut body = BytesMut::new();
        let problem = |error: reqwest::Error| connection_problem(&error, self.config.request_timeout);
        while let Some(chunk) = response.chunk().await.map_err(problem)? {
            if body.len() + chunk.len() > limit_bytes {
                return Err(Problem::TooLarge { limit_bytes });
            }
            body.extend_from_slice(&chunk);
        }
        raw.reply.body = body.freeze();
        Ok(raw)
    }
}

impl Raw {
    /// Status and headers; the body is left.
    fn of_head(response: Response) -> Self {
        let headers = response.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenge::parse(challenges);
        let retry_after =
            text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let location = text(LOCATION.as_str()).unwrap_or_default();
        let date = text(DATE.as_str()).and_then(|date| {
            let format = &time::format_description::well_known::Rfc2822;
            Some(time::OffsetDateTime::parse(&date, format).ok()?.into())
        });
        let reply = Reply {
            status: response.status().as_u16(),
            content_type: text(CONTENT_TYPE.as_str()),
            digest: text(DIGEST_HEADER),
            body: Bytes::new(),
            location: location.clone(),
            lists_subject: headers.contains_key(SUBJECT_HEADER),
            date,
        };
        Self { status: response.status(), challenge, retry_after, location, reply, rest: Some(response) }
    }
}

/// Sends a call with a signature, or without one.
type Send<'a> = dyn Fn(Option<Authorization>) -> BoxFuture<'a, Result<Raw, RegistryError>>
    + std::marker::Send
    + Sync
    + 'a;

/// Where signatures that serve a call are kept: a token that may do more, the token that is asked for where there is none, a
/// password. What may write may read. `changes` counts the changes of the logins that signed.
fn signature_keys(call: &Call, changes: u64) -> [String; 3] {
    let repository = format!("{changes} {}/{}", call.host, call.path);
    let also = call.also_pulls.as_deref().unwrap_or_default();
    let token = |access: Access| format!("{repository} {} {also}", access.actions());
    let more = if call.access == Access::Pull { Access::Push } else { call.access };
    [token(more), token(call.access), format!("{repository} basic")]
}

fn shown_user(credential: &Credential) -> String {
    if credential.identity_token { "the identity token".to_owned() } else { credential.username.clone() }
}

fn user_of(authorization: &Authorization) -> Option<String> {
    match authorization {
        Authorization::Basic { username, .. } => Some(username.clone()),
        Authorization::Bearer { user, .. } => user.clone(),
    }
}

/// What a status that is no success means.
fn refusal(raw: &Raw, user: Option<String>) -> Problem {
    let detail = detail(&raw.reply.body);
    let status = raw.status.as_u16();
    match status {
        403 => Problem::Forbidden { user, detail },
        404 => Problem::NotFound { detail },
        429 => Problem::RateLimited { retry_after: raw.retry_after },
        300..=399 => Problem::Redirected { status, to: raw.location.chars().take(DETAIL_CHARS).collect() },
        500..=599 => Problem::Server { status, retry_after: raw.retry_after, detail },
        400..=499 => Problem::Rejected { status, detail },
        _ => Problem::Nonsense { what: format!("status {status}") },
    }
}

/// The registry's own words: the messages of its error envelope, else nothing (a proxy's HTML page helps nobody).
fn detail(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) else { return String::new() };
    let words = envelope.errors.iter().map(|error| match error.message.as_str() {
        "" => serde_json::to_value(&error.code)
            .ok()
            .and_then(|code| code.as_str().map(str::to_owned))
            .unwrap_or_default(),
        message => message.to_owned(),
    });
    let joined = words.collect::<Vec<_>>().join("; ");
    joined.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS).collect()
}
