//! Flags joined to a build on a real buildkitd: caches that cross to and from buildctl, contexts of every kind, agents,
//! layouts; and what a build may not do unless it is allowed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use lemnos::buildkit::gateway::{
    CacheSharing, Container, ContainerSpec, FileMount, Gateway, GatewaySolve, Mount, MountKind, ProcessSpec,
};
use lemnos::buildkit::join::Flags;
use lemnos::buildkit::session::policy::{Judgement, SourceJudge, SourceQuestion};
use lemnos::buildkit::solve::{Dockerfile, NamedContext, SourcePolicy};
use lemnos::buildkit::{Client, Session, SolveError, SolveEvent, SolveRequest, flags};

use super::buildkit::{BUILD, Buildkitd, cached, connect, connect_when_ready, unique};
use super::services::install;
use super::support::engines;

/// A directory with a Dockerfile in it, and what else a test puts there.
struct Project {
    dir: tempfile::TempDir,
    dockerfile: Dockerfile,
}

impl Project {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("context")).unwrap();
        std::fs::write(dir.path().join("context/Dockerfile"), text).unwrap();
        Self { dir, dockerfile: Dockerfile::default() }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Joins the flags, builds, and records.
    async fn build(&mut self, client: &Client, flags: Flags) -> Result<Vec<SolveEvent>, SolveError> {
        self.build_with(client, flags, |_| {}).await
    }

    async fn build_with(
        &mut self,
        client: &Client,
        flags: Flags,
        change: impl FnOnce(&mut SolveRequest),
    ) -> Result<Vec<SolveEvent>, SolveError> {
        let context = self.dir.path().join("context");
        let session = Session::builder(&format!("live:{}", unique()))
            .local_dir("context", &context)
            .local_dir("dockerfile", &context);
        let mut request = SolveRequest { internal: true, ..Default::default() };
        let joined = flags.join(session, &mut self.dockerfile, &mut request)?;
        assert_eq!(joined.warnings, [""; 0]);
        self.dockerfile.apply(&mut request)?;
        change(&mut request);
        let mut events = Vec::new();
        let solved = client.solve(request, |event| events.push(event));
        let result = tokio::time::timeout(BUILD, solved).await.expect("in time")?;
        joined.record(&result)?;
        Ok(events)
    }

    fn buildctl(&self, address: &str, args: &[&str]) -> String {
        let local = |name: &str| format!("{name}={}", self.at("context"));
        let output = Command::new(&engines().buildctl)
            .args(["--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"])
            .args(["--local", &local("context"), "--local", &local("dockerfile")])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    }
}

fn output(given: &str) -> Flags {
    Flags { outputs: vec![flags::output(given).unwrap()], ..Flags::default() }
}

fn cache(flag: &'static str, given: &str) -> Vec<lemnos::buildkit::CacheEntry> {
    flags::cache(flag, given).unwrap()
}

#[tokio::test]
async fn a_local_cache_crosses_to_buildctl_and_back() {
    let other = Buildkitd::start();
    let fresh = connect_when_ready(&other.socket()).await;
    let address = format!("unix://{}", other.socket().display());
    let shared = connect(&engines().buildkit).await;
    for (ours, tag) in [(true, "latest"), (false, "latest"), (true, "side")] {
        let word = unique();
        let mut project = Project::new(&format!(
            "FROM busybox\nCOPY f /f\nRUN echo {word} >/word\nRUN echo {word} again >>/word\n"
        ));
        std::fs::write(project.at("context/f"), &word).unwrap();
        let place = project.at("cache");
        let (to, from) = (
            format!("type=local,dest={place},mode=max,tag={tag}"),
            format!("type=local,src={place},tag={tag}"),
        );
        let hits = if ours {
            let flags = Flags { cache_to: cache("--cache-to", &to), ..Flags::default() };
            project.build(&shared, flags).await.unwrap();
            let printed = project.buildctl(&address, &["--import-cache", &from]);
            printed.matches("CACHED").count()
        } else {
            project.buildctl(&engines().buildkit, &["--export-cache", &to]);
            let flags = Flags { cache_from: cache("--cache-from", &from), ..Flags::default() };
            let events = project.build(&fresh, flags).await.unwrap();
            ["COPY f", "echo", "again"].iter().filter(|step| cached(&events, step)).count()
        };
        assert_eq!(hits, 3, "written by us: {ours}, {tag}");
    }
}

