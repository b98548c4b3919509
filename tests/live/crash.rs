//! The server dies by SIGKILL at a point of every stage; after the restart ref and tags agree.

use lemnos::failpoint::Point;

use crate::attacks::leaves_nothing;
use crate::house::House;

const DOCKERFILE: &str = "FROM busybox\nCOPY greeting /greeting\n";

/// Each fail point, and whether the push that dies there stands after the restart.
fn stands(point: Point) -> bool {
    use Point as P;
    match point {
        P::AfterQueue | P::AfterAccept | P::AfterPlan | P::AfterContext | P::AfterSolve => false,
        P::BeforeIndexPush | P::AfterIndexPush | P::BeforeCommit => false,
        P::AfterJournal | P::AfterPrepare | P::AfterUnsharedTag => false,
        P::AfterFirstSharedTag | P::AfterSecondSharedTag | P::BeforeRefCommit | P::AfterRefCommit => true,
        P::BeforeJournalClose | P::AfterJournalClose | P::BeforeFinish | P::AfterFinish => true,
    }
}

/// E1
#[test]
fn ref_tags_and_record_agree_after_a_kill_at_any_stage() {
    let mut house = House::start("crash");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", DOCKERFILE), ("greeting", "hello\n")]);
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    house.push(&dir, &["main"]).succeeded();
    for (round, at) in Point::ALL.iter().enumerate() {
        let (point, stands) = (at.name(), stands(*at));
        let before = (house.remote_refs(&dir)["refs/heads/main"].clone(), house.digest("shop", "main"));
        house.stop_server();
        house.set_env(&[("LEMNOS_FAILPOINT", &format!("{point}:kill"))]);
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        let commit = house.commit(&dir, &[("greeting", &format!("round {round}\n"))], point);
        house.push(&dir, &["main"]).failed();
        let status = house.await_end();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{point}: {status}");

        house.set_env(&[]);
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        let after = (house.remote_refs(&dir)["refs/heads/main"].clone(), house.digest("shop", "main"));
        assert_eq!(after.1, house.digest("shop", "latest"), "{point}: the shared tags agree");
        let revision =
            house.manifest("shop", "main").unwrap()["annotations"]["org.opencontainers.image.revision"]
                .clone();
        assert_eq!(revision, after.0.as_str(), "{point}: ref and tag are of one commit");
        if stands {
            assert_eq!(after.0, commit, "{point}: rolled forward");
            assert_ne!(after.1, before.1, "{point}");
        } else {
            assert_eq!(after, before, "{point}: nothing has changed");
        }
        let newest = &house.builds("shop")[0];
        // a push that dies in the queue may have no record yet: then the newest is the one before
        let told = if stands { newest["state"] == "succeeded" } else { newest["state"] != "running" };
        assert!(told, "{point}: {newest}");
        leaves_nothing(&house);
        // nothing is left that would block the next push
        house.commit(&dir, &[("greeting", &format!("after {round}\n"))], "after");
        house.push(&dir, &["--force", "main"]).succeeded();
    }
}

#[test]
fn a_kill_while_building_leaves_nothing_behind() {
    let mut house = House::start("midbuild");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 30\n")]);
    let client = house.begin_push(&dir, &["main"]).until("started");
    house.kill_server();
    client.finish().failed();
    house.serve();
    house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
    assert!(house.remote_refs(&dir).is_empty());
    assert_eq!(house.manifest("shop", "main"), None);
    assert_eq!(house.builds("shop")[0]["state"], "interrupted");
    leaves_nothing(&house);
    let repositories = house.data().join("repositories");
    let repository = std::fs::read_dir(&repositories).unwrap().next().unwrap().unwrap().path();
    let refs = house.git(&repository, &["for-each-ref"]).succeeded().stdout;
    let id = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    assert!(refs.trim().ends_with(&format!("refs/lemnos/builds/{id}")), "it can be done again: {refs}");
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN true\n")], "quick");
    house.push(&dir, &["main"]).succeeded();
}

