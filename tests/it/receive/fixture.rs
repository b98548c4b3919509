//! A `Receiver` behind git's own `git://` transport, so that a real git client speaks to it without any helper program,
//! and a raw client for what no git client would send.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lemnos::model::{App, AppSettings, Push, RefUpdate};
use lemnos::receive::pktline::{Decoder, Packet, write_flush, write_line};
use lemnos::receive::{
    GitIo, GitRequest, GitService, Limits, PushHandler, PushOutput, ReceiveConfig, Receiver, RefAnswer,
    Repositories,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::standing::Record;

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const ZERO: &str = "0000000000000000000000000000000000000000";

/// A request after its end.
#[derive(Debug)]
pub struct Served {
    pub status: u32,
    /// The channel's standard error, which `git://` does not carry.
    pub stderr: String,
}

pub struct Server {
    pub dir: tempfile::TempDir,
    pub receiver: Receiver,
    pub repositories: Repositories,
    pub port: u16,
    pub served: mpsc::UnboundedReceiver<Served>,
    pub record: Record,
}

type Decide = dyn Fn(&Push, &RefUpdate, &PushOutput) -> Result<(), String> + Send + Sync;

/// Moves the refs that `decide` agrees to, and keeps every push it saw.
pub struct Handler {
    pub pushes: Mutex<Vec<Push>>,
    decide: Box<Decide>,
    /// The handler says `ready` and then waits for a permit, where there is a gate.
    gate: Option<Gate>,
}

#[derive(Clone)]
pub struct Gate {
    pub ready: Arc<tokio::sync::Semaphore>,
    pub go: Arc<tokio::sync::Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self { ready: Arc::new(tokio::sync::Semaphore::new(0)), go: Arc::new(tokio::sync::Semaphore::new(0)) }
    }
    pub async fn reached(&self) {
        let reached = tokio::time::timeout(PATIENCE, self.ready.acquire()).await;
        reached.expect("the handler never ran").unwrap().forget();
    }
}

impl Handler {
    pub fn accepting() -> Arc<Self> {
        Self::deciding(|_, _, _| Ok(()))
    }
    pub fn deciding(
        decide: impl Fn(&Push, &RefUpdate, &PushOutput) -> Result<(), String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { pushes: Mutex::default(), decide: Box::new(decide), gate: None })
    }
    pub fn gated(gate: &Gate) -> Arc<Self> {
        let decide = Box::new(|_: &Push, _: &RefUpdate, output: &PushOutput| {
            output.line("the gate is open");
            Ok(())
        });
        Arc::new(Self { pushes: Mutex::default(), decide, gate: Some(gate.clone()) })
    }
    pub fn seen(&self) -> Vec<Push> {
        self.pushes.lock().unwrap().clone()
    }
}

#[async_trait]
impl PushHandler for Handler {
    async fn push(&self, push: Push, repository: PathBuf, output: PushOutput) -> Vec<RefAnswer> {
        self.pushes.lock().unwrap().push(push.clone());
        output.line(&format!("received {} ref(s)", push.updates.len()));
        if let Some(gate) = &self.gate {
            gate.ready.add_permits(1);
            gate.go.acquire().await.unwrap().forget();
        }
        let answer = |update: &RefUpdate| {
            let result = (self.decide)(&push, update, &output);
            if result.is_ok() {
                move_ref(&repository, update);
            }
            RefAnswer { name: update.name.clone(), result }
        };
        push.updates.iter().map(answer).collect()
    }
}

fn move_ref(repository: &Path, update: &RefUpdate) {
    // by git, which waits where housekeeping holds a lock; libgit2 would not
    let mut command = std::process::Command::new(git_path());
    command.arg("--git-dir").arg(repository).args(["update-ref", "--no-deref"]).env_clear();
    match update.is_delete() {
        true => command.args(["-d", update.name.as_str()]),
        false => command.args([update.name.as_str(), update.new.as_str()]),
    };
    assert!(command.status().unwrap().success());
}

impl Server {
    pub async fn start(handler: Arc<dyn PushHandler>) -> Self {
        Self::with(handler, Limits::default(), AppSettings::default()).await
    }

    pub async fn limited(limits: Limits) -> Self {
        Self::with(Handler::accepting(), limits, AppSettings::default()).await
    }

    pub async fn with(handler: Arc<dyn PushHandler>, limits: Limits, settings: AppSettings) -> Self {
        let lemnos = PathBuf::from(env!("CARGO_BIN_EXE_lemnos"));
        Self::of_program(lemnos, handler, limits, settings).await
    }