/// A `git daemon` for the repositories below a directory.
struct GitDaemon(Child, u16);

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl GitDaemon {
    fn start(root: &Path) -> Self {
        let port = crate::port::own().port();
        let exec = Command::new("git").arg("--exec-path").output().unwrap();
        let program = Path::new(String::from_utf8(exec.stdout).unwrap().trim()).join("git-daemon");
        let child = Command::new(program)
            .args(["--listen=127.0.0.1", "--reuseaddr", "--export-all", &format!("--port={port}")])
            .arg(format!("--base-path={}", root.display()))
            .arg(root)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + BUILD;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "git daemon does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self(child, port)
    }
}

fn git(dir: &Path, args: &[&str]) {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").current_dir(dir).args(who).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn contexts_of_every_kind_meet_in_one_build() {
    let client = connect(&engines().buildkit).await;
    let mut base = Project::new(&format!("FROM scratch\nCOPY Dockerfile /layout\n# {}\n", unique()));
    let layout = base.at("layout");
    base.build(&client, output(&format!("type=oci,tar=false,name=live.example/base:1,dest={layout}")))
        .await
        .unwrap();

    let mut project = Project::new(
        "FROM tools AS t\nRUN mkdir /r\nCOPY --from=one one /r/one\nCOPY --from=two two /r/two\nCOPY --from=git g /r/git\n\
         COPY --from=layout layout /r/layout\nFROM scratch\nCOPY --from=t /r /\n",
    );
    let repository = project.dir.path().join("git/r.git");
    std::fs::create_dir_all(&repository).unwrap();
    for (name, word) in [("one/one", "1"), ("two/two", "2"), ("git/r.git/g", "from git")] {
        let path = project.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, word).unwrap();
    }
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "g"]);
    git(&repository, &["commit", "-qm", "g"]);
    let daemon = GitDaemon::start(&project.dir.path().join("git"));
    let contexts = [
        "tools=docker-image://busybox".to_owned(),
        format!("one={}", project.at("one")),
        format!("two={}", project.at("two")),
        format!("git=git://127.0.0.1:{}/r.git#main", daemon.1),
        format!("layout=oci-layout://{layout}:1"),
    ];
    let contexts = contexts.map(|given| flags::build_context(&given).unwrap()).into();
    let out = project.at("out");
    project.build(&client, Flags { contexts, ..output(&out) }).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(Path::new(&out).join(name)).unwrap();
    assert_eq!([read("one"), read("two"), read("git")], ["1", "2", "from git"]);
    assert!(read("layout").starts_with("FROM scratch"));
}

/// Judges by the name alone, after it has had an image looked up.
struct Judge(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl SourceJudge for Judge {
    async fn judge(&self, question: SourceQuestion) -> Result<Judgement, String> {
        let name = question.found.source.identifier.clone();
        self.0.lock().unwrap().push(name.clone());
        if name.contains("forbidden") {
            return Ok(Judgement::Deny(vec!["not in this house".to_owned()]));
        }
        if name.contains("elsewhere") {
            let mut other = question.found.source;
            other.identifier = "docker-image://docker.io/library/busybox:latest".to_owned();
            return Ok(Judgement::Convert(other));
        }
        match (name.starts_with("docker-image://"), question.found.image) {
            (true, None) => Ok(Judgement::LookUp(Box::default())),
            (true, Some(image)) if !image.digest.starts_with("sha256:") => Err("no digest".to_owned()),
            _ => Ok(Judgement::Allow),
        }
    }
}

#[tokio::test]
async fn sources_are_denied_and_converted_by_rules_and_by_a_judge() {
    let client = connect(&engines().buildkit).await;
    let rules = r#"{"rules": [
        {"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/library/elsewhere:*"},
         "updates": {"identifier": "docker-image://docker.io/library/busybox:latest"}},
        {"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/forbidden:*"}}]}"#;
    let rules = SourcePolicy::from_json(rules).unwrap();
    for judged in [false, true] {
        let judge = Arc::new(Judge(Mutex::default()));
        let apply = |request: &mut SolveRequest| match judged {
            true => request.session.judge = Some(judge.clone()),
            false => request.source_policy = rules.clone(),
        };
        let mut converted = Project::new(&format!("FROM elsewhere\nRUN echo {}\n", unique()));
        converted.build_with(&client, Flags::default(), apply).await.unwrap();
        let mut denied = Project::new("FROM forbidden\n");
        let error = denied.build_with(&client, Flags::default(), apply).await.unwrap_err();
        assert!(error.message.contains("by policy"), "{error}");
        assert_eq!(error.message.contains("not in this house"), judged, "{error}");
        let asked = judge.0.lock().unwrap().join(" ");
        assert_eq!(asked.contains("forbidden") && asked.contains("local://context"), judged, "{asked}");
    }
    // without either, a name that is nowhere is not found
    let error = Project::new("FROM elsewhere\n").build(&client, Flags::default()).await.unwrap_err();
    assert!(!error.message.contains("policy"), "{error}");
}

