//! A registry that fails on demand: manifests and blobs of the distribution API over plain HTTP/1.1, written by hand so that it
//! can break off, lie and stall. Also compiled into the unit tests of `tag`. It serves faults; what a registry does when all is
//! well is for the live tests.
#![allow(dead_code, reason = "each of its users takes what it needs")]
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use sha2::Digest as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::process::Process;

/// What happens instead of the right answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The request takes effect and success is said; then someone else writes these bytes to the same place.
    Overwritten(&'static str),
    /// This status, with these further header lines and this body; nothing is stored.
    Status(u16, &'static str, &'static str),
    /// The request takes effect, and this status says that it did not.
    StatusAfterEffect(u16),
    /// The connection ends without an answer; nothing is stored.
    Reset,
    /// The request takes effect, and the connection ends without an answer.
    ResetAfterEffect,
    /// Success is claimed, nothing is stored.
    Forget,
    /// The right answer with this in the digest header (empty: without the header).
    DigestHeader(&'static str),
    /// The right answer, this much later.
    Slow(Duration),
    /// Bytes that are no HTTP.
    Garbage,
    /// A body of this many bytes.
    Huge(usize),
    /// The connection ends when so many bytes of the request's body have come.
    BreakOffAfter(usize),
    /// The right answer, its body cut off in the middle.
    HalfBody,
    /// The right answer with another body of the same length.
    OtherBody,
}

/// How requests are to be signed.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    #[default]
    None,
    /// `user:password`
    Basic(&'static str),
    /// Tokens from `realm` (empty: this server's /token), given for `user:password` or for this identity token; pulling is
    /// for anyone when `public`.
    Bearer { realm: String, account: &'static str, identity: &'static str, public: bool },
}

/// What the registry takes a DELETE of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Removes {
    /// A tag, alone.
    #[default]
    Tags,
    /// A digest, with all the tags that stand at it.
    Digests,
    Nothing,
}

/// How blobs are handed out and taken.
#[derive(Debug, Clone, Default)]
pub struct BlobWays {
    pub declines_mounts: bool,
    /// Blobs are read at this host.
    pub read_at: Option<String>,
    /// Uploads go on at this host.
    pub upload_at: Option<String>,
    pub absolute_locations: bool,
}

