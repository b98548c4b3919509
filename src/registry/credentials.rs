//! Credentials from docker's config file: `auths`, `credHelpers`, `credsStore`, identity tokens.
//!
//! A host gets its own credentials or none: keys are compared whole, port included. The file is read again when it changes.
//! Secrets never reach a log: `Debug` leaves them out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::host::{HUB_KEY, is_hub};
use crate::model::{ImageName, RegistryPlace};

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Empty with an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
    /// Whether `secret` is an OAuth refresh token, which goes to the token service and never to the registry.
    pub identity_token: bool,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({:?}, identity_token: {})", self.username, self.identity_token)
    }
}

/// A credential that lemnos keeps itself, and where it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Whether it is one app's own; else it is for all.
    pub of_app: bool,
    pub place: RegistryPlace,
    pub credential: Credential,
}

/// Who keeps logins.
#[async_trait]
pub trait Logins: Send + Sync {
    /// The logins that count for an app (by id), its own and those for all; without an app those for all.
    async fn of_app(&self, app_id: Option<&str>) -> Result<Vec<Login>, LoginsUnreadable>;
    /// The id of the app whose image this is.
    async fn owner(&self, image: &ImageName) -> Result<Option<String>, LoginsUnreadable>;
    /// Another number after each change.
    fn changes(&self) -> u64;
}

impl std::fmt::Debug for dyn Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logins")
    }
}

/// Why stored logins cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct LoginsUnreadable {
    pub cause: String,
    pub remedy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the stored logins: {0}")]
    Stored(LoginsUnreadable),
    #[error("reading {file}: {cause}")]
    Read { file: String, cause: String },
    #[error("the entry for {host} in {file} cannot be used: {cause}")]
    Entry { file: String, host: String, cause: String },
    #[error("the credential helper {program} did not answer within {} s", .after.as_secs())]
    HelperTimeout { program: String, after: Duration },
    #[error("the credential helper {program} failed: {cause}")]
    Helper { program: String, cause: String },
}

impl CredentialError {
    pub fn remedy(&self) -> String {
        match self {
            Self::Stored(unreadable) => unreadable.remedy.clone(),
            Self::Read { file, .. } => format!("make {file} a readable docker config file (JSON)"),
            Self::Entry { host, .. } => format!("sign in again: `docker login {host}`"),
            Self::HelperTimeout { program, .. } | Self::Helper { program, .. } => {
                format!("run `echo HOST | {program} get` as this server's user to see what is wrong")
            }
        }
    }
}

/// The config file is at most this long.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// What a helper may print.
const HELPER_LIMIT_BYTES: u64 = 64 << 10;
/// How long an answer of a helper is used again; a 401 ends it sooner.
const HELPER_FRESH: Duration = Duration::from_secs(300);

/// The lookup. Cheap to clone; clones share what was read.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Asked before the file.
    logins: Option<Arc<dyn Logins>>,
    file: Option<PathBuf>,
    helper_timeout: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    stamp: Option<Stamp>,
    config: Arc<DockerConfig>,
    answers: HashMap<String, (Instant, Option<Credential>)>,
}

/// Changes when the file does: docker replaces it, editors write into it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, serde_json::Value>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DockerConfig(for {:?})", self.auths.keys())
    }
}

impl Credentials {
    /// Credentials from `file`, which need not exist; none at all without one.
    pub fn new(file: Option<PathBuf>, helper_timeout: Duration) -> Self {
        Self { logins: None, file, helper_timeout, state: Arc::default() }
    }

    /// The same, but what is stored comes before the file.
    #[must_use]
    pub fn with_logins(self, logins: Option<Arc<dyn Logins>>) -> Self {
        Self { logins, ..self }
    }

    /// Another number after each change of the stored logins.
    pub fn changes(&self) -> u64 {
        self.logins.as_ref().map_or(0, |logins| logins.changes())
    }