#[tokio::test]
async fn what_is_not_allowed_by_both_sides_is_refused() {
    let allow = |entitlement| ["--allow-insecure-entitlement", entitlement];
    let allowing = Buildkitd::start_with(&[allow("security.insecure"), allow("network.host")].concat());
    let strict = Buildkitd::start();
    let (allowing_client, strict_client) =
        (connect_when_ready(&allowing.socket()).await, connect_when_ready(&strict.socket()).await);
    for (flag, entitlement, words) in [
        ("--security=insecure", "security.insecure", "security.insecure"),
        ("--network=host", "network.host", "network.host"),
    ] {
        let mut project = Project::new(&format!("FROM busybox\nRUN {flag} echo {} && id\n", unique()));
        let mut attempt = async |client: &Client, allow: bool| {
            let change = |request: &mut SolveRequest| {
                if allow {
                    request.entitlements.push(entitlement.to_owned());
                }
            };
            project.build_with(client, Flags::default(), change).await
        };
        for (client, allow) in [(&allowing_client, false), (&strict_client, false), (&strict_client, true)] {
            let error = attempt(client, allow).await.unwrap_err();
            assert!(error.message.contains(words) && error.message.contains("not allowed"), "{error}");
        }
        attempt(&allowing_client, true).await.unwrap();
    }
}

/// An `ssh-agent` with one key.
struct SshAgent(Child, String);

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SshAgent {
    fn start(dir: &Path) -> (Self, String) {
        let at = |name: &str| dir.join(name).display().to_string();
        let agent =
            Command::new("ssh-agent").args(["-D", "-a", &at("agent")]).stdout(Stdio::null()).spawn().unwrap();
        let this = Self(agent, at("agent"));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "live", "-f", &at("key")])
            .output();
        assert!(made.unwrap().status.success());
        let deadline = std::time::Instant::now() + BUILD;
        loop {
            let added =
                Command::new("ssh-add").arg(at("key")).env("SSH_AUTH_SOCK", &this.1).output().unwrap();
            if added.status.success() {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{}", String::from_utf8_lossy(&added.stderr));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        (this, std::fs::read_to_string(at("key.pub")).unwrap())
    }
}

#[tokio::test]
async fn a_real_agent_signs_for_a_step() {
    let client = connect(&engines().buildkit).await;
    let mut project = Project::new(&format!(
        "FROM busybox AS b\nCOPY root /\nCOPY key.pub /\n\
         RUN --mount=type=ssh : {} && ssh-add -L >/keys && ssh-add -T /key.pub && ! ssh-add -D\n\
         FROM scratch\nCOPY --from=b /keys /\n",
        unique()
    ));
    install("/usr/bin/ssh-add", Path::new(&project.at("context/root")));
    let (agent, public) = SshAgent::start(project.dir.path());
    std::fs::write(project.at("context/key.pub"), &public).unwrap();
    let ssh = vec![flags::ssh(&format!("default={}", agent.1)).unwrap()];
    let out = project.at("out");
    project.build(&client, Flags { ssh, ..output(&out) }).await.unwrap();
    assert_eq!(std::fs::read_to_string(Path::new(&out).join("keys")).unwrap(), public);
    // it still has its key
    let listed = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &agent.1).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), public);
}

async fn says(container: &Container, script: &str) -> String {
    let spec = ProcessSpec {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin:/usr/bin".into()],
        ..Default::default()
    };
    let done = container.start(spec).await.unwrap().collect(10_000).await.unwrap();
    assert_eq!(done.exit.code, 0, "{script}: {done:?}");
    String::from_utf8(done.stdout.to_vec()).unwrap()
}