#[derive(Default)]
struct State {
    /// `path:reference` -> media type and bytes; digests and tags alike.
    manifests: HashMap<String, (String, Vec<u8>)>,
    /// Method, end of the target, how often, what.
    faults: Vec<(&'static str, String, usize, Fault)>,
    /// Method, part of the target, which ones of these requests, how many there were, what.
    every: Vec<(&'static str, String, usize, usize, Fault)>,
    /// An index is refused while one of its manifests is not there, as a real registry does.
    demands_children: bool,
    /// `path:digest` -> bytes.
    blobs: HashMap<String, Vec<u8>>,
    uploads: usize,
    blob_ways: BlobWays,
    /// `METHOD target` -> the authorization that came with it.
    signatures: Vec<(String, String)>,
    /// Manifests with a subject are said to be listed.
    lists_referrers: bool,
    auth: Auth,
    removes: Removes,
    /// Tokens are good for so many requests.
    token_uses: usize,
    tokens: HashMap<String, usize>,
    log: Vec<String>,
}

pub struct FakeRegistry {
    /// `127.0.0.1:PORT`
    pub host: String,
    state: Arc<Mutex<State>>,
    server: Server,
}

enum Server {
    /// Of the test's own runtime.
    Task(tokio::task::JoinHandle<()>),
    /// One that can be killed.
    Process(Process),
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        match &self.server {
            Server::Task(task) => task.abort(),
            Server::Process(process) => process.kill(),
        }
    }
}

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

impl FakeRegistry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { token_uses: usize::MAX, ..State::default() }));
        let server = Server::Task(tokio::spawn(accept(listener, state.clone())));
        Self { host, state, server }
    }

    /// One that can be killed and started again; what it holds stays.
    pub fn start_process() -> Self {
        let state = Arc::new(Mutex::new(State { token_uses: usize::MAX, ..State::default() }));
        let listener = std::net::TcpListener::bind(super::port::own()).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let process = Process::default();
        serve(&process, listener, state.clone());
        Self { host, state, server: Server::Process(process) }
    }

    pub fn kill(&self) {
        if let Server::Process(process) = &self.server {
            process.kill();
        }
    }

    /// After `kill`: at the same address, with the same content.
    pub fn restart(&self) {
        let Server::Process(process) = &self.server else { return };
        let listener = std::net::TcpListener::bind(&self.host).unwrap();
        serve(process, listener, self.state.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// `method` on a target ending in `target` goes wrong `times` times.
    pub fn fail(&self, method: &'static str, target: &str, times: usize, fault: Fault) {
        self.state().faults.push((method, target.to_owned(), times, fault));
    }

    /// Every `nth` `method` on a target that holds `part` goes wrong, the `nth` first.
    pub fn fail_every(&self, method: &'static str, part: &str, nth: usize, fault: Fault) {
        self.state().every.push((method, part.to_owned(), nth, 0, fault));
    }

    pub fn heal(&self) {
        self.state().faults.clear();
        self.state().every.clear();
    }

    pub fn demand_children(&self) {
        self.state().demands_children = true;
    }

    pub fn removes(&self, what: Removes) {
        self.state().removes = what;
    }

    /// What stands at an image's path by tag.
    pub fn tags(&self, path: &str) -> Vec<String> {
        let state = self.state();
        let references = state.manifests.keys().filter_map(|key| key.strip_prefix(path)?.strip_prefix(':'));
        let mut tags: Vec<String> = references.filter(|one| !one.contains(':')).map(str::to_owned).collect();
        tags.sort();
        tags
    }

    pub fn blob_ways(&self, ways: BlobWays) {
        self.state().blob_ways = ways;
    }

    pub fn list_referrers(&self) {
        self.state().lists_referrers = true;
    }

    pub fn store_blob(&self, path: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.state().blobs.insert(format!("{path}:{digest}"), bytes.to_vec());
        digest
    }

    pub fn blob(&self, path: &str, digest: &str) -> Option<Vec<u8>> {
        self.state().blobs.get(&format!("{path}:{digest}")).cloned()
    }

    pub fn forget_blobs(&self, path: &str) {
        self.state().blobs.retain(|key, _| !key.starts_with(&format!("{path}:")));
    }

    /// Requests that came with an authorization, and that.
    pub fn signatures(&self) -> Vec<(String, String)> {
        self.state().signatures.clone()
    }

    pub fn demand(&self, auth: Auth) {
        self.state().auth = auth;
    }

    /// Tokens are refused after so many uses; with 0 those given out are refused too.
    pub fn tokens_last(&self, uses: usize) {
        let mut state = self.state();
        state.token_uses = uses;
        if uses == 0 {
            state.tokens.clear();
            state.token_uses = usize::MAX;
        }
    }

    /// Puts a manifest as if it had been pushed; returns its digest.
    pub fn store(&self, path: &str, reference: Option<&str>, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        let mut state = self.state();
        for name in [Some(digest.as_str()), reference].into_iter().flatten() {
            state.manifests.insert(format!("{path}:{name}"), (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// The digest that stands at `path:reference`.
    pub fn at(&self, path: &str, reference: &str) -> Option<String> {
        self.state().manifests.get(&format!("{path}:{reference}")).map(|(_, bytes)| digest_of(bytes))
    }

    pub fn content(&self, path: &str, reference: &str) -> Option<Vec<u8>> {
        self.state().manifests.get(&format!("{path}:{reference}")).map(|(_, bytes)| bytes.clone())
    }

    /// The requests so far, `METHOD target status`, taken out.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

fn serve(process: &Process, listener: std::net::TcpListener, state: Arc<Mutex<State>>) {
    listener.set_nonblocking(true).unwrap();
    let ends = super::port::Ends(listener.try_clone().unwrap());
    process.start(async move {
        let _ends = ends;
        accept(TcpListener::from_std(listener).unwrap(), state).await
    });
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let _ = converse(stream, &state).await;
        });
    }
}

#[derive(Clone)]
struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }
}

async fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { method, target, headers, body: Vec::new() }))
}

async fn read_body(reader: &mut BufReader<TcpStream>, request: &mut Request) -> std::io::Result<()> {
    let length = request.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).await.map(drop)
}

