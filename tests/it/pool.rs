//! Several builders: which one gets a solve, what a drain and a dead one do to the rest, and a lost one's builds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lemnos::buildkit::Endpoint;
use lemnos::buildkit::session::filesync::LocalDir;
use lemnos::event::{BuildEvent, EventSink, Failure};
use lemnos::model::{BuilderState, BuilderStatus, Compression, Platform, SolveSpec, SourceRules};
use lemnos::solve::{BuilderConfig, ContextDirs, DirSource, ImageSolve, Part, Pool};

use crate::fake::builder::FakeBuilder;
use crate::fake::registry::FakeRegistry;

/// The longest any of these tests may wait for what should happen soon.
const SOON: Duration = Duration::from_secs(60);

/// Fakes, a pool over them, and a tree whose Dockerfile says what they do.
struct Yard {
    dir: tempfile::TempDir,
    registry: FakeRegistry,
    builders: Vec<FakeBuilder>,
    pool: Pool,
    events: Arc<Mutex<Vec<BuildEvent>>>,
}

type Platforms = Vec<(&'static str, &'static str)>;

fn both() -> Platforms {
    vec![("amd64", ""), ("arm64", "")]
}

impl Yard {
    /// Builders named a, b, c, …, all asked once.
    async fn of(builders: Vec<Platforms>, max: usize, dockerfile: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("Dockerfile"), dockerfile).unwrap();
        let start = |(name, platforms): (char, Platforms)| {
            FakeBuilder::start_for(&dir.path().join(format!("{name}.sock")), platforms)
        };
        let builders: Vec<FakeBuilder> = ('a'..).zip(builders).map(start).collect();
        let configs = ('a'..).zip(&builders).map(|(name, builder)| config(&name.to_string(), builder, max));
        let pool = Pool::new(configs.collect());
        assert!(pool.probe().await.iter().all(|(_, answer)| answer.is_ok()));
        Self { dir, registry: FakeRegistry::start().await, builders, pool, events: Arc::default() }
    }

    fn context(&self) -> ContextDirs {
        let open = || Arc::new(LocalDir::open(&self.dir.path().join("tree")).unwrap()) as Arc<dyn DirSource>;
        ContextDirs {
            shared_key: "shop:main".to_owned(),
            dirs: BTreeMap::from([("context".to_owned(), open()), ("dockerfile".to_owned(), open())]),
            auth: None,
            rules: Arc::new(SourceRules::open(format!("{}/shop", self.registry.host).parse().unwrap())),
            secrets: lemnos::solve::BuildSecrets::default(),
            log_tail_lines: 10,
        }
    }

    /// A solve of `app` on its own task.
    fn solve(&self, app: &str, platforms: &[&str]) -> tokio::task::JoinHandle<Result<Vec<Part>, Failure>> {
        let (pool, context, events) = (self.pool.clone(), self.context(), self.events.clone());
        let (app, spec) = (app.to_owned(), spec(platforms));
        let image = format!("{}/{app}", self.registry.host).parse().unwrap();
        let sink = EventSink::new(move |event| events.lock().unwrap().push(event));
        tokio::spawn(async move {
            let images = ImageSolve { spec: &spec, image: &image, insecure: true, dockerfile: None };
            pool.solve(&app, &images, &context, &sink).await
        })
    }

    fn status(&self, name: &str) -> BuilderStatus {
        self.pool.status(name).unwrap()
    }

    /// Waits until the pool says so of a builder.
    async fn until(&self, name: &str, done: impl Fn(&BuilderStatus) -> bool) -> BuilderStatus {
        let mut changes = self.pool.changes();
        let changed = async {
            loop {
                changes.borrow_and_update();
                let status = self.status(name);
                if done(&status) {
                    return status;
                }
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(SOON, changed).await;
        waited.unwrap_or_else(|_| panic!("waited in vain: {:?}", self.status(name)))
    }

    fn notes(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Note { text } => Some(text.clone()),
                _ => None,
            })
            .collect()
    }

    fn begun(&self) -> Vec<usize> {
        self.builders.iter().map(|builder| builder.seen().begun).collect()
    }

    /// The builder that has a solve at work, by its place, once there is one.
    async fn at_work(&self) -> usize {
        let waiting = self.builders.iter().map(|b| Box::pin(b.wait("it works", |seen| seen.running > 0)));
        futures::future::select_all(waiting).await.1
    }
}

