//! Locked applications and artifacts.

use std::collections::BTreeMap;
use std::io::Read;

use lemnos::assemble::spin::{
    ARCHIVE_END_BYTES, Artifact, ComponentContent, Content, Contents, Shape, archive_entries, artifact,
    check_wasm, shape,
};
use lemnos::model::{Digest, SpinApp};
use serde_json::Value as Json;

use super::{MODULE, app};

/// Bytes above what is inlined.
fn large(name: &str) -> Vec<u8> {
    name.as_bytes().iter().copied().cycle().take(200).collect()
}

fn content(wasm: &[u8], files: &[(&str, &[u8])]) -> ComponentContent {
    let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), Content::of(bytes))).collect();
    ComponentContent { wasm: Content::of(wasm), files }
}

fn contents<const N: usize>(components: [(&str, ComponentContent); N]) -> Contents {
    components.into_iter().map(|(id, content)| (id.to_owned(), content)).collect()
}

fn made(app: &SpinApp, contents: &Contents) -> Artifact {
    let created = "org.opencontainers.image.created".to_owned();
    artifact(app, contents, None, &BTreeMap::from([(created, "2026-01-02T03:04:05Z".to_owned())])).unwrap()
}

fn pretty(bytes: &[u8]) -> String {
    serde_json::to_string_pretty(&serde_json::from_slice::<Json>(bytes).unwrap()).unwrap()
}

const TWO: &str = r#"
spin_manifest_version = 2
[application]
name = "shop"
version = "1.2.3"
description = "A shop"
authors = ["Ann", "Bo"]
[application.trigger.http]
base = "/shop"
[variables]
host = { default = "example.com", description = "Where" }
token = { required = true, secret = true }
[[trigger.http]]
route = "/..."
executor = { type = "http", alpha = { z = 1, a = [true] } }
component = "web"
[[trigger.http]]
route = { private = true }
component = "api"
[component.web]
source = "web.wasm"
description = "Pages"
environment = { Z = "1", A = "2" }
files = [{ source = "static", destination = "/" }]
allowed_outbound_hosts = ["http://*.spin.internal", "https://{{ host }}"]
key_value_stores = ["default"]
sqlite_databases = ["default"]
ai_models = ["llama2-chat"]
variables = { token = "{{ token }}" }
build = { command = ["cargo build", "x"], workdir = "w", watch = ["src/*"] }
[component.api]
source = "api.wasm"
"#;

fn two() -> SpinApp {
    // the files are given with the contents
    let manifest = TWO.replace("files = [{ source = \"static\", destination = \"/\" }]\n", "");
    app(&manifest)
}

#[test]
fn a_locked_application_reads_like_this() {
    let files = [("small.txt", b"hi" as &[u8]), ("img/logo.png", &large("logo"))];
    let made =
        made(&two(), &contents([("web", content(&large("web"), &files)), ("api", content(MODULE, &[]))]));
    // the order of fields and maps is part of it
    insta::assert_snapshot!(String::from_utf8(made.application.clone()).unwrap());
    insta::assert_snapshot!(pretty(&made.application));
    insta::assert_snapshot!(String::from_utf8(made.config.clone()).unwrap());
    insta::assert_snapshot!(pretty(&made.manifest));
    assert_eq!(made.digest, Digest::of(&made.manifest));
    assert_eq!(made.layers.last().unwrap().digest, Digest::of(&made.application));
}

#[test]
fn a_plain_application_is_of_lock_version_0() {
    let app = app(
        "spin_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\" }\n[[component]]\nid = \"a\"\nsource = \"a.wasm\"\n[component.trigger]\nroute = \"/\"\n",
    );
    let made = made(&app, &contents([("a", content(MODULE, &[]))]));
    insta::assert_snapshot!(String::from_utf8(made.application.clone()).unwrap());
    assert_eq!(made.layers.len(), 2, "a small component keeps its layer");
}