async fn converse(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_head(&mut reader).await? {
        let fault = take_fault(&mut state.lock().unwrap(), &request);
        if let Some(signature) = request.headers.get("authorization") {
            let asked = format!("{} {}", request.method, request.target);
            state.lock().unwrap().signatures.push((asked, signature.clone()));
        }
        if let Some(Fault::BreakOffAfter(bytes)) = fault {
            reader.read_exact(&mut vec![0; bytes]).await?;
            state.lock().unwrap().log.push(format!("{} {} broken off", request.method, request.target));
            return Ok(());
        }
        read_body(&mut reader, &mut request).await?;
        let log = |status: &str| {
            state.lock().unwrap().log.push(format!("{} {} {status}", request.method, request.target));
        };
        let answer = match fault {
            Some(Fault::Reset) => {
                log("reset");
                return Ok(());
            }
            Some(Fault::ResetAfterEffect) => {
                respond(&mut state.lock().unwrap(), &request);
                log("reset");
                return Ok(());
            }
            Some(Fault::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                respond(&mut state.lock().unwrap(), &request)
            }
            Some(Fault::Garbage) => {
                log("garbage");
                return reader.write_all(b"SSH-2.0-nothing here\r\n\r\n").await;
            }
            Some(Fault::HalfBody) => {
                let answer = respond(&mut state.lock().unwrap(), &request);
                log("half");
                let head =
                    format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n\r\n", answer.status, answer.body.len());
                reader.write_all(head.as_bytes()).await?;
                return reader.write_all(&answer.body[..answer.body.len() / 2]).await;
            }
            other => altered(other, &mut state.lock().unwrap(), &request),
        };
        log(&answer.status.to_string());
        let mut text = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for header in &answer.headers {
            text.push_str(&format!("{header}\r\n"));
        }
        text.push_str("\r\n");
        reader.write_all(text.as_bytes()).await?;
        if request.method != "HEAD" {
            reader.write_all(&answer.body).await?;
        }
    }
    Ok(())
}

/// The answer to a request, whole, as a fault would have it.
fn altered(fault: Option<Fault>, state: &mut State, request: &Request) -> Answer {
    match fault {
        Some(Fault::Status(status, header, body)) => {
            let headers = if header.is_empty() { Vec::new() } else { vec![header.to_owned()] };
            Answer { status, headers, body: body.as_bytes().to_vec() }
        }
        Some(Fault::StatusAfterEffect(status)) => {
            respond(state, request);
            Answer::new(status)
        }
        Some(Fault::Overwritten(bytes)) => {
            let answer = respond(state, request);
            let foreign = Request { body: bytes.as_bytes().to_vec(), ..request.clone() };
            respond(state, &foreign);
            answer
        }
        Some(Fault::Forget) => {
            let mut answer = Answer::new(201);
            answer.headers.push(format!("Docker-Content-Digest: {}", digest_of(&request.body)));
            answer
        }
        Some(Fault::DigestHeader(text)) => {
            let mut answer = respond(state, request);
            answer.headers.retain(|line| !line.starts_with("Docker-Content-Digest"));
            if !text.is_empty() {
                answer.headers.push(format!("Docker-Content-Digest: {text}"));
            }
            answer
        }
        Some(Fault::OtherBody) => {
            let mut answer = respond(state, request);
            answer.body.iter_mut().for_each(|byte| *byte ^= 1);
            answer
        }
        Some(Fault::Huge(bytes)) => Answer { body: vec![b' '; bytes], ..Answer::new(200) },
        None | Some(_) => respond(state, request),
    }
}

fn take_fault(state: &mut State, request: &Request) -> Option<Fault> {
    let found = state.faults.iter_mut().find(|(method, target, times, _)| {
        *times > 0
            && (*method == request.method || *method == "*")
            && request.target.ends_with(target.as_str())
    });
    if let Some((_, _, times, fault)) = found {
        *times = times.saturating_sub(1);
        return Some(fault.clone());
    }
    let mut hit = None;
    for (method, part, nth, seen, fault) in &mut state.every {
        if *method == request.method && request.target.contains(part.as_str()) {
            *seen += 1;
            if seen.is_multiple_of(*nth) {
                hit = Some(fault.clone());
            }
        }
    }
    hit
}

