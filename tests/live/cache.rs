//! Layer caches, attestations, and whose cache mounts meet, on a whole server.

use std::path::{Path, PathBuf};

use crate::builder::OwnBuilder;
use crate::house::House;

fn app(house: &House, settings: &[&str]) {
    house.app("shop");
    let mut words = vec!["apps", "set", "shop", "platforms=linux/amd64", "branches=*"];
    words.extend(settings);
    house.lemnos(&words).succeeded();
}

/// A Dockerfile that no builder has seen: `n` makes one step of it new.
fn dockerfile(house: &House, n: u32) -> String {
    format!(
        "FROM busybox AS tools\nRUN echo {0} && cat /proc/sys/kernel/random/uuid > /made\n\
         FROM busybox\nCOPY --from=tools /made /made\nRUN echo {n} {0} > /n\n",
        house.prefix
    )
}

fn made(house: &House, tag: &str) -> String {
    house.image_file("shop", tag, "linux/amd64", "made").unwrap()
}

/// A builder's own cache is gone; a branch of the test's is checked out.
fn forget(house: &House) {
    prune(house, house.builder.as_ref().unwrap());
}

fn prune(house: &House, address: &str) {
    let output = std::process::Command::new(&house.engines.buildctl)
        .args(["--addr", address, "prune", "--all"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn checkout(house: &House, dir: &Path, branch: &str) {
    house.git(dir, &["checkout", "-q", "-B", branch]).succeeded();
}

/// A house with a buildkitd of its own, whose cache can be emptied.
fn alone(name: &str) -> (House, OwnBuilder) {
    let builder = OwnBuilder::start();
    let address = builder.address().to_owned();
    let house = House::start_changed(name, &[], |house| house.builder = Some(address));
    (house, builder)
}

#[test]
fn a_registry_cache_outlives_the_builders_and_only_the_main_branch_writes_what_it_reads() {
    let (mut house, _builder) = alone("cache");
    app(&house, &["cache=registry"]);
    let shop: PathBuf = house.repository("shop", &[("Dockerfile", &dockerfile(&house, 1))]);
    house.push(&shop, &["main"]).succeeded().hides("importing cache manifest");
    let first = made(&house, "main");
    let tags = house.tags("shop");
    let caches: Vec<&String> = tags.iter().filter(|tag| tag.starts_with("buildcache-")).collect();
    assert_eq!(caches.len(), 1, "{tags:?}");
    assert!(caches[0].starts_with("buildcache-main-"), "{tags:?}");
    let of_main = house.digest("shop", caches[0]).unwrap();

    // the builder has lost everything: the stage that is in no image is found again
    forget(&house);
    checkout(&house, &shop, "feature");
    house.commit(&shop, &[("Dockerfile", &dockerfile(&house, 2))], "two");
    house.push(&shop, &["feature"]).succeeded().shows("CACHED");
    assert_eq!(made(&house, "feature"), first, "the main branch's cache serves");
    assert_eq!(house.digest("shop", caches[0]).unwrap(), of_main, "a branch wrote the main branch's cache");
    assert!(house.tags("shop").iter().any(|tag| tag.starts_with("buildcache-feature-")));

    // what the branch made is its own, whoever forgets
    let branch_only = format!("{}RUN cat /proc/sys/kernel/random/uuid > /own\n", dockerfile(&house, 2));
    house.commit(&shop, &[("Dockerfile", &branch_only)], "own");
    house.push(&shop, &["feature"]).succeeded();
    let own = |tag: &str| house.image_file("shop", tag, "linux/amd64", "own").unwrap();
    let of_branch = own("feature");
    forget(&house);
    house.commit(&shop, &[("other", "x"), ("Dockerfile", &format!("{branch_only}COPY other /\n"))], "again");
    house.push(&shop, &["feature"]).succeeded();
    assert_eq!(own("feature"), of_branch);
    forget(&house);
    checkout(&house, &shop, "main");
    house.commit(&shop, &[("last", "x"), ("Dockerfile", &format!("{branch_only}COPY last /\n"))], "to main");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(made(&house, "main"), first);
    assert_ne!(own("main"), of_branch, "the main branch read a branch's cache");

    // a branch that goes takes its own along, and nobody else's
    house.push(&shop, &[":feature"]).succeeded();
    house.until("the branch's cache is gone", |house| {
        !house.tags("shop").iter().any(|tag| tag.starts_with("buildcache-feature-"))
    });
    assert!(house.tags("shop").contains(&"feature".to_owned()), "its last image stays");
    forget(&house);
    house.commit(&shop, &[("still", "x"), ("Dockerfile", &format!("{branch_only}COPY still /\n"))], "still");
    house.push(&shop, &["main"]).succeeded().shows("CACHED");
    assert_eq!(made(&house, "main"), first, "the main branch's cache is whole");

    // a try reads, and writes nothing
    let before = house.tags("shop");
    house.commit(&shop, &[("Dockerfile", &dockerfile(&house, 3))], "three");
    house.push(&shop, &["-o", "try", "main"]).failed().shows("try succeeded");
    let new: Vec<String> = house.tags("shop").into_iter().filter(|tag| !before.contains(tag)).collect();
    assert!(new.iter().all(|tag| tag.starts_with("try-")) && new.len() == 1, "{new:?}");
    // and no ref takes the name of a cache
    checkout(&house, &shop, caches[0]);
    house.push(&shop, &[caches[0]]).failed().shows("a name that lemnos gives itself");
}

#[test]
fn a_build_on_two_builders_finds_the_layers_of_both_again() {
    let (near, far) = (OwnBuilder::start(), OwnBuilder::start());
    let spec = |builder: &OwnBuilder, name, platform| format!("{},platform={platform}", builder.spec(name));
    let house = House::start_changed("split", &[], |house| {
        house.builder = Some(spec(&near, "near", "linux/amd64"));
    });
    house.lemnos(&["builders", "add", &spec(&far, "far", "linux/arm64")]).succeeded();
    for name in ["near", "far"] {
        crate::pool::await_state(&house, name, "up");
    }
    app(&house, &["cache=registry", "platforms=linux/amd64,linux/arm64"]);
    // no layer that both push: a registry may lose sight of it, and then no cache is kept
    let dockerfile = |n| dockerfile(&house, n).replace("> /n", "$(cat /made) > /n");
    let shop = house.repository("shop", &[("Dockerfile", &dockerfile(1))]);
    house.push(&shop, &["main"]).succeeded();
    let of = |platform: &str| house.image_file("shop", "main", platform, "made").unwrap();
    let first = (of("linux/amd64"), of("linux/arm64"));
    assert_ne!(first.0, first.1);
    let caches = || -> Vec<String> {
        let of_main = |tag: &String| tag.starts_with("buildcache-main-");
        let mut tags: Vec<String> = house.tags("shop").into_iter().filter(of_main).collect();
        tags.sort();
        tags
    };
    let tags = caches();
    assert!(
        tags.len() == 2 && tags[0].ends_with("-linux-amd64") && tags[1].ends_with("-linux-arm64"),
        "{tags:?}"
    );
    for builder in [&near, &far] {
        prune(&house, builder.address());
    }
    house.commit(&shop, &[("Dockerfile", &dockerfile(2))], "two");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!((of("linux/amd64"), of("linux/arm64")), first, "each found its own again");
    assert_eq!(caches(), tags);
}

#[test]
fn an_inline_cache_is_read_from_the_image() {
    let (house, _builder) = alone("inline");
    app(&house, &["cache=inline"]);
    let file = |n: u32| {
        format!(
            "FROM busybox\nRUN echo {} && cat /proc/sys/kernel/random/uuid > /made\nRUN echo {n} > /n\n",
            house.prefix
        )
    };
    let shop = house.repository("shop", &[("Dockerfile", &file(1))]);
    house.push(&shop, &["main"]).succeeded();
    let first = made(&house, "main");
    forget(&house);
    house.commit(&shop, &[("Dockerfile", &file(2))], "two");
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(made(&house, "main"), first);
    assert!(!house.tags("shop").iter().any(|tag| tag.starts_with("buildcache-")));
    house.lemnos(&["apps", "set", "shop", "cache=off"]).succeeded();
    forget(&house);
    house.commit(&shop, &[("Dockerfile", &file(3))], "three");
    house.push(&shop, &["main"]).succeeded();
    assert_ne!(made(&house, "main"), first, "off is off");
}

#[test]
fn attestations_stand_after_the_images_and_serve_again_with_them() {
    let house = House::start("attest");
    app(&house, &["attest=provenance:min", "platforms=linux/amd64,linux/arm64"]);
    house.lemnos(&["apps", "set", "shop", "build-arg.SAID=a-build-argument"]).succeeded();
    let file = format!("FROM busybox\nARG SAID\nRUN echo {}\n", house.prefix);
    let shop = house.repository("shop", &[("Dockerfile", &file)]);
    house.push(&shop, &["main"]).succeeded();
    let index = house.manifest("shop", "main").unwrap();
    let kinds: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["amd64", "arm64", "unknown", "unknown"]);
    let provenance = |index: &serde_json::Value| {
        let last =
            index["manifests"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
        let manifest: serde_json::Value = serde_json::from_slice(&house.blob("shop", &last, true)).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
        String::from_utf8(house.blob("shop", &layer, false)).unwrap()
    };
    assert!(!provenance(&index).contains("a-build-argument"), "{}", provenance(&index));

    house.commit(&shop, &[], "the same tree");
    house.push(&shop, &["main"]).succeeded().shows("Nothing to build");
    assert_eq!(house.manifest("shop", "main").unwrap()["manifests"], index["manifests"]);

    house.lemnos(&["apps", "set", "shop", "attest=provenance:max"]).succeeded();
    house.commit(&shop, &[], "another setting");
    house.push(&shop, &["main"]).succeeded().hides("Nothing to build");
    let index = house.manifest("shop", "main").unwrap();
    assert!(provenance(&index).contains("a-build-argument"), "{}", provenance(&index));

    // a URL with a password would be published with them
    house.lemnos(&["apps", "set", "shop", "build-arg.FROM_URL=https://ada:pass@example.com/x"]).succeeded();
    house.commit(&shop, &[("more", "x")], "more");
    house
        .push(&shop, &["main"])
        .failed()
        .shows("\"FROM_URL\" holds a URL with a password")
        .shows("secrets add");
    house.lemnos(&["apps", "set", "shop", "build-arg.FROM_URL=", "attest=sbom"]).succeeded();
    house
        .push(&shop, &["main"])
        .failed()
        .shows("no image that makes one is configured")
        .shows("sbom_generator");
    house.lemnos(&["apps", "set", "shop", "attest=off"]).succeeded();
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(house.manifest("shop", "main").unwrap()["manifests"].as_array().unwrap().len(), 2);
}

/// The image of a generator of SBOMs, which says the same of everything; by its digest.
pub fn generator(house: &House) -> String {
    let script =
        "cp /statement $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json; ls $BUILDKIT_SCAN_SOURCE > /dev/null";
    let statement = r#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","subject":[],"predicate":{"name":"scanned-by-the-test"}}"#;
    let scanner = house.home.path().join("scanner");
    std::fs::create_dir(&scanner).unwrap();
    std::fs::write(scanner.join("statement"), statement).unwrap();
    std::fs::write(
        scanner.join("Dockerfile"),
        format!("FROM busybox\nCOPY statement /statement\nCMD [\"sh\", \"-c\", \"{script}\"]\n"),
    )
    .unwrap();
    let name = format!("{}/scanners/{}", house.registry(), house.prefix);
    let tag = format!("{name}:1");
    let built = house
        .lemnos(&[
            "build",
            scanner.to_str().unwrap(),
            "-t",
            &tag,
            "--builder",
            &house.engines.buildkit,
            "--platform",
            "linux/amd64",
            "--push",
            "--quiet",
        ])
        .succeeded();
    format!("{tag}@{}", built.stdout.trim())
}

/// A generator of the test's own: BuildKit runs it over the image, and what it writes is the SBOM.
#[test]
fn an_sbom_is_made_by_the_generator_that_the_app_names() {
    let house = House::start("sbom");
    let generator = generator(&house);
    app(&house, &[&format!("attest=sbom:{generator}")]);
    let shop = house.repository("shop", &[("Dockerfile", &dockerfile(&house, 1))]);
    house.push(&shop, &["main"]).succeeded();
    let index = house.manifest("shop", "main").unwrap();
    let last = index["manifests"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    let manifest: serde_json::Value = serde_json::from_slice(&house.blob("shop", &last, true)).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let sbom = String::from_utf8(house.blob("shop", layer, false)).unwrap();
    assert!(sbom.contains("scanned-by-the-test"), "{sbom}");
    // another app's image is none
    let digest = generator.split_once('@').unwrap().1;
    let other = format!("{}/{}/other@{digest}", house.registry(), house.prefix);
    house.lemnos(&["apps", "set", "shop", &format!("attest=sbom:{other}")]).succeeded();
    house.push(&shop, &["-o", "no-cache", "main:refs/heads/next"]).failed().shows("the SBOM generator");
}

/// D3: what a branch, a try or a git tag leaves in a cache mount is never there for the main branch, nor through a cached step.
#[test]
fn cache_mounts_of_two_branches_never_meet() {
    let house = House::start("branches");
    app(&house, &["build-tags=true"]);
    let mount = |n: u32, command: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,id=shared,target=/c : {}-{n}; {command}\n",
            house.prefix
        )
    };
    let look = "ls -A /c > /seen; cat /c/* >> /seen 2>/dev/null; true";
    let seen = |tag: &str| house.image_file("shop", tag, "linux/amd64", "seen").unwrap();
    let shop = house.repository("shop", &[("Dockerfile", &mount(1, "echo of main > /c/key"))]);
    house.push(&shop, &["main"]).succeeded();
    let commit = |n: u32, command: &str| house.commit(&shop, &[("Dockerfile", &mount(n, command))], "next");

    checkout(&house, &shop, "pull");
    commit(2, &format!("{look}; echo poison > /c/key"));
    house.push(&shop, &["pull"]).succeeded();
    assert_eq!(seen("pull"), "", "a branch sees the main branch's");
    let poisoned = commit(3, look);
    house.push(&shop, &["pull"]).succeeded();
    assert_eq!(seen("pull"), "key\npoison\n");
    // a git tag at the same commit, to the letter
    house.git(&shop, &["tag", "v1"]).succeeded();
    house.push(&shop, &["v1"]).succeeded();
    assert_eq!(seen("v1"), "");
    // and the main branch at that very commit: neither the branch's images nor its steps nor its mounts serve
    house.push(&shop, &[&format!("{poisoned}:refs/heads/main")]).succeeded();
    assert_eq!(seen("main"), "key\nof main\n");
    // a try of the main branch cannot leave anything there either
    checkout(&house, &shop, "main");
    commit(4, "echo tried > /c/key");
    house.push(&shop, &["-o", "try", "main"]).failed().shows("try succeeded");
    commit(5, look);
    house.push(&shop, &["main"]).succeeded();
    assert_eq!(seen("main"), "key\nof main\n");

    // where there are no cache mounts a new branch finds the main branch's steps, and its images where nothing is new
    house.commit(&shop, &[("Dockerfile", &dockerfile(&house, 1))], "no mounts");
    house.push(&shop, &["main"]).succeeded();
    checkout(&house, &shop, "new");
    house.push(&shop, &["new"]).succeeded().shows("Nothing to build");
    house.commit(&shop, &[("Dockerfile", &dockerfile(&house, 2))], "two");
    house.push(&shop, &["new"]).succeeded();
    assert_eq!(made(&house, "new"), made(&house, "main"));
}