#[test]
fn several_trigger_types_have_no_older_form() {
    let app = app(
        "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger.http = [{ component = \"a\" }]\ntrigger.redis = [{ component = \"a\", channel = \"c\" }]\n[component.a]\nsource = \"a.wasm\"\n",
    );
    let made = made(&app, &contents([("a", content(MODULE, &[]))]));
    let locked: Json = serde_json::from_slice(&made.application).unwrap();
    assert_eq!(locked["metadata"], serde_json::json!({"name": "x", "triggers": {}}));
}

#[test]
fn layers_stand_once_and_in_order() {
    let shared = large("shared");
    let web = content(
        &large("web"),
        &[("b", &shared), ("a", &large("a")), ("tiny", b"x"), ("copy-of-wasm", &large("web"))],
    );
    let api = content(&large("web"), &[("again", &shared)]);
    let made = made(&two(), &contents([("web", web), ("api", api)]));
    let layers: Vec<(&str, String)> = made
        .layers
        .iter()
        .map(|layer| (layer.media_type.rsplit_once('+').unwrap().1, layer.digest.to_string()))
        .collect();
    let of = |bytes: &[u8]| Digest::of(bytes).to_string();
    assert_eq!(
        layers,
        [
            ("wasm", of(&large("web"))),
            ("data", of(&large("a"))),
            ("data", of(&shared)),
            // the same bytes as a file are a layer of another type
            ("data", of(&large("web"))),
            ("config", of(&made.application)),
        ]
    );
}

#[test]
fn the_bounds_of_inlining_and_of_layers() {
    for (bytes, inlined) in [(0, true), (128, true), (129, false)] {
        let file = vec![b'x'; bytes];
        let made = made(
            &two(),
            &contents([("web", content(MODULE, &[("f", &file)])), ("api", content(MODULE, &[]))]),
        );
        assert_eq!(made.layers.len(), if inlined { 2 } else { 3 }, "{bytes}");
        let locked: Json = serde_json::from_slice(&made.application).unwrap();
        assert_eq!(locked["components"][0]["files"][0].get("inline").is_some(), inlined, "{bytes}");
        assert_eq!(locked["components"][0]["source"]["inline"], "AGFzbQEAAAA", "without padding");
    }
    let of_files = |count: usize| {
        let files: BTreeMap<String, Content> =
            (0..count).map(|n| (format!("f{n}"), Content::of(&large(&format!("file {n}"))))).collect();
        contents([
            ("web", ComponentContent { wasm: Content::of(MODULE), files }),
            ("api", content(MODULE, &[])),
        ])
    };
    assert_eq!(shape(&two(), &of_files(498)).unwrap(), Shape::Files, "499 with the component");
    assert_eq!(shape(&two(), &of_files(499)).unwrap(), Shape::Archives);
    let many: SpinApp = {
        let mut app = two();
        let web = app.components[0].clone();
        app.components =
            (0..250).map(|n| lemnos::model::SpinComponent { id: format!("c{n}"), ..web.clone() }).collect();
        app
    };
    let all: Contents = (0..250)
        .map(|n| {
            let files: Vec<(String, Vec<u8>)> =
                (0..2).map(|f| (format!("f{f}"), large(&format!("{n} {f}")))).collect();
            let files: Vec<(&str, &[u8])> =
                files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
            (format!("c{n}"), content(&large(&format!("component {n}")), &files))
        })
        .collect();
    assert!(shape(&many, &all).unwrap_err().to_string().contains("500 layers"));
}

/// A component's archive, as the caller makes it: headers, contents, zeros, and gzip.
fn archived(files: &BTreeMap<String, Vec<u8>>) -> (Content, Vec<u8>) {
    let contents: BTreeMap<String, Content> =
        files.iter().map(|(path, bytes)| (path.clone(), Content::of(bytes))).collect();
    let mut tar = Vec::new();
    for entry in archive_entries(&contents).unwrap() {
        tar.extend_from_slice(&entry.header);
        tar.extend_from_slice(&files[entry.path]);
        tar.resize(tar.len() + entry.padding_bytes, 0);
    }
    tar.resize(tar.len() + ARCHIVE_END_BYTES, 0);
    (Content::of(&tar), tar)
}

