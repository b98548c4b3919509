//! One lemnos on fakes: its data directory is a copy of one that was prepared once, its commits are made in-process, so that
//! what a run costs is the server's start and its pushes.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use lemnos::audit::{Filter, Logged, Verdict};
use lemnos::model::{Build, Digest};
use lemnos::store::{BuildFilter, JournalEntry, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::fake::builder::FakeBuilder;
use crate::fake::registry::FakeRegistry;

/// The longest wait for what should come soon, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const APP: &str = "shop";
/// Every image's path in the registry.
pub const IMAGE: &str = "crash/shop";

pub struct House {
    pub home: TempDir,
    pub builder: FakeBuilder,
    pub registry: FakeRegistry,
    server: Mutex<Option<Child>>,
    /// Kept over restarts, so that clients find the next server where the last one was.
    ssh: String,
    env: Mutex<Vec<(String, String)>>,
    args: Mutex<Vec<String>>,
}

/// Data directory, key and client repository with one user who may push to one app.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let house = House::over(tempfile::Builder::new().prefix("lemnos-crash-").tempdir().unwrap());
        let key = house.home.path().join("id");
        let mut keygen = Command::new("ssh-keygen");
        run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f"]).arg(&key));
        house.serve();
        house.stop();
        house.lemnos(&["keys", "add", "ada", key.with_extension("pub").to_str().unwrap()]);
        house.lemnos(&["apps", "create", APP]);
        house.lemnos(&["apps", "grant", APP, "ada"]);
        house.lemnos(&["apps", "set", APP, "branches=dev"]);
        git2::Repository::init_bare(house.home.path().join("work")).unwrap();
        house.builder.kill();
        fs::remove_file(&house.builder.socket).unwrap();
        // under target/, because a static is never dropped
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash-template");
        let _ = fs::remove_dir_all(&kept);
        copy(house.home.path(), &kept);
        kept
    })
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl House {
    /// Nothing runs yet but the fakes.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("lemnos-crash-").tempdir().unwrap();
        copy(template(), home.path());
        Self::over(home)
    }

    fn over(home: TempDir) -> Self {
        let ssh = crate::fake::port::own().to_string();
        let builder = FakeBuilder::start(home.path());
        let registry = FakeRegistry::start_process();
        registry.demand_children();
        let (server, env, args) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { home, builder, registry, server, ssh, env, args }
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What the next server gets in its environment.
    pub fn set_env(&self, env: &[(&str, &str)]) {
        *self.env.lock().unwrap() = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Further flags of the next server.
    pub fn set_args(&self, args: &[&str]) {
        *self.args.lock().unwrap() = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Starts a server and waits until it is ready, or has ended.
    pub fn serve(&self) {
        assert!(self.start(), "the server ended at start:\n{}", self.log());
    }

    /// The same where the server may well end at start: whether it is ready.
    pub fn start(&self) -> bool {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "one server a house");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let prefix = format!("{}/crash", self.registry.host);
        let child = Command::new(env!("CARGO_BIN_EXE_lemnos"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .args(["serve", "--ssh", &self.ssh, "--http", "127.0.0.1:0", "--registry", &prefix])
            .args(["--builder", &self.builder.address()])
            .arg("--data")
            .arg(self.data())
            .args(&*self.args.lock().unwrap())
            .envs(self.env.lock().unwrap().iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let child = server.insert(child);
        let ready = self.data().join("lemnos.json");
        let began = Instant::now();
        loop {
            // a server that was killed has left its file: only this one's counts
            let said = fs::read(&ready).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
            if said.is_some_and(|said| said["pid"] == child.id()) {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                *server = None;
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "the server is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    pub fn server_pid(&self) -> u32 {
        self.server.lock().unwrap().as_ref().unwrap().id()
    }

    /// Whether the server still runs; one that has ended is reaped.
    pub fn is_up(&self) -> bool {
        let mut server = self.server.lock().unwrap();
        let up = server.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none());
        if !up {
            *server = None;
        }
        up
    }

    /// SIGKILL, as a power cut.
    pub fn kill(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            let _ = server.kill();
            server.wait().unwrap();
        }
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.server_pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for a server that ends by itself.
    pub fn await_end(&self) -> std::process::ExitStatus {
        let began = Instant::now();
        let mut server = self.server.lock().unwrap().take().unwrap();
        loop {
            if let Some(status) = server.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// SIGTERM, and a clean end.
    pub fn stop(&self) {
        self.terminate();
        let status = self.await_end();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// `lemnos … --data DIR`, which must succeed; what it printed.
    #[track_caller]
    pub fn lemnos(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
        command.env_clear().env("HOME", self.home.path()).args(args).arg("--data").arg(self.data());
        String::from_utf8(run(&mut command).stdout).unwrap()
    }

    /// The clients' repository: all of them push from it.
    pub fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// A commit of these files on top of `parent`, without a child process.
    pub fn commit(&self, parent: Option<&str>, files: &[(&str, &str)], message: &str) -> String {
        let repository = git2::Repository::open(self.work()).unwrap();
        let mut tree = repository.treebuilder(None).unwrap();
        for (name, content) in files {
            tree.insert(name, repository.blob(content.as_bytes()).unwrap(), 0o100_644).unwrap();
        }
        let tree = repository.find_tree(tree.write().unwrap()).unwrap();
        let ada = git2::Signature::new("Ada", "ada@example.com", &git2::Time::new(1_700_000_000, 0)).unwrap();
        let parent = parent.map(|id| repository.find_commit(git2::Oid::from_str(id).unwrap()).unwrap());
        let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
        repository.commit(None, &ada, &ada, message, &tree, &parents).unwrap().to_string()
    }

    /// OpenSSH's client with a key of the home directory; what follows are its arguments after the host.
    pub fn ssh(&self, key: &str, options: &[&str], args: &[&str]) -> Command {
        let (host, port) = self.ssh.rsplit_once(':').unwrap();
        let mut command = Command::new("ssh");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TERM", "xterm")
            .args(["-F", "/dev/null", "-p", port, "-i"])
            .arg(self.home.path().join(key))
            .args(["-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"])
            .args(["-o", "KexAlgorithms=curve25519-sha256"])
            .args(options)
            .arg(format!("git@{host}"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The real client with these arguments after `git push URL`, in a process group of its own.
    pub fn push_command(&self, args: &[&str]) -> Command {
        let home = self.home.path().display();
        let ssh = format!(
            "ssh -F /dev/null -i {home}/id -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=no -o BatchMode=yes -o LogLevel=ERROR -o KexAlgorithms=curve25519-sha256"
        );
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", ssh)
            .arg("--git-dir")
            .arg(self.work())
            .args(["-c", "pack.threads=1", "push"])
            .arg(format!("ssh://git@{}/{APP}.git", self.ssh))
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A whole push.
    pub fn push(&self, args: &[&str]) -> Said {
        Said::of(self.push_command(args).output().unwrap())
    }

    /// The app's bare repository on the server.
    pub fn repository(&self) -> PathBuf {
        let root = self.data().join("repositories");
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
    }

    /// Where every ref stands, hidden ones too.
    pub fn refs(&self) -> std::collections::BTreeMap<String, String> {
        if !self.data().join("repositories").read_dir().is_ok_and(|mut dir| dir.next().is_some()) {
            return std::collections::BTreeMap::new();
        }
        let repository = git2::Repository::open_bare(self.repository()).unwrap();
        let refs = repository.references().unwrap().map(Result::unwrap);
        refs.map(|one| (one.name().unwrap().to_owned(), one.target().unwrap().to_string())).collect()
    }

    /// What the registry has at a tag of the app's image.
    pub fn tag(&self, tag: &str) -> Option<String> {
        self.registry.at(IMAGE, tag)
    }

    /// The commit that the index at a tag was made of.
    pub fn revision(&self, tag: &str) -> Option<String> {
        let bytes = self.registry.content(IMAGE, tag)?;
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        index["annotations"]["org.opencontainers.image.revision"].as_str().map(str::to_owned)
    }

    /// The records as the store has them, beside the server or without one.
    pub fn records(&self) -> Records {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.data()).await.unwrap();
            let builds = store
                .builds(&BuildFilter { limit: 1_000, ..BuildFilter::default() }, &lemnos::model::Visible::All)
                .await
                .unwrap();
            let journal = store.journal().await.unwrap();
            let filter = Filter { after_seq: Some(0), limit: 10_000, ..Filter::default() };
            let audit = store.audit(&filter).await.unwrap();
            let verdict = store.verify_audit().await.unwrap();
            store.close().await;
            Records { builds, journal, audit, verdict }
        })
    }

    /// What no ended push may leave in the repositories; a build that did not succeed keeps its commit, to be done again.
    pub fn leftovers(&self) -> Vec<String> {
        let kept: Vec<String> = match self.data().join("lemnos.db").exists() {
            true => self.records().builds,
            false => Vec::new(),
        }
        .into_iter()
        .filter(|build| !build.state.is_live() && build.state != lemnos::model::BuildState::Succeeded)
        .map(|build| build.id.to_string())
        .collect();
        let mut found = Vec::new();
        let mut waiting = vec![self.data().join("repositories")];
        while let Some(dir) = waiting.pop() {
            // git's own temporary files come and go
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                let temporary =
                    ["tmp_", "incoming-", ".removed-"].iter().any(|start| name.starts_with(start));
                let hidden = dir.ends_with("refs/lemnos/builds") && !kept.contains(&name);
                if temporary || hidden || name.ends_with(".lock") {
                    found.push(path.display().to_string());
                }
                if path.is_dir() {
                    waiting.push(path);
                }
            }
        }
        found
    }

    /// Processes that work on this house, the fakes and clients of the test aside.
    pub fn processes(&self) -> Vec<String> {
        let data = self.data();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            // a process may end at any moment, and then has neither
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let inside = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&data));
            if inside || command.contains(data.to_str().unwrap()) {
                found.push(format!("{} {command}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }

    /// Polls until `look` finds nothing any more.
    #[track_caller]
    pub fn settles(&self, what: &str, look: impl Fn(&Self) -> Vec<String>) {
        let began = Instant::now();
        loop {
            let found = look(self);
            if found.is_empty() {
                return;
            }
            assert!(began.elapsed() < PATIENCE / 4, "{what}: {found:#?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Records {
    pub builds: Vec<Build>,
    pub journal: Vec<JournalEntry>,
    pub audit: Vec<Logged>,
    pub verdict: Verdict,
}

impl Records {
    pub fn of(&self, commit: &str) -> Vec<&Build> {
        self.builds.iter().filter(|build| build.commit.as_str() == commit).collect()
    }

    pub fn digest_of(&self, commit: &str) -> Option<&Digest> {
        self.of(commit).first()?.digest.as_ref()
    }
}

/// What a client said.
#[derive(Debug, Clone)]
pub struct Said {
    pub ok: bool,
    pub text: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { ok: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.ok, "{}", self.text);
        self
    }

    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.ok, "succeeded, and should not have:\n{}", self.text);
        self
    }

    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(self.text.contains(text), "missing {text:?} in:\n{}", self.text);
        self
    }
}
