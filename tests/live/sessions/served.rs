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

#[test]
fn a_spin_application() {
    let house = House::start("s-spin");
    house.app("shop");
    let manifest = r#"spin_manifest_version = 2
[application]
name = "shop"
version = "1.0.0"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "web.wasm"
files = [{ source = "static", destination = "/" }]
[component.web.build]
command = "sh make web.wasm"
"#;
    // a module of eight bytes: what compiles one is the business of the image that is named
    let make = "printf '\\000asm\\001\\000\\000\\000' > $1\n";
    let dir = house.repository(
        "shop",
        &[("spin.toml", manifest), ("make", make), ("static/index.html", "<p>hello</p>\n")],
    );
    let mut session = Session::new(
        &house,
        "A push of a Spin application: what its component is built with is not known, and has to be named.",
    );
    session.push(&dir, &["main"]).failed();
    session.note("build-config.yaml names an image: the artifact stands in the registry.");
    house.commit(&dir, &[("build-config.yaml", "spin_config:\n  image: busybox\n")], "name the image");
    session.push(&dir, &["main"]).succeeded();
    session.note("A commit without a change: the artifact serves again.");
    house.commit(&dir, &[], "release 1.0");
    session.push(&dir, &["main"]).succeeded();
    session.is("spin");
}