#[test]
fn archives_hold_every_file_and_nothing_of_a_machine() {
    let long = format!("{}/name", "directory/".repeat(20));
    let files: BTreeMap<String, Vec<u8>> = [
        ("a", b"tiny".to_vec()),
        ("b/c", large("c")),
        ("empty", Vec::new()),
        ("block", vec![7; 512]),
        ("\u{e9}\u{4e16}", large("names")),
        (&long, large("long")),
        (&"x".repeat(100), vec![1]),
        (&"y".repeat(101), vec![2]),
    ]
    .into_iter()
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .collect();
    let (archive, tar) = archived(&files);
    let mut read = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap()),
            (0, 0, 0, 0o644)
        );
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        read.insert(path, bytes);
    }
    assert_eq!(read, files);
    assert_eq!(tar.len() % 512, 0);

    let small: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let contents = contents([("web", content(&large("web"), &small)), ("api", content(MODULE, &[]))]);
    let archives = BTreeMap::from([("web".to_owned(), archive.clone())]);
    let made = artifact(&two(), &contents, Some(&archives), &BTreeMap::new()).unwrap();
    let kinds: Vec<&str> = made.layers.iter().map(|layer| layer.media_type).collect();
    assert_eq!(
        kinds,
        [
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.wasm.content.bundle.v1.tar+gzip",
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.fermyon.spin.application.v1+config"
        ]
    );
    assert_eq!(made.layers[1].digest, archive.digest);
    let locked: Json = serde_json::from_slice(&made.application).unwrap();
    assert_eq!(locked["components"][0]["files"].as_array().unwrap().len(), files.len());
    let refused = artifact(&two(), &contents, Some(&BTreeMap::new()), &BTreeMap::new()).unwrap_err();
    assert_eq!(refused.to_string(), "no archive of the files of the component web was handed over");
}

#[test]
fn what_is_not_handed_over_is_named() {
    let one = contents([("web", content(MODULE, &[]))]);
    assert_eq!(
        artifact(&two(), &one, None, &BTreeMap::new()).unwrap_err().to_string(),
        "the component api has no content"
    );
    let mut both = contents([("web", content(MODULE, &[("f", b"x")])), ("api", content(MODULE, &[]))]);
    both.get_mut("web").unwrap().files.get_mut("f").unwrap().small = None;
    assert!(
        artifact(&two(), &both, None, &BTreeMap::new())
            .unwrap_err()
            .to_string()
            .contains("was not handed over")
    );
}

#[test]
fn only_webassembly_is_a_component() {
    for good in [MODULE, b"\0asm\x0d\0\x01\0 and more"] {
        check_wasm("a", good).unwrap();
    }
    let refused: Vec<String> =
        [&b""[..], b"\x7fELF\x02\x01\x01\0", b"\0asm\x02\0\0\0", b"\0asm", b"(module)"]
            .iter()
            .map(|bad| check_wasm("a", bad).unwrap_err().to_string())
            .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn equal_inputs_make_equal_bytes_and_given_annotations_win() {
    let all = || contents([("web", content(MODULE, &[("f", &large("f"))])), ("api", content(MODULE, &[]))]);
    assert_eq!(made(&two(), &all()), made(&two(), &all()));
    let title = BTreeMap::from([("org.opencontainers.image.title".to_owned(), "ours".to_owned())]);
    let made = artifact(&two(), &all(), None, &title).unwrap();
    let manifest: Json = serde_json::from_slice(&made.manifest).unwrap();
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "ours");
    assert!(manifest["annotations"].get("org.opencontainers.image.created").is_none(), "no clock is read");
    assert!(
        manifest.get("manifests").is_none()
            && manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    );
}
