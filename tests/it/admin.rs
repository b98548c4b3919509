//! The commands that administer, as their users see them: the real program, on a data directory of its own, with no
//! server and through one.

mod builds;
mod configuration;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use lemnos::admin::socket::{Listener, serve};
use lemnos::admin::{Context, DataLock, Ready, ReadyFile, Repositories, Work};
use lemnos::audit::Trail;
use lemnos::error::Report;
use lemnos::model::{Actor, App, Build, BuildPlan};
use lemnos::store::Store;

use builds::{FAILED, build};

const ANN: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X ann@host\n";
const ANN_PRINT: &str = "SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg";
const BOB: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAAAABHNzaDo=\n";

/// A home directory with a data directory in it, and nothing of the test's environment.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ann.pub"), ANN).unwrap();
        std::fs::write(dir.path().join("bob.pub"), BOB).unwrap();
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
        command.args(arguments.split_whitespace()).env_clear().current_dir(self.dir.path());
        command.env("HOME", self.dir.path()).env("LEMNOS_DATA", self.data()).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &str, stdin: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What stands on the screen afterwards, with what differs from run to run taken out.
    fn run(&self, arguments: &str) -> String {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin);
        let mut text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => {}
            Some(code) => text.push_str(&format!("exit {code}\n")),
            None => text.push_str("killed\n"),
        }
        let text = text.replace(self.dir.path().to_str().unwrap(), "HOME");
        text.lines().map(|line| redacted(line) + "\n").collect()
    }

    fn json(&self, arguments: &str) -> serde_json::Value {
        let output = self.output(arguments, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn store(&self) -> Store {
        std::fs::create_dir_all(self.data()).unwrap();
        Store::open(&self.data()).await.unwrap()
    }
}

/// Times become T.
fn redacted(line: &str) -> String {
    let shape =
        |text: &str| -> String { text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect() };
    let mut line = line.to_owned();
    while let Some(at) = (0..line.len())
        .find(|at| line.get(*at..at + 19).is_some_and(|text| shape(text) == "0000-00-00 00:00:00"))
    {
        line.replace_range(at..at + 19, "T------------------");
    }
    line
}

#[test]
fn keys_without_a_server() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("keys list"), @r"
    error: there is no lemnos data in HOME/data
    hint: name the server's directory with --data DIR or LEMNOS_DATA
    exit 3
    ");
    insta::assert_snapshot!(home.run("keys add ann ann.pub"), @r"Added SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg for ann (ann@host)");
    insta::assert_snapshot!(home.run("keys add ann ann.pub"), @r"Known already: SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg for ann (ann@host)");
    insta::assert_snapshot!(home.run_with("keys add bob -", BOB), @r"Added SHA256:nX0hpi5mKbTIJ10yBq5/sLQhiI1Y0RBAqN0drDdgJWs for bob");
    insta::assert_snapshot!(home.run_with("keys add bob", ANN), @r"
    error: key SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg belongs to user ann already
    hint: a key says who pushes, so it has one user: remove it from ann first (`lemnos keys remove SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg`), or add another key
    exit 5
    ");
    insta::assert_snapshot!(home.run("keys list"), @r"
    USER  FINGERPRINT                                         TYPE                        ADDED                COMMENT
    ann   SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg  ssh-ed25519                 T------------------  ann@host
    bob   SHA256:nX0hpi5mKbTIJ10yBq5/sLQhiI1Y0RBAqN0drDdgJWs  sk-ssh-ed25519@openssh.com  T------------------
    ");
    insta::assert_snapshot!(home.run("keys list bob"), @r"
    USER  FINGERPRINT                                         TYPE                        ADDED                COMMENT
    bob   SHA256:nX0hpi5mKbTIJ10yBq5/sLQhiI1Y0RBAqN0drDdgJWs  sk-ssh-ed25519@openssh.com  T------------------
    ");
    insta::assert_snapshot!(home.run("keys list nobody"), @r"No keys of nobody. Add one: lemnos keys add nobody FILE");
    let keys = home.json("keys list --json");
    assert_eq!(keys[0]["fingerprint"], ANN_PRINT);
    assert_eq!(keys[0]["user"], "ann");
    assert_eq!(keys.as_array().unwrap().len(), 2);
    insta::assert_snapshot!(home.run(&format!("keys remove {ANN_PRINT}")), @r"Removed SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg of ann (ann@host); ann has no key left, their grants stay");
    insta::assert_snapshot!(home.run(&format!("keys remove {ANN_PRINT}")), @r"
    error: no key SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg is registered
    hint: `lemnos keys list` shows the registered keys
    exit 3
    ");
    insta::assert_snapshot!(home.run("keys remove ann"), @r#"
    error: "ann" is not a valid key fingerprint
    hint: SHA256: and 43 base64 characters, as `ssh-keygen -lf FILE` prints it
    exit 2
    "#);
    assert_eq!(home.json("keys add ann ann.pub --json")[0]["fingerprint"], ANN_PRINT);
    assert_eq!(home.json(&format!("keys remove {ANN_PRINT} --json"))["user"], "ann");
}

#[test]
fn users_deploy_keys_and_grants_to_read() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("users add ann --admin"), @r"
    Added ann, an admin
      lemnos keys add ann FILE
    ");
    insta::assert_snapshot!(home.run("users add ann"), @r"
    error: there is a user ann already
    hint: `lemnos users role ann admin|member` changes what they may do
    exit 5
    ");
    home.run("keys add bob bob.pub");
    home.run("apps create shop");
    insta::assert_snapshot!(home.run("apps grant shop bob --read"), @r"bob may only read shop");
    insta::assert_snapshot!(home.run("apps grant shop bob --read"), @r"bob may only read shop already");
    insta::assert_snapshot!(home.run("keys add --app shop --write --name ci ann.pub"), @r"Added SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg for deploy:shop (write) (ci)");
    insta::assert_snapshot!(home.run("keys add --app shop ann ann.pub"), @r#"
    error: "ann.pub" is one word too many
    hint: lemnos keys add --app APP [--write] [FILE]
    exit 2
    "#);
    insta::assert_snapshot!(home.run("keys add ann ann.pub"), @r"
    error: key SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg belongs to user deploy:shop already
    hint: a key says who pushes, so it has one user: remove it from deploy:shop first (`lemnos keys remove SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg`), or add another key
    exit 5
    ");
    insta::assert_snapshot!(home.run("keys list deploy:shop"), @r"
    USER                 FINGERPRINT                                         TYPE         ADDED                COMMENT
    deploy:shop (write)  SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg  ssh-ed25519  T------------------  ci
    ");
    insta::assert_snapshot!(home.run("users list"), @r"
    USER  ROLE    KEYS  SINCE                APPS
    ann   admin   0     T------------------  all
    bob   member  1     T------------------  shop
    ");
    insta::assert_snapshot!(home.run("users role ann member"), @r"ann is a member");
    insta::assert_snapshot!(home.run("users role ann king"), @r#"
    error: "king" is not a valid role
    hint: admin or member
    exit 2
    "#);
    insta::assert_snapshot!(home.run("users remove bob"), @r"Removed bob with 1 key and 1 grant");
    insta::assert_snapshot!(home.run("keys import ann --url https://169.254.169.254/latest"), @r#"
    error: "https://169.254.169.254/latest" cannot be fetched: 169.254.169.254 is no public address
    hint: give a page of public keys, as in https://gitlab.example.com/NAME.keys
    exit 2
    "#);
}

#[test]
fn keys_that_cannot_be_read() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("keys add ann absent.pub"), @r"
    error: reading absent.pub: No such file or directory (os error 2)
    hint: give a .pub file, or the keys on standard input; `ssh-keygen -t ed25519` makes a key
    exit 3
    ");
    insta::assert_snapshot!(home.run("keys add -ann ann.pub"), @r"
    error: unexpected argument '-a' found

      tip: to pass '-a' as a value, use '-- -a'

    Usage: lemnos keys add [OPTIONS] [USER] [FILE]...

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(home.run("keys add a/b ann.pub"), @r#"
    error: "a/b" is not a valid user name
    hint: use 1 to 63 letters, digits, '.', '_', '-' or '@', beginning with a letter or digit
    exit 2
    "#);
    std::fs::write(home.dir.path().join("id"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    insta::assert_snapshot!(home.run("keys add ann id"), @r"
    error: this is a private key
    hint: it stays with its owner; give the public half, the file of the same name that ends in .pub
    exit 2
    ");
    std::fs::write(home.dir.path().join("binary"), [0xff, 0xfe]).unwrap();
    insta::assert_snapshot!(home.run("keys add ann binary"), @r"
    error: binary is not text: it is no file of public keys
    exit 2
    ");
    std::fs::write(home.dir.path().join("empty"), "\n").unwrap();
    insta::assert_snapshot!(home.run("keys add ann empty"), @r"
    error: empty is empty: there is no key
    hint: give the content of a .pub file: ssh-ed25519 AAAA…
    exit 2
    ");
    assert!(home.run("keys list").contains("No keys."), "nothing was added");
}

#[test]
fn apps_without_a_server() {
    let home = Home::new();
    home.run("keys add ann ann.pub");
    insta::assert_snapshot!(home.run("apps list"), @r"No apps. Make one: lemnos apps create NAME");
    insta::assert_snapshot!(home.run("apps create shop"), @r"
    Created app shop
      lemnos apps grant shop USER
      git remote add builder ssh://git@localhost:2222/shop.git
      git push builder main
    ");
    insta::assert_snapshot!(home.run("apps create shop"), @r"
    error: there is an app shop already
    hint: `lemnos apps show shop` shows it
    exit 5
    ");
    insta::assert_snapshot!(home.run("apps create Shop"), @r#"
    error: "Shop" is not a valid app name
    hint: use 1 to 63 lower-case letters, digits and single '-', '.' or '_' between them, beginning and ending with a letter or digit
    exit 2
    "#);
    insta::assert_snapshot!(home.run("apps grant shop ann"), @r"ann may push to shop");
    insta::assert_snapshot!(home.run("apps grant shop ann"), @r"ann may push to shop already");
    insta::assert_snapshot!(home.run("apps grant shop bob"), @r"
    error: there is no user bob
    hint: a user appears with the first key: `lemnos keys add bob FILE`
    exit 3
    ");
    insta::assert_snapshot!(home.run("apps grant blog ann"), @r"
    error: there is no app blog
    hint: `lemnos apps list` shows the apps; `lemnos apps create blog` makes it
    exit 3
    ");
    insta::assert_snapshot!(home.run("apps list"), @r"
    APP   IMAGE                USERS
    shop  127.0.0.1:5000/shop  ann
    ");
    let app = home.json("apps show shop --json");
    assert_eq!(app, home.json("apps list --json")[0]);
    assert_eq!((&app["name"], &app["image"]), (&"shop".into(), &"127.0.0.1:5000/shop".into()));
    assert_eq!(app["users"], serde_json::json!([{"user": "ann", "access": "write"}]));
    let repository = home.data().join(format!("repositories/{}.git", app["id"].as_str().unwrap()));
    assert!(repository.join("HEAD").exists());
    insta::assert_snapshot!(home.run("apps revoke shop ann"), @r"ann has no access to shop any more");
    insta::assert_snapshot!(home.run("apps revoke shop ann"), @r"
    error: user ann has no grant on app shop
    hint: `lemnos apps show shop` shows who may use it
    exit 3
    ");
    insta::assert_snapshot!(home.run("apps destroy shop"), @r"
    error: app shop is not destroyed
    hint: nobody can be asked here: say --yes
    exit 2
    ");
    insta::assert_snapshot!(home.run("apps destroy shop --yes"), @r"
    Destroyed app shop with its repository, settings, grants and builds.
    Tags that were pushed to 127.0.0.1:5000/shop stay in the registry.
    ");
    insta::assert_snapshot!(home.run("apps show shop"), @r"
    error: there is no app shop
    hint: `lemnos apps list` shows the apps; `lemnos apps create shop` makes it
    exit 3
    ");
    assert!(!repository.exists());
    assert_eq!(home.json("apps create shop --json")["settings"]["main_branch"], "main");
    assert_eq!(home.json("apps destroy shop --force --json")["name"], "shop");
}

#[test]
fn settings_of_an_app() {
    let home = Home::new();
    home.run("apps create shop");
    insta::assert_snapshot!(
        home.run("apps set shop platforms=linux/amd64,linux/arm/v7 build-tags=true main-branch=trunk build-arg.V=1,2"),
        @r"
        app              shop
        image            127.0.0.1:5000/shop
        users            -
        main-branch      trunk
        branches         -
        build-tags       true
        platforms        linux/amd64,linux/arm/v7
        tags             -
        build-args       V=1,2
        labels           -
        compression      gzip
        dockerfile       -
        context          -
        target           -
        build-timeout    -
        silence-timeout  -
        cache            off
        attest           off
        "
    );
    insta::assert_snapshot!(home.run("apps set shop platforms= build-arg.V="), @r"
    app              shop
    image            127.0.0.1:5000/shop
    users            -
    main-branch      trunk
    branches         -
    build-tags       true
    platforms        -
    tags             -
    build-args       -
    labels           -
    compression      gzip
    dockerfile       -
    context          -
    target           -
    build-timeout    -
    silence-timeout  -
    cache            off
    attest           off
    ");
    insta::assert_snapshot!(home.run("apps set shop platfroms=linux/amd64"), @r"
    error: platfroms: unknown setting
    hint: did you mean platforms? known settings: main-branch, branches, build-tags, platforms, tags, build-args, build-arg.NAME, labels, label.NAME, image, compression, dockerfile, context, target, build-timeout, silence-timeout, cache, attest
    exit 2
    ");
    insta::assert_snapshot!(home.run("apps set shop platforms"), @r#"
    error: "platforms" is not KEY=VALUE
    hint: `lemnos apps set --help` lists the keys; KEY= resets one
    exit 2
    "#);
    insta::assert_snapshot!(home.run("apps set nil platforms="), @r"
    error: there is no app nil
    hint: `lemnos apps list` shows the apps; `lemnos apps create nil` makes it
    exit 3
    ");
    let app = home.json("apps set shop compression=zstd --json");
    assert_eq!(
        (&app["settings"]["compression"], &app["settings"]["main_branch"]),
        (&"zstd".into(), &"trunk".into())
    );
    let head = home.data().join(format!("repositories/{}.git/HEAD", app["id"].as_str().unwrap()));
    assert_eq!(std::fs::read_to_string(head).unwrap(), "ref: refs/heads/trunk\n");
    home.run("apps create blog");
    insta::assert_snapshot!(home.run("apps set blog image=localhost:5000/shop"), @r"
    error: image localhost:5000/shop belongs to app shop already
    hint: two apps never share an image name: set another one with `lemnos apps set APP image=HOST/PATH`
    exit 5
    ");
}

/// What the server's repositories do is proven with `receive`.
struct NoRepositories;

impl Repositories for NoRepositories {
    fn create(&self, _: &str) -> Result<(), Report> {
        Ok(())
    }
    fn remove(&self, _: &str) -> Result<(), Report> {
        Ok(())
    }
    fn set_head(&self, _: &str, _: &str) -> Result<(), Report> {
        Ok(())
    }
}

/// What the server's builds do is proven with `jobs`.
struct NoWork;

#[async_trait::async_trait]
impl Work for NoWork {
    async fn cancel(&self, build: &Build, _: &Actor) -> Result<Build, Report> {
        Ok(build.clone())
    }
    async fn retry(&self, build: &Build, _: &Actor) -> Result<Build, Report> {
        Ok(build.clone())
    }
    async fn plan(&self, _: &App, what: &str) -> Result<BuildPlan, Report> {
        Err(Report::user(format!("there is no {what}")))
    }
}

/// A server of the home's data directory, as far as administration goes.
struct Server {
    store: Store,
    lock: DataLock,
    _tasks: tokio::task::JoinSet<()>,
}

async fn server(home: &Home) -> Server {
    let lock = DataLock::for_server(&home.data()).await.unwrap();
    let store = home.store().await;
    let listener = Listener::bind(&home.data(), &lock).unwrap();
    let prefix = Some("registry.example.com/team".parse().unwrap());
    let trail = Trail::start(store.clone());
    let context = Context {
        prefix,
        repositories: Arc::new(NoRepositories),
        work: Some(Arc::new(NoWork)),
        builders: None,
        trail,
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve(listener, store.clone(), context));
    Server { store, lock, _tasks: tasks }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_a_running_server_and_a_key_works_at_once() {
    let home = Home::new();
    let server = server(&home).await;
    insta::assert_snapshot!(home.run("keys add ann ann.pub"), @r"Added SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg for ann (ann@host)");
    let found = server.store.find_key(&ANN_PRINT.parse().unwrap()).await.unwrap();
    assert_eq!(found.unwrap().user.as_str(), "ann");
    let ready = Ready {
        ssh: "0.0.0.0:40022".to_owned(),
        http: "127.0.0.1:8080".to_owned(),
        registry: "registry.example.com/team".to_owned(),
        builders: Vec::new(),
        pid: 1,
    };
    let _ready = ReadyFile::write(&home.data(), &ready, &server.lock).unwrap();
    insta::assert_snapshot!(home.run("apps create shop"), @r"
    Created app shop
      lemnos apps grant shop USER
      git remote add builder ssh://git@localhost:40022/shop.git
      git push builder main
    ");
    // the prefix is the server's, not the command's
    insta::assert_snapshot!(home.run("apps list"), @r"
    APP   IMAGE                           USERS
    shop  registry.example.com/team/shop  -
    ");
    insta::assert_snapshot!(home.run("apps set shop nope=1"), @r"
    error: nope: unknown setting
    hint: known settings: main-branch, branches, build-tags, platforms, tags, build-args, build-arg.NAME, labels, label.NAME, image, compression, dockerfile, context, target, build-timeout, silence-timeout, cache, attest
    exit 2
    ");
    server.store.create_build(&build(FAILED, 1_000)).await.unwrap();
    insta::assert_snapshot!(home.run("apps destroy shop --yes"), @r"
    error: build aaaa111111 of shop is running
    hint: wait until it has ended: `lemnos builds logs BUILD -f` follows it
    exit 5
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_the_directory_without_answering_is_said() {
    let home = Home::new();
    home.run("keys add ann ann.pub");
    let _lock = DataLock::for_server(&home.data()).await.unwrap();
    insta::assert_snapshot!(home.run("keys list"), @r"
    error: a server holds HOME/data but does not answer
    hint: it is starting or stopping: try again in a moment
    exit 6
    ");
}

#[test]
fn several_commands_at_once_on_a_fresh_directory() {
    let home = Home::new();
    let children: Vec<_> = ["ann.pub", "bob.pub", "ann.pub", "bob.pub"]
        .map(|file| {
            let user = file.trim_end_matches(".pub");
            let mut command = home.command(&format!("keys add {user} {file}"));
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .into_iter()
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(home.json("keys list --json").as_array().unwrap().len(), 2);
}

#[test]
fn the_flag_for_the_data_directory_goes_before_and_after() {
    let home = Home::new();
    for arguments in ["keys --data other add ann ann.pub", "keys add ann ann.pub --data other"] {
        assert!(home.output(arguments, "").status.success());
    }
    assert!(home.dir.path().join("other/lemnos.db").exists());
    assert!(!Path::new(&home.data()).exists());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = Home::new();
    let mut child = home.command("config").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
