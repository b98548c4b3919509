//! The commit point, with real repositories and a registry that fails on demand.

use std::sync::Mutex;

use super::testing::Repository;
use super::*;
use crate::event::BuildEvent;
use crate::failpoint::Point;
use crate::model::{BuildId, RefUpdate, Sha};
use crate::registry::{INDEX, RegistryConfig};

mod crash;
#[path = "../../tests/fake/registry.rs"]
mod fake_registry;
mod order;
#[path = "../../tests/fake/port.rs"]
mod port;
#[path = "../../tests/fake/process.rs"]
mod process;
mod race;

pub use fake_registry::FakeRegistry;
use fake_registry::Fault;

const MAIN: &str = "refs/heads/main";
const ALWAYS: usize = usize::MAX;

/// One app with its repository, at commit A with tags at index A, and commits B and C on top.
struct World {
    fake: FakeRegistry,
    repository: Repository,
    data: tempfile::TempDir,
    app: App,
    a: Sha,
    b: Sha,
    c: Sha,
    events: Arc<Mutex<Vec<BuildEvent>>>,
}

impl World {
    async fn new() -> Self {
        let fake = FakeRegistry::start().await;
        let repository = Repository::new();
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).await.unwrap();
        let app = store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        store.close().await;
        let [a, b, c] = ["a", "b", "c"].map(|message| repository.commit(message));
        let world = Self { fake, repository, data, app, a, b, c, events: Arc::default() };
        let tagger = world.tagger().await;
        let first = world.to(&Sha::zero(), &world.a);
        let done = world.commit(&tagger, vec![first]).await.unwrap();
        assert_eq!(done.pending, []);
        world.fake.take_log();
        world.take_events();
        world
    }

    async fn tagger(&self) -> Tagger {
        self.tagger_with(Failpoints::default()).await
    }

    /// A tagger as a server makes it at its start.
    async fn tagger_with(&self, failpoints: Failpoints) -> Tagger {
        tagger(self.data.path(), &self.repository.git, failpoints).await
    }

    async fn commit(&self, tagger: &Tagger, moves: Vec<Move>) -> Result<Committed, TagError> {
        tagger.commit(&self.app, &self.repository.path, moves, &self.sink()).await
    }

    fn sink(&self) -> EventSink {
        let events = self.events.clone();
        EventSink::new(move |event| events.lock().unwrap().push(event))
    }

    fn take_events(&self) -> Vec<BuildEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    async fn recover(&self, tagger: &Tagger) -> Vec<Outcome> {
        let settled = tagger.recover(|_| self.repository.path.clone()).await.unwrap();
        settled.into_iter().map(|one| one.outcome).collect()
    }

    /// What a push of main from `old` to `new` moves.
    fn to(&self, old: &Sha, new: &Sha) -> Move {
        self.with_tags(MAIN, old, new, &["main", "latest"])
    }

    fn with_tags(&self, name: &str, old: &Sha, new: &Sha, shared: &[&str]) -> Move {
        let git = format!("git-{}", new.short(12));
        let tags: Vec<&str> = std::iter::once(git.as_str()).chain(shared.iter().copied()).collect();
        Move::of_ref(update(name, old, new), Some(publication(&self.fake.host, new, &tags)))
    }

    /// The ref and the shared tags agree: all at this commit.
    fn assert_all_at(&self, commit: &Sha) {
        assert_eq!(self.repository.at(MAIN), *commit, "the ref");
        for tag in ["main", "latest"] {
            assert_eq!(self.fake.at("shop", tag), Some(index_of(commit).to_string()), "the tag {tag}");
        }
    }

    /// Nothing is left behind: no journal entry, no lock file.
    async fn assert_clean(&self, tagger: &Tagger) {
        assert_eq!(tagger.shared.store.journal().await.unwrap(), []);
        let locks = clear_stale_locks(&self.repository.path, Duration::from_secs(10)).await.unwrap();
        assert_eq!(locks, [] as [PathBuf; 0]);
    }
}

async fn tagger(data: &Path, git: &Git, failpoints: Failpoints) -> Tagger {
    let store = Store::open(data).await.unwrap();
    let registry = Registry::new(RegistryConfig {
        attempts: 2,
        retry_pause: Duration::from_millis(1),
        ..RegistryConfig::default()
    });
    let config = TaggerConfig {
        read_back_tries: 2,
        read_back_pause: Duration::from_millis(1),
        patience: Duration::from_secs(20),
        complete_pause: (Duration::from_millis(5), Duration::from_millis(20)),
        lock_grace: Duration::from_secs(10),
        failpoints,
        ..TaggerConfig::new(git.program.clone())
    };
    Tagger::new(store, registry.unwrap(), config)
}

