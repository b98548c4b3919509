//! Sessions in which somebody waits, goes away, or is overtaken.

use super::{Session, shop};
use crate::builder::OwnBuilder;
use crate::house::House;

const SLOW: &str = "FROM busybox\nRUN echo started; sleep 3600\n";
const QUICK: &str = "FROM busybox\nRUN echo quick\n";

fn newest(house: &House, app: &str) -> String {
    house.builds(app)[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_build_that_is_cancelled() {
    let house = House::start("s-cancel");
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", SLOW)]);
    let mut session =
        Session::new(&house, "A build is cancelled from another window: its pusher is told by whom.");
    let client = house.begin_push(&dir, &["main"]).until("#4 started");
    let id = newest(&house, "shop");
    session.note("In another window:");
    session.lemnos(&["cancel", &id]).succeeded();
    session.note("In the pusher's:");
    session.shown("git push builder main", &client.finish().failed());
    session.is("cancelled");
}

#[test]
fn a_push_that_is_overtaken() {
    let house = House::start("s-superseded");
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", SLOW)]);
    let mut session =
        Session::new(&house, "A newer push of the same branch takes the place of one that is being built.");
    let client = house.begin_push(&dir, &["main"]).until("#4 started");
    house.commit(&dir, &[("Dockerfile", QUICK)], "do not wait");
    session.note("In another window, a moment later:");
    session.push(&dir, &["main"]).succeeded();
    session.note("In the first one:");
    session.shown("git push builder main", &client.finish().failed());
    session.is("superseded");
}

#[test]
fn a_push_that_waits_its_turn() {
    let house = House::start_with("s-queued", &[], &[("LEMNOS_CONCURRENT_BUILDS", "1")]);
    shop(&house);
    house.app("other");
    house.lemnos(&["apps", "set", "other", "platforms=linux/amd64"]).succeeded();
    let other = house.repository("other", &[("Dockerfile", SLOW)]);
    let dir = house.repository("shop", &[("Dockerfile", QUICK)]);
    let before = house.begin_push(&other, &["main"]).until("#4 started");
    let mut session = Session::new(
        &house,
        "All is at work: the pusher sees the place in the queue and what is waited for.",
    );
    let client = house.begin_push(&dir, &["main"]).until("waiting: ");
    session.note("In another window, where the other app's build is given up:");
    session.lemnos(&["cancel", &newest(&house, "other")]).succeeded();
    session.note("In the pusher's:");
    session.shown("git push builder main", &client.finish().succeeded());
    before.finish().failed();
    session.is("queued");
}

#[test]
fn a_push_that_does_not_wait() {
    let house = House::start("s-detached");
    shop(&house);
    let dockerfile = "FROM busybox\nRUN echo started; sleep 2; echo done\n";
    let dir = house.repository("shop", &[("Dockerfile", dockerfile)]);
    let mut session = Session::new(
        &house,
        "The ref moves at once, the build goes on; its log is followed from the first line.",
    );
    session.push(&dir, &["-o", "detach", "main"]).succeeded();
    let id = newest(&house, "shop");
    let said = house.ssh(&format!("logs {id} -f")).succeeded();
    session.shown(&format!("ssh -p 2222 builder logs {id} -f"), &said);
    session.lemnos(&["show", &id]).succeeded();
    session.is("detached");
}

#[test]
fn a_builder_that_is_lost() {
    let (mut near, mut far) = (OwnBuilder::start(), OwnBuilder::start());
    let house = House::start_changed("s-lost", &[], |house| house.builder = Some(near.spec("near")));
    house.lemnos(&["builders", "add", &far.spec("far")]).succeeded();
    for name in ["near", "far"] {
        crate::pool::await_state(&house, name, "up");
    }
    shop(&house);
    let dockerfile = |round: &str| format!("FROM busybox\nRUN echo {round}; sleep 8; echo done\n");
    let dir = house.repository("shop", &[("Dockerfile", &dockerfile("one"))]);
    let mut session = Session::new(
        &house,
        "A builder dies in the middle of a step. Where there is another, it takes the build over, once.",
    );
    house.lemnos(&["builders", "drain", "far"]).succeeded();
    let client = house.begin_push(&dir, &["main"]).until("#4 one");
    house.lemnos(&["builders", "resume", "far"]).succeeded();
    near.kill();
    session.shown("git push builder main", &client.finish().succeeded());

    session
        .note("Now there is no other, and this one dies as well: the push is refused, nothing has changed.");
    house.commit(&dir, &[("Dockerfile", &dockerfile("two"))], "second");
    let client = house.begin_push(&dir, &["main"]).until("#4 two");
    far.kill();
    session.shown("git push builder main", &client.finish().failed());

    session.note("The builder is back, and the same push is well.");
    far.run();
    crate::pool::await_state(&house, "far", "up");
    session.push(&dir, &["main"]).succeeded();
    session.is("builder-lost");
}