/// Whether every manifest that an index names is there.
fn complete(state: &State, path: &str, body: &[u8]) -> bool {
    let Ok(index) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let children = index["manifests"].as_array().cloned().unwrap_or_default();
    children.iter().all(|child| {
        child["digest"]
            .as_str()
            .is_some_and(|digest| state.manifests.contains_key(&format!("{path}:{digest}")))
    })
}

fn respond(state: &mut State, request: &Request) -> Answer {
    if request.target.starts_with("/token") {
        return token(state, request);
    }
    let writes = request.method == "PUT";
    if request.target.starts_with("/storage/") {
        return stored(state, request);
    }
    let needs = match request.method.as_str() {
        "PUT" | "POST" => "push",
        "DELETE" => "delete",
        _ => "",
    };
    if let Some(refusal) = unsigned(state, request, needs) {
        return refusal;
    }
    if request.target == "/v2/" {
        return Answer::new(200);
    }
    if let Some((path, place)) = request.target.trim_start_matches("/v2/").split_once("/blobs/") {
        return blobs(state, request, path, place);
    }
    let Some((path, reference)) = request.target.trim_start_matches("/v2/").split_once("/manifests/") else {
        return Answer::new(404);
    };
    let key = format!("{path}:{reference}");
    if request.method == "DELETE" {
        return remove(state, path, reference);
    }
    if writes {
        if state.demands_children && !complete(state, path, &request.body) {
            return Answer {
                body: br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#.to_vec(),
                ..Answer::new(400)
            };
        }
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        let digest = digest_of(&request.body);
        let stored = (media_type, request.body.clone());
        state.manifests.insert(format!("{path}:{digest}"), stored.clone());
        state.manifests.insert(key, stored);
        let mut answer = Answer::new(201);
        answer.headers.push(format!("Docker-Content-Digest: {digest}"));
        let said: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let (true, Some(subject)) = (state.lists_referrers, said["subject"]["digest"].as_str()) {
            answer.headers.push(format!("OCI-Subject: {subject}"));
        }
        return answer;
    }
    match state.manifests.get(&key) {
        None => Answer {
            body: br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec(),
            ..Answer::new(404)
        },
        Some((media_type, bytes)) => Answer {
            status: 200,
            headers: vec![
                format!("Docker-Content-Digest: {}", digest_of(bytes)),
                format!("Content-Type: {media_type}"),
            ],
            body: bytes.clone(),
        },
    }
}

/// What is named in a target's query.
fn query(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":"))
}

fn blobs(state: &mut State, request: &Request, path: &str, place: &str) -> Answer {
    if let Some(upload) = place.strip_prefix("uploads/") {
        return uploaded(state, request, path, upload);
    }
    let key = format!("{path}:{place}");
    match (state.blobs.get(&key), &state.blob_ways.read_at) {
        (None, _) => Answer::new(404),
        (Some(_), Some(host)) => {
            let mut answer = Answer::new(307);
            answer.headers.push(format!("Location: http://{host}/storage/{key}"));
            answer
        }
        (Some(bytes), None) => Answer { body: bytes.clone(), ..Answer::new(200) },
    }
}

/// Begins or ends an upload, or mounts.
fn uploaded(state: &mut State, request: &Request, path: &str, upload: &str) -> Answer {
    if request.method == "POST" {
        if let (Some(digest), Some(from), false) =
            (query(upload, "mount"), query(upload, "from"), state.blob_ways.declines_mounts)
            && let Some(bytes) = state.blobs.get(&format!("{from}:{digest}")).cloned()
        {
            state.blobs.insert(format!("{path}:{digest}"), bytes);
            return Answer::new(201);
        }
        state.uploads += 1;
        let serial = state.uploads;
        let place = format!("/v2/{path}/blobs/uploads/{serial}?_state=a%2Bb");
        let own = request.headers.get("host").cloned().unwrap_or_default();
        let location = match &state.blob_ways {
            BlobWays { upload_at: Some(host), .. } => format!("http://{host}/storage/{path}?_state=1"),
            BlobWays { absolute_locations: true, .. } => format!("http://{own}{place}"),
            _ => place,
        };
        let mut answer = Answer::new(202);
        answer.headers.push(format!("Location: {location}"));
        return answer;
    }
    keep_blob(state, request, path)
}

