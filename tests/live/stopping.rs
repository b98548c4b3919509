//! A server that is told to stop while builds run longer than it may wait, and one that is told twice.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attacks::{leaves_nothing, small_app};
use crate::house::{House, Said};

const SLOW: &str = "FROM busybox\nRUN echo begun; sleep 3600\n";
const QUICK: &str = "FROM busybox\nCOPY greeting /greeting\n";
/// See `waiting::BEGUN`.
const BEGUN: &str = " begun  ";

fn signal(house: &House, name: &str) {
    let pid = house.server_pid().to_string();
    Said::of(house.command("kill").args([name, &pid]).output().unwrap()).succeeded();
}

fn state(house: &House, app: &str) -> Value {
    house.builds(app)[0]["state"].clone()
}

#[test]
fn sigterm_ends_what_outlives_the_grace_and_what_nobody_waits_for_goes_on_later() {
    let grace = Duration::from_secs(8);
    let settings = [("LEMNOS_SHUTDOWN_GRACE_SECONDS", "8"), ("LEMNOS_CONCURRENT_BUILDS", "2")];
    let mut house = House::start_with("grace", &[], &settings);
    for app in ["night", "shop", "late"] {
        small_app(&house, app);
    }
    let dockerfile = "FROM busybox\nRUN echo begun; sleep 15; echo through > /done\n";
    let night = house.repository("night", &[("Dockerfile", dockerfile)]);
    house.push(&night, &["-o", "detach", "main"]).succeeded();
    let detached = house.builds("night")[0]["id"].as_str().unwrap().to_owned();
    house.until("the detached build's step runs", |house| {
        house.lemnos(&["builds", "logs", &detached]).stdout.lines().any(|line| line.ends_with(" begun"))
    });
    let shop = house.repository("shop", &[("Dockerfile", SLOW)]);
    let attached = house.begin_push(&shop, &["main"]).until(BEGUN);
    let late = house.repository("late", &[("Dockerfile", SLOW)]);
    let queued = house.begin_push(&late, &["main"]).until("waiting: 1st in line");

    let began = Instant::now();
    let status = house.stop_server();
    let took = began.elapsed();
    assert!(status.success(), "{status}\n{}", house.server_log());
    // the hour that the step would take is the measure, not the machine's speed
    assert!(took < grace * 5, "{took:?}");
    assert!(house.server_log().contains("the grace is over: builds are stopped"));
    for client in [attached, queued] {
        client
            .finish()
            .failed()
            .shows("error: the server is stopping")
            .shows("hint: push again in a moment")
            .shows("! [remote rejected] main -> main (the server is stopping)");
    }
    assert_eq!((state(&house, "shop"), state(&house, "late")), ("interrupted".into(), "interrupted".into()));
    assert_eq!(state(&house, "night"), "queued");
    assert_eq!(house.builds("late")[0]["running_at_ms"], Value::Null, "what waited was not begun");
    for app in ["shop", "late", "night"] {
        assert_eq!(house.manifest(app, "main"), None, "{app}");
    }

    house.serve();
    house
        .lemnos(&["builds", "logs", &detached, "-f"])
        .succeeded()
        .shows("the server stops: this build goes on when it is back")
        .shows("the server was restarted: building again")
        .shows("Done in");
    assert_eq!(state(&house, "night"), "succeeded");
    assert_eq!(house.builds("night").len(), 1, "under its own record");
    assert_eq!(house.image_file("night", "main", "linux/amd64", "done").as_deref(), Some("through\n"));
    assert_eq!(state(&house, "shop"), "interrupted", "what its pusher was told stays true");
    house.git(&shop, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
    assert!(house.remote_refs(&shop).is_empty());
    leaves_nothing(&house);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM"), ("-TERM", "-INT")] {
        let mut house = House::start("twice");
        small_app(&house, "shop");
        let dir = house.repository("shop", &[("Dockerfile", SLOW)]);
        let client = house.begin_push(&dir, &["main"]).until(BEGUN);
        signal(&house, first);
        house.until("it stops", |house| house.server_log().contains("no new pushes, running ones finish"));
        signal(&house, second);
        let status = house.await_end();
        assert_eq!(status.code(), Some(1), "{status}\n{}", house.server_log());
        assert!(house.server_log().contains("a second signal: ending at once"));
        client.finish().failed();
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        assert_eq!(state(&house, "shop"), "interrupted");
        assert!(house.remote_refs(&dir).is_empty());
        assert_eq!(house.manifest("shop", "main"), None);
        leaves_nothing(&house);
    }
}

#[test]
fn a_second_signal_leaves_no_tags_half_moved() {
    let mut house = House::start("halfway");
    small_app(&house, "shop");
    let dir = house.repository("shop", &[("Dockerfile", QUICK), ("greeting", "hello\n")]);
    house.push(&dir, &["main"]).succeeded();
    // where it stands still, which tag has moved by then, and whether the push stands in the end
    for (point, stands) in [("after-unshared-tag", false), ("after-first-shared-tag", true)] {
        house.stop_server();
        house.set_env(&[("LEMNOS_FAILPOINT", &format!("{point}:pause-until-file=/nonexistent"))]);
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        let before = (house.remote_refs(&dir)["refs/heads/main"].clone(), house.digest("shop", "main"));
        let commit = house.commit(&dir, &[("greeting", point)], point);
        let client = house.begin_push(&dir, &["--force", "main"]);
        let moved = if stands { "main".to_owned() } else { format!("git-{}", &commit[..12]) };
        house.until("a tag has moved", |house| {
            let at = house.digest("shop", &moved);
            at.is_some() && at != before.1
        });
        assert_eq!(house.digest("shop", "latest"), before.1, "{point}: one of two has moved at most");
        let said = house.server_log().len();
        signal(&house, "-TERM");
        house.until("it stops", |house| house.server_log()[said..].contains("SIGTERM: no new pushes"));
        signal(&house, "-TERM");
        assert_eq!(house.await_end().code(), Some(1));
        client.finish().failed();

        house.set_env(&[]);
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        let after = (house.remote_refs(&dir)["refs/heads/main"].clone(), house.digest("shop", "main"));
        assert_eq!(after.1, house.digest("shop", "latest"), "{point}");
        let index = house.manifest("shop", "main").unwrap();
        assert_eq!(index["annotations"]["org.opencontainers.image.revision"], after.0.as_str(), "{point}");
        if stands {
            assert_eq!((&after.0, state(&house, "shop")), (&commit, "succeeded".into()), "{point}");
        } else {
            assert_eq!((&after, state(&house, "shop")), (&before, "interrupted".into()), "{point}");
        }
        leaves_nothing(&house);
    }
}
