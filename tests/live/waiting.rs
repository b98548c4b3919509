//! Many pushers, one truth: who waits is told, who cannot win any more does not build, and who pushes much keeps nobody from
//! pushing a little.

use serde_json::Value;

use crate::attacks::{leaves_nothing, small_app};
use crate::house::{House, Said};
use crate::support::engines;

const SLOW: &str = "FROM busybox\nRUN echo begun; sleep 3600\n";
const QUICK: &str = "FROM busybox\nRUN echo quick\n";
/// What a step that says `begun` shows a pusher; git pads lines with blanks, and the step's own name has none there.
const BEGUN: &str = " begun  ";

fn log(house: &House, build: &Value) -> String {
    house.lemnos(&["builds", "logs", build["id"].as_str().unwrap()]).succeeded().stdout
}

/// All builds of an app, the newest first.
fn all_builds(house: &House, app: &str) -> Vec<Value> {
    let said = house.lemnos(&["builds", "list", "--app", app, "--limit", "1000", "--json"]).succeeded();
    serde_json::from_str::<Value>(&said.stdout).unwrap().as_array().unwrap().clone()
}

/// One user more, who may push to the app.
fn join(house: &House, name: &str, app: &str) {
    let key = house.generate_key(name).with_extension("pub");
    house.lemnos(&["keys", "add", name, key.to_str().unwrap()]).succeeded();
    house.lemnos(&["apps", "grant", app, name]).succeeded();
}

fn runs(house: &House, command: &str) -> bool {
    let said = Said::of(house.command("ps").args(["-eo", "args"]).output().unwrap()).succeeded();
    said.stdout.lines().any(|line| line == command)
}

#[test]
fn a_queued_build_that_is_cancelled_is_never_solved() {
    let house = House::start_with("unqueued", &[], &[("LEMNOS_CONCURRENT_BUILDS", "1")]);
    small_app(&house, "other");
    small_app(&house, "shop");
    let other = house.repository("other", &[("Dockerfile", SLOW)]);
    let dir = house.repository("shop", &[("Dockerfile", QUICK)]);
    let before = house.begin_push(&other, &["main"]).until(BEGUN);
    let client = house.begin_push(&dir, &["main"]).until("waiting: 1st in line");
    let queued = house.builds("shop").remove(0);
    assert_eq!(queued["state"], "queued");

    house.ssh(&format!("cancel {}", queued["id"].as_str().unwrap())).succeeded();
    client
        .finish()
        .failed()
        .shows("error: cancelled by ada")
        .shows("! [remote rejected] main -> main (cancelled by ada)")
        .hides("Build kind");
    let ended = house.builds("shop").remove(0);
    assert_eq!((&ended["id"], &ended["state"]), (&queued["id"], &Value::from("cancelled")));
    assert_eq!(ended["running_at_ms"], Value::Null, "it never had a builder");
    let said = log(&house, &ended);
    assert!(said.contains("waiting: 1st in line") && !said.contains("RUN echo quick"), "{said}");
    assert!(house.remote_refs(&dir).is_empty());
    assert_eq!(house.builds("other")[0]["state"], "running", "the other one is left alone");

    // its place in the line is free
    let client = house.begin_push(&dir, &["main"]).until("waiting: 1st in line");
    house.ssh(&format!("cancel {}", house.builds("other")[0]["id"].as_str().unwrap())).succeeded();
    client.finish().succeeded();
    before.finish().failed();
    leaves_nothing(&house);
}