fn config(name: &str, builder: &FakeBuilder, max: usize) -> BuilderConfig {
    let endpoint = Endpoint { address: builder.address().parse().unwrap(), tls: None };
    BuilderConfig { name: name.to_owned(), endpoint, bound: Vec::new(), max }
}

fn spec(platforms: &[&str]) -> SolveSpec {
    SolveSpec {
        frontend: "dockerfile.v0".to_owned(),
        frontend_image: None,
        platforms: platforms.iter().map(|name| name.parse().unwrap()).collect(),
        context_path: String::new(),
        context_tree: None,
        dockerfile_path: "Dockerfile".to_owned(),
        dockerfile_digest: None,
        ignore_digest: None,
        target: None,
        build_args: BTreeMap::new(),
        labels: BTreeMap::new(),
        compression: Compression::default(),
        no_cache: false,
        pull: false,
        attest: Default::default(),
        cache: Default::default(),
        cache_tags: Default::default(),
        cache_namespace: "shop".to_owned(),
        step_namespace: "shop".to_owned(),
        policy: Default::default(),
    }
}

async fn ended(solve: tokio::task::JoinHandle<Result<Vec<Part>, Failure>>) -> Result<Vec<Part>, Failure> {
    tokio::time::timeout(SOON, solve).await.expect("the solve does not end").unwrap()
}

fn names(parts: &[Part]) -> Vec<String> {
    parts.iter().flat_map(|part| &part.platforms).map(Platform::to_string).collect()
}

const AMD: &[&str] = &["linux/amd64"];
const BOTH: &[&str] = &["linux/amd64", "linux/arm64"];

