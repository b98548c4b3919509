//! The server goes away at each step, and comes again: ref and tags agree.
//!
//! In-process: the runtime of the tagger is dropped where it stands. The SIGKILL of a whole server is for the end-to-end tests.

use super::*;

/// Runs a push of main from A to B that never gets beyond `point`, as a server that dies there.
async fn die_at(world: &World, point: Point) {
    let (failpoints, reached) = Failpoints::hang_at(point);
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (data, git) = (world.data.path().to_owned(), world.repository.git.clone());
    let (app, repository) = (world.app.clone(), world.repository.path.clone());
    let moves = vec![world.to(&world.a, &world.b)];
    server.spawn(async move {
        let tagger = tagger(&data, &git, failpoints).await;
        tagger.commit(&app, &repository, moves, &EventSink::discard()).await
    });
    tokio::time::timeout(Duration::from_secs(20), reached.notified()).await.expect("the point is reached");
    server.shutdown_background();
}

const POINTS: [(Point, bool); 8] = [
    (Point::AfterJournal, false),
    (Point::AfterPrepare, false),
    (Point::AfterUnsharedTag, false),
    (Point::AfterFirstSharedTag, true),
    (Point::AfterSecondSharedTag, true),
    (Point::BeforeRefCommit, true),
    (Point::AfterRefCommit, true),
    (Point::BeforeJournalClose, true),
];

#[tokio::test]
async fn after_a_crash_at_any_point_ref_and_tags_agree() {
    for (point, forward) in POINTS {
        let world = World::new().await;
        die_at(&world, point).await;
        let tagger = world.tagger().await;
        let expected = if forward { Outcome::Forward } else { Outcome::Back };
        assert_eq!(world.recover(&tagger).await, [expected], "{point:?}");
        world.assert_all_at(if forward { &world.b } else { &world.a });
        world.assert_clean(&tagger).await;
        assert_eq!(world.recover(&tagger).await, [], "{point:?}: recovered once is recovered");
        let now = world.repository.at(MAIN);
        world.commit(&tagger, vec![world.to(&now, &world.c)]).await.unwrap();
        world.assert_all_at(&world.c);
    }
}

#[tokio::test]
async fn with_the_registry_down_at_the_start_nothing_is_guessed() {
    for (point, forward) in POINTS {
        let world = World::new().await;
        die_at(&world, point).await;
        world.fake.fail("*", "", ALWAYS, Fault::Status(503, "", ""));
        let tagger = world.tagger().await;
        let waiting = world.recover(&tagger).await;
        assert!(matches!(waiting.as_slice(), [Outcome::Waiting { .. }]), "{point:?}: {waiting:?}");
        // a push of the same ref would have to know
        let now = world.repository.at(MAIN);
        let error = world.commit(&tagger, vec![world.to(&now, &world.c)]).await.unwrap_err();
        let undecided = now == world.a;
        assert_eq!(matches!(error, TagError::Unsettled { .. }), undecided, "{point:?}: {error}");
        // one of another ref does not
        world.fake.heal();
        world.fake.fail("*", "main", ALWAYS, Fault::Status(503, "", ""));
        world.fake.fail("*", "latest", ALWAYS, Fault::Status(503, "", ""));
        let side = world.with_tags("refs/heads/side", &Sha::zero(), &world.c, &["side"]);
        world.commit(&tagger, vec![side]).await.unwrap();
        // and with the registry back, the push itself settles what stands in its way
        world.fake.heal();
        let settled = if forward { &world.b } else { &world.a };
        world.commit(&tagger, vec![world.to(settled, &world.c)]).await.unwrap();
        world.assert_all_at(&world.c);
        world.recover(&tagger).await;
        world.assert_all_at(&world.c);
        world.assert_clean(&tagger).await;
    }
}

#[tokio::test]
async fn a_ref_moved_by_hand_meanwhile_is_not_touched() {
    let world = World::new().await;
    die_at(&world, Point::AfterFirstSharedTag).await;
    clear_stale_locks(&world.repository.path, Duration::from_secs(10)).await.unwrap();
    world.repository.set(MAIN, &world.c);
    let tagger = world.tagger().await;
    assert_eq!(world.recover(&tagger).await, [Outcome::Overtaken]);
    assert_eq!(world.repository.at(MAIN), world.c);
    assert_eq!(world.fake.at("shop", "latest"), Some(index_of(&world.a).to_string()));
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn lock_files_of_a_git_that_was_killed_too_do_not_hold_the_start_up() {
    let world = World::new().await;
    die_at(&world, Point::AfterFirstSharedTag).await;
    clear_stale_locks(&world.repository.path, Duration::from_secs(10)).await.unwrap();
    std::fs::write(world.repository.path.join("refs/heads/main.lock"), "").unwrap();
    let mut tagger = world.tagger().await;
    Arc::get_mut(&mut tagger.shared).unwrap().config.lock_grace = Duration::from_millis(20);
    assert_eq!(world.recover(&tagger).await, [Outcome::Forward]);
    world.assert_all_at(&world.b);
    world.assert_clean(&tagger).await;
}

#[tokio::test]
async fn an_error_at_any_point_ends_the_same_way() {
    for (point, forward) in POINTS {
        let world = World::new().await;
        let failpoints = Failpoints::parse(&format!("{}:error", point.name())).unwrap();
        let failing = world.tagger_with(failpoints).await;
        let result = world.commit(&failing, vec![world.to(&world.a, &world.b)]).await;
        // a ref that does not follow its tags at once is told, and follows later
        let pending = matches!(result, Err(TagError::RefPending { .. }));
        assert_eq!(pending, point == Point::BeforeRefCommit, "{point:?}: {result:?}");
        assert_eq!(result.is_ok() || pending, forward, "{point:?}: {result:?}");
        let tagger = world.tagger().await;
        world.recover(&tagger).await;
        world.assert_all_at(if forward { &world.b } else { &world.a });
        world.assert_clean(&tagger).await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_push() {
    let world = World::new().await;
    let gate = world.data.path().join("go on");
    let setting = format!("after-first-shared-tag:pause-until-file={}", gate.display());
    let tagger = world.tagger_with(Failpoints::parse(&setting).unwrap()).await;
    let caller = tokio::spawn({
        let (tagger, app, path) = (tagger.clone(), world.app.clone(), world.repository.path.clone());
        let moves = vec![world.to(&world.a, &world.b)];
        async move { tagger.commit(&app, &path, moves, &EventSink::discard()).await }
    });
    let moved = async {
        while world.fake.at("shop", "main") != Some(index_of(&world.b).to_string()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), moved).await.expect("the first tag moves");
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    std::fs::write(&gate, "").unwrap();
    // the next one of this ref waits for it, and finds the ref moved
    let error = world.commit(&tagger, vec![world.to(&world.a, &world.c)]).await.unwrap_err();
    assert!(matches!(error, TagError::Ref(RefError::Moved { .. })), "{error}");
    world.assert_all_at(&world.b);
    world.assert_clean(&tagger).await;
}
