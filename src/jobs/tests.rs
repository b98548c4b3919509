//! Builds from their row to their one end, with stages that do as they are told, and a real store, git and tag moves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::sync::{Notify, oneshot};

use super::*;
use crate::error::Kind;
use crate::event::BuildEvent;
use crate::model::{Actor, App, Build, BuildState, Publication, Push, PushOptions, RefUpdate, Sha, Visible};
use crate::receive::{PushHandler as _, PushOutput, RefAnswer};
use crate::store::BuildFilter;
use crate::tag::testing::{Repository, tagger};
use crate::tag::tests::FakeRegistry;

type Verdict = Result<(), Failure>;

/// Stages that wait for the test to say how each commit's build ends.
#[derive(Default)]
struct Told {
    host: String,
    under_way: Mutex<HashMap<Sha, oneshot::Sender<Verdict>>>,
    begun: Notify,
    /// Commits whose build was dropped before its end.
    dropped: Arc<Mutex<Vec<Sha>>>,
}

struct Dropped(Arc<Mutex<Vec<Sha>>>, Option<Sha>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.lock().unwrap().extend(self.1.take());
    }
}

#[async_trait]
impl Stages for Told {
    async fn build(&self, job: &RefBuild, events: &EventSink) -> Result<Built, Failure> {
        let commit = job.update.new.clone();
        let mut guard = Dropped(self.dropped.clone(), Some(commit.clone()));
        let (sender, verdict) = oneshot::channel();
        self.under_way.lock().unwrap().insert(commit.clone(), sender);
        self.begun.notify_waiters();
        events.emit(BuildEvent::StepStarted { step: 1, name: "RUN make".to_owned(), platform: None });
        let verdict = verdict.await.unwrap();
        guard.1 = None;
        verdict?;
        let bytes = format!("{{\"schemaVersion\":2,\"commit\":\"{commit}\"}}").into_bytes();
        let main = job.update.name.short() == "main";
        let mut tags = vec![format!("git-{}", commit.short(12)).parse().unwrap()];
        tags.push(job.update.name.short().parse().unwrap());
        tags.extend(main.then(|| "latest".parse().unwrap()));
        Ok(Built::Published(vec![Publication {
            build: job.build.clone(),
            image: format!("{}/shop", self.host).parse().unwrap(),
            digest: crate::model::Digest::of(&bytes),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            form: crate::model::Form::Index,
            platforms: Vec::new(),
            bytes,
            tags,
            unshared: 1,
        }]))
    }

    async fn plan(&self, _: &RefBuild, _: &EventSink) -> Result<BuildPlan, Failure> {
        Err(Failure::new("no plan", "no plan"))
    }
}

impl Told {
    async fn begins(&self, commit: &Sha) {
        loop {
            let begun = self.begun.notified();
            if self.under_way.lock().unwrap().contains_key(commit) {
                return;
            }
            begun.await;
        }
    }

    async fn end(&self, commit: &Sha, verdict: Verdict) {
        self.begins(commit).await;
        let sender = self.under_way.lock().unwrap().remove(commit).unwrap();
        sender.send(verdict).unwrap();
    }
}

fn no() -> Verdict {
    Err(Failure::new("build failed: no", "no"))
}

/// A server's builds on one repository with commits a, and b and c on top of it, c apart from b.
struct World {
    fake: FakeRegistry,
    repository: Repository,
    data: tempfile::TempDir,
    store: Store,
    app: App,
    stages: Arc<Told>,
    pushes: Pushes,
    a: Sha,
    b: Sha,
    b2: Sha,
    c: Sha,
}

const CAPACITY: Capacity = Capacity {
    queue: Limits { running: 2, waiting: 10, waiting_per_app: 10 },
    keep_builds_per_app: 100,
    build: Duration::from_secs(600),
    silence: Duration::from_secs(600),
    heartbeat: Duration::from_secs(600),
};

async fn server(
    store: &Store,
    fake: &FakeRegistry,
    repository: &Repository,
    capacity: Capacity,
) -> (Arc<Told>, Pushes) {
    let tagger = tagger(store, &repository.git);
    let stages = Arc::new(Told { host: fake.host.clone(), ..Told::default() });
    let path: PathBuf = repository.path.clone();
    tagger.recover(|_| path.clone()).await.unwrap();
    let pushes = Pushes::new(
        store.clone(),
        stages.clone(),
        tagger,
        capacity,
        move |_| path.clone(),
        Failpoints::default(),
    );
    pushes.recover().await.unwrap();
    (stages, pushes)
}