fn keep_blob(state: &mut State, request: &Request, path: &str) -> Answer {
    let digest = query(&request.target, "digest").unwrap_or_default();
    if digest != digest_of(&request.body) {
        let body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}"#.to_vec();
        return Answer { body, ..Answer::new(400) };
    }
    state.blobs.insert(format!("{path}:{digest}"), request.body.clone());
    let mut answer = Answer::new(201);
    answer.headers.push(format!("Docker-Content-Digest: {digest}"));
    answer
}

/// A storage's side: nobody signs in here.
fn stored(state: &mut State, request: &Request) -> Answer {
    let key = request.target.trim_start_matches("/storage/").to_owned();
    if request.method == "PUT" {
        let path = key.split('?').next().unwrap_or_default().to_owned();
        return keep_blob(state, request, &path);
    }
    match state.blobs.get(&key) {
        Some(bytes) => Answer { body: bytes.clone(), ..Answer::new(200) },
        None => Answer::new(404),
    }
}

fn remove(state: &mut State, path: &str, reference: &str) -> Answer {
    let refused = |status, code: &str| Answer {
        body: format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#).into_bytes(),
        ..Answer::new(status)
    };
    let is_digest = reference.contains(':');
    match state.removes {
        Removes::Nothing => return refused(405, "UNSUPPORTED"),
        Removes::Digests if !is_digest => return refused(400, "DIGEST_INVALID"),
        Removes::Tags | Removes::Digests => {}
    }
    let before = state.manifests.len();
    let here = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.starts_with(':'));
    state.manifests.retain(|key, (_, bytes)| match is_digest {
        true => !(here(key) && digest_of(bytes) == reference),
        false => *key != format!("{path}:{reference}"),
    });
    match before == state.manifests.len() {
        true => refused(404, "MANIFEST_UNKNOWN"),
        false => Answer::new(202),
    }
}

/// The 401 of a request that is not signed as it must be.
fn unsigned(state: &mut State, request: &Request, needs: &str) -> Option<Answer> {
    let signature = request.headers.get("authorization").cloned().unwrap_or_default();
    let challenge = match state.auth.clone() {
        Auth::None => return None,
        Auth::Basic(account) if signature == basic(account) => return None,
        Auth::Basic(_) => r#"WWW-Authenticate: Basic realm="fake""#.to_owned(),
        Auth::Bearer { realm, .. } => {
            let token = signature.trim_start_matches("Bearer ");
            let left = state.tokens.get_mut(token).filter(|left| **left > 0);
            if let Some(left) = left
                && token.contains(needs)
            {
                *left -= 1;
                return None;
            }
            let own = format!("http://{}/token", request.headers.get("host").cloned().unwrap_or_default());
            let realm = if realm.is_empty() { own } else { realm };
            format!(r#"WWW-Authenticate: Bearer realm="{realm}",service="fake""#)
        }
    };
    let mut answer = Answer::new(401);
    answer.headers.push(challenge);
    Some(answer)
}

fn basic(account: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(account))
}

fn token(state: &mut State, request: &Request) -> Answer {
    let Auth::Bearer { account, identity, public, .. } = state.auth.clone() else { return Answer::new(404) };
    let signature = request.headers.get("authorization").cloned().unwrap_or_default();
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let wants_push = request.target.contains("push") || form.contains("push");
    let known = signature == basic(account)
        || (!identity.is_empty() && form.contains(&format!("refresh_token={identity}")));
    let allowed = known || (public && signature.is_empty() && request.method == "GET");
    if !allowed {
        return Answer::new(401);
    }
    let serial = state.tokens.len();
    let wants_delete = request.target.contains("delete") || form.contains("delete");
    let token = match (known && wants_push, wants_delete) {
        (true, true) => format!("push-delete-{serial}"),
        (true, false) => format!("push-{serial}"),
        _ => format!("pull-{serial}"),
    };
    state.tokens.insert(token.clone(), state.token_uses);
    Answer { body: format!(r#"{{"token":"{token}","expires_in":300}}"#).into_bytes(), ..Answer::new(200) }
}
