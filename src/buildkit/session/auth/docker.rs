//! Docker's `config.json` as a source of credentials: entries of its own, and credential helpers.
//!
//! Invariants: an entry belongs to the host that its key names, port included, and to no other; a helper's answer for
//! another host is refused; no secret stands in an error. Helpers are programs of the user's own choice: they run with
//! this process's environment, bounded in time and output.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{AuthProvider, Credential};

/// Largest `config.json`.
const CONFIG_LIMIT: u64 = 4 << 20;
/// Longest run of a helper; the session waits a little longer.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer of a helper.
const HELPER_LIMIT: u64 = 64 << 10;
/// Instead of a user name: the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    #[error("Docker's configuration cannot be read: {0}")]
    Unreadable(String),
    #[error("Docker's configuration is not the JSON expected, at line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("{0:?} is no name of a credential helper")]
    Helper(String),
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server: String,
    #[serde(default, rename = "Username")]
    username: String,
    #[serde(default, rename = "Secret")]
    secret: String,
}

/// The credentials that `docker login` has left.
pub struct DockerConfig {
    file: File,
    /// Where helpers are, instead of on the path.
    helpers_in: Option<PathBuf>,
    /// Makes this provider's token keys: they mean nothing to another one. Drawn when one is asked for: the first random
    /// bytes of a process cost 25 ms, and most builds have no credential to lend.
    seed: OnceLock<Option<hmac::Key>>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig").field("hosts", &self.file.auths.keys()).finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// The file at `path`; one that is not there holds nothing.
    pub fn read(path: &Path) -> Result<Self, DockerConfigError> {
        let unreadable = |cause: std::io::Error| DockerConfigError::Unreadable(cause.to_string());
        match std::fs::metadata(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Self::parse(b"{}"),
            Ok(found) if found.len() > CONFIG_LIMIT => {
                return Err(DockerConfigError::Unreadable(format!("it has more than {CONFIG_LIMIT} bytes")));
            }
            _ => {}
        }
        Self::parse(&std::fs::read(path).map_err(unreadable)?)
    }

    pub fn parse(json: &[u8]) -> Result<Self, DockerConfigError> {
        let file: File = serde_json::from_slice(json)
            // its own message may quote a secret
            .map_err(|problem| DockerConfigError::Json { line: problem.line(), column: problem.column() })?;
        for name in file.helpers.values().chain([&file.store]) {
            // it becomes part of a program's name
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(DockerConfigError::Helper(name.clone()));
            }
        }
        Ok(Self { file, helpers_in: None, seed: OnceLock::new() })
    }

    /// Runs the credential helpers of this directory, instead of those on the path.
    pub fn helpers_in(mut self, dir: &Path) -> Self {
        self.helpers_in = Some(dir.to_owned());
        self
    }

    /// The program that knows `host`'s credential.
    fn helper(&self, host: &str) -> Option<&str> {
        let own = self.file.helpers.iter().find(|(key, _)| hostname(key) == hostname(host));
        let name = own.map_or(self.file.store.as_str(), |(_, name)| name);
        (!name.is_empty()).then_some(name)
    }

    fn entry(&self, host: &str) -> Option<Credential> {
        let exact = self.file.auths.get(host);
        let entry = exact.or_else(|| {
            self.file.auths.iter().find(|(key, _)| hostname(key) == hostname(host)).map(|(_, entry)| entry)
        })?;
        entry.credential()
    }
}

/// `HOST[:PORT]` of an entry's key, which older programs wrote as a URL.
fn hostname(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        let decoded = base64::engine::general_purpose::STANDARD.decode(&self.auth).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let (username, secret) = match text.split_once(':') {
            Some((username, secret)) => (username, secret.trim_matches('\0')),
            None => (self.username.as_str(), self.password.as_str()),
        };
        let identity_token = Some(self.identity_token.clone()).filter(|token| !token.is_empty());
        if secret.is_empty() && identity_token.is_none() {
            return None;
        }
        Some(Credential { username: username.to_owned(), secret: secret.to_owned(), identity_token })
    }
}

#[async_trait]
impl AuthProvider for DockerConfig {
    async fn credentials(&self, host: &str) -> Result<Option<Credential>, String> {
        if let Some(name) = self.helper(host)
            && let Some(found) = ask_helper(self.helpers_in.as_deref(), name, host).await?
        {
            return Ok(Some(found));
        }
        Ok(self.entry(host))
    }

    async fn token_key(&self, host: &str, salt: &[u8]) -> Option<[u8; 32]> {
        // without a credential there is no right to lend
        self.credentials(host).await.ok().flatten()?;
        let draw = || hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok();
        let mut context = hmac::Context::with_key(self.seed.get_or_init(draw).as_ref()?);
        context.update(&(host.len() as u64).to_be_bytes());
        context.update(host.as_bytes());
        context.update(salt);
        context.sign().as_ref().try_into().ok()
    }
}