#[tokio::test]
async fn solves_go_to_the_least_loaded_and_wait_when_all_are_full() {
    let yard = Yard::of(vec![both(), both()], 2, "# fake: await go\n").await;
    let mut solves: Vec<_> = (0..4).map(|n| yard.solve(&format!("app{n}"), AMD)).collect();
    for builder in &yard.builders {
        builder.wait("it has two", |seen| seen.running == 2).await;
    }
    solves.push(yard.solve("late", AMD));
    // told for whom it waits, since there is no room
    while yard.notes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(yard.notes(), ["waiting for builder a or b: 0 before"]);
    assert_eq!(yard.pool.list().iter().map(|b| (b.running, b.max)).collect::<Vec<_>>(), [(2, 2), (2, 2)]);
    yard.builders.iter().for_each(|builder| builder.open("go"));
    for solve in solves {
        ended(solve).await.unwrap();
    }
    assert_eq!(yard.builders.iter().map(|b| b.seen().peak).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(yard.begun().iter().sum::<usize>(), 5);
}

#[tokio::test]
async fn one_apps_many_solves_do_not_hold_up_anothers_one() {
    let yard = Yard::of(vec![both()], 1, "# fake: await go\n").await;
    let first = yard.solve("shop", AMD);
    yard.builders[0].wait("it works", |seen| seen.running == 1).await;
    let many: Vec<_> = (0..20).map(|_| yard.solve("shop", AMD)).collect();
    while yard.notes().len() < 20 {
        tokio::task::yield_now().await;
    }
    let one = yard.solve("blog", AMD);
    while yard.notes().len() < 21 {
        tokio::task::yield_now().await;
    }
    yard.builders[0].open("go");
    ended(first).await.unwrap();
    ended(one).await.unwrap();
    for solve in many {
        ended(solve).await.unwrap();
    }
    let images: Vec<String> = yard.builders[0].seen().solves.into_iter().map(|(image, _)| image).collect();
    let place = images.iter().position(|image| image.ends_with("/blog"));
    assert_eq!(place, Some(1), "{images:?}");
}

#[tokio::test]
async fn a_builder_that_dies_gets_nothing_until_it_is_back() {
    let yard = Yard::of(vec![both(), both()], 4, "").await;
    let pool = yard.pool.clone();
    let checking = tokio::spawn(async move { pool.keep_checking(Duration::from_millis(50)).await });
    assert_eq!(yard.until("a", |b| b.state == BuilderState::Up).await.version.as_deref(), Some("v9.9.9"));
    yard.builders[0].kill();
    let down = yard.until("a", |b| b.state == BuilderState::Down).await;
    assert!(down.cause.unwrap().contains("a.sock"));
    for n in 0..6 {
        ended(yard.solve(&format!("app{n}"), AMD)).await.unwrap();
    }
    assert_eq!(yard.begun(), [0, 6]);
    yard.builders[0].restart();
    let up = yard.until("a", |b| b.state == BuilderState::Up).await;
    assert_eq!(up.cause, None);
    checking.abort();
    let mut more = 0;
    while yard.begun()[0] == 0 {
        more += 1;
        assert!(more < 100, "it never gets anything again");
        ended(yard.solve(&format!("more{more}"), AMD)).await.unwrap();
    }
}

#[tokio::test]
async fn a_drained_builder_finishes_what_it_has_and_gets_nothing_new() {
    let yard = Yard::of(vec![both(), both()], 4, "# fake: await go\n").await;
    let solve = yard.solve("shop", AMD);
    let at = yard.at_work().await;
    let name = ["a", "b"][at];
    assert_eq!(yard.pool.set_drained(name, true).unwrap().state, BuilderState::Draining);
    yard.builders.iter().for_each(|builder| builder.open("go"));
    // the same app, whose home it is
    ended(yard.solve("shop", AMD)).await.unwrap();
    assert_eq!(yard.begun(), [1, 1]);
    ended(solve).await.unwrap();
    yard.until(name, |b| b.state == BuilderState::Drained).await;
    assert_eq!(yard.pool.set_drained(name, false).unwrap().state, BuilderState::Up);
    ended(yard.solve("shop", AMD)).await.unwrap();
    assert_eq!(yard.builders[at].seen().begun, 2);
    yard.pool.set_drained("a", true);
    yard.pool.set_drained("b", true);
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert_eq!(failure.reason, "no builder for linux/amd64: a builder is drained");
}

#[tokio::test]
async fn a_lost_builders_solve_goes_to_another_and_its_steps_are_ended() {
    let yard = Yard::of(vec![both(), both()], 4, "# fake: say hello\n# fake: await go\n").await;
    let solve = yard.solve("shop", BOTH);
    let at = yard.at_work().await;
    let (lost, other) = (["a", "b"][at], ["b", "a"][at]);
    let started = |event: &BuildEvent| matches!(event, BuildEvent::StepStarted { .. });
    while !yard.events.lock().unwrap().iter().any(started) {
        tokio::task::yield_now().await;
    }
    yard.builders[1 - at].open("go");
    yard.builders[at].kill();
    assert_eq!(names(&ended(solve).await.unwrap()), BOTH);
    assert_eq!(yard.begun(), [1, 1]);
    assert_eq!(yard.notes(), [format!("builder {lost} lost: another builder takes over")]);
    let down = yard.status(lost);
    assert_eq!((down.state, down.running), (BuilderState::Down, 0));
    assert_eq!(yard.status(other).running, 0);
    let events = yard.events.lock().unwrap();
    let abandoned: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            BuildEvent::StepFailed { step, error, .. } => Some((*step, error.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(abandoned, [(1, format!("abandoned: builder {lost} lost"))]);
    assert!(events.iter().any(|event| matches!(event, BuildEvent::StepDone { step: 2, .. })), "{events:?}");
}

#[tokio::test]
async fn a_solve_that_loses_two_builders_fails_and_a_third_is_left_alone() {
    let yard = Yard::of(vec![both(), both(), both()], 4, "# fake: die\n").await;
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    let dead: Vec<usize> = (0..3).filter(|at| !yard.builders[*at].is_alive()).collect();
    assert_eq!(dead.len(), 2, "{:?}", yard.begun());
    assert!(
        dead.iter().any(|at| failure.reason == format!("builder {} lost", ["a", "b", "c"][*at])),
        "{failure:?}"
    );
    assert!(failure.cause.contains("was lost while it built linux/amd64: "), "{failure:?}");
    assert!(failure.remedy.unwrap().contains("not your commit's fault"));
    assert_eq!(yard.begun().iter().sum::<usize>(), 2);
}

#[tokio::test]
async fn the_only_builder_lost_is_named() {
    let yard = Yard::of(vec![both()], 4, "# fake: die\n").await;
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert_eq!(failure.reason, "builder a lost");
    assert_eq!(yard.notes(), Vec::<String>::new());
    // and it is asked again at once by the next one
    yard.builders[0].restart();
    std::fs::write(yard.dir.path().join("tree/Dockerfile"), "").unwrap();
    ended(yard.solve("shop", AMD)).await.unwrap();
}

#[tokio::test]
async fn builders_that_cannot_be_reached_do_not_count_as_lost() {
    let yard = Yard::of(vec![both(), both(), both()], 4, "").await;
    // nobody has noticed yet
    yard.builders[0].kill();
    yard.builders[1].kill();
    for n in 0..6 {
        ended(yard.solve(&format!("app{n}"), AMD)).await.unwrap();
    }
    assert_eq!(yard.begun(), [0, 0, 6]);
}

const NEEDS: &str = "# fake: need 60000000\n";
const ASKED: &str = "builder a: no space left on device; it is asked to drop cache that nothing uses";

#[tokio::test]
async fn a_full_builder_drops_its_cache_and_the_solve_is_tried_again_on_it() {
    let yard = Yard::of(vec![both()], 4, NEEDS).await;
    yard.builders[0].fill(50_000_000);
    assert_eq!(names(&ended(yard.solve("shop", AMD)).await.unwrap()), AMD);
    assert_eq!(yard.notes(), [ASKED, "builder a dropped 50 MB of cache: the build is tried again"]);
    let seen = yard.builders[0].seen();
    assert_eq!((seen.begun, seen.prunes, seen.cache, seen.running), (2, 1, 0, 0));
    assert_eq!(yard.status("a").running, 0);
}

#[tokio::test]
async fn what_a_builders_own_collection_leaves_is_left() {
    let yard = Yard::of(vec![both()], 4, NEEDS).await;
    yard.builders[0].kill();
    yard.builders[0].fill(90_000_000);
    yard.builders[0].reserve(30_000_000);
    yard.builders[0].restart();
    ended(yard.solve("shop", AMD)).await.unwrap();
    assert_eq!(yard.builders[0].seen().cache, 30_000_000);
}

#[tokio::test]
async fn a_builder_that_stays_full_is_named_and_the_commit_is_not_blamed() {
    let yard = Yard::of(vec![both()], 4, "# fake: need 200000000\n").await;
    yard.builders[0].fill(50_000_000);
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert_eq!(failure.reason, "builder a: its disk is full");
    assert!(
        failure.cause.starts_with("no space was left on builder a for linux/amd64: write /b/"),
        "{failure:?}"
    );
    assert!(
        failure.cause.ends_with("the builder dropped 50 MB of cache before, and that was too little"),
        "{failure:?}"
    );
    assert!(
        failure.remedy.unwrap().contains("not your commit's fault: the operator makes room on builder a")
    );
    // and the next one finds nothing to drop
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert!(failure.cause.ends_with("; the builder has no cache to drop"), "{failure:?}");
    let seen = yard.builders[0].seen();
    assert_eq!((seen.begun, seen.prunes), (3, 2));
}

#[tokio::test]
async fn a_full_builder_without_cache_gives_the_solve_to_another() {
    let yard = Yard::of(vec![both(), both()], 4, "").await;
    for builder in &yard.builders {
        builder.order("need 200000000");
    }
    // whichever comes first is full, and so is the other
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    let taken = |note: &String| note.ends_with(": its disk is full: another builder takes over");
    assert_eq!(yard.notes().iter().filter(|note| taken(note)).count(), 1, "{:?}", yard.notes());
    assert!(failure.cause.ends_with("; another builder's was full before"), "{failure:?}");
    assert_eq!(yard.begun(), [1, 1]);
    // one of them has room
    let home = usize::from(yard.builders[0].seen().prunes == 0);
    yard.builders[home].order("need 200000000");
    ended(yard.solve("shop", AMD)).await.unwrap();
    assert_eq!(yard.begun().iter().sum::<usize>(), 4);
}

#[tokio::test]
async fn a_step_that_says_so_is_believed_once_in_a_while() {
    let yard = Yard::of(vec![both()], 4, "# fake: write 60000000\n").await;
    yard.builders[0].fill(50_000_000);
    ended(yard.solve("shop", AMD)).await.unwrap();
    assert_eq!(yard.builders[0].seen().prunes, 1);
    yard.builders[0].fill(50_000_000);
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert!(failure.reason.starts_with("build failed: RUN make, exit 1"), "{failure:?}");
    assert!(
        failure
            .remedy
            .unwrap()
            .starts_with("the builder's disk is full, or a file system that the step mounts")
    );
    let seen = yard.builders[0].seen();
    assert_eq!((seen.begun, seen.prunes, seen.cache), (3, 1, 50_000_000));
}

#[tokio::test]
async fn what_the_registry_lost_sight_of_is_pushed_once_more() {
    let yard = Yard::of(vec![both()], 4, "").await;
    let unknown = format!("refused failed to do: blob unknown to registry - sha256:{}", "1".repeat(64));
    yard.builders[0].order(&unknown);
    assert_eq!(names(&ended(yard.solve("shop", AMD)).await.unwrap()), AMD);
    assert_eq!(
        yard.notes(),
        ["the registry did not find a layer that it has: the image is pushed once more"]
    );
    assert_eq!(yard.begun(), [2]);
    // and no more than once, nor for anything else
    yard.builders[0].order(&unknown);
    yard.builders[0].order(&unknown);
    let failure = ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert!(failure.reason.starts_with("registry 127.0.0.1:5000: blob unknown"), "{failure:?}");
    assert_eq!(yard.begun(), [4]);
    yard.builders[0].order("refused connect: connection refused");
    ended(yard.solve("shop", AMD)).await.unwrap_err();
    assert_eq!(yard.begun(), [5]);
}

#[tokio::test]
async fn machinery_that_fails_for_one_platform_lets_the_other_finish() {
    let yard = Yard::of(vec![vec![("amd64", "")], vec![("arm64", "")]], 4, "# fake: await go\n").await;
    let solve = yard.solve("shop", BOTH);
    yard.builders[0].wait("it works", |seen| seen.running == 1).await;
    yard.builders[1].wait("it works", |seen| seen.running == 1).await;
    yard.builders[1].kill();
    while yard.notes().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(yard.notes(), ["builder b lost; the rest is finished, for the next push"]);
    yard.builders[0].open("go");
    let failure = ended(solve).await.unwrap_err();
    assert_eq!(failure.reason, "builder b lost");
    assert_eq!(yard.builders[0].seen().succeeded, 1);
}

#[tokio::test]
async fn a_build_that_fails_for_one_platform_ends_the_other() {
    let yard = Yard::of(vec![vec![("amd64", "")], vec![("arm64", "")]], 4, "# fake: await go\n").await;
    yard.builders[1].order("fail");
    let failure = ended(yard.solve("shop", BOTH)).await.unwrap_err();
    assert!(failure.reason.starts_with("build failed: "), "{failure:?}");
    yard.builders[0].wait("it is stopped", |seen| seen.running == 0).await;
    assert_eq!(yard.builders[0].seen().succeeded, 0);
}

#[tokio::test]
async fn a_builder_is_taken_in_and_let_go_while_others_work() {
    let yard = Yard::of(vec![both()], 1, "# fake: await go\n").await;
    let first = yard.solve("shop", AMD);
    yard.builders[0].wait("it works", |seen| seen.running == 1).await;
    let second = yard.solve("shop", AMD);
    let late = FakeBuilder::start_for(&yard.dir.path().join("late.sock"), both());
    let added = yard.pool.add(config("late", &late, 1)).await.unwrap();
    assert_eq!(added.state, BuilderState::Up);
    assert_eq!(yard.pool.add(config("late", &late, 1)).await, None);
    late.wait("it has what waited", |seen| seen.running == 1).await;
    assert_eq!(yard.pool.remove("late").unwrap().running, 1);
    assert_eq!(yard.pool.list().len(), 1);
    late.open("go");
    ended(second).await.unwrap();
    yard.builders[0].open("go");
    ended(first).await.unwrap();
    assert!(Path::new(&late.socket).exists());
}

#[test]
fn a_far_builder_with_a_registry_of_our_own_is_refused_before_the_registry_starts() {
    let dir = tempfile::tempdir().unwrap();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_lemnos"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args([
            "serve",
            "--data",
            dir.path().to_str().unwrap(),
            "--registry-program",
            "/nonexistent/registry",
        ])
        .args(["--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"])
        .args(["--builder", "tcp://10.1.2.3:1234"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot push to"), "{stderr}");
}
