//! A door with a host behind it that plays parts, and an OpenSSH client that knows nothing of this machine.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lemnos::model::{App, AppName, AppSettings, Fingerprint, UserName};
use lemnos::ssh::{
    Config, Error, GitHost, GitIo, GitRequest, GitService, Identity, VerbIo, host_keys, listen,
};
use russh::keys::{HashAlg, PublicKey};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::standing::Record;

/// Nothing here takes near as long, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Plays a part by the app's name: `echo`, `repo`, `sink`, `flood`, `held`, `panic`.
#[derive(Default)]
pub struct Host {
    pub users: Mutex<HashMap<Fingerprint, UserName>>,
    /// Users that certificates may name.
    pub people: Mutex<Vec<UserName>>,
    pub requests: Mutex<Vec<GitRequest>>,
    /// What each request came to: the app and the bytes read or written.
    pub served: Mutex<Vec<(String, usize)>>,
    pub one_served: Notify,
    /// `held` says here that it began, and goes on when it is let.
    pub began: Notify,
    pub release: Option<Semaphore>,
    pub repository: Mutex<PathBuf>,
    /// Bytes that the verb `flood` got rid of.
    pub flooded: std::sync::atomic::AtomicUsize,
}

/// Says that a verb was ended from outside.
struct Ended<'a>(&'a Host);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.done_verb("wait", 0);
    }
}

impl Host {
    pub fn add(&self, key: &PublicKey, user: &str) {
        self.users.lock().unwrap().insert(fingerprint(key), user.parse().unwrap());
    }

    pub fn last_request(&self) -> GitRequest {
        self.requests.lock().unwrap().last().expect("no request arrived").clone()
    }

    fn done(&self, request: &GitRequest, bytes: usize) {
        self.served.lock().unwrap().push((request.app.name.to_string(), bytes));
        self.one_served.notify_one();
    }
}

pub fn fingerprint(key: &PublicKey) -> Fingerprint {
    key.fingerprint(HashAlg::Sha256).to_string().parse().unwrap()
}

#[async_trait]
impl GitHost for Host {
    async fn user_of(&self, key: &Fingerprint) -> Result<Option<UserName>, String> {
        Ok(self.users.lock().unwrap().get(key).cloned())
    }

    async fn has_user(&self, user: &UserName) -> Result<bool, String> {
        Ok(self.people.lock().unwrap().contains(user))
    }

    async fn authorize(&self, who: &Identity, app: &AppName, _: GitService) -> Result<App, String> {
        if app.as_str() == "secret" && who.user.as_str() != "admin" || app.as_str() == "missing" {
            return Err(format!("there is no app {app} that {} may use", who.user));
        }
        Ok(App {
            id: format!("id-{app}"),
            name: app.clone(),
            settings: AppSettings::default(),
            created_at_ms: 0,
        })
    }

    async fn serve(&self, request: GitRequest, mut io: GitIo) -> u32 {
        self.requests.lock().unwrap().push(request.clone());
        match request.app.name.as_str() {
            "echo" => {
                let n = tokio::io::copy(&mut io.stdin, &mut io.stdout).await.unwrap();
                io.stderr.write_all(b"echoed\n").await.unwrap();
                self.done(&request, usize::try_from(n).unwrap());
                7
            }
            "sink" => {
                let mut buffer = vec![0; 256 << 10];
                let mut total = 0;
                loop {
                    match io.stdin.read(&mut buffer).await.unwrap() {
                        0 => break,
                        n => total += n,
                    }
                }
                io.stdout.write_all(format!("{total}\n").as_bytes()).await.unwrap();
                self.done(&request, total);
                0
            }
            // Far more than a client's window: whoever does not read holds it up.
            "flood" => {
                let block = vec![b'x'; 64 << 10];
                let mut written = 0;
                while written < 64 << 20 && io.stdout.write_all(&block).await.is_ok() {
                    written += block.len();
                }
                self.done(&request, written);
                0
            }
            "held" => {
                self.began.notify_one();
                self.release.as_ref().unwrap().acquire().await.unwrap().forget();
                let mut rest = Vec::new();
                io.stdin.read_to_end(&mut rest).await.unwrap();
                io.stdout.write_all(&vec![b'y'; 1 << 20]).await.unwrap();
                io.stderr.write_all(b"finished\n").await.unwrap();
                self.done(&request, rest.len());
                0
            }
            "panic" => panic!("as asked"),
            _ => self.git(&request, io).await,
        }
    }

    async fn verb(&self, who: &Identity, words: Vec<String>, io: VerbIo) -> u32 {
        self.play(who, words, io).await
    }

    fn registration_hint(&self) -> String {
        "Register one: lemnos keys add YOU < ~/.ssh/id_ed25519.pub".to_owned()
    }
}