#[tokio::test]
async fn containers_have_secrets_agents_caches_and_memory_mounted() {
    let client = connect(&engines().buildkit).await;
    let mut project = Project::new("FROM busybox\nCOPY root /\n");
    install("/usr/bin/ssh-add", Path::new(&project.at("context/root")));
    let (agent, public) = SshAgent::start(project.dir.path());
    let context = project.dir.path().join("context");
    let session = Session::builder(&format!("live:{}", unique()))
        .local_dir("context", &context)
        .local_dir("dockerfile", &context);
    let flags = Flags {
        secrets: vec![flags::secret(&format!("id=token,src={}", project.at("context/Dockerfile"))).unwrap()],
        ssh: vec![flags::ssh(&format!("default={}", agent.1)).unwrap()],
        ..Flags::default()
    };
    let mut request = SolveRequest { internal: true, ..Default::default() };
    flags.join(session, &mut project.dockerfile, &mut request).unwrap();
    project.dockerfile.apply(&mut request).unwrap();
    let solve = GatewaySolve {
        frontend: std::mem::take(&mut request.frontend),
        options: std::mem::take(&mut request.frontend_attrs),
        evaluate: true,
        ..Default::default()
    };
    let cache = format!("live-{}", unique());
    let function = |gateway: Gateway| async move {
        gateway.ping().await?;
        let result = gateway.solve(solve).await?;
        let mount = |at: &str, kind: MountKind| Mount { at: at.to_owned(), kind, read_only: false };
        let file = |id: &str, mode| FileMount { id: id.to_owned(), mode, ..FileMount::default() };
        let optional = FileMount { optional: true, ..file("nobody-has-it", 0o400) };
        let kept = || MountKind::Cache { id: cache.clone(), sharing: CacheSharing::Shared };
        let mounts = vec![
            Mount::bind("/", result.sole()?),
            mount("/run/token", MountKind::Secret(file("token", 0o440))),
            mount("/run/none", MountKind::Secret(optional)),
            mount("/run/agent", MountKind::Ssh(file("default", 0o600))),
            mount("/kept", kept()),
            mount("/memory", MountKind::Tmpfs),
        ];
        let first = gateway.container(ContainerSpec { mounts: mounts.clone(), ..Default::default() }).await?;
        let told = says(
            &first,
            "cat /run/token; stat -c %a /run/token; [ ! -e /run/none ] && SSH_AUTH_SOCK=/run/agent ssh-add -L; \
             grep -c ' /memory tmpfs' /proc/mounts; echo mine >/kept/word",
        )
        .await;
        assert_eq!(told, format!("FROM busybox\nCOPY root /\n440\n{public}1\n"));
        first.release().await?;
        let second = vec![Mount::bind("/", result.sole()?), mount("/kept", kept())];
        let second = gateway.container(ContainerSpec { mounts: second, ..Default::default() }).await?;
        assert_eq!(says(&second, "cat /kept/word").await, "mine\n");
        second.release().await?;
        Ok(result)
    };
    tokio::time::timeout(BUILD, client.build(request, function, |_| {})).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_image_is_exported_into_a_layout_under_its_names() {
    let client = connect(&engines().buildkit).await;
    let word = unique();
    let mut project = Project::new(&format!("FROM scratch\nCOPY Dockerfile /{word}\n"));
    let layout = project.at("layout");
    for name in ["live.example/a:1", "live.example/b:2"] {
        let flags = output(&format!("type=oci,tar=false,name={name},dest={layout}"));
        project.build(&client, flags).await.unwrap();
    }
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(&layout).join("index.json")).unwrap()).unwrap();
    let names: BTreeMap<String, String> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            let of = |key: &str| m["annotations"][key].as_str().unwrap().to_owned();
            (of("io.containerd.image.name"), of("org.opencontainers.image.ref.name"))
        })
        .collect();
    let want = [("live.example/a:1", "1"), ("live.example/b:2", "2")];
    assert_eq!(names, want.map(|(name, tag)| (name.to_owned(), tag.to_owned())).into());
    let mut next = Project::new(&format!("FROM base\nCOPY --from=base /{word} /twice\n"));
    let contexts = vec![flags::build_context(&format!("base=oci-layout://{layout}:2")).unwrap()];
    next.build(&client, Flags { contexts, ..Flags::default() }).await.unwrap();
    assert!(matches!(&next.dockerfile.contexts["base"], NamedContext::OciLayout { .. }));
}