fn update(name: &str, old: &Sha, new: &Sha) -> RefUpdate {
    RefUpdate { name: name.parse().unwrap(), old: old.clone(), new: new.clone() }
}

fn index_bytes(commit: &Sha) -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"revision":"{commit}"}}}}"#).into_bytes()
}

fn index_of(commit: &Sha) -> Digest {
    Digest::of(&index_bytes(commit))
}

/// An index of this commit under these tags, the first of them unshared.
fn publication(host: &str, commit: &Sha, tags: &[&str]) -> Publication {
    Publication {
        build: BuildId::generate(),
        image: format!("{host}/shop").parse().unwrap(),
        digest: index_of(commit),
        media_type: INDEX.to_owned(),
        form: crate::model::Form::Index,
        platforms: Vec::new(),
        bytes: index_bytes(commit),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        unshared: 1,
    }
}

#[tokio::test]
async fn a_push_moves_tags_then_the_ref_in_six_requests() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let done = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
    world.assert_all_at(&world.b);
    world.assert_clean(&tagger).await;
    let git = format!("git-{}", world.b.short(12));
    let tags: Vec<&str> = done.moved.iter().map(|(_, tag, _)| tag.as_str()).collect();
    assert_eq!(tags, [git.as_str(), "main", "latest"]);
    assert_eq!(done.notice(), None);
    let mut log = world.fake.take_log();
    // the last three go at once
    log[3..].sort();
    assert_eq!(
        log,
        [
            format!("PUT /v2/shop/manifests/{git} 201"),
            format!("HEAD /v2/shop/manifests/{git} 200"),
            "PUT /v2/shop/manifests/main 201".to_owned(),
            "HEAD /v2/shop/manifests/latest 200".to_owned(),
            "HEAD /v2/shop/manifests/main 200".to_owned(),
            "PUT /v2/shop/manifests/latest 201".to_owned(),
        ]
    );
    assert_eq!(world.take_events().len(), 3);
}

/// Before the first shared tag has moved, a failure changes nothing.
#[tokio::test]
async fn up_to_the_first_shared_tag_the_push_is_refused() {
    let failures = [
        ("PUT", "git-", Fault::Status(504, "", "")),
        ("PUT", "git-", Fault::Status(403, "", "")),
        ("PUT", "git-", Fault::Forget),
        ("HEAD", "git-", Fault::Status(500, "", "")),
        ("PUT", "main", Fault::Status(504, "", "")),
        ("PUT", "main", Fault::Status(403, "", "")),
        ("PUT", "main", Fault::Reset),
    ];
    for (method, target, fault) in failures {
        let world = World::new().await;
        let tagger = world.tagger().await;
        let target = if target == "git-" { format!("git-{}", world.b.short(12)) } else { target.to_owned() };
        world.fake.fail(method, &target, ALWAYS, fault.clone());
        let error = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap_err();
        assert!(matches!(error, TagError::Registry(_)), "{fault:?}: {error}");
        world.assert_all_at(&world.a);
        world.assert_clean(&tagger).await;
        // the same push again, with the registry well
        world.fake.heal();
        world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
        world.assert_all_at(&world.b);
    }
}

/// From the first shared tag on, the push is accepted and completed.
#[tokio::test]
async fn from_the_first_shared_tag_on_the_push_goes_forward() {
    let failures = [
        ("PUT", "latest", Fault::Status(504, "", "")),
        ("PUT", "latest", Fault::Status(403, "", "")),
        ("PUT", "latest", Fault::Forget),
        ("PUT", "latest", Fault::Reset),
        ("HEAD", "latest", Fault::Status(500, "", "")),
        ("HEAD", "main", Fault::Status(500, "", "")),
        ("PUT", "main", Fault::Forget),
        // nobody can say whether it moved
        ("*", "main", Fault::ResetAfterEffect),
        ("*", "main", Fault::Reset),
    ];
    for (method, target, fault) in failures {
        let world = World::new().await;
        let tagger = world.tagger().await;
        world.fake.fail(method, target, ALWAYS, fault.clone());
        let done = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
        assert_eq!(
            done.pending.iter().map(|one| one.tag.as_str()).collect::<Vec<_>>(),
            [target],
            "{fault:?}"
        );
        let notice = done.notice().unwrap();
        assert!(notice.contains(&format!("shop:{target}")), "{notice}");
        assert!(matches!(world.take_events().last(), Some(BuildEvent::Note { text }) if *text == notice));
        assert_eq!(world.repository.at(MAIN), world.b, "accepted is accepted");
        // still failing: it waits, and says why
        let waiting = world.recover(&tagger).await;
        assert!(matches!(waiting.as_slice(), [Outcome::Waiting { .. }]), "{fault:?}: {waiting:?}");
        world.fake.heal();
        assert_eq!(world.recover(&tagger).await, [Outcome::Forward], "{fault:?}");
        world.assert_all_at(&world.b);
        world.assert_clean(&tagger).await;
    }
}