#[test]
fn sigterm_lets_the_running_push_finish() {
    let mut house = House::start("term");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 3\n")]);
    let client = house.begin_push(&dir, &["main"]).until("started");
    let status = house.stop_server();
    assert!(status.success(), "{status}\n{}", house.server_log());
    client.finish().succeeded();
    assert!(!house.data().join("lemnos.json").exists());
    assert!(house.manifest("shop", "main").is_some());
}

/// E2
#[test]
fn the_older_of_two_racing_builds_changes_nothing() {
    let house = House::start("race");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", DOCKERFILE), ("greeting", "first\n")]);
    house.push(&dir, &["main"]).succeeded();
    // the older push takes its time; the newer one is pushed later and ends sooner
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 20\n")], "slow");
    let slow = house.begin_push(&dir, &["HEAD:main"]).until("started");
    let newer = house.commit(&dir, &[("Dockerfile", DOCKERFILE), ("greeting", "newer\n")], "newer");
    house.push(&dir, &["main"]).succeeded();
    let newest = house.digest("shop", "main");
    slow.finish().failed().shows("! [remote rejected] HEAD -> main (superseded by ");
    assert_eq!(house.digest("shop", "main"), newest);
    assert_eq!(house.digest("shop", "latest"), newest);
    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], newer);
}

#[test]
fn a_detached_build_survives_a_kill_and_is_followed_from_its_first_line() {
    let mut house = House::start("detach");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 5\n")]);
    house.push(&dir, &["-o", "detach", "main"]).succeeded().shows("goes on by itself");
    let id = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    assert!(house.remote_refs(&dir).contains_key("refs/heads/main"), "the ref has moved");
    assert_eq!(house.manifest("shop", "main"), None);
    let logs = |house: &House| house.lemnos(&["builds", "logs", &id]).succeeded().stdout;
    house.until("the step says something", |house| logs(house).contains("started"));
    house.kill_server();
    house.serve();
    house
        .lemnos(&["builds", "logs", &id, "-f"])
        .succeeded()
        .shows("Received main at")
        .shows("the server was restarted: building again")
        .shows("Done in");
    assert!(house.manifest("shop", "main").is_some(), "the tags have followed");
    assert_eq!(house.builds("shop")[0]["state"], "succeeded");
    leaves_nothing(&house);
}

#[test]
fn a_cancelled_build_ends_its_step_and_its_push() {
    let mut house = House::start("cancel");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 61803\n")]);
    let client = house.begin_push(&dir, &["main"]).until("started");
    let id = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    house.lemnos(&["builds", "cancel", &id]).succeeded();
    client.finish().failed().shows("! [remote rejected] main -> main (cancelled by the operator)");
    house.until("the step is gone", |house| {
        let said = house.command("ps").args(["-eo", "args"]).output().unwrap();
        !String::from_utf8_lossy(&said.stdout).lines().any(|line| line == "sleep 61803")
    });
    assert_eq!(house.builds("shop")[0]["state"], "cancelled");
    house.lemnos(&["builds", "cancel", &id]).failed().shows("has ended already: cancelled");
}

#[test]
fn a_client_that_goes_takes_its_build_along_only_when_asked() {
    let mut house = House::start("gone");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let talking = "FROM busybox\nRUN echo started; for i in $(seq 60); do echo $i; sleep 0.1; done\n";
    let dir = house.repository("shop", &[("Dockerfile", talking)]);
    house.begin_push(&dir, &["-o", "cancel-on-disconnect", "main"]).until("started").kill();
    house.until("the build is cancelled", |house| house.builds("shop")[0]["state"] == "cancelled");
    assert!(house.remote_refs(&dir).is_empty());
    house.begin_push(&dir, &["main"]).until("started").kill();
    house.until("the build has succeeded", |house| house.builds("shop")[0]["state"] == "succeeded");
    assert!(house.manifest("shop", "main").is_some());
}