impl Host {
    /// `echo` gives its input back, `flood` writes for ever, `wait` until it is ended; anything else says what was asked.
    async fn play(&self, who: &Identity, words: Vec<String>, mut io: VerbIo) -> u32 {
        let width = io.terminal.as_ref().map(|terminal| (terminal.width(), terminal.color));
        match words.first().map(String::as_str) {
            Some("echo") => {
                let mut input = Vec::new();
                io.stdin.read_to_end(&mut input).await.unwrap();
                io.stdout.write_all(&input).await.unwrap();
                self.done_verb("echo", input.len());
                0
            }
            Some("flood") => {
                let mut written = 0;
                while io.stdout.write_all(&[b'x'; 1 << 10]).await.is_ok() {
                    written += 1 << 10;
                    self.flooded.store(written, std::sync::atomic::Ordering::Relaxed);
                }
                self.done_verb("flood", written);
                0
            }
            Some("wait") => {
                let _ended = Ended(self);
                io.stdout.write_all(b"waiting\n").await.unwrap();
                std::future::pending().await
            }
            Some("width") => {
                self.began.notify_one();
                self.release.as_ref().unwrap().acquire().await.unwrap().forget();
                let width = io.terminal.unwrap().width();
                io.stdout.write_all(format!("{width:?}\n").as_bytes()).await.unwrap();
                0
            }
            Some("panic") => panic!("as asked"),
            _ => {
                let said = format!("{}: {words:?} {width:?}\n", who.user);
                io.stdout.write_all(said.as_bytes()).await.unwrap();
                io.stderr.write_all(b"said\n").await.unwrap();
                3
            }
        }
    }

    fn done_verb(&self, verb: &str, bytes: usize) {
        self.served.lock().unwrap().push((verb.to_owned(), bytes));
        self.one_served.notify_one();
    }

    async fn git(&self, request: &GitRequest, mut io: GitIo) -> u32 {
        let mut git = Command::new("git");
        git.arg(request.service.subcommand())
            .arg(&*self.repository.lock().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(protocol) = &request.protocol {
            git.env("GIT_PROTOCOL", protocol);
        }
        let mut child = git.spawn().unwrap();
        let (mut stdin, mut stdout, mut stderr) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let feed = tokio::spawn(async move { tokio::io::copy(&mut io.stdin, &mut stdin).await });
        let (_, _, status) = tokio::join!(
            tokio::io::copy(&mut stdout, &mut io.stdout),
            tokio::io::copy(&mut stderr, &mut io.stderr),
            child.wait()
        );
        feed.abort();
        self.done(request, 0);
        u32::try_from(status.unwrap().code().unwrap_or(128)).unwrap()
    }
}

/// A running door, with a directory for keys and known hosts.
pub struct Server {
    pub address: SocketAddr,
    pub host: Arc<Host>,
    pub shutdown: CancellationToken,
    pub running: tokio::task::JoinHandle<Result<(), Error>>,
    pub dir: TempDir,
    pub record: Record,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Config::default(), Host::default()).await
    }

    pub async fn start_with(config: Config, host: Host) -> Self {
        let record = Record::open().await;
        let trail = record.trail.clone();
        let dir = tempfile::tempdir().unwrap();
        let keys = host_keys(&dir.path().join("host")).unwrap();
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let mut known = std::fs::File::create(dir.path().join("known_hosts")).unwrap();
        for key in &keys {
            let line = key.public_key().to_openssh().unwrap();
            writeln!(known, "[127.0.0.1]:{} {line}", address.port()).unwrap();
        }
        let host = Arc::new(host);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listener.run(config, keys, host.clone(), trail, shutdown.clone()));
        Self { address, host, shutdown, running, dir, record }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key pair with ssh-keygen.
    pub async fn keygen(&self, name: &str, kind: &[&str]) -> (PathBuf, PublicKey) {
        let path = self.path(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", name, "-t"])
            .args(kind)
            .arg("-f")
            .arg(&path)
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        (path, PublicKey::from_openssh(&public).unwrap())
    }

    /// Makes an Ed25519 key that is registered as `alice`'s.
    pub async fn alice(&self) -> PathBuf {
        let (path, public) = self.keygen("alice", &["ed25519"]).await;
        self.host.add(&public, "alice");
        path
    }

    /// The options that keep OpenSSH from everything that this machine's user has.
    pub fn ssh_options(&self, keys: &[&Path]) -> Vec<String> {
        let mut options: Vec<String> = ["-F", "/dev/null", "-T", "-p"].map(str::to_owned).into();
        options.push(self.address.port().to_string());
        for option in [
            format!("UserKnownHostsFile={}", self.path("known_hosts").display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "ControlPath=none".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        if keys.is_empty() {
            options.extend(["-o".to_owned(), "IdentityFile=none".to_owned()]);
        }
        for key in keys {
            options.extend(["-i".to_owned(), key.display().to_string()]);
        }
        options
    }

    /// An OpenSSH client that logs in with `keys` and runs `command`.
    pub fn ssh(&self, keys: &[&Path], more: &[&str], command: &[&str]) -> Command {
        let mut ssh = clean(self, "ssh");
        ssh.args(self.ssh_options(keys)).args(more).arg("git@127.0.0.1").args(command);
        ssh
    }

    /// git, speaking to this door with `key`.
    pub fn git(&self, key: &Path) -> Command {
        let mut git = clean(self, "git");
        let ssh: Vec<String> =
            self.ssh_options(&[key]).into_iter().filter(|o| o != "-T" && o != "-p").collect();
        let ssh: Vec<String> = ssh.into_iter().filter(|o| *o != self.address.port().to_string()).collect();
        git.env("GIT_SSH_COMMAND", format!("ssh {}", ssh.join(" ")))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.version=2"])
            .args(["-c", "init.defaultBranch=main"]);
        git
    }

    pub fn url(&self, app: &str) -> String {
        format!("ssh://git@127.0.0.1:{}/{app}", self.address.port())
    }
}

fn clean(server: &Server, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", server.dir.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end, within the limit.
pub async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(LIMIT, command.output()).await.expect("it hangs").unwrap()
}

/// Runs a command, giving it `input`.
pub async fn output_of(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move { stdin.write_all(&input).await });
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it hangs").unwrap();
    let _ = feed.await.unwrap();
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

/// Waits for what must happen.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it does not happen")
}
