//! Tests of the operations, the lock, the ready file and the control socket, on real files.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::socket::{Connection, Listener};
use super::*;
use crate::event::BuildEvent;
use crate::model::{Actor, BuildState};
use crate::store::Finished;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDv/UWWtoNtMA6gn7s+MuknCLWZJyMlNpNtH3IP0q89X ann@host";

/// Repositories as a set of names, which may refuse.
#[derive(Default)]
struct Fake {
    made: Mutex<BTreeSet<String>>,
    heads: Mutex<Vec<String>>,
    refuse: bool,
}

impl Repositories for Fake {
    fn create(&self, app_id: &str) -> Result<(), Report> {
        if self.refuse {
            return Err(Report::internal("the disk is gone"));
        }
        self.made.lock().unwrap().insert(app_id.to_owned());
        Ok(())
    }
    fn remove(&self, app_id: &str) -> Result<(), Report> {
        if self.refuse {
            return Err(Report::internal("the disk is gone"));
        }
        self.made.lock().unwrap().remove(app_id);
        Ok(())
    }
    fn set_head(&self, _: &str, branch: &str) -> Result<(), Report> {
        self.heads.lock().unwrap().push(branch.to_owned());
        Ok(())
    }
}

/// Builds that do what they are told.
struct Works;

#[async_trait::async_trait]
impl Work for Works {
    async fn cancel(&self, build: &Build, by: &Actor) -> Result<Build, Report> {
        let cancelled_by = Some(by.name.clone());
        Ok(Build { state: BuildState::Cancelled, cancelled_by, ..build.clone() })
    }
    async fn retry(&self, build: &Build, _: &Actor) -> Result<Build, Report> {
        Ok(Build { id: BuildId::generate(), retry_of: Some(build.id.clone()), ..build.clone() })
    }
    async fn plan(&self, app: &App, what: &str) -> Result<BuildPlan, Report> {
        Err(Report::user(format!("{} has no {what}", app.name)))
    }
}

struct House {
    dir: tempfile::TempDir,
    store: Store,
    repositories: Arc<Fake>,
    context: Context,
}

async fn house(refuse: bool, serving: bool) -> House {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let repositories = Arc::new(Fake { refuse, ..Fake::default() });
    let prefix = Some("localhost:5000".parse().unwrap());
    let work = serving.then(|| Arc::new(Works) as Arc<dyn Work>);
    let trail = Trail::start(store.clone());
    let context = Context { prefix, repositories: repositories.clone(), work, builders: None, trail };
    House { dir, store, repositories, context }
}

impl House {
    async fn ask(&self, request: Request) -> Result<Response, Report> {
        execute(&self.store, &self.context, &Caller::Operator, request).await
    }

    async fn build(&self, app: &str) -> Build {
        let build = Build {
            state: BuildState::Running,
            started_at_ms: 0,
            ..Build::queued(
                BuildId::generate(),
                app.parse().unwrap(),
                "ann".parse().unwrap(),
                "refs/heads/main".parse().unwrap(),
                crate::model::Sha::zero(),
            )
        };
        self.store.create_build(&build).await.unwrap();
        build
    }