    /// `lemnos` is what the hooks find the server's program, and their own beside it, by.
    pub async fn of_program(
        lemnos: PathBuf,
        handler: Arc<dyn PushHandler>,
        limits: Limits,
        settings: AppSettings,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::open().await;
        let repositories = Repositories::new(dir.path().join("repositories"));
        let config = ReceiveConfig {
            repositories: repositories.clone(),
            runtime_dir: dir.path().join("run"),
            lemnos_exe: lemnos,
            git: git_path(),
            limits,
            trail: record.trail.clone(),
        };
        let receiver = Receiver::new(config, handler).unwrap();
        repositories.create("app1").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, served) = mpsc::unbounded_channel();
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(connection(stream, peer, serving.clone(), settings.clone(), sender.clone()));
            }
        });
        Self { dir, receiver, repositories, port, served, record }
    }

    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/shop", self.port)
    }
    pub fn repository(&self) -> PathBuf {
        self.repositories.path("app1")
    }
    /// The end of the next request to end.
    pub async fn ended(&mut self) -> Served {
        tokio::time::timeout(PATIENCE, self.served.recv()).await.expect("no request ended").unwrap()
    }
    /// Every file of the repository; refs with their content.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.repository()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.repository()).unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    // git makes fan-out directories early and does not take them back
                    if name.contains("tmp_objdir") || name.contains("incoming") {
                        files.insert(name, "a quarantine".to_owned());
                    }
                    dirs.push(path);
                } else {
                    let content = if name.starts_with("refs/") {
                        std::fs::read_to_string(&path).unwrap()
                    } else {
                        String::new()
                    };
                    files.insert(name, content);
                }
            }
        }
        files
    }
    /// The standing assertion after one refused push: it has ended, nothing of it is left, and it is on record.
    #[track_caller]
    pub fn stands(
        &mut self,
        before: &BTreeMap<String, String>,
        refused: (&str, &str),
    ) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        let refused = (refused.0.to_owned(), refused.1.to_owned());
        async move {
            self.ended().await;
            assert_eq!(self.files(), *before, "{at}");
            assert!(self.children().is_empty(), "{at}");
            let places: Vec<_> =
                std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(places.iter().all(|name| name == "repositories" || name == "run"), "{at}: {places:?}");
            self.record.refused(&[(refused.0.as_str(), refused.1.as_str())]).await;
        }
    }
    pub fn reference(&self, name: &str) -> Option<String> {
        let git = git2::Repository::open_bare(self.repository()).unwrap();
        git.refname_to_id(name).ok().map(|id| id.to_string())
    }
    /// Processes whose command line or working directory is this repository.
    pub fn children(&self) -> Vec<u32> {
        let wanted = self.repository().canonicalize().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&wanted)) {
                found.push(pid);
            }
        }
        found
    }
}

pub fn git_path() -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|dir| Path::new(dir).join("git")).find(|p| p.is_file()).expect("git is not installed")
}

/// What `git daemon` does with a connection, without what we do not test.
async fn connection(
    mut stream: TcpStream,
    peer: std::net::SocketAddr,
    receiver: Receiver,
    settings: AppSettings,
    sender: mpsc::UnboundedSender<Served>,
) {
    let mut digits = [0; 4];
    stream.read_exact(&mut digits).await.unwrap();
    let length = usize::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap();
    let mut request = vec![0; length - 4];
    stream.read_exact(&mut request).await.unwrap();
    let request = String::from_utf8(request).unwrap();
    let service = GitService::ALL.into_iter().find(|s| request.starts_with(&s.to_string())).unwrap();
    let protocol = request.split('\0').find(|p| p.starts_with("version=")).map(str::to_owned);
    let request = GitRequest {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        service,
        app: App { id: "app1".to_owned(), name: "shop".parse().unwrap(), settings, created_at_ms: 0 },
        user: "tester".parse().unwrap(),
        key: format!("SHA256:{}", "A".repeat(43)).parse().unwrap(),
        protocol,
        peer,
    };
    let (stdin, stdout) = stream.into_split();
    let (stderr, mut heard) = tokio::io::duplex(64 * 1024);
    let listening = tokio::spawn(async move {
        let mut text = String::new();
        heard.read_to_string(&mut text).await.unwrap();
        text
    });
    let io = GitIo {
        gone: Default::default(),
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
    };
    let status = receiver.serve(request, io).await;
    let stderr = listening.await.unwrap();
    let _ = sender.send(Served { status, stderr });
}

/// A working repository of a user.
pub struct Clone {
    pub dir: tempfile::TempDir,
}

impl Clone {
    pub async fn new() -> Self {
        let clone = Self { dir: tempfile::tempdir().unwrap() };
        clone.ok(&["init", "-q", "-b", "main", "."]).await;
        clone
    }