    /// What opens a repository for whoever owns it: its app's own login, else one for all, else the config file's.
    pub async fn for_repository(
        &self,
        host: &str,
        path: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let Some(logins) = &self.logins else { return self.for_host(host).await };
        let owner = match format!("{host}/{path}").parse::<ImageName>() {
            Ok(image) => logins.owner(&image).await.map_err(CredentialError::Stored)?,
            Err(_) => None,
        };
        self.for_app(owner.as_deref(), host, Some(path)).await
    }

    /// What opens a repository for an app: its own login, else one for all, else the config file's; of several the one
    /// for the longest path. Without a repository: what opens most of the registry.
    pub async fn for_app(
        &self,
        app_id: Option<&str>,
        host: &str,
        repository: Option<&str>,
    ) -> Result<Option<Credential>, CredentialError> {
        if let Some(logins) = &self.logins {
            let depth = |login: &Login| login.place.path().map_or(0, |path| path.split('/').count());
            let mut found = logins.of_app(app_id).await.map_err(CredentialError::Stored)?;
            found.retain(|login| match repository {
                Some(repository) => login.place.covers(host, repository),
                None => login.place.covers(host, login.place.path().unwrap_or_default()),
            });
            let best = found.into_iter().max_by_key(|login| {
                let depth = depth(login);
                (login.of_app, if repository.is_some() { depth } else { usize::MAX - depth })
            });
            if let Some(login) = best {
                return Ok(Some(login.credential));
            }
        }
        self.for_host(host).await
    }

