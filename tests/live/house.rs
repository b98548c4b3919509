//! A whole lemnos for one test: the real binary with its own data directory, on the shared buildkitd and registry,
//! and the real git and OpenSSH clients around it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Engines, engines};

/// How long a server may take to be ready, and a push to end: generous, for two cores and an emulator.
const PATIENCE: Duration = Duration::from_secs(300);

/// When every commit of the tests was made, so that what is the same has the same id.
const DATE: &str = "2026-01-02T03:04:05Z";

pub struct House {
    pub engines: &'static Engines,
    pub home: TempDir,
    pub prefix: String,
    /// `127.0.0.1:PORT`, as the server and its clients name it.
    registry: String,
    server: Option<Child>,
    /// The program, where it is not the one that was built, and whom it runs as.
    pub program: Option<PathBuf>,
    pub run_as: Option<u32>,
    /// The builder, where it is not the shared one.
    pub builder: Option<String>,
    pub extra_args: Vec<String>,
    extra_env: Vec<(String, String)>,
}

/// What a client command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test, with all that was said, unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.ok, "exit {:?}\n{}\n{}", self.code, self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.ok, "succeeded, and should not have:\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the client's screen shows `text`.
    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text) || self.stdout.contains(text),
            "missing {text:?} in:\n{}\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn hides(self, text: &str) -> Self {
        assert!(
            !self.stderr.contains(text) && !self.stdout.contains(text),
            "unwanted {text:?} in:\n{}\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

impl House {
    /// Starts a server of its own; the registry prefix keeps tests apart.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &[], &[])
    }

    pub fn start_with(name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_on(name, &engines().registry, args, env)
    }

    /// With what stands at `registry` in the registry's place.
    pub fn start_on(name: &str, registry: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let engines = engines();
        let home = tempfile::Builder::new().prefix("lemnos-live-").tempdir().unwrap();
        let unique = home.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let prefix = format!("{name}-{}", unique.rsplit('-').next().unwrap());
        let house = Self {
            engines,
            home,
            prefix,
            registry: registry.to_owned(),
            server: None,
            program: None,
            run_as: None,
            builder: None,
            extra_args: args.iter().map(|a| (*a).to_owned()).collect(),
            extra_env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        house.begin()
    }

    /// With changes before its first start.
    pub fn start_changed(name: &str, env: &[(&str, &str)], change: impl FnOnce(&mut Self)) -> Self {
        let home = tempfile::Builder::new().prefix("lemnos-live-").tempdir().unwrap();
        let unique = home.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let mut house = Self {
            engines: engines(),
            prefix: format!("{name}-{}", unique.rsplit('-').next().unwrap()),
            home,
            registry: engines().registry.clone(),
            server: None,
            program: None,
            run_as: None,
            builder: None,
            extra_args: Vec::new(),
            extra_env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        change(&mut house);
        house.begin()
    }

    fn begin(mut self) -> Self {
        let house = &mut self;
        house.serve();
        house.generate_key("id");
        house.lemnos(&["keys", "add", "ada", house.home.path().join("id.pub").to_str().unwrap()]).succeeded();
        self
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A command with none of the environment but a PATH and the test's own home.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        command
    }

    /// Starts (again) the server and waits until it is ready.
    pub fn serve(&mut self) {
        assert!(self.server.is_none(), "one server a house");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("server.log"))
            .unwrap();
        let data = self.data();
        let registry = format!("{}/{}", self.registry, self.prefix);
        let program = self.program.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_lemnos").into());
        let builder = self.builder.as_ref().unwrap_or(&self.engines.buildkit);
        let mut command = self.command(program);
        if let Some(id) = self.run_as {
            std::os::unix::process::CommandExt::uid(&mut command, id);
            std::os::unix::process::CommandExt::gid(&mut command, id);
        }
        let child = command
            .args([
                "serve",
                "--data",
                data.to_str().unwrap(),
                "--ssh",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
            ])
            .args(["--builder", builder, "--registry", &registry])
            .args(&self.extra_args)
            .envs(self.extra_env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
        let ready = data.join("lemnos.json");
        self.until("the server is ready", |house| {
            if let Some(status) = house.server.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", house.server_log());
            }
            // a server that was killed has left its file: only this one's counts
            let pid = house.server_pid();
            std::fs::read(&ready)
                .ok()
                .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
                .is_some_and(|said| said["pid"] == pid)
        });
    }

    /// Polls `done`, with the server's log in the failure.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}:\n{}", self.server_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default()
    }

    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// SIGKILL, as a power cut would.
    pub fn kill_server(&mut self) {
        let mut child = self.server.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for a server that ends by itself (a fail point, a signal).
    pub fn await_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.server.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end:\n{}", self.server_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and its exit status.
    pub fn stop_server(&mut self) -> std::process::ExitStatus {
        let pid = self.server_pid();
        let said = Said::of(Command::new("kill").args(["-TERM", &pid.to_string()]).output().unwrap());
        said.succeeded();
        self.await_end()
    }

    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.extra_env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// The registry's address, without the prefix of this test.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// A git command with further variables in its environment.
    pub fn git_with(&self, dir: &Path, env: &[(&str, &str)], args: &[&str]) -> Said {
        Said::of(self.git_command(dir).envs(env.iter().copied()).args(args).output().unwrap())
    }

    /// What `lemnos.json` says.
    pub fn ready(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.data().join("lemnos.json")).unwrap()).unwrap()
    }

    pub fn generate_key(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        let output = self
            .command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&path)
            .output()
            .unwrap();
        Said::of(output).succeeded();
        path
    }

    /// `lemnos … --data DIR`
    pub fn lemnos(&self, args: &[&str]) -> Said {
        let output = self
            .command(env!("CARGO_BIN_EXE_lemnos"))
            .args(args)
            .args(["--data", self.data().to_str().unwrap()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said::of(output)
    }

    /// `lemnos … --data DIR` with something on standard input.
    pub fn lemnos_reading(&self, args: &[&str], input: &str) -> Said {
        let mut child = self
            .command(env!("CARGO_BIN_EXE_lemnos"))
            .args(args)
            .args(["--data", self.data().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        Said::of(child.wait_with_output().unwrap())
    }

    /// Creates an app that ada may push to.
    pub fn app(&self, name: &str) {
        self.lemnos(&["apps", "create", name]).succeeded();
        self.lemnos(&["apps", "grant", name, "ada"]).succeeded();
    }

    pub fn ssh_command(&self, key: &str) -> String {
        let home = self.home.path().display();
        format!(
            "ssh -F /dev/null -i {home}/{key} -o IdentitiesOnly=yes -o UserKnownHostsFile={home}/known_hosts \
             -o StrictHostKeyChecking=accept-new -o BatchMode=yes -o LogLevel=ERROR"
        )
    }

    /// A verb of the SSH door, as ada.
    pub fn ssh(&self, verb: &str) -> Said {
        let line = self.ssh_command("id");
        let mut words = line.split_whitespace();
        let address = self.ready()["ssh"].as_str().unwrap().to_owned();
        let (host, port) = address.rsplit_once(':').unwrap();
        let mut command = self.command(words.next().unwrap());
        command.args(words).args(["-p", port, host, verb]).stdin(Stdio::null());
        Said::of(command.output().unwrap())
    }

    pub fn url(&self, app: &str) -> String {
        format!("ssh://git@{}/{app}.git", self.ready()["ssh"].as_str().unwrap())
    }

    /// A git command in the work tree `dir`.
    pub fn git_command(&self, dir: &Path) -> Command {
        let mut command = self.command("git");
        command
            .current_dir(dir)
            .env("GIT_SSH_COMMAND", self.ssh_command("id"))
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.com")
            .env("GIT_AUTHOR_DATE", DATE)
            .env("GIT_COMMITTER_DATE", DATE)
            .stdin(Stdio::null());
        command
    }

    pub fn git(&self, dir: &Path, args: &[&str]) -> Said {
        Said::of(self.git_command(dir).args(args).output().unwrap())
    }

    /// A repository with one commit of `files` on main, and `builder` as its remote for `app`.
    pub fn repository(&self, app: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.home.path().join(format!("work-{app}"));
        std::fs::create_dir(&dir).unwrap();
        self.git(&dir, &["init", "-q", "-b", "main"]).succeeded();
        self.git(&dir, &["remote", "add", "builder", &self.url(app)]).succeeded();
        self.commit(&dir, files, "first");
        dir
    }

    /// Writes `files` and commits all; returns the commit.
    pub fn commit(&self, dir: &Path, files: &[(&str, &str)], message: &str) -> String {
        for (path, content) in files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(dir, &["add", "-A"]).succeeded();
        self.git(dir, &["commit", "-q", "--allow-empty", "-m", message]).succeeded();
        self.git(dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned()
    }

    pub fn push(&self, dir: &Path, args: &[&str]) -> Said {
        let mut all = vec!["push", "builder"];
        all.extend(args);
        self.git(dir, &all)
    }

    /// A push that goes on while the test does something else.
    pub fn begin_push(&self, dir: &Path, args: &[&str]) -> Pushing {
        self.begin_push_as("id", dir, args)
    }

    /// The same with another key than ada's.
    pub fn begin_push_as(&self, key: &str, dir: &Path, args: &[&str]) -> Pushing {
        let mut client = self
            .git_command(dir)
            .env("GIT_SSH_COMMAND", self.ssh_command(key))
            .args(["push", "builder"])
            .args(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            // a group of its own, so that it can go with its ssh
            .process_group(0)
            .spawn()
            .unwrap();
        let screen = BufReader::new(client.stderr.take().unwrap());
        Pushing { client, screen, shown: String::new() }
    }

    /// The refs that the server shows to a client, `name -> id`.
    pub fn remote_refs(&self, dir: &Path) -> std::collections::BTreeMap<String, String> {
        let said = self.git(dir, &["ls-remote", "builder"]).succeeded();
        said.stdout
            .lines()
            .filter_map(|l| l.split_once('\t'))
            .map(|(id, name)| (name.to_owned(), id.to_owned()))
            .collect()
    }

    /// `localhost:PORT/PREFIX/APP`
    pub fn image(&self, app: &str) -> String {
        format!("{}/{}/{app}", self.registry, self.prefix)
    }

    /// The manifest at `tag` as the registry keeps it, none where there is no such tag.
    pub fn manifest(&self, app: &str, tag: &str) -> Option<Value> {
        let image = format!("docker://{}:{tag}", self.image(app));
        let output =
            self.command("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The tags of an app's image.
    pub fn tags(&self, app: &str) -> Vec<String> {
        let mut command = self.command(&self.engines.crane);
        let said = Said::of(command.args(["ls", "--insecure", &self.image(app)]).output().unwrap());
        said.succeeded().stdout.lines().map(str::to_owned).collect()
    }

    /// The bytes of a manifest or a blob of an app's image.
    pub fn blob(&self, app: &str, digest: &str, manifest: bool) -> Vec<u8> {
        let what = if manifest { "manifest" } else { "blob" };
        let image = format!("{}@{digest}", self.image(app));
        let output = self.command(&self.engines.crane).args([what, "--insecure", &image]).output().unwrap();
        assert!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The digest that `tag` stands at.
    pub fn digest(&self, app: &str, tag: &str) -> Option<String> {
        let output = self
            .command(&self.engines.crane)
            .args(["digest", "--insecure", &format!("{}:{tag}", self.image(app))])
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// One file of the image at `tag` for `platform`, through crane; none where it is absent.
    pub fn image_file(&self, app: &str, tag: &str, platform: &str, file: &str) -> Option<String> {
        let image = format!("{}:{tag}", self.image(app));
        let tar = self.home.path().join("export.tar");
        let output = self
            .command(&self.engines.crane)
            .args(["export", "--insecure", "--platform", platform, &image, tar.to_str().unwrap()])
            .output()
            .unwrap();
        Said::of(output).succeeded();
        let mut archive = tar::Archive::new(std::fs::File::open(&tar).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap() == Path::new(file) {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                return Some(text);
            }
        }
        None
    }

    /// The audit record so far, oldest first: `{"seq", "entry": {"actor", "event", …}}` each.
    pub fn audit(&self) -> Vec<Value> {
        let said = self.lemnos(&["audit", "--limit", "10000", "--json"]).succeeded();
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Entries of one event (`push_refused`, `login_refused`, …), each as often as it stands for.
    pub fn audited(&self, event: &str) -> Vec<Value> {
        let of = |one: &Value| one["entry"]["event"]["type"] == event;
        let times = |one: Value| {
            let times = one["entry"]["times"].as_u64().unwrap_or(1);
            std::iter::repeat_n(one, usize::try_from(times).unwrap())
        };
        self.audit().into_iter().filter(of).flat_map(times).collect()
    }

    pub fn builds(&self, app: &str) -> Vec<Value> {
        let said = self.lemnos(&["builds", "list", "--app", app, "--json"]).succeeded();
        serde_json::from_str::<Value>(&said.stdout).unwrap().as_array().unwrap().clone()
    }
}

/// A push under way.
pub struct Pushing {
    client: Child,
    screen: BufReader<ChildStderr>,
    shown: String,
}

impl Pushing {
    /// Reads on until the screen shows `text`.
    #[track_caller]
    pub fn until(mut self, text: &str) -> Self {
        while !self.shown.contains(text) {
            let read = self.screen.read_line(&mut self.shown).unwrap();
            assert_ne!(read, 0, "the push ended before it showed {text:?}:\n{}", self.shown);
        }
        self
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Said {
        self.screen.read_to_string(&mut self.shown).unwrap();
        let status = self.client.wait().unwrap();
        Said { ok: status.success(), code: status.code(), stdout: String::new(), stderr: self.shown }
    }

    /// SIGKILL, as a closed lid would.
    pub fn kill(mut self) {
        let group = format!("-{}", self.client.id());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        self.client.wait().unwrap();
    }
}

/// Image platforms of an index, attestations left out.
pub fn platforms(index: &Value) -> Vec<String> {
    index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            format!(
                "{}/{}",
                m["platform"]["os"].as_str().unwrap(),
                m["platform"]["architecture"].as_str().unwrap()
            )
        })
        .filter(|p| p != "unknown/unknown")
        .collect()
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.server_log());
        }
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