    /// One with a commit on `main`.
    pub async fn with_commit() -> Self {
        let clone = Self::new().await;
        clone.commit("Dockerfile", "FROM scratch\n").await;
        clone
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, commits everything; the commit's id.
    pub async fn commit(&self, name: &str, content: &str) -> String {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self.commit_all(name).await
    }

    pub async fn commit_all(&self, message: &str) -> String {
        self.ok(&["add", "-A"]).await;
        self.ok(&["commit", "-q", "--allow-empty", "-m", message]).await;
        self.ok(&["rev-parse", "HEAD"]).await
    }

    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(git_path());
        command.args(args).current_dir(self.path()).env_clear().kill_on_drop(true);
        command.env("PATH", std::env::var("PATH").unwrap()).env("HOME", self.path()).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "test")
                .env(format!("GIT_{role}_EMAIL"), "test@example.org");
            command.env(format!("GIT_{role}_DATE"), "1700000000 +0000");
        }
        command.stdin(std::process::Stdio::null());
        command
    }

    pub async fn run(&self, args: &[&str]) -> Output {
        tokio::time::timeout(PATIENCE, self.command(args).output()).await.expect("git hangs").unwrap()
    }

    /// Standard output of what must succeed.
    pub async fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Exit status and standard error.
    pub async fn push(&self, server: &Server, args: &[&str]) -> (bool, String) {
        let url = server.url();
        let args = [
            &["push"][..],
            args.split_at(options_end(args)).0,
            &[url.as_str()],
            args.split_at(options_end(args)).1,
        ]
        .concat();
        let output = self.run(&args).await;
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub async fn write_object(&self, kind: &str, content: &[u8]) -> String {
        let mut command = self.command(&["hash-object", "-t", kind, "-w", "--stdin", "--literally"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A tree of raw entries, which may be what git itself never writes.
    pub async fn tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            raw.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            raw.extend(hex::decode(id).unwrap());
        }
        self.write_object("tree", &raw).await
    }

    pub async fn commit_tree(&self, tree: &str) -> String {
        self.ok(&["commit-tree", "-m", "made by hand", tree]).await
    }

    /// A pack with everything that `tip` reaches.
    pub async fn pack(&self, tip: &str) -> Vec<u8> {
        let mut command = self.command(&["pack-objects", "--revs", "--stdout", "-q"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{tip}\n").as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap().stdout
    }
}

/// Options stand before the URL, refspecs after it.
fn options_end(args: &[&str]) -> usize {
    let mut end = 0;
    while end < args.len() && args[end].starts_with('-') {
        end += if args[end] == "-o" { 2 } else { 1 };
    }
    end
}

/// A client that says exactly what it is told.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    /// Connects and reads the advertisement.
    pub async fn connect(server: &Server) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let mut request = Vec::new();
        write_line(&mut request, b"git-receive-pack /shop\0host=localhost\0");
        stream.write_all(&request).await.unwrap();
        let mut raw = Self { stream };
        while !raw.packet().await.is_empty() {}
        raw
    }

    /// One packet's payload; empty for a flush.
    async fn packet(&mut self) -> Vec<u8> {
        let mut digits = [0; 4];
        self.stream.read_exact(&mut digits).await.unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap();
        let mut payload = vec![0; length.saturating_sub(4)];
        self.stream.read_exact(&mut payload).await.unwrap();
        payload
    }

    pub fn opening(commands: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, command) in commands.iter().enumerate() {
            let mut line = command.clone();
            if n == 0 {
                line.extend_from_slice(b"\0 report-status side-band-64k");
            }
            write_line(&mut bytes, &line);
        }
        write_flush(&mut bytes);
        bytes
    }

    /// Commands and pack; what comes back, all bands together.
    pub async fn push(server: &Server, commands: &[Vec<u8>], pack: &[u8]) -> String {
        let mut raw = Self::connect(server).await;
        raw.stream.write_all(&Self::opening(commands)).await.unwrap();
        // a server that has heard enough closes early
        let _ = raw.stream.write_all(pack).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, raw.stream.read_to_end(&mut answer)).await.expect("no end");
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(&answer).unwrap();
        let mut text = Vec::new();
        while let Ok(Some(packet)) = decoder.next_packet() {
            if let Packet::Line(line) = packet {
                text.extend_from_slice(line.get(1..).unwrap_or_default());
                // git sends messages in pieces of 128 bytes; the decoder takes a line end off
                if line.len() < 129 {
                    text.push(b'\n');
                }
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

pub fn create(name: &str, new: &str) -> Vec<u8> {
    format!("{ZERO} {new} {name}").into_bytes()
}