#[tokio::test]
async fn a_gateway_that_gives_up_on_a_put_that_worked_is_seen_through() {
    for target in ["main", "latest"] {
        let world = World::new().await;
        let tagger = world.tagger().await;
        world.fake.fail("PUT", target, ALWAYS, Fault::StatusAfterEffect(504));
        let done = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
        world.assert_all_at(&world.b);
        assert_eq!(done.pending.len(), usize::from(target == "latest"));
    }
}

#[tokio::test]
async fn the_older_build_that_finishes_last_is_refused() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    world.commit(&tagger, vec![world.to(&world.a, &world.c)]).await.unwrap();
    world.fake.take_log();
    let error = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap_err();
    assert!(matches!(error, TagError::Ref(RefError::Moved { .. })), "{error}");
    assert_eq!(world.fake.take_log(), [] as [String; 0], "refused before any tag");
    world.assert_all_at(&world.c);
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn a_later_push_makes_what_an_earlier_one_owes_moot() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    world.fake.fail("PUT", "latest", ALWAYS, Fault::Status(504, "", ""));
    world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
    // a later one that is refused leaves the debt
    world.fake.fail("PUT", "main", 2, Fault::Status(504, "", ""));
    assert!(world.commit(&tagger, vec![world.to(&world.b, &world.c)]).await.is_err());
    assert_eq!(tagger.shared.store.journal().await.unwrap()[0].owed.len(), 1);
    world.fake.heal();
    world.commit(&tagger, vec![world.to(&world.b, &world.c)]).await.unwrap();
    world.assert_all_at(&world.c);
    world.fake.take_log();
    world.recover(&tagger).await;
    assert_eq!(world.fake.take_log(), [] as [String; 0], "no tag is touched");
    world.assert_all_at(&world.c);
    world.assert_clean(&tagger).await;
}

/// The main branch was changed meanwhile: `latest` is another ref's now, and the first ref still stands where it was.
#[tokio::test]
async fn a_tag_that_another_ref_has_moved_since_is_not_taken_back() {
    for still_failing in [false, true] {
        let world = World::new().await;
        let tagger = world.tagger().await;
        world.fake.fail("PUT", "latest", ALWAYS, Fault::Status(504, "", ""));
        world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
        if !still_failing {
            world.fake.heal();
        }
        let side = world.with_tags("refs/heads/side", &Sha::zero(), &world.c, &["side", "latest"]);
        let done = world.commit(&tagger, vec![side]).await.unwrap();
        assert_eq!(done.pending.len(), usize::from(still_failing));
        world.fake.heal();
        world.fake.take_log();
        world.recover(&tagger).await;
        assert_eq!(world.fake.at("shop", "latest"), Some(index_of(&world.c).to_string()));
        let puts = world.fake.take_log().into_iter().filter(|line| line.starts_with("PUT")).count();
        assert_eq!(puts, usize::from(still_failing));
        world.assert_clean(&tagger).await;
    }
}

#[tokio::test]
async fn two_pushes_that_owe_the_same_tag_end_at_the_later() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    world.fake.fail("PUT", "latest", ALWAYS, Fault::Status(504, "", ""));
    world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
    world.commit(&tagger, vec![world.to(&world.b, &world.c)]).await.unwrap();
    world.fake.heal();
    world.recover(&tagger).await;
    world.assert_all_at(&world.c);
    world.assert_clean(&tagger).await;
    let puts = world.fake.take_log().into_iter().filter(|line| line.ends_with("latest 201")).count();
    assert_eq!(puts, 1, "it never stood at the earlier");
}