#[test]
fn a_push_that_cannot_win_any_more_is_refused_without_building() {
    let house = House::start("overtook");
    small_app(&house, "shop");
    join(&house, "bob", "shop");
    let dir = house.repository("shop", &[("Dockerfile", QUICK)]);
    house.push(&dir, &["main"]).succeeded();
    house.git(&dir, &["checkout", "-q", "-b", "bobs"]).succeeded();
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo bob\n")], "of bob");
    house.git(&dir, &["checkout", "-q", "main"]).succeeded();

    // nobody knows yet who wins: bob waits, and as the first build comes to nothing, his goes on
    house.commit(&dir, &[("Dockerfile", SLOW)], "of ada, who thinks better of it");
    let adas = house.begin_push(&dir, &["main"]).until(BEGUN);
    let bobs = house.begin_push_as("bob", &dir, &["bobs:main"]).until("waiting for build ").until(" by ada)");
    let running = house.builds("shop").into_iter().find(|build| build["user"] == "ada").unwrap();
    house.ssh(&format!("cancel {}", running["id"].as_str().unwrap())).succeeded();
    adas.finish().failed();
    bobs.finish().succeeded().shows("RUN echo bob");

    // this time it does come to something
    house.git(&dir, &["fetch", "-q", "builder", "main"]).succeeded();
    house.git(&dir, &["reset", "-q", "--hard", "FETCH_HEAD"]).succeeded();
    house.git(&dir, &["checkout", "-q", "bobs"]).succeeded();
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo never\n")], "of bob again");
    house.git(&dir, &["checkout", "-q", "main"]).succeeded();
    let dockerfile = "FROM busybox\nRUN echo begun; sleep 10\n";
    let commit = house.commit(&dir, &[("Dockerfile", dockerfile)], "of ada");
    let adas = house.begin_push(&dir, &["main"]).until(BEGUN);
    let bobs = house.begin_push_as("bob", &dir, &["bobs:main"]).until("waiting for build ");
    adas.finish().succeeded();
    let at = &commit[..12];
    bobs.finish()
        .failed()
        .shows(&format!("error: fetch first: main is at {at} by now"))
        .shows("hint: somebody else pushed first: fetch, integrate their commits, and push again")
        .shows(&format!("! [remote rejected] bobs -> main (fetch first: main is at {at} by now)"))
        .hides("Build kind");
    let refused = house.builds("shop").remove(0);
    assert_eq!((&refused["user"], &refused["state"]), (&Value::from("bob"), &Value::from("failed")));
    assert_eq!(refused["running_at_ms"], Value::Null, "it never had a builder");
    let said = log(&house, &refused);
    assert!(said.contains("waiting for build ") && !said.contains("echo never"), "{said}");
    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], commit);
    let revision =
        &house.manifest("shop", "main").unwrap()["annotations"]["org.opencontainers.image.revision"];
    assert_eq!(revision, commit.as_str());

    // what the hint says works
    house.git(&dir, &["checkout", "-q", "bobs"]).succeeded();
    house.git(&dir, &["merge", "-q", "-s", "ours", "-m", "integrated", "main"]).succeeded();
    house.begin_push_as("bob", &dir, &["bobs:main"]).finish().succeeded().shows("RUN echo never");
    leaves_nothing(&house);
}

#[test]
fn a_step_that_says_nothing_is_stopped_and_one_that_talks_is_not() {
    let mut house = House::start_with("silent", &[], &[("LEMNOS_LIMITS_SILENCE_SECONDS", "5")]);
    small_app(&house, "shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 27182\n")]);
    let client = house.begin_push(&dir, &["main"]).until(BEGUN);
    assert!(runs(&house, "sleep 27182"));
    let why = "silence timeout: nothing came of the build for 5 s";
    client
        .finish()
        .failed()
        .shows(&format!("error: {why}"))
        .shows("hint: have the step say what it does, or allow more: lemnos apps set shop silence-timeout=SECONDS")
        .shows(&format!("! [remote rejected] main -> main ({why})"));
    house.until("the step is gone", |house| !runs(house, "sleep 27182"));
    let build = house.builds("shop").remove(0);
    assert_eq!((&build["state"], &build["reason"]), (&Value::from("failed"), &Value::from(why)));
    assert!(house.remote_refs(&dir).is_empty());

    let talking = "FROM busybox\nRUN for i in $(seq 16); do echo $i; sleep 0.5; done\n";
    house.commit(&dir, &[("Dockerfile", talking)], "talk");
    house.push(&dir, &["main"]).succeeded();
    house.lemnos(&["apps", "set", "shop", "silence-timeout=60"]).succeeded();
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN sleep 8; echo at last\n")], "as the hint says");
    house.push(&dir, &["main"]).succeeded().shows("at last");
    leaves_nothing(&house);
}