impl World {
    async fn new() -> Self {
        Self::with(CAPACITY).await
    }

    async fn with(capacity: Capacity) -> Self {
        let fake = FakeRegistry::start().await;
        let repository = Repository::new();
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).await.unwrap();
        let app = store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        let tree = repository.run(&["hash-object", "-w", "-t", "tree", "/dev/null"]);
        let on = |parent: &Sha, message: &str| -> Sha {
            repository.run(&["commit-tree", "-p", parent.as_str(), "-m", message, &tree]).parse().unwrap()
        };
        let a = repository.commit("a");
        let (b, c) = (on(&a, "b"), on(&a, "c"));
        let b2 = on(&b, "b2");
        let (stages, pushes) = server(&store, &fake, &repository, capacity).await;
        Self { fake, repository, data, store, app, stages, pushes, a, b, b2, c }
    }

    /// The server is gone without a word; another one comes up on what it left.
    async fn restart(&mut self) {
        let store = Store::open(self.data.path()).await.unwrap();
        let (stages, pushes) = server(&store, &self.fake, &self.repository, CAPACITY).await;
        (self.store, self.stages, self.pushes) = (store, stages, pushes);
    }

    fn push(
        &self,
        user: &str,
        old: &Sha,
        new: &Sha,
        options: PushOptions,
    ) -> tokio::task::JoinHandle<Vec<RefAnswer>> {
        let update =
            RefUpdate { name: "refs/heads/main".parse().unwrap(), old: old.clone(), new: new.clone() };
        let push = Push {
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            app: self.app.clone(),
            user: user.parse().unwrap(),
            key: format!("SHA256:{}", "a".repeat(43)).parse().unwrap(),
            updates: vec![update],
            atomic: false,
            options,
        };
        let (pushes, path) = (self.pushes.clone(), self.repository.path.clone());
        tokio::spawn(async move { pushes.push(push, path, PushOutput::discard()).await })
    }

    fn plain(&self, user: &str, old: &Sha, new: &Sha) -> tokio::task::JoinHandle<Vec<RefAnswer>> {
        self.push(user, old, new, PushOptions::default())
    }

    async fn detached(&self, user: &str, old: &Sha, new: &Sha) -> Build {
        let options = PushOptions { detach: true, ..PushOptions::default() };
        let answers = self.push(user, old, new, options).await.unwrap();
        assert_eq!(answers[0].result, Ok(()));
        self.build_of(new).await
    }

    async fn build_of(&self, commit: &Sha) -> Build {
        let builds = self.store.builds(&BuildFilter::default(), &Visible::All).await.unwrap();
        builds.into_iter().find(|build| build.commit == *commit).unwrap()
    }

    /// Waits until the newest build of `commit` is in `state`.
    async fn until(&self, commit: &Sha, state: BuildState) -> Build {
        let mut changes = self.store.build_changes();
        loop {
            changes.borrow_and_update();
            let builds = self.store.builds(&BuildFilter::default(), &Visible::All).await.unwrap();
            if let Some(build) = builds.into_iter().find(|b| b.commit == *commit && b.state == state) {
                return build;
            }
            tokio::time::timeout(Duration::from_secs(60), changes.changed())
                .await
                .unwrap_or_else(|_| panic!("no build of {commit} is ever {state:?}"))
                .unwrap();
        }
    }

    /// First push: main and its tags at a.
    async fn first(&self) {
        let pushed = self.plain("ada", &Sha::zero(), &self.a);
        self.stages.end(&self.a, Ok(())).await;
        assert_eq!(pushed.await.unwrap()[0].result, Ok(()));
        assert_eq!(self.tags(), Some(self.index_of(&self.a)));
    }

    fn index_of(&self, commit: &Sha) -> String {
        let bytes = format!("{{\"schemaVersion\":2,\"commit\":\"{commit}\"}}").into_bytes();
        crate::model::Digest::of(&bytes).to_string()
    }

    /// Where main and latest stand, which is one place.
    fn tags(&self) -> Option<String> {
        let (main, latest) = (self.fake.at("shop", "main"), self.fake.at("shop", "latest"));
        assert_eq!(main, latest);
        main
    }

    fn main(&self) -> Sha {
        self.repository.at("refs/heads/main")
    }
}