#[tokio::test]
async fn tags_of_a_ref_that_went_on_are_left_alone() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    world.fake.fail("PUT", "latest", ALWAYS, Fault::Status(504, "", ""));
    world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
    let delete = Move::of_ref(update(MAIN, &world.b, &Sha::zero()), None);
    world.commit(&tagger, vec![delete]).await.unwrap();
    world.fake.heal();
    assert_eq!(world.recover(&tagger).await, [Outcome::Overtaken]);
    assert_eq!(world.fake.at("shop", "latest"), Some(index_of(&world.a).to_string()));
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn an_atomic_push_moves_all_or_nothing() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let zero = Sha::zero();
    let side = || world.with_tags("refs/heads/side", &zero, &world.c, &["side"]);
    let stale = || world.to(&world.b, &world.c);
    let error = world.commit(&tagger, vec![side(), stale()]).await.unwrap_err();
    assert!(matches!(error, TagError::Ref(RefError::Moved { ref names, .. }) if *names == [MAIN]), "{error}");
    world.assert_all_at(&world.a);
    assert_eq!(world.fake.at("shop", "side"), None);
    assert_eq!(world.repository.at("refs/heads/side"), zero);
    // of two images, neither moves when one cannot
    world.fake.fail("PUT", "side", ALWAYS, Fault::Status(403, "", ""));
    world.commit(&tagger, vec![side(), world.to(&world.a, &world.c)]).await.unwrap_err();
    world.assert_all_at(&world.a);
    world.fake.heal();
    let gone = Move::of_ref(update("refs/tags/none", &zero, &world.a), None);
    world.commit(&tagger, vec![side(), world.to(&world.a, &world.c), gone]).await.unwrap();
    world.assert_all_at(&world.c);
    assert_eq!(world.fake.at("shop", "side"), Some(index_of(&world.c).to_string()));
    assert_eq!(world.repository.at("refs/tags/none"), world.a);
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn a_ref_alone_asks_no_registry_and_a_try_moves_no_ref() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let stored = Move::of_ref(update("refs/heads/notes", &Sha::zero(), &world.b), None);
    world.commit(&tagger, vec![stored]).await.unwrap();
    assert_eq!(world.repository.at("refs/heads/notes"), world.b);
    assert_eq!(world.fake.take_log(), [] as [String; 0]);

    let tried = Move::of_try([publication(&world.fake.host, &world.b, &["try-1"])]);
    world.commit(&tagger, vec![tried.clone()]).await.unwrap();
    assert_eq!(world.fake.at("shop", "try-1"), Some(index_of(&world.b).to_string()));
    world.assert_all_at(&world.a);
    world.fake.fail("PUT", "try-1", ALWAYS, Fault::Status(403, "", ""));
    assert!(matches!(world.commit(&tagger, vec![tried]).await, Err(TagError::Registry(_))));
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_once() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let good = || world.to(&world.a, &world.b);
    let mut other_bytes = good();
    other_bytes.publications[0].bytes.push(b' ');
    let sharing_try = Move { update: None, ..good() };
    let mut deleting = good();
    deleting.update.as_mut().unwrap().new = Sha::zero();
    let twins = vec![good(), world.with_tags("refs/heads/side", &Sha::zero(), &world.c, &["latest"])];
    let nothing = Move::of_ref(update(MAIN, &Sha::zero(), &Sha::zero()), None);
    for moves in [
        vec![],
        vec![other_bytes],
        vec![sharing_try],
        vec![deleting],
        twins,
        vec![good(), good()],
        vec![nothing],
    ] {
        let error = world.commit(&tagger, moves).await.unwrap_err();
        assert!(matches!(error, TagError::Invalid(_)), "{error}");
    }
    assert_eq!(world.fake.take_log(), [] as [String; 0]);
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn what_is_pending_is_completed_in_the_background() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let keeper = tokio::spawn({
        let (tagger, path) = (tagger.clone(), world.repository.path.clone());
        async move { tagger.keep_completing(|_| path.clone()).await }
    });
    world.fake.fail("PUT", "latest", 5, Fault::Status(504, "", ""));
    let done = world.commit(&tagger, vec![world.to(&world.a, &world.b)]).await.unwrap();
    assert_eq!(done.pending.len(), 1);
    let completed = async {
        while !tagger.shared.store.journal().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), completed).await.expect("completed in time");
    keeper.abort();
    world.assert_all_at(&world.b);
}