    /// The config file, as messages name it.
    pub fn file(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.display().to_string())
    }

    /// The credentials of exactly `host` (`host[:port]`; every name of Docker Hub is one host); none where there are none.
    pub async fn for_host(&self, host: &str) -> Result<Option<Credential>, CredentialError> {
        let Some(file) = &self.file else { return Ok(None) };
        let config = self.config(file).await?;
        let key = if is_hub(host) { HUB_KEY } else { host };
        let helper = config
            .cred_helpers
            .iter()
            .find(|(name, helper)| !helper.is_empty() && is_key_of(name, host))
            .map(|(_, helper)| helper.as_str());
        if let Some(helper) = helper {
            return self.answer_of_helper(helper, key).await;
        }
        if let Some(found) = from_entry(&config, host, &file.display().to_string())? {
            return Ok(Some(found));
        }
        match config.creds_store.as_deref() {
            Some(store) if !store.is_empty() => self.answer_of_helper(store, key).await,
            _ => Ok(None),
        }
    }

    /// Forgets a helper's answer for `host`: the registry did not accept it.
    pub fn forget(&self, host: &str) {
        let key = if is_hub(host) { HUB_KEY } else { host };
        self.lock().answers.remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parsed file, read again when it has changed.
    async fn config(&self, file: &Path) -> Result<Arc<DockerConfig>, CredentialError> {
        let read_error = |cause: String| CredentialError::Read { file: file.display().to_string(), cause };
        let stamp = match tokio::fs::metadata(file).await {
            Ok(metadata) => {
                use std::os::unix::fs::MetadataExt as _;
                Some(Stamp {
                    modified: metadata.modified().ok(),
                    size: metadata.len(),
                    inode: metadata.ino(),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(read_error(error.to_string())),
        };
        {
            let state = self.lock();
            if state.stamp == stamp {
                return Ok(state.config.clone());
            }
        }
        let config = match &stamp {
            None => DockerConfig::default(),
            Some(stamp) if stamp.size > FILE_LIMIT_BYTES => {
                return Err(read_error(format!("it has more than {FILE_LIMIT_BYTES} bytes")));
            }
            Some(_) => {
                let bytes = tokio::fs::read(file).await.map_err(|error| read_error(error.to_string()))?;
                // serde's message may quote the value it stumbled over, which may be a secret: only the place is told
                serde_json::from_slice(&bytes).map_err(|error| {
                    read_error(format!(
                        "not the JSON of a docker config, line {} column {}",
                        error.line(),
                        error.column()
                    ))
                })?
            }
        };
        let config = Arc::new(config);
        let mut state = self.lock();
        state.stamp = stamp;
        state.config = config.clone();
        state.answers.clear();
        Ok(config)
    }

    async fn answer_of_helper(&self, helper: &str, key: &str) -> Result<Option<Credential>, CredentialError> {
        if let Some((at, answer)) = self.lock().answers.get(key)
            && at.elapsed() < HELPER_FRESH
        {
            return Ok(answer.clone());
        }
        let answer = ask_helper(helper, key, self.helper_timeout).await?;
        self.lock().answers.insert(key.to_owned(), (Instant::now(), answer.clone()));
        Ok(answer)
    }
}

/// Whether the config file's `key` names `host`: `host`, `https://host`, `https://host/v1/`, `host/v2/`.
fn is_key_of(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.split_once('/').map_or(bare, |(host, _)| host);
    if is_hub(host) { is_hub(bare) } else { bare.eq_ignore_ascii_case(host) }
}

/// The credential of an `auths` entry, decoded by docker_credential; an empty entry is what `docker login` leaves beside a store.
fn from_entry(config: &DockerConfig, host: &str, file: &str) -> Result<Option<Credential>, CredentialError> {
    // the exact key wins over another spelling of the same host, so that the choice does not depend on a map's order
    let mut entries: Vec<_> = config.auths.iter().filter(|(key, _)| is_key_of(key, host)).collect();
    entries.sort_by_key(|(key, _)| (key.as_str() != host, key.as_str()));
    for (_, entry) in entries {
        let filled = |name: &str| entry.get(name).and_then(|v| v.as_str()).is_some_and(|v| !v.is_empty());
        let fields: serde_json::Map<String, serde_json::Value> =
            ["auth", "username", "password", "identitytoken"]
                .into_iter()
                .filter(|name| filled(name))
                .filter_map(|name| Some((name.to_owned(), entry.get(name)?.clone())))
                .collect();
        if fields.is_empty() {
            continue;
        }
        let lone = serde_json::json!({ "auths": { host: fields } }).to_string();
        return match docker_credential::get_credential_from_reader(lone.as_bytes(), host) {
            Ok(DockerCredential::IdentityToken(secret)) => {
                Ok(Some(Credential { username: String::new(), secret, identity_token: true }))
            }
            Ok(DockerCredential::UsernamePassword(username, secret)) => {
                Ok(Some(Credential { username, secret, identity_token: false }))
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => continue,
            Err(error) => Err(CredentialError::Entry {
                file: file.to_owned(),
                host: host.to_owned(),
                cause: error.to_string(),
            }),
        };
    }
    Ok(None)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-HELPER get`, bounded in time and output. Our environment is its environment: it finds its own
/// configuration through it.
async fn ask_helper(
    helper: &str,
    key: &str,
    timeout: Duration,
) -> Result<Option<Credential>, CredentialError> {
    let program = format!("docker-credential-{helper}");
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let cause = "its name is no plain program name".to_owned();
        return Err(CredentialError::Helper { program, cause });
    }
    ask_program(&program, key, timeout).await
}

async fn ask_program(
    program: &str,
    key: &str,
    timeout: Duration,
) -> Result<Option<Credential>, CredentialError> {
    let failed = |cause: String| CredentialError::Helper { program: program.to_owned(), cause };
    let run = async {
        let mut child = tokio::process::Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // a helper that does not read its question may still answer it
            let _ = stdin.write_all(key.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = stdout.take(HELPER_LIMIT_BYTES);
            stdout.read_to_end(&mut output).await.map_err(|error| failed(error.to_string()))?;
        }
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        Ok((status, output))
    };
    let (status, output) = tokio::time::timeout(timeout, run)
        .await
        .map_err(|_| CredentialError::HelperTimeout { program: program.to_owned(), after: timeout })??;
    if !status.success() {
        // the protocol's way of saying "none": this text on stdout, and exit 1
        let text = String::from_utf8_lossy(&output);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("{status}: {}", text.trim().chars().take(200).collect::<String>())));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| failed("its answer is no JSON with Username and Secret".to_owned()))?;
    let identity_token = answer.username == "<token>";
    let username = if identity_token { String::new() } else { answer.username };
    Ok(Some(Credential { username, secret: answer.secret, identity_token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> DockerConfig {
        serde_json::from_str(json).unwrap()
    }

    fn password(username: &str, secret: &str) -> Option<Credential> {
        Some(Credential { username: username.to_owned(), secret: secret.to_owned(), identity_token: false })
    }

    #[test]
    fn a_host_gets_its_own_credentials_only() {
        // ada:pw, bob:pw
        let file = config(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWRhOnB3"},"quay.io":{"auth":"Ym9iOnB3"},
                "https://r.example.com:5000/v2/":{"username":"eve","password":"x"},"empty.example.com":{},
                "bad.example.com":{"auth":"%%"}}}"#,
        );
        let find = |host: &str| from_entry(&file, host, "config.json");
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(find(host).unwrap(), password("ada", "pw"), "{host}");
        }
        assert_eq!(find("quay.io").unwrap(), password("bob", "pw"));
        assert_eq!(find("r.example.com:5000").unwrap(), password("eve", "x"));
        for host in [
            "docker.io.example.com",
            "xdocker.io",
            "io",
            "quay.io:443",
            "r.example.com",
            "r.example.com:5001",
            "example.com:5000",
            "empty.example.com",
        ] {
            assert_eq!(find(host).unwrap(), None, "{host}");
        }
        assert!(matches!(find("bad.example.com"), Err(CredentialError::Entry { .. })));
    }

    #[test]
    fn secrets_are_not_shown() {
        let credential = password("ada", "s3cret").unwrap();
        assert!(!format!("{credential:?}").contains("s3cret"));
        let file = config(r#"{"auths":{"quay.io":{"auth":"c2VjcmV0"}}}"#);
        assert!(!format!("{file:?}").contains("c2VjcmV0"));
    }

    /// A helper program of these lines of shell.
    fn helper(lines: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper");
        // written by another process: a fork of a test beside this one would hold our handle, and exec answers "busy" then
        let script = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
        let written =
            std::process::Command::new("/bin/sh").args(["-c", script, "sh"]).arg(&path).arg(lines).status();
        assert!(written.unwrap().success());
        let program = path.to_str().unwrap().to_owned();
        (dir, program)
    }

    #[tokio::test]
    async fn helpers_are_asked_by_their_protocol() {
        let long = Duration::from_secs(20);
        let (_dir, echo) = helper(
            r#"read -r host; printf '{"ServerURL":"","Username":"%s %s","Secret":"pw"}' "$1" "$host""#,
        );
        assert_eq!(ask_program(&echo, "quay.io", long).await.unwrap(), password("get quay.io", "pw"));
        let (_dir, identity) = helper(r#"printf '{"Username":"<token>","Secret":"t"}'"#);
        let found = ask_program(&identity, "quay.io", long).await.unwrap().unwrap();
        assert!(found.identity_token && found.username.is_empty());
        let (_dir, none) = helper("echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(ask_program(&none, "quay.io", long).await.unwrap(), None);
        for bad in ["echo locked; exit 1", "echo hello", "exit 0", "yes"] {
            let (_dir, bad) = helper(bad);
            let error = ask_program(&bad, "quay.io", long).await.unwrap_err();
            assert!(matches!(error, CredentialError::Helper { .. }), "{error}");
        }
        assert!(matches!(ask_helper("../../bin/sh", "x", long).await, Err(CredentialError::Helper { .. })));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended() {
        let (_dir, hangs) = helper("exec sleep 600");
        let error = ask_program(&hangs, "quay.io", Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, CredentialError::HelperTimeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_config_is_an_error_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let credentials = Credentials::new(Some(file.clone()), Duration::from_secs(1));
        assert_eq!(credentials.for_host("quay.io").await.unwrap(), None);
        std::fs::write(&file, r#"{"auths": {"quay.io": s3cret}}"#).unwrap();
        let error = credentials.for_host("quay.io").await.unwrap_err().to_string();
        assert!(error.ends_with("not the JSON of a docker config, line 1 column 23"), "{error}");
        std::fs::write(&file, r#"{"auths": "s3cret"}"#).unwrap();
        assert!(!credentials.for_host("quay.io").await.unwrap_err().to_string().contains("s3cret"));
    }
}