    async fn finish(&self, build: &Build) {
        let end = Finished::as_state(BuildState::Failed, 1, Some("no".to_owned()));
        self.store.finish_build(&build.id, &end).await.unwrap();
    }
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn note(seq: u64) -> Recorded {
    Recorded { seq, at_ms: seq, event: BuildEvent::Note { text: format!("{seq}") } }
}

#[tokio::test]
async fn an_app_comes_and_goes_with_its_repository() {
    let house = house(false, true).await;
    let Response::App(view) = house.ask(Request::CreateApp { app: app("shop") }).await.unwrap() else {
        panic!()
    };
    assert_eq!(view.image.as_ref().unwrap().as_str(), "localhost:5000/shop");
    assert_eq!(*house.repositories.made.lock().unwrap(), BTreeSet::from([view.id.clone()]));
    let set = |value: &str| Request::SetApp {
        app: app("shop"),
        changes: vec![("main-branch".to_owned(), value.to_owned())],
    };
    house.ask(set("trunk")).await.unwrap();
    house.ask(set("trunk")).await.unwrap();
    assert_eq!(*house.repositories.heads.lock().unwrap(), ["trunk"], "HEAD follows the main branch");

    let build = house.build("shop").await;
    let refused = house.ask(Request::DestroyApp { app: app("shop") }).await.unwrap_err();
    assert!(refused.kind == Kind::Conflict && refused.message.contains("is running"), "{refused}");
    house.finish(&build).await;
    house.ask(Request::DestroyApp { app: app("shop") }).await.unwrap();
    assert!(house.repositories.made.lock().unwrap().is_empty());
    let gone = house.ask(Request::ShowApp { app: app("shop") }).await.unwrap_err();
    assert_eq!(gone.kind, Kind::NotFound);
}

#[tokio::test]
async fn without_a_server_no_build_runs_whatever_the_record_says() {
    let house = house(false, false).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    house.build("shop").await;
    house.ask(Request::DestroyApp { app: app("shop") }).await.unwrap();
}

#[tokio::test]
async fn an_app_whose_repository_cannot_be_made_is_not_made() {
    let house = house(true, true).await;
    let report = house.ask(Request::CreateApp { app: app("shop") }).await.unwrap_err();
    assert_eq!(report.message, "the disk is gone");
    assert_eq!(house.ask(Request::ListApps).await.unwrap(), Response::Apps(Vec::new()));
}

#[tokio::test]
async fn keys_are_added_all_or_none() {
    let house = house(false, true).await;
    let add =
        |user: &str, text: &str| Request::AddKeys { user: user.parse().unwrap(), text: text.to_owned() };
    let other = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAAAABHNzaDo=";
    house.ask(add("ann", KEY)).await.unwrap();
    let taken = house.ask(add("bob", &format!("{other}\n{KEY}"))).await.unwrap_err();
    assert!(taken.kind == Kind::Conflict && taken.message.contains("belongs to user ann"), "{taken}");
    assert_eq!(
        house.ask(Request::ListKeys { user: Some("bob".parse().unwrap()) }).await.unwrap(),
        Response::Keys(Vec::new())
    );
    let Response::KeysAdded(keys) = house.ask(add("ann", &format!("{KEY}\n{other}"))).await.unwrap() else {
        panic!()
    };
    assert_eq!(keys.iter().map(|(_, new)| *new).collect::<Vec<_>>(), [false, true]);
    let removed = house.ask(Request::RemoveKey { fingerprint: keys[0].0.fingerprint.clone() }).await.unwrap();
    assert!(matches!(removed, Response::KeyRemoved { left: 1, .. }));
}

#[tokio::test]
async fn builds_are_paged_and_an_unknown_app_is_named() {
    let house = house(false, true).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    let (first, second) = (house.build("shop").await, house.build("shop").await);
    let list = |before: Option<String>| Request::ListBuilds { app: Some(app("shop")), limit: 1, before };
    assert_eq!(house.ask(list(None)).await.unwrap(), Response::Builds(vec![second.clone()]));
    let older = house.ask(list(Some(second.id.short().to_owned()))).await.unwrap();
    assert_eq!(older, Response::Builds(vec![first]));
    let unknown = Request::ListBuilds { app: Some(app("nil")), limit: 0, before: None };
    assert_eq!(house.ask(unknown).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn a_follower_sees_every_event_once_and_the_end() {
    let house = house(false, true).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    let build = house.build("shop").await;
    house.store.append_events(&build.id, &[note(0), note(1)]).await.unwrap();
    let mut follow = follow(&house.store, &Caller::Operator, build.id.short(), 0).await.unwrap();
    assert_eq!(follow.next().await.unwrap(), Step::Events(vec![note(0), note(1)]));
    let (next, ()) = tokio::join!(follow.next(), async {
        tokio::task::yield_now().await;
        house.store.append_events(&build.id, &[note(2)]).await.unwrap();
    });
    assert_eq!(next.unwrap(), Step::Events(vec![note(2)]));
    let (next, ()) = tokio::join!(follow.next(), async {
        tokio::task::yield_now().await;
        house.finish(&build).await;
    });
    let Step::Ended(end) = next.unwrap() else { panic!() };
    assert_eq!(end.state, BuildState::Failed);
}

/// A server of `house` and its end: dropping the guard stops it.
async fn serving(house: &House) -> (DataLock, tokio::task::JoinSet<()>) {
    let lock = DataLock::for_server(house.dir.path()).await.unwrap();
    let listener = Listener::bind(house.dir.path(), &lock).unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(socket::serve(listener, house.store.clone(), house.context.clone()));
    (lock, server)
}

async fn connect(dir: &Path) -> Connection {
    Connection::open(dir).await.unwrap().expect("a server listens")
}

#[tokio::test]
async fn the_socket_does_what_the_store_does() {
    let house = house(false, true).await;
    assert!(Connection::open(house.dir.path()).await.unwrap().is_none(), "nobody serves yet");
    let (lock, mut server) = serving(&house).await;
    let socket = house.dir.path().join(socket::FILE_NAME);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let created =
        connect(house.dir.path()).await.execute(Request::CreateApp { app: app("shop") }).await.unwrap();
    let shown = house.ask(Request::ShowApp { app: app("shop") }).await.unwrap();
    assert_eq!(created, shown);
    let refused = connect(house.dir.path()).await.execute(Request::CreateApp { app: app("shop") }).await;
    assert_eq!(
        refused,
        house.ask(Request::CreateApp { app: app("shop") }).await,
        "the same words on both ways"
    );
    server.shutdown().await;
    drop(lock);
    assert!(!socket.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn a_log_is_followed_over_the_socket_to_its_end() {
    let house = house(false, true).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    let build = house.build("shop").await;
    house.store.append_events(&build.id, &[note(0)]).await.unwrap();
    let (_lock, _server) = serving(&house).await;
    let mut following = connect(house.dir.path()).await.follow(build.id.as_str(), 0).await.unwrap();
    assert_eq!(following.next().await.unwrap(), Step::Events(vec![note(0)]));
    house.store.append_events(&build.id, &[note(1)]).await.unwrap();
    assert_eq!(following.next().await.unwrap(), Step::Events(vec![note(1)]));
    house.finish(&build).await;
    let Step::Ended(end) = following.next().await.unwrap() else { panic!() };
    assert_eq!(end.state, BuildState::Failed);
    let mut later = connect(house.dir.path()).await.follow(build.id.as_str(), 1).await.unwrap();
    assert_eq!(later.next().await.unwrap(), Step::Events(vec![note(1)]));
    let mut unknown = connect(house.dir.path()).await.follow("ffffffff", 0).await.unwrap();
    assert_eq!(unknown.next().await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_harms_nobody() {
    let house = house(false, true).await;
    let (_lock, _server) = serving(&house).await;
    let socket = house.dir.path().join(socket::FILE_NAME);
    let say = async |text: Vec<u8>| -> String {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // the server may answer and hang up before it has read all
        drop(stream.write_all(&text).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    };
    for text in [
        "{}\n",
        "nonsense\n",
        "{\"execute\":{\"do\":\"unheard_of\"}}\n",
        "{\"execute\":{\"do\":\"show_app\",\"app\":\"../x\"}}\n",
        "{\"half",
    ] {
        let answer = say(text.as_bytes().to_vec()).await;
        assert!(answer.starts_with("{\"failed\":{\"kind\":\"user\""), "{text}: {answer}");
    }
    assert_eq!(say(Vec::new()).await, "", "a look whether somebody is there");
    let endless = say(vec![b'x'; 2 << 20]).await;
    assert!(endless.is_empty() || endless.contains("more than 1048576 bytes"), "{endless}");
    connect(house.dir.path()).await.execute(Request::ListApps).await.unwrap();
}

#[tokio::test]
async fn a_dead_servers_socket_is_no_server_and_is_replaced() {
    let house = house(false, true).await;
    let socket = house.dir.path().join(socket::FILE_NAME);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a killed server leaves it");
    assert!(Connection::open(house.dir.path()).await.unwrap().is_none());
    let (_lock, _server) = serving(&house).await;
    connect(house.dir.path()).await.execute(Request::ListApps).await.unwrap();
}

#[tokio::test]
async fn a_data_directory_may_lie_deeper_than_a_socket_address_is_long() {
    let mut house = house(false, true).await;
    let deep = house.dir.path().join("d".repeat(100)).join("e".repeat(100));
    lock::prepare(&deep).unwrap();
    house.store = Store::open(&deep).await.unwrap();
    let lock = DataLock::for_server(&deep).await.unwrap();
    let listener = Listener::bind(&deep, &lock).unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(socket::serve(listener, house.store.clone(), house.context.clone()));
    connect(&deep).await.execute(Request::ListApps).await.unwrap();
    server.shutdown().await;
    assert!(!deep.join(socket::FILE_NAME).exists());
}

#[tokio::test]
async fn one_server_a_directory_and_commands_only_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/when/needed");
    let server = DataLock::for_server(&data).await.unwrap();
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(DataLock::for_command(&data).unwrap().is_none());
    drop(server);
    let (first, second) = (DataLock::for_command(&data).unwrap(), DataLock::for_command(&data).unwrap());
    assert!(first.is_some() && second.is_some(), "commands do not exclude each other");
    // a server waits for commands, which are short
    let (server, ()) = tokio::join!(DataLock::for_server(&data), async {
        tokio::task::yield_now().await;
        drop((first, second));
    });
    server.unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let _first = DataLock::for_server(dir.path()).await.unwrap();
    let report = DataLock::for_server_within(dir.path(), 0).await.unwrap_err();
    let expected = format!("is in use by a server, process {}", std::process::id());
    assert!(report.kind == Kind::Conflict && report.message.ends_with(&expected), "{report}");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let report = lock::prepare(dir.path()).unwrap_err();
    assert!(report.message.starts_with("others may write to the data directory"), "{report}");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    lock::prepare(dir.path()).unwrap();
}

#[tokio::test]
async fn the_ready_file_is_there_while_the_server_is() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DataLock::for_server(dir.path()).await.unwrap();
    let path = dir.path().join(ready::FILE_NAME);
    std::fs::write(&path, "left by a killed server").unwrap();
    assert_eq!(Ready::read(dir.path()), None);
    ReadyFile::clear(dir.path(), &lock).unwrap();
    ReadyFile::clear(dir.path(), &lock).unwrap();
    assert!(!path.exists());
    let ready = Ready {
        ssh: "127.0.0.1:40022".to_owned(),
        http: "127.0.0.1:8080".to_owned(),
        registry: "127.0.0.1:5000".to_owned(),
        builders: vec!["unix:///run/b.sock".to_owned()],
        pid: 7,
    };
    let file = ReadyFile::write(dir.path(), &ready, &lock).unwrap();
    let json = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        json,
        "{\"ssh\":\"127.0.0.1:40022\",\"http\":\"127.0.0.1:8080\",\"registry\":\"127.0.0.1:5000\",\"builders\":[\"unix:///run/b.sock\"],\"pid\":7}\n"
    );
    assert_eq!(Ready::read(dir.path()), Some(ready));
    drop(file);
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock is left");
}

#[tokio::test]
async fn builds_are_cancelled_and_retried_by_the_running_server_alone() {
    let house = house(false, true).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    let build = house.build("shop").await;
    let digits = build.id.short().to_owned();
    let cancel = Request::CancelBuild { build: digits.clone() };
    let Response::Build(ended) = house.ask(cancel.clone()).await.unwrap() else { panic!() };
    assert_eq!((ended.state, ended.cancelled_by.as_deref()), (BuildState::Cancelled, Some("the operator")));
    let retry = Request::RetryBuild { build: digits };
    let Response::Build(again) = house.ask(retry.clone()).await.unwrap() else { panic!() };
    assert_eq!(again.retry_of, Some(build.id));
    let plan = Request::PlanApp { app: app("shop"), what: "main".to_owned() };
    assert_eq!(house.ask(plan.clone()).await.unwrap_err().message, "shop has no main");
    assert!(cancel.writes() && retry.writes() && !plan.writes());
    let context = Context { work: None, ..house.context.clone() };
    for request in [cancel, retry, plan] {
        let report = execute(&house.store, &context, &Caller::Operator, request).await.unwrap_err();
        assert!(
            report.kind == Kind::Unavailable && report.message.starts_with("no server runs"),
            "{report:?}"
        );
    }
}

/// Builders that are there.
struct There(Vec<BuilderStatus>);

#[async_trait::async_trait]
impl Builders for There {
    async fn list(&self) -> Vec<BuilderStatus> {
        self.0.clone()
    }
    async fn add(&self, spec: &str) -> Result<BuilderStatus, Report> {
        Err(Report::user(format!("no room for {spec}")))
    }
    async fn set_drained(&self, name: &str, _: bool) -> Result<BuilderStatus, Report> {
        Err(Report::user(format!("{name} goes on")))
    }
    async fn remove(&self, name: &str) -> Result<BuilderStatus, Report> {
        Err(Report::user(format!("{name} stays")))
    }
}

#[tokio::test]
async fn a_platform_that_no_builder_takes_is_set_and_said() {
    let house = house(false, true).await;
    house.ask(Request::CreateApp { app: app("shop") }).await.unwrap();
    let builder = |name: &str, platforms: &[&str]| BuilderStatus {
        name: name.to_owned(),
        address: format!("unix:///{name}.sock"),
        configured: true,
        state: crate::model::BuilderState::Down,
        since_ms: None,
        cause: None,
        platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
        running: 0,
        max: 1,
        version: None,
    };
    let said = async |builders: Option<Vec<BuilderStatus>>, key: &str, value: &str| {
        let builders = builders.map(|there| Arc::new(There(there)) as Arc<dyn Builders>);
        let context = Context { builders, ..house.context.clone() };
        let changes = vec![(key.to_owned(), value.to_owned())];
        let request = Request::SetApp { app: app("shop"), changes };
        let done = execute(&house.store, &context, &Caller::Operator, request).await;
        let Ok(Response::App(view)) = done else { panic!("{done:?}") };
        (view.settings.platforms.len(), view.notes)
    };
    let two = || vec![builder("a", &["linux/amd64", "linux/arm64"]), builder("b", &["linux/amd64"])];
    assert_eq!(said(Some(two()), "platforms", "linux/amd64,linux/arm64").await, (2, vec![]));
    let note = "no builder takes linux/riscv64, linux/s390x: pushes are refused until one does; there are: \
                a (linux/amd64 linux/arm64), b (linux/amd64)";
    assert_eq!(
        said(Some(two()), "platforms", "linux/riscv64,linux/amd64,linux/s390x").await,
        (3, vec![note.to_owned()])
    );
    // only where it was asked about, and only where it is known
    assert_eq!(said(Some(two()), "target", "x").await, (3, vec![]));
    let unknown = [two(), vec![builder("new", &[])]].concat();
    assert_eq!(said(Some(unknown), "platforms", "linux/riscv64").await, (1, vec![]));
    assert_eq!(said(None, "platforms", "linux/riscv64").await, (1, vec![]));
    let (_, notes) = said(Some(Vec::new()), "platforms", "linux/amd64").await;
    assert!(notes[0].ends_with("there are: none"), "{notes:?}");
}
