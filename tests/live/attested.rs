//! Attestations of what is made without an image of BuildKit's: as referrers of Spin artifacts and of Go programs' images.

use serde_json::Value;

use crate::cache::generator;
use crate::house::House;

const SPIN: &str = r#"spin_manifest_version = 2
[application]
name = "greeting"
version = "1.0.0"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "web.wasm"
files = ["*"]
[component.web.build]
command = "printf '\\000asm\\001\\000\\000\\000web' > web.wasm; printf '{}' > .lemnos-statement-provenance.json"
"#;
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The statements that the registry finds at a digest, by the types of what they predicate; each is about that digest.
fn statements(house: &House, app: &str, digest: &str) -> Vec<(String, Value)> {
    let listed = house.manifest(app, &digest.replace(':', "-")).unwrap();
    let listed = listed["manifests"].as_array().unwrap().clone();
    let read = |of: &str, manifest: bool| -> Value {
        serde_json::from_slice(&house.blob(app, of, manifest)).unwrap()
    };
    let mut found = Vec::new();
    for one in listed.iter().filter(|one| one["artifactType"] == IN_TOTO) {
        let manifest = read(one["digest"].as_str().unwrap(), true);
        assert_eq!(manifest["subject"]["digest"], digest);
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], IN_TOTO);
        let said = read(layer["digest"].as_str().unwrap(), false);
        assert_eq!(said["_type"], "https://in-toto.io/Statement/v1");
        let hex = digest.trim_start_matches("sha256:");
        let subjects = said["subject"].as_array().unwrap();
        assert!(subjects.iter().any(|subject| subject["digest"]["sha256"] == hex), "{said}");
        assert!(subjects.iter().all(|subject| subject["name"] == house.image(app).as_str()), "{said}");
        let kind = said["predicateType"].as_str().unwrap().to_owned();
        assert_eq!(one["annotations"]["in-toto.io/predicate-type"], kind.as_str());
        found.push((kind, said));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn kinds(statements: &[(String, Value)]) -> Vec<&str> {
    statements.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn a_spin_artifact_stays_one_manifest_and_what_is_attested_refers_to_it() {
    let house = House::start("spin-attested");
    let files = [("spin.toml", SPIN), ("build-config.yaml", "spin_config: { image: busybox }\n")];
    let generator = generator(&house);
    house.app("shop");
    house.lemnos(&["apps", "set", "shop", &format!("attest=provenance:max,sbom:{generator}")]).succeeded();
    let shop = house.repository("shop", &files);
    house.push(&shop, &["main"]).succeeded().hides("no effect");
    let manifest = house.manifest("shop", "main").unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let digest = house.digest("shop", "main").unwrap();
    let first = statements(&house, "shop", &digest);
    let [(slsa, provenance), (spdx, sbom)] = first.as_slice() else { panic!("{first:?}") };
    assert!(spdx.starts_with("https://spdx.dev/") && slsa.starts_with("https://slsa.dev/provenance/"));
    assert_eq!(sbom["predicate"]["name"], "scanned-by-the-test");
    // the steps are in the larger one
    assert!(provenance.to_string().contains("web.wasm"), "{provenance}");

    // none of it is in the artifact, and what a command left under such a name is in the artifact only
    house.app("plain");
    let url = house.url("plain");
    house.git(&shop, &["push", &url, "main"]).succeeded();
    assert_eq!(house.digest("plain", "main").unwrap(), digest, "attestations change nothing");

    // a commit without a change: another manifest, with statements of its own, of the build that there was
    house.commit(&shop, &[], "again");
    house.push(&shop, &["main"]).succeeded().shows("its artifact serves again");
    let again = house.digest("shop", "main").unwrap();
    assert_ne!(again, digest);
    let second = statements(&house, "shop", &again);
    assert_eq!(kinds(&second), kinds(&first));
    assert_eq!(second[0].1["predicate"], provenance["predicate"]);

    house.lemnos(&["apps", "set", "shop", "attest=off"]).succeeded();
    house.commit(&shop, &[], "off");
    house.push(&shop, &["main"]).succeeded().hides("serves again");
    let off = house.digest("shop", "main").unwrap();
    assert_eq!(house.manifest("shop", &off.replace(':', "-")), None);
}

#[test]
fn the_provenance_of_a_go_program_refers_to_its_images_and_their_index() {
    let house = crate::ko_push::house("ko-attested");
    house.app("hello");
    house.lemnos(&["apps", "set", "hello", "attest=provenance:min"]).succeeded();
    let module = "module example.com/hello\n\ngo 1.24\n";
    let program = "package main\n\nfunc main() { println(1) }\n";
    let work = house.repository("hello", &[("go.mod", module), ("main.go", program)]);
    house.push(&work, &["main"]).succeeded().hides("provenance");
    let index = house.manifest("hello", "main").unwrap();
    let top = house.digest("hello", "main").unwrap();
    let images = index["manifests"].as_array().unwrap();
    let digests: Vec<String> =
        images.iter().map(|image| image["digest"].as_str().unwrap().to_owned()).collect();
    assert_eq!(digests.len(), 2);
    let said: Vec<_> = digests.iter().chain([&top]).map(|of| statements(&house, "hello", of)).collect();
    for found in &said {
        let [(slsa, statement)] = found.as_slice() else { panic!("{found:?}") };
        assert!(slsa.starts_with("https://slsa.dev/provenance/"), "{slsa}");
        assert_eq!(statement["subject"].as_array().unwrap().len(), 3, "all that came of the compile");
        // the toolchain is what went in
        assert!(statement["predicate"].to_string().contains("golang"), "{statement}");
    }
    assert!(
        said[2][0].1["predicate"].to_string().contains("pkg:docker/"),
        "the base is not in the builder's graph"
    );
    // the SBOM is listed beside it
    let listed = house.manifest("hello", &top.replace(':', "-")).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 2);
    // the same commit comes again: its index, and what refers to that, are the ones that stand there
    let before = house.tags("hello");
    house.commit(&work, &[("main.go", "package main\n\nfunc main() { println(2) }\n")], "two");
    house.push(&work, &["main"]).succeeded();
    house.push(&work, &["+main~1:main"]).succeeded().shows("serve again");
    assert_eq!(house.digest("hello", "main").unwrap(), top);
    assert_eq!(statements(&house, "hello", &top), said[2]);
    assert!(before.iter().all(|tag| house.tags("hello").contains(tag)));

    // the larger one holds what the compiler is told
    house.lemnos_reading(&["secrets", "add", "hello", "token"], "canary-of-hello").succeeded();
    house.lemnos(&["apps", "set", "hello", "attest=provenance:max"]).succeeded();
    house.lemnos(&["apps", "set", "hello", "build-arg.TOKEN=canary-of-hello"]).succeeded();
    let refused = house.push(&work, &["main"]).failed();
    refused.shows("the environment's TOKEN holds one of the app's secrets").hides("canary-of-hello");
    house.lemnos(&["apps", "set", "hello", "build-arg.TOKEN="]).succeeded();
    house.push(&work, &["main"]).succeeded();
    let top = house.digest("hello", "main").unwrap();
    // beside what was said when the same images were built before
    let all = statements(&house, "hello", &top);
    assert_eq!(all.len(), 2);
    assert!(all.iter().any(|(_, said)| said["predicate"].to_string().contains("\"build\"")), "{all:?}");
}