/// Runs `docker-credential-NAME get`.
async fn ask_helper(dir: Option<&Path>, name: &str, host: &str) -> Result<Option<Credential>, String> {
    let failed = |what: &str| format!("the credential helper {name:?} {what} for {host}");
    let program = format!("docker-credential-{name}");
    let run = async {
        let mut child = Command::new(dir.map_or_else(|| PathBuf::from(&program), |dir| dir.join(&program)))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // one that does not read is told nothing
            let _ = stdin.write_all(host.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(HELPER_LIMIT).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let ran =
        tokio::time::timeout(HELPER_TIMEOUT, run).await.map_err(|_| failed("did not answer in time"))?;
    let (status, output) = ran.map_err(|cause| failed(&format!("could not be run ({})", cause.kind())))?;
    if !status.success() {
        let nothing = String::from_utf8_lossy(&output).contains(NOT_FOUND);
        return if nothing { Ok(None) } else { Err(failed("failed")) };
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| failed("gave an answer that is not the JSON expected"))?;
    if !answer.server.is_empty() && hostname(&answer.server) != hostname(host) {
        return Err(failed("gave the credential of another host"));
    }
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => {
            let identity_token = Some(answer.secret);
            Credential { username: String::new(), secret: String::new(), identity_token }
        }
        _ => Credential { username: answer.username, secret: answer.secret, identity_token: None },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look_up(json: &str, host: &str) -> Option<(String, String, Option<String>)> {
        let found = DockerConfig::parse(json.as_bytes()).unwrap().credentials(host).await.unwrap();
        found.map(|found| (found.username, found.secret, found.identity_token))
    }

    #[tokio::test]
    async fn entries_belong_to_their_host_and_port() {
        // me:s3cret, hub:hub
        let json = r#"{"auths": {
            "r.example": {"auth": "bWU6czNjcmV0"},
            "https://old.example/v1/": {"username": "o", "password": "p"},
            "https://index.docker.io/v1/": {"auth": "aHViOmh1Yg=="},
            "t.example:5000": {"auth": "bWU6", "identitytoken": "it"},
            "empty.example": {}
        }}"#;
        let pair = |user: &str, secret: &str| Some((user.to_owned(), secret.to_owned(), None));
        for (host, want) in [
            ("r.example", pair("me", "s3cret")),
            ("old.example", pair("o", "p")),
            ("https://index.docker.io/v1/", pair("hub", "hub")),
            ("t.example:5000", Some(("me".into(), String::new(), Some("it".into())))),
            ("t.example", None),
            ("r.example:443", None),
            ("r.example.evil", None),
            ("evil/r.example", None),
            ("empty.example", None),
            ("", None),
        ] {
            assert_eq!(look_up(json, host).await, want, "{host}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_keeps_its_secrets() {
        let error = DockerConfig::parse(br#"{"auths": {"r": {"auth": s3cret"#).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        let error = DockerConfig::parse(br#"{"credsStore": "../../bin/sh"}"#).unwrap_err();
        assert_eq!(error, DockerConfigError::Helper("../../bin/sh".into()));
    }

    #[tokio::test]
    async fn a_helper_answers_for_the_host_that_it_is_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\nhost=$(cat)\n{script}\n"))
                .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        helper(
            "good",
            r#"echo "{\"ServerURL\":\"https://$host/\",\"Username\":\"u\",\"Secret\":\"for $host\"}""#,
        );
        helper("token", r#"echo '{"Username":"<token>","Secret":"it"}'"#);
        helper("other", r#"echo '{"ServerURL":"r.evil","Username":"u","Secret":"s3cret"}'"#);
        helper("none", "echo 'credentials not found in native keychain'; exit 1");
        helper("fails", "echo s3cret; exit 1");
        helper("junk", "echo s3cret");
        let json = r#"{"credsStore": "none", "credHelpers": {"good.example": "good", "token.example": "token",
            "other.example": "other", "fails.example": "fails", "junk.example": "junk", "absent.example": "absent"},
            "auths": {"inline.example": {"auth": "bWU6eA=="}, "fails.example": {"auth": "bWU6eA=="}}}"#;
        let config = DockerConfig::parse(json.as_bytes()).unwrap().helpers_in(dir.path());
        let found = async |host: &str| {
            config
                .credentials(host)
                .await
                .map(|found| found.map(|found| (found.username, found.secret, found.identity_token)))
        };
        let pair = |user: &str, secret: &str| Ok(Some((user.to_owned(), secret.to_owned(), None)));
        assert_eq!(found("good.example").await, pair("u", "for good.example"));
        assert_eq!(found("token.example").await, Ok(Some((String::new(), String::new(), Some("it".into())))));
        assert_eq!(found("inline.example").await, pair("me", "x"));
        assert_eq!(found("unknown.example").await, Ok(None));
        for host in ["other.example", "fails.example", "junk.example", "absent.example"] {
            let error = found(host).await.unwrap_err();
            assert!(error.contains(host) && !error.contains("s3cret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_key_is_the_hosts_and_this_providers() {
        let parse = || {
            DockerConfig::parse(br#"{"auths": {"a": {"auth": "bWU6eA=="}, "b": {"auth": "bWU6eA=="}}}"#)
                .unwrap()
        };
        let (one, other) = (parse(), parse());
        let key = one.token_key("a", b"salt").await.unwrap();
        assert_eq!(one.token_key("a", b"salt").await, Some(key));
        assert_ne!(one.token_key("a", b"pepper").await, Some(key));
        assert_ne!(one.token_key("b", b"salt").await, Some(key));
        assert_ne!(other.token_key("a", b"salt").await, Some(key));
        assert_eq!(one.token_key("c", b"salt").await, None);
    }
}
