//! Real buildkitd of a test: what becomes of a push when the one that builds it is killed, stopped, drained or full.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::builder::OwnBuilder;
use crate::house::House;
use crate::standing::Standing;

/// Waits until a builder is `up`, `down`, …
pub fn await_state(house: &House, name: &str, wanted: &str) {
    let began = Instant::now();
    while state(house, name) != wanted {
        assert!(began.elapsed() < Duration::from_secs(60), "{name} is not {wanted}: {}", state(house, name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn state(house: &House, name: &str) -> String {
    let list = house.lemnos(&["builders", "list", "--json"]).succeeded();
    let builders: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let found = builders.as_array().unwrap().iter().find(|b| b["name"] == name);
    found.map_or("absent", |b| b["state"].as_str().unwrap()).to_owned()
}

/// A step that takes long where it is run first, and says that it has begun; a new one for each round.
fn dockerfile(round: &str) -> String {
    format!("FROM busybox\nRUN echo {round} && echo begun-{round} && sleep 25 && echo {round} >/done\n")
}

fn begin(house: &House, dir: &Path, round: &str) -> crate::house::Pushing {
    house.commit(dir, &[("Dockerfile", &dockerfile(round))], round);
    // git pads lines with blanks
    house.begin_push(dir, &["main"]).until("on builder second").until(&format!("begun-{round}  "))
}

#[test]
fn a_push_outlives_the_builder_that_builds_it() {
    let mut second = OwnBuilder::start();
    let spec = second.spec("second");
    let house = House::start("pool");
    let shared = house.engines.buildkit.clone();
    house.lemnos(&["builders", "add", &spec]).succeeded();
    await_state(&house, "second", "up");
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);

    // E5: of all this the last push alone is refused, for want of a builder
    let standing = Standing::of(&house);
    // killed
    house.lemnos(&["builders", "drain", &shared]).succeeded().shows("is drained");
    let push = begin(&house, &dir, "killed");
    house.lemnos(&["builders", "resume", &shared]).succeeded();
    let began = Instant::now();
    second.kill();
    let said = push.finish().succeeded();
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
    said.shows("builder second lost: another builder takes over").shows("abandoned: builder second lost");
    assert_eq!(state(&house, "second"), "down");
    assert_eq!(house.image_file("shop", "main", "linux/amd64", "done").as_deref(), Some("killed\n"));

    // back by itself, and stopped without a word
    second.run();
    await_state(&house, "second", "up");
    house.lemnos(&["builders", "drain", &shared]).succeeded();
    let push = begin(&house, &dir, "stopped");
    house.lemnos(&["builders", "resume", &shared]).succeeded();
    let began = Instant::now();
    second.signal("-STOP");
    let push = push.until("builder second lost: another builder takes over");
    assert!(began.elapsed() < Duration::from_secs(20), "noticed after {:?}", began.elapsed());
    push.finish().succeeded();
    assert_eq!(state(&house, "second"), "down");

    // told to stop, as an upgrade would
    second.signal("-CONT");
    await_state(&house, "second", "up");
    house.lemnos(&["builders", "drain", &shared]).succeeded();
    let push = begin(&house, &dir, "told");
    house.lemnos(&["builders", "drain", "second"]).succeeded().shows("1 still at work");
    assert_eq!(state(&house, "second"), "draining");
    push.finish().succeeded();
    await_state(&house, "second", "drained");
    // nobody is left
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nRUN echo nobody\n")], "nobody");
    house.push(&dir, &["main"]).failed().shows("a builder is drained");
    standing.refused(&house, &[("push_answered", "no builder for linux/amd64: a builder is drained")]);
    house.lemnos(&["builders", "remove", "second"]).succeeded();
    assert_eq!(state(&house, "second"), "absent");
}

/// What its cache takes is random, and so takes as much again as a layer that is pushed.
fn writes(megabytes: u32, name: &str) -> String {
    format!("FROM busybox\nRUN dd if=/dev/urandom of=/{name} bs=1M count={megabytes} 2>&1\n")
}

#[test]
fn a_push_that_fits_only_without_the_cache_goes_through_and_one_that_never_fits_is_explained() {
    let small = OwnBuilder::start_on_disk_of(100);
    let house = House::start_changed("full", &[], |house| house.builder = Some(small.spec("small")));
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    // never: what is written fits, and the layer that is to be pushed does not fit beside it
    let dir = house.repository("shop", &[("Dockerfile", &writes(60, "never"))]);
    let asked = "builder small: no space left on device; it is asked to drop cache that nothing uses";
    let said = house.push(&dir, &["main"]).failed().shows(asked);
    said.shows("builder small: its disk is full")
        .shows("and that was too little")
        .shows("not your commit's fault: the operator makes room on builder small");
    assert!(house.manifest("shop", "main").is_none(), "what failed has changed nothing");

    // beside the cache of that one this does not fit, and without it it does
    house.commit(&dir, &[("Dockerfile", &writes(30, "fits"))], "fits");
    house.push(&dir, &["main"]).succeeded().shows(asked).shows(" of cache: the build is tried again");
    assert!(house.manifest("shop", "main").is_some());
    house.commit(&dir, &[("Dockerfile", "FROM busybox\nCOPY Dockerfile /small\n")], "small");
    house.push(&dir, &["main"]).succeeded().hides("no space");
}