fn refused(answers: &[RefAnswer]) -> &str {
    answers[0].result.as_ref().unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_push_moves_the_ref_at_once_and_the_tags_follow() {
    let world = World::new().await;
    world.first().await;
    let build = world.detached("ada", &world.a, &world.b).await;
    assert!(build.detached && build.state.is_live() && build.generation == Some(2), "{build:?}");
    assert_eq!((world.main(), world.tags()), (world.b.clone(), Some(world.index_of(&world.a))));
    let behind = world.store.behind(&world.app.name).await.unwrap();
    assert_eq!(behind[0].tags_at, Some(world.a.clone()));
    world.stages.end(&world.b, Ok(())).await;
    let build = world.until(&world.b, BuildState::Succeeded).await;
    assert_eq!(world.tags(), Some(world.index_of(&world.b)));
    assert_eq!(build.digest.unwrap().as_str(), world.index_of(&world.b));
    assert_eq!(world.store.behind(&world.app.name).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_build_that_fails_is_said_of_its_ref_and_can_be_retried() {
    let world = World::new().await;
    world.first().await;
    world.detached("ada", &world.a, &world.b).await;
    world.stages.end(&world.b, no()).await;
    let failed = world.until(&world.b, BuildState::Failed).await;
    let behind = world.store.behind(&world.app.name).await.unwrap();
    let said = format!(
        "main at {}: build {} failed, tags still at {}",
        world.b.short(12),
        failed.id.short(),
        world.a.short(12)
    );
    assert_eq!(behind.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);

    let bob = Actor { name: "bob".to_owned(), user: Some("bob".parse().unwrap()), key: None };
    let again = world.pushes.retry(&failed, &bob).await.unwrap();
    assert_eq!((again.retry_of.as_ref(), again.user.as_str()), (Some(&failed.id), "bob"));
    let twice = world.pushes.retry(&again, &bob).await.unwrap_err();
    assert_eq!(twice.kind, Kind::Conflict, "{twice:?}");
    world.stages.end(&world.b, Ok(())).await;
    world.until(&world.b, BuildState::Succeeded).await;
    assert_eq!(world.tags(), Some(world.index_of(&world.b)));
    assert_eq!(world.store.behind(&world.app.name).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_push_is_retried_into_its_ref_unless_that_has_moved() {
    let world = World::new().await;
    world.first().await;
    let pushed = world.plain("ada", &world.a, &world.b);
    world.stages.end(&world.b, no()).await;
    assert_eq!(refused(&pushed.await.unwrap()), "build failed: no");
    let failed = world.until(&world.b, BuildState::Failed).await;
    let again = world.pushes.retry(&failed, &Actor::operator()).await.unwrap();
    assert_eq!(again.user.as_str(), "ada");
    assert_eq!(world.main(), world.a, "not before it is built");
    world.stages.end(&world.b, Ok(())).await;
    world.until(&world.b, BuildState::Succeeded).await;
    assert_eq!((world.main(), world.tags()), (world.b.clone(), Some(world.index_of(&world.b))));

    let pushed = world.plain("ada", &world.b, &world.b2);
    world.stages.end(&world.b2, Ok(())).await;
    pushed.await.unwrap();
    let late = world.pushes.retry(&failed, &Actor::operator()).await.unwrap_err();
    assert!(late.kind == Kind::Conflict && late.message.contains("by now"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_cancelled_once_queued_or_running() {
    let capacity = Capacity { queue: Limits { running: 1, ..CAPACITY.queue }, ..CAPACITY };
    let world = World::with(capacity).await;
    let running = world.plain("ada", &Sha::zero(), &world.a);
    world.stages.begins(&world.a).await;
    let options = PushOptions { dry_try: true, ..PushOptions::default() };
    let queued = world.push("ada", &Sha::zero(), &world.b, options);
    let waits = world.until(&world.b, BuildState::Queued).await;
    let bob = Actor { name: "bob".to_owned(), user: None, key: None };
    let ended = world.pushes.cancel(&waits, &bob).await.unwrap();
    assert_eq!((ended.state, ended.cancelled_by.as_deref()), (BuildState::Cancelled, Some("bob")));
    assert_eq!(refused(&queued.await.unwrap()), "cancelled by bob");

    let runs = world.until(&world.a, BuildState::Running).await;
    let ended = world.pushes.cancel(&runs, &bob).await.unwrap();
    assert_eq!(ended.state, BuildState::Cancelled);
    assert_eq!(refused(&running.await.unwrap()), "cancelled by bob");
    assert_eq!(
        world.stages.dropped.lock().unwrap().as_slice(),
        std::slice::from_ref(&world.a),
        "the solve is dropped"
    );
    assert_eq!(world.pushes.queue().snapshot().running, []);
    let again = world.pushes.cancel(&runs, &bob).await.unwrap_err();
    assert_eq!(again.message, format!("build {} has ended already: cancelled", runs.id.short()));
    assert_eq!(world.main(), Sha::zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_push_on_top_or_of_the_same_user_supersedes() {
    for (user, newer) in [("bob", "descends"), ("ada", "same user")] {
        let world = World::new().await;
        world.first().await;
        let older = world.plain("ada", &world.a, &world.b);
        world.stages.begins(&world.b).await;
        let new = if user == "bob" { &world.b2 } else { &world.c };
        let pushed = world.plain(user, &world.a, new);
        let said = older.await.unwrap();
        let by = world.build_of(new).await;
        let expected = format!("superseded by {} ({} by {user})", by.id.short(), new.short(12));
        assert_eq!(refused(&said), expected, "{newer}");
        let ended = world.until(&world.b, BuildState::Superseded).await;
        assert_eq!(ended.superseded_by, Some(by.id));
        world.stages.end(new, Ok(())).await;
        assert_eq!(pushed.await.unwrap()[0].result, Ok(()));
        assert_eq!(world.main(), *new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_waits_and_is_refused_without_building_when_it_cannot_win() {
    let world = World::new().await;
    world.first().await;
    let older = world.plain("ada", &world.a, &world.b);
    world.stages.begins(&world.b).await;
    let waits = world.plain("bob", &world.a, &world.c);
    world.until(&world.c, BuildState::Queued).await;
    world.stages.end(&world.b, Ok(())).await;
    assert_eq!(older.await.unwrap()[0].result, Ok(()));
    let expected = format!("fetch first: main is at {} by now", world.b.short(12));
    assert_eq!(refused(&waits.await.unwrap()), expected);
    assert!(!world.stages.under_way.lock().unwrap().contains_key(&world.c), "it was not built");
    assert_eq!(world.build_of(&world.c).await.running_at_ms, None);

    // and wins when the one before fails
    let older = world.plain("ada", &world.b, &world.b2);
    world.stages.begins(&world.b2).await;
    let waits = world.plain("bob", &world.b, &world.c);
    world.stages.end(&world.b2, no()).await;
    older.await.unwrap();
    world.stages.end(&world.c, Ok(())).await;
    assert_eq!(waits.await.unwrap()[0].result, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_build_is_superseded_by_what_is_accepted_only() {
    let world = World::new().await;
    world.first().await;
    // one that fails takes nothing along
    world.detached("ada", &world.a, &world.b).await;
    world.stages.begins(&world.b).await;
    let newer = world.plain("ada", &world.b, &world.b2);
    world.stages.end(&world.b2, no()).await;
    newer.await.unwrap();
    assert_eq!(world.build_of(&world.b).await.state, BuildState::Running);
    // one that is accepted does
    let newer = world.plain("ada", &world.b, &world.b2);
    world.stages.end(&world.b2, Ok(())).await;
    assert_eq!(newer.await.unwrap()[0].result, Ok(()));
    world.until(&world.b, BuildState::Superseded).await;
    assert_eq!(world.tags(), Some(world.index_of(&world.b2)));
    // a detached one at once
    world.detached("ada", &world.b2, &world.c).await;
    world.stages.begins(&world.c).await;
    world.detached("ada", &world.c, &world.a).await;
    world.until(&world.c, BuildState::Superseded).await;
    // a deleted ref needs none
    let gone = world.plain("ada", &world.a, &Sha::zero());
    assert_eq!(gone.await.unwrap()[0].result, Ok(()));
    let ended = world.until(&world.a, BuildState::Superseded).await;
    assert_eq!(ended.reason.as_deref(), Some("main was deleted meanwhile"));
    assert_eq!(world.tags(), Some(world.index_of(&world.b2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_limits_are_the_app_s_own_and_said_apart() {
    for (key, expected) in [
        ("build-timeout", "build timeout: it took longer than 1 s"),
        ("silence-timeout", "silence timeout: nothing came of the build for 1 s"),
    ] {
        let mut world = World::new().await;
        if key == "build-timeout" {
            world.app.settings.build_timeout_s = Some(1);
        } else {
            world.app.settings.silence_timeout_s = Some(1);
        }
        let pushed = world.plain("ada", &Sha::zero(), &world.a);
        assert_eq!(refused(&pushed.await.unwrap()), expected);
        let build = world.until(&world.a, BuildState::Failed).await;
        let events = world.store.events(&build.id, 0, 100).await.unwrap();
        let BuildEvent::Failed { failure, .. } = &events.last().unwrap().event else { panic!() };
        assert!(failure.remedy.as_ref().unwrap().contains(key), "{failure:?}");
        assert_eq!(world.stages.dropped.lock().unwrap().as_slice(), std::slice::from_ref(&world.a));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_what_was_accepted_goes_on_and_the_rest_is_interrupted() {
    let mut world = World::new().await;
    world.first().await;
    let accepted = world.detached("ada", &world.a, &world.b).await;
    world.stages.begins(&world.b).await;
    let options = PushOptions { dry_try: true, ..PushOptions::default() };
    drop(world.push("bob", &world.a, &world.c, options));
    world.until(&world.c, BuildState::Running).await;
    world.restart().await;
    let interrupted = world.until(&world.c, BuildState::Interrupted).await;
    assert_eq!(interrupted.reason.as_deref(), Some("the server stopped while it ran"));
    world.stages.end(&world.b, Ok(())).await;
    let ended = world.until(&world.b, BuildState::Succeeded).await;
    assert_eq!(ended.id, accepted.id, "under its own record");
    assert_eq!(world.tags(), Some(world.index_of(&world.b)));
    let events = world.store.events(&ended.id, 0, 100).await.unwrap();
    assert!(events.iter().enumerate().all(|(n, event)| event.seq == n as u64), "{events:?}");
    let said = |text: &str| {
        events.iter().any(|e| matches!(&e.event, BuildEvent::Note { text: note } if note.contains(text)))
    };
    assert!(said("the server was restarted: building again"), "{events:?}");
    assert_eq!(world.store.live_builds(None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_leaves_detached_builds_for_the_next_and_interrupts_others() {
    let mut world = World::new().await;
    world.first().await;
    world.detached("ada", &world.a, &world.b).await;
    world.stages.begins(&world.b).await;
    let waits = world.plain("bob", &world.a, &world.c);
    assert!(refused(&waits.await.unwrap()).starts_with("fetch first"));
    let waits = world.plain("bob", &world.b, &world.c);
    world.until(&world.c, BuildState::Queued).await;
    world.pushes.shutdown(Duration::ZERO).await;
    assert_eq!(refused(&waits.await.unwrap()), "the server is stopping");
    let ended = world.store.builds(&BuildFilter::default(), &Visible::All).await.unwrap();
    assert_eq!(ended[0].state, BuildState::Interrupted);
    assert_eq!(world.build_of(&world.b).await.state, BuildState::Queued, "left for the next start");
    let late = world.plain("ada", &world.b, &world.b2);
    assert!(refused(&late.await.unwrap()).contains("the server is stopping"));
    world.restart().await;
    world.stages.end(&world.b, Ok(())).await;
    world.until(&world.b, BuildState::Succeeded).await;
    assert_eq!(world.tags(), Some(world.index_of(&world.b)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_refuses_before_anything_happens() {
    let world = World::new().await;
    world.store.close().await;
    for detach in [false, true] {
        let options = PushOptions { detach, ..PushOptions::default() };
        let answers = world.push("ada", &Sha::zero(), &world.a, options).await.unwrap();
        assert!(refused(&answers).starts_with("server error"), "{answers:?}");
    }
    assert_eq!(world.main(), Sha::zero());
    assert!(!world.stages.under_way.lock().unwrap().contains_key(&world.a), "nothing was built");
}
