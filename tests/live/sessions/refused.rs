//! Sessions that end with a refusal: the cause, where it is, and what to do.

use super::{Session, shop};
use crate::house::House;

#[test]
fn a_step_that_fails() {
    let house = House::start("s-compile");
    shop(&house);
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nCOPY . /src\nRUN sh -n /src/app.sh && echo checked\n"),
            ("app.sh", "if true; then\n  echo hello\n"),
        ],
    );
    let mut session =
        Session::new(&house, "The code does not compile: the push is refused, nothing has changed.");
    session.push(&dir, &["main"]).failed();
    session.is("compile-error");
}

#[test]
fn a_dockerfile_that_cannot_be_read() {
    let house = House::start("s-syntax");
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n\nRUNN make\n")]);
    let mut session = Session::new(&house, "A slip in the Dockerfile.");
    session.push(&dir, &["main"]).failed();
    session.is("dockerfile-syntax-error");
}

#[test]
fn a_base_image_that_is_not_there() {
    let house = House::start("s-base");
    shop(&house);
    let dir =
        house.repository("shop", &[("Dockerfile", &format!("FROM {}/nothing:1.0\n", house.registry()))]);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout;
    let mut session = Session::new(&house, "The base image does not exist.");
    // the Dockerfile names this run's registry
    session.stands(&commit[..12], "3040a3b236c9");
    session.push(&dir, &["main"]).failed();
    session.is("missing-base-image");
}

#[test]
fn nothing_to_build() {
    let house = House::start("s-nothing");
    shop(&house);
    let dir = house.repository("shop", &[("README.md", "# Shop\n"), ("src/main.py", "print('hello')\n")]);
    let mut session = Session::new(&house, "No file says how to build this.");
    session.push(&dir, &["main"]).failed();
    session.is("no-dockerfile");
}

#[test]
fn another_branch() {
    let house = House::start("s-branch");
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    let mut session = Session::new(&house, "A branch that does not build is stored, and said so.");
    session.push(&dir, &["main:feature"]).succeeded();
    session.note("To build it as well, the app must say so.");
    session.lemnos(&["apps", "set", "shop", "branches=feature"]).succeeded();
    session.is("wrong-branch");
}

#[test]
fn an_app_that_is_not_granted() {
    let house = House::start("s-denied");
    shop(&house);
    house.lemnos(&["apps", "create", "other"]).succeeded();
    let dir = house.repository("other", &[("Dockerfile", "FROM busybox\n")]);
    let mut session = Session::new(
        &house,
        "An app of somebody else's, and one that does not exist: the answer is the same.",
    );
    session.push(&dir, &["main"]).failed();
    house.git(&dir, &["remote", "set-url", "builder", &house.url("absent")]).succeeded();
    session.push(&dir, &["main"]).failed();
    session.is("denied");
}

#[test]
fn a_key_that_nobody_registered() {
    let house = House::start("s-unknown");
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    house.generate_key("stranger");
    let mut session = Session::new(
        &house,
        "A key that is not registered: its fingerprint is shown, and how to register it.",
    );
    let ssh = house
        .ssh_command("stranger")
        .replace("-o BatchMode=yes", "")
        .replace("LogLevel=ERROR", "LogLevel=INFO");
    let said = house.git_with(&dir, &[("GIT_SSH_COMMAND", &ssh)], &["push", "builder", "main"]).failed();
    session.shown("git push builder main", &said);
    session.is("unknown-key");
}

#[test]
fn a_registry_that_is_away() {
    // nothing listens at port 1
    let house = House::start_on("s-registry", "127.0.0.1:1", &[], &[]);
    shop(&house);
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    let mut session = Session::new(
        &house,
        "The registry does not answer: nothing has changed, and the same push works later.",
    );
    session.push(&dir, &["main"]).failed();
    session.is("registry-down");
}

#[test]
fn a_build_that_takes_too_long() {
    let house = House::start_with("s-timeout", &[], &[("LEMNOS_LIMITS_BUILD_SECONDS", "2")]);
    shop(&house);
    let dir = house
        .repository("shop", &[("Dockerfile", "FROM busybox\nRUN echo waiting for nobody; sleep 3600\n")]);
    let mut session = Session::new(&house, "A build that hangs is stopped.");
    session.push(&dir, &["main"]).failed();
    session.is("timeout");
}
