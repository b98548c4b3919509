//! Sessions that end with an image, or with an answer.

use super::{Session, shop};
use crate::house::House;

#[test]
fn a_first_push() {
    let house = House::start("s-first");
    shop(&house);
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nCOPY greeting /greeting\nRUN wc -l /greeting\n"),
            ("greeting", "hello\n"),
        ],
    );
    let mut session =
        Session::new(&house, "A push of a repository with a Dockerfile: the image stands in the registry.");
    session.push(&dir, &["main"]).succeeded();
    session.note("The same again: git has nothing to send.");
    session.push(&dir, &["main"]).succeeded();
    session.is("success");
}

#[test]
fn an_unchanged_tree() {
    let house = House::start("s-cached");
    shop(&house);
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nRUN echo compiled\nCOPY greeting /greeting\n"),
            ("greeting", "hello\n"),
        ],
    );
    house.push(&dir, &["main"]).succeeded();
    let mut session = Session::new(&house, "What has not changed is not built again.");
    session.note("One file has changed: the step before it comes from the cache.");
    house.commit(&dir, &[("greeting", "hello, world\n")], "greet everybody");
    session.push(&dir, &["main"]).succeeded();
    session.note("A commit without a change: the images of the commit before serve again.");
    house.commit(&dir, &[], "release 1.0");
    session.push(&dir, &["main"]).succeeded();
    session.is("cached");
}

#[test]
fn a_plan() {
    let house = House::start("s-plan");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    let mut session = Session::new(
        &house,
        "What a push would build, without building: git is told of a refusal, so that nothing moves.",
    );
    session.push(&dir, &["-o", "plan", "main"]).failed();
    session.is("plan");
}