#[test]
fn a_failed_build_is_done_again_over_ssh_once_its_base_image_is_there() {
    let house = House::start("again");
    small_app(&house, "shop");
    let base = format!("{}/{}-base/tools:1", house.registry(), house.prefix);
    let dir = house.repository("shop", &[("Dockerfile", &format!("FROM {base}\nRUN echo built > /done\n"))]);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    house.push(&dir, &["main"]).failed().shows("not found");
    let failed = house.builds("shop").remove(0);
    let retry = format!("retry {}", failed["id"].as_str().unwrap());

    // too early: a build of its own, with the same end
    house.ssh(&retry).succeeded();
    let again = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    assert_ne!(again, failed["id"].as_str().unwrap());
    house.ssh(&format!("logs {again} -f")).shows("not found");
    assert!(house.remote_refs(&dir).is_empty());

    let busybox = format!("{}/library/busybox:latest", engines().base_registry);
    let copied =
        house.command(&engines().crane).args(["copy", "--insecure", &busybox, &base]).output().unwrap();
    Said::of(copied).succeeded();
    house.ssh(&retry).succeeded();
    let again = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    let first = failed["id"].as_str().unwrap();
    house
        .ssh(&format!("logs {again} -f"))
        .succeeded()
        .shows(&format!("build {} again, for ada", &first[first.len() - 10..]))
        .shows("Done in");
    let builds = house.builds("shop");
    assert_eq!(builds.len(), 3);
    assert_eq!((&builds[0]["retry_of"], &builds[0]["state"]), (&failed["id"], &Value::from("succeeded")));
    assert_eq!(
        (&builds[0]["commit"], &builds[0]["user"]),
        (&Value::from(commit.as_str()), &Value::from("ada"))
    );
    assert_eq!(house.remote_refs(&dir)["refs/heads/main"], commit, "the ref has moved");
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "done").as_deref(), Some("built\n"));
    house.push(&dir, &["main"]).succeeded().shows("Everything up-to-date");
    leaves_nothing(&house);
}

#[test]
fn fifty_builds_of_one_app_do_not_starve_another() {
    let mut house = House::start_changed("fair", &[("LEMNOS_CONCURRENT_BUILDS", "1")], |house| {
        house.builder = Some(format!("{},max=1", engines().buildkit));
    });
    let branches = |app: &str, count: usize| {
        small_app(&house, app);
        house.lemnos(&["apps", "set", app, "branches=*"]).succeeded();
        let dir = house.repository(app, &[("Dockerfile", "FROM scratch\nCOPY greeting /greeting\n")]);
        let names: Vec<String> = (0..count).map(|n| format!("b{n}")).collect();
        for name in &names {
            house.git(&dir, &["checkout", "-q", "-b", name, "main"]).succeeded();
            house.commit(&dir, &[("greeting", &format!("{app} {name}\n"))], name);
        }
        (dir, names)
    };
    let (many, fifty) = branches("many", 50);
    let (few, three) = branches("few", 3);
    house.git(&many, &["checkout", "-q", "-b", "first", "main"]).succeeded();
    house.commit(&many, &[("Dockerfile", SLOW)], "first");
    let first = house.begin_push(&many, &["first"]).until(BEGUN);
    let running = house.builds("many")[0]["id"].as_str().unwrap().to_owned();

    // all of them wait before the three do
    for (dir, names) in [(&many, &fifty), (&few, &three)] {
        let mut args = vec!["-o", "detach"];
        args.extend(names.iter().map(String::as_str));
        house.push(dir, &args).succeeded();
    }
    let waiting =
        |house: &House, app| all_builds(house, app).iter().filter(|b| b["state"] == "queued").count();
    assert_eq!((waiting(&house, "many"), waiting(&house, "few")), (50, 3));
    house.lemnos(&["cancel", &running]).succeeded();
    first.finish().failed();

    house.until("all have ended", |house| {
        let ended = |app| all_builds(house, app).iter().all(|build| !build["finished_at_ms"].is_null());
        ended("few") && ended("many")
    });
    let mut ran: Vec<(i64, Value)> = Vec::new();
    for build in ["many", "few"].into_iter().flat_map(|app| all_builds(&house, app)) {
        if build["id"] != running.as_str() {
            assert_eq!(build["state"], "succeeded", "{build}");
            ran.push((build["running_at_ms"].as_i64().unwrap(), build["app"].clone()));
        }
    }
    ran.sort_by_key(|(at, _)| *at);
    let order: Vec<&str> = ran.iter().map(|(_, app)| app.as_str().unwrap()).collect();
    assert_eq!(order[..6], ["few", "many", "few", "many", "few", "many"], "{order:?}");
    leaves_nothing(&house);
}
