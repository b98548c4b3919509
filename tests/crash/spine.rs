//! The spine on fakes: if this fails, the fakes or the house are wrong before any crash is.

use crate::house::House;

const DOCKERFILE: &str = "FROM scratch\n# fake: say hello from the step\n";

#[test]
fn a_push_on_fakes_moves_ref_and_tags() {
    let house = House::new();
    house.serve();
    let first = house.commit(None, &[("Dockerfile", DOCKERFILE)], "first");
    house.push(&[&format!("{first}:refs/heads/main")]).succeeded().shows("hello from the step");
    assert_eq!(house.refs()["refs/heads/main"], first);
    assert_eq!(house.revision("main"), Some(first.clone()));
    assert_eq!(house.tag("main"), house.tag("latest"));
    assert_eq!(house.tag("main"), house.tag(&format!("git-{}", &first[..12])));
    let records = house.records();
    assert_eq!(records.digest_of(&first).map(ToString::to_string), house.tag("main"));
    assert_eq!(records.journal, []);
    let failing = house.commit(Some(&first), &[("Dockerfile", "FROM scratch\n# fake: fail\n")], "failing");
    house.push(&[&format!("{failing}:refs/heads/main")]).failed().shows("exit code: 2");
    assert_eq!(house.revision("main"), Some(first));
    let seen = house.builder.seen();
    assert_eq!((seen.begun, seen.succeeded, seen.failed, seen.running), (2, 1, 1, 0));
    assert_eq!(seen.asked, ["context"], "the Dockerfile goes with the request");
    house.stop();
}

#[test]
fn fakes_that_were_killed_come_back() {
    let house = House::new();
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n# fake: die\n")], "dies");
    house.push(&[&format!("{first}:refs/heads/main")]).failed();
    assert!(!house.builder.is_alive());
    house.builder.restart();
    house.registry.kill();
    let second = house.commit(None, &[("Dockerfile", DOCKERFILE)], "second");
    house.push(&[&format!("{second}:refs/heads/main")]).failed();
    house.registry.restart();
    house.push(&[&format!("{second}:refs/heads/main")]).succeeded();
    assert_eq!(house.revision("main"), Some(second));
}
