//! Layer caches in the registry: what solves on several builders write and read, and that they go with their ref.

use crate::fake::builder::FakeBuilder;
use crate::fake::registry::Removes;
use crate::faults::{next, on_record, push};
use crate::house::{APP, House, IMAGE};

const PLATFORMS: &str = "platforms=linux/amd64,linux/arm64,linux/arm/v7";

/// The tags of caches, of refs whose names begin so.
fn caches(house: &House, name: &str) -> Vec<String> {
    let start = format!("buildcache-{name}-");
    house.registry.tags(IMAGE).into_iter().filter(|tag| tag.starts_with(&start)).collect()
}

/// What the last solve of a builder read and wrote, as tags.
fn last(builder: &FakeBuilder) -> (Vec<String>, Vec<String>) {
    let tags = |names: Vec<String>| -> Vec<String> {
        let mut tags: Vec<String> =
            names.iter().map(|name| name.rsplit_once(':').unwrap().1.to_owned()).collect();
        tags.sort();
        tags
    };
    let (read, written) = builder.seen().caches.pop().unwrap();
    (tags(read), tags(written))
}

#[test]
fn solves_of_one_build_on_two_builders_write_beside_each_other_and_read_all() {
    let house = House::new();
    house.lemnos(&["apps", "set", APP, "cache=registry", PLATFORMS]);
    let arm = FakeBuilder::start_for(&house.home.path().join("arm.sock"), vec![("arm64", ""), ("arm", "v7")]);
    house.set_args(&["--builder", &format!("{},platform=linux/arm64,platform=linux/arm/v7", arm.address())]);
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n")], "first");
    push(&house, &first).succeeded();
    let of_main = caches(&house, "main");
    let [one, other] = of_main.as_slice() else { panic!("{of_main:?}") };
    let ends = |tag: &String, platform: &str| tag.ends_with(&format!("-linux-{platform}"));
    assert!(ends(one, "amd64") && ends(other, "arm64"), "{of_main:?}");
    let none = Vec::new;
    assert_eq!(last(&house.builder), (none(), vec![one.clone()]));
    assert_eq!(last(&arm), (none(), vec![other.clone()]), "two platforms, one solve");

    // a branch reads all of the main branch's, and writes its own
    let second = next(&house, &first, "second");
    house.push(&[&format!("{second}:refs/heads/dev")]).succeeded();
    let of_dev = caches(&house, "dev");
    assert_eq!(last(&house.builder), (of_main.clone(), vec![of_dev[0].clone()]));
    assert_eq!(last(&arm), (of_main.clone(), vec![of_dev[1].clone()]));
    let third = next(&house, &second, "third");
    house.push(&[&format!("{third}:refs/heads/dev")]).succeeded();
    let all = [of_dev, of_main].concat();
    assert_eq!((last(&house.builder).0, last(&arm).0), (all.clone(), all));
}

#[test]
fn the_caches_of_a_ref_go_with_it_and_nobody_elses() {
    let house = House::new();
    house.lemnos(&["apps", "set", APP, "cache=registry", "branches=*"]);
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n")], "first");
    push(&house, &first).succeeded();
    let of_main: Vec<_> = caches(&house, "main").into_iter().map(|tag| (house.tag(&tag), tag)).collect();
    assert_eq!(of_main.len(), 1);
    let mut at = first;
    for (branch, removes) in [("tags", Removes::Tags), ("digests", Removes::Digests)] {
        house.registry.removes(removes);
        at = next(&house, &at, branch);
        house.push(&[&format!("{at}:refs/heads/{branch}")]).succeeded();
        assert_eq!(caches(&house, branch).len(), 1);
        house.push(&[&format!(":refs/heads/{branch}")]).succeeded();
        house.settles("the cache is gone", |house| caches(house, branch));
        // the same bytes, and so the same digest
        assert!(of_main.iter().all(|(digest, tag)| digest.is_some() && house.tag(tag) == *digest));
        assert_eq!(house.revision(branch).as_ref(), Some(&at), "its last image stays");
    }
    on_record(&house, &[]);

    // a registry that removes nothing costs no push, and who looks finds it
    house.registry.removes(Removes::Nothing);
    at = next(&house, &at, "kept");
    house.push(&[&format!("{at}:refs/heads/kept")]).succeeded();
    let kept = caches(&house, "kept");
    let stood = house.tag(&kept[0]);
    house.push(&[":refs/heads/kept"]).succeeded();
    house.settles("it is said", |house| {
        let said = house.log().contains("layer caches of a deleted ref stay in the registry");
        if said { Vec::new() } else { vec!["not yet".to_owned()] }
    });
    house.stop();
    assert_eq!((caches(&house, "kept"), house.tag(&kept[0])), (kept.clone(), stood));
    house.serve();
    on_record(&house, &[("administered", "the registry refused (405)")]);
    let record = house.lemnos(&["audit", "--json"]);
    let line = record.lines().find(|line| line.contains("remove_layer_caches")).unwrap();
    assert!(line.contains("refs/heads/kept") && line.contains(&kept[0]) && line.contains(APP), "{line}");
    // the branch comes again, and finds what was left
    let again = next(&house, &at, "again");
    house.push(&[&format!("{again}:refs/heads/kept")]).succeeded();
    assert!(last(&house.builder).0.contains(&kept[0]));
}
