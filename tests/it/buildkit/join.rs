//! Flags joined to a build: what they name is opened, stands under the right number or name, and is recorded afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lemnos::buildkit::join::{Flags, JoinError, Joined};
use lemnos::buildkit::session::content::ContentStore;
use lemnos::buildkit::session::filesend::{DirExport, Export};
use lemnos::buildkit::session::ssh::Agent;
use lemnos::buildkit::solve::{Dockerfile, NamedContext};
use lemnos::buildkit::{Session, SolveRequest, SolveResult, flags};
use sha2::{Digest as _, Sha256};

struct Build {
    joined: Joined,
    dockerfile: Dockerfile,
    request: SolveRequest,
}

fn join(flags: Flags) -> Result<Build, JoinError> {
    let (mut dockerfile, mut request) = (Dockerfile::default(), SolveRequest::default());
    let joined = flags.join(Session::builder("app:main"), &mut dockerfile, &mut request)?;
    Ok(Build { joined, dockerfile, request })
}

fn outputs(given: &[&str]) -> Flags {
    let outputs = given.iter().map(|given| flags::output(given).unwrap()).collect();
    Flags { outputs, ..Flags::default() }
}

fn caches(from: &[&str], to: &[&str]) -> Flags {
    let read =
        |flag, given: &[&str]| given.iter().flat_map(|given| flags::cache(flag, given).unwrap()).collect();
    Flags { cache_from: read("--cache-from", from), cache_to: read("--cache-to", to), ..Flags::default() }
}

fn contexts(given: &[&str]) -> Flags {
    let contexts = given.iter().map(|given| flags::build_context(given).unwrap()).collect();
    Flags { contexts, ..Flags::default() }
}

fn told(flags: Flags) -> String {
    join(flags).map(|build| build.request).unwrap_err().to_string()
}

/// A blob in the store at `root`; its digest.
fn blob(root: &Path, content: &str) -> String {
    let hex = hex::encode(Sha256::digest(content));
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    std::fs::write(root.join("blobs/sha256").join(&hex), content).unwrap();
    format!("sha256:{hex}")
}

fn index(root: &Path, named: &[(&str, &str)]) {
    let manifest = |(digest, tag): &(&str, &str)| {
        let annotations = serde_json::json!({"org.opencontainers.image.ref.name": tag});
        serde_json::json!({"mediaType": "m", "digest": digest, "size": 1, "annotations": annotations})
    };
    let manifests: Vec<_> = named.iter().map(manifest).collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn an_output_goes_to_the_place_of_its_exporters_number() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut flags = outputs(&[
        "type=cacheonly",
        "type=image,name=a",
        &format!("type=tar,dest={}", at("t")),
        &at("d"),
        "type=registry,name=b",
        "type=oci",
        "type=docker",
        &format!("type=oci,tar=false,dest={}", at("layout")),
    ]);
    let streams = [tokio::io::sink(), tokio::io::sink()].map(Export::writer);
    [flags.stdout, flags.docker] = streams.map(Some);
    let build = join(flags).unwrap();
    let kinds: Vec<&str> = build.request.exporters.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["image", "tar", "local", "image", "oci", "docker", "oci"]);
    let session = build.request.session;
    let numbers: Vec<u32> = session.exports.keys().copied().collect();
    assert_eq!(numbers, [1, 2, 4, 5]);
    let place = DirExport { path: at("d").into(), delete: false, limit_bytes: None };
    assert!(matches!(&session.exports[&2], Export::Dir(dir) if *dir == place));
    assert_eq!(session.stores.keys().collect::<Vec<_>>(), ["export"]);
}

#[test]
fn outputs_that_have_no_place_are_told_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (given, words) in [
        (vec![format!("type=tar,dest={}", dir.path().display())], "directory in the file's place"),
        (vec![format!("type=local,dest={}", at("file"))], "file in the directory's place"),
        (vec![format!("type=local,dest={},mode=wipe", at("d"))], "copy and delete"),
        (vec![format!("type=local,dest={},mode=delete", at("d"))], "--allow buildx.local.delete"),
        (vec!["type=local,dest=.,mode=delete".into()], "--allow buildx.local.delete"),
        (vec!["type=local,dest=target/../..,mode=delete".into()], "--allow buildx.local.delete"),
        (vec!["type=local".into()], "dest=DIRECTORY"),
        (vec!["type=docker".into()], "no docker here"),
        (vec!["-".into(), "type=oci".into()], "standard output"),
        (
            vec![
                format!("type=oci,tar=false,dest={0}", at("a")),
                format!("type=oci,tar=false,dest={0}", at("b")),
            ],
            "two content stores called \"export\"",
        ),
    ] {
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let stdout = Some(Export::writer(tokio::io::sink()));
        let told = told(Flags { stdout, ..outputs(&given) });
        assert!(told.contains(words), "{given:?}: {told}");
    }
    // below the working directory it may delete, elsewhere where it is told so
    let below = join(outputs(&["type=local,dest=target/not-there/out,mode=delete"])).unwrap();
    let elsewhere = outputs(&[&format!("type=local,dest={},mode=delete", at("d"))]);
    let elsewhere = join(Flags { delete_anywhere: true, ..elsewhere }).unwrap();
    for build in [below, elsewhere] {
        assert!(matches!(&build.request.session.exports[&0], Export::Dir(dir) if dir.delete));
    }
}

#[test]
fn a_link_out_of_the_working_directory_is_outside_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let inside = tempfile::Builder::new().prefix(".join-").tempdir_in(&here).unwrap();
    std::os::unix::fs::symlink(dir.path(), inside.path().join("out")).unwrap();
    let given = format!("type=local,dest={}/out/deep,mode=delete", inside.path().display());
    assert!(told(outputs(&[&given])).contains("buildx.local.delete"));
    let given = format!("type=local,dest={}/own,mode=delete", inside.path().display());
    join(outputs(&[&given])).unwrap();
}

#[tokio::test]
async fn secrets_and_agents_come_from_where_the_flags_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "from the file").unwrap();
    let secret = |given: &str| flags::secret(given).unwrap();
    let secrets = vec![
        secret("id=twice,src=/none"),
        secret(&format!("id=twice,src={}", file.display())),
        secret("id=variable,env=CARGO_PKG_NAME"),
        secret("id=CARGO_PKG_NAME"),
        secret(&format!("id={}", file.display())),
    ];
    let socket = dir.path().join("agent");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ssh = |given: String| flags::ssh(&given).unwrap();
    let agents = vec![ssh("a=/none".into()), ssh(format!("a={}", socket.display()))];
    let build = join(Flags { secrets, ssh: agents, ..Flags::default() }).unwrap();
    let store = build.request.session.secrets.unwrap();
    for (id, want) in [
        ("twice", "from the file"),
        ("variable", env!("CARGO_PKG_NAME")),
        ("CARGO_PKG_NAME", env!("CARGO_PKG_NAME")),
        (file.to_str().unwrap(), "from the file"),
    ] {
        assert_eq!(store.secret(id).await.unwrap().as_deref(), Some(want.as_bytes()), "{id}");
    }
    assert!(matches!(&build.request.session.agents["a"], Agent::Socket(path) if *path == socket));
    let both = ssh(format!("a={0},{0}", socket.display()));
    assert!(told(Flags { ssh: vec![both], ..Flags::default() }).contains("one agent's socket"));
    let neither = ssh(format!("a={}", dir.path().display()));
    assert!(told(Flags { ssh: vec![neither], ..Flags::default() }).contains("\"a\""));
    let missing = Flags { secrets: vec![secret("id=s,src=/none")], ..Flags::default() };
    assert!(told(missing).contains("\"s\" cannot be read"));
}

#[test]
fn a_local_cache_is_read_by_its_tag_and_named_after_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().display().to_string();
    let (a, b) = (blob(dir.path(), "a"), blob(dir.path(), "b"));
    index(dir.path(), &[(&a, "latest"), (&b, "old"), ("sha256:0", "broken")]);
    let from = |more: &str| {
        let build = join(caches(&[&format!("type=local,src={cache}{more}")], &[])).unwrap();
        let stores: Vec<String> = build.request.session.stores.keys().cloned().collect();
        (
            build.request.cache_imports.first().map(|e| e.attrs["digest"].clone()),
            stores,
            build.joined.warnings,
        )
    };
    let offered = vec![format!("local:{cache}")];
    assert_eq!(from(""), (Some(a), offered.clone(), vec![]));
    assert_eq!(from(",tag=old"), (Some(b.clone()), offered.clone(), vec![]));
    assert_eq!(from(&format!(",digest={b}")), (Some(b), offered, vec![]));
    let absent = format!(",digest=sha256:{}", "0".repeat(64));
    for (more, words) in [
        (",tag=none", "\"none\""),
        (",tag=broken", "no digest"),
        (&absent, "no blob"),
        ("/none", "not found"),
    ] {
        let (digest, stores, warnings) = from(more);
        assert_eq!((digest, stores.len()), (None, 0), "{more}");
        assert!(warnings[0].contains(words) && warnings[0].contains(&cache), "{warnings:?}");
    }
    assert!(told(caches(&["type=local"], &[])).contains("src=DIRECTORY"));
    assert!(told(caches(&[&format!("type=local,src={cache},tag=")], &[])).contains("tag=NAME"));
    // others are left as they are
    let build = join(caches(&["r.example/c", "type=gha"], &["type=inline"])).unwrap();
    assert_eq!((build.request.cache_imports.len(), build.request.cache_exports.len()), (2, 1));
    assert!(build.request.session.stores.is_empty());
}

fn answer(name: &str, value: String) -> SolveResult {
    SolveResult { attrs: BTreeMap::from([(name.to_owned(), value)]), ..SolveResult::default() }
}

#[test]
fn a_cache_that_is_written_is_named_and_may_be_cleared_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("new/cache");
    let cache = place.display().to_string();
    let to = |more: &str| {
        // read from the same place: nothing is there at first, and the store is offered once
        join(caches(&[&format!("type=local,src={cache}")], &[&format!("type=local,dest={cache}{more}")]))
            .unwrap()
    };
    let build = to("");
    assert_eq!(build.request.session.stores.keys().collect::<Vec<_>>(), [&format!("local:{cache}")]);
    assert_eq!((build.request.cache_imports.len(), build.joined.warnings.len()), (0, 1));
    let layer = blob(&place, "layer");
    let config = blob(&place, "config");
    let text = serde_json::json!({"config": {"digest": config, "size": 1}, "layers": [{"digest": layer, "size": 1}]});
    let manifest = blob(&place, &text.to_string());
    let outer = serde_json::json!({"manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": 1}]});
    let outer = blob(&place, &outer.to_string());
    let stray = blob(&place, "stray");
    let named = |digest: &str| {
        let media = "application/vnd.oci.image.index.v1+json";
        answer(
            "cache.manifest",
            serde_json::json!({"mediaType": media, "digest": digest, "size": 1}).to_string(),
        )
    };
    build.joined.record(&named(&outer)).unwrap();
    let store = ContentStore::read_only(&place).unwrap();
    assert_eq!(store.resolve("latest").unwrap().unwrap().digest, outer);
    assert!(store.info(&stray.parse().unwrap()).is_ok());
    // one blob less, and what is left of it is not taken for the whole
    let path = place.join("blobs/sha256").join(&manifest[7..]);
    std::fs::rename(&path, place.join("aside")).unwrap();
    assert!(to(",reset=true").joined.record(&named(&outer)).is_err());
    assert_eq!(store.list().unwrap().len(), 4);
    std::fs::rename(place.join("aside"), &path).unwrap();
    let build = to(",reset=true,tag=other");
    assert_eq!(build.request.cache_imports.len(), 1);
    build.joined.record(&named(&outer)).unwrap();
    let left: Vec<String> = store.list().unwrap().iter().map(|blob| blob.digest.to_string()).collect();
    let mut want = [outer.clone(), manifest, config, layer];
    want.sort();
    assert_eq!(left, want);
    assert_eq!(store.resolve("other").unwrap().unwrap().digest, outer);
    assert!(told(caches(&[], &[&format!("type=local,dest={cache},reset=x")])).contains("true or false"));
    assert!(told(caches(&[], &["type=local"])).contains("dest=DIRECTORY"));
    // a build that wrote no cache names none
    let fresh = dir.path().join("fresh");
    let build = join(caches(&[], &[&format!("type=local,dest={}", fresh.display())])).unwrap();
    build.joined.record(&SolveResult::default()).unwrap();
    assert!(!fresh.join("index.json").exists());
}

#[test]
fn an_exported_layout_is_named_as_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let build = join(outputs(&[&format!("type=oci,tar=false,dest={}", dir.path().display())])).unwrap();
    let digest = blob(dir.path(), "m");
    let descriptor =
        STANDARD.encode(serde_json::json!({"mediaType": "m", "digest": digest, "size": 1}).to_string());
    let mut result = answer("containerimage.descriptor", descriptor);
    build.joined.record(&result).unwrap();
    let names = "docker.io/library/a:1,r.example:5000/b:two".to_owned();
    result.attrs.insert("image.name".into(), names);
    for _ in 0..2 {
        build.joined.record(&result).unwrap();
    }
    let text = std::fs::read_to_string(dir.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| -> Vec<String> {
        let manifests = index["manifests"].as_array().unwrap().iter();
        manifests.map(|m| m["annotations"][key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of("org.opencontainers.image.ref.name"), ["latest", "1", "two"]);
    assert_eq!(of("io.containerd.image.name"), ["", "docker.io/library/a:1", "r.example:5000/b:two"]);
}

#[test]
fn contexts_of_this_machine_are_offered_by_a_name_that_collides_with_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (files, layout) = (dir.path().join("files"), dir.path().join("layout"));
    std::fs::create_dir(&files).unwrap();
    std::fs::create_dir(&layout).unwrap();
    let (one, two) = (blob(&layout, "1"), blob(&layout, "2"));
    index(&layout, &[(&one, "one"), (&two, "two")]);
    let build = join(contexts(&[
        &format!("context={}", at("files")),
        &format!("lib={}", at("files")),
        &format!("base/image:1=oci-layout://{}:two", at("layout")),
        &format!("exact=oci-layout://{}@{one}", at("layout")),
        "far=docker-image://busybox",
    ]))
    .unwrap();
    let local = |dir: &str| NamedContext::Local { dir: dir.into(), shared_key: Some("files".into()) };
    let image =
        |store: &str, digest: &str| NamedContext::OciLayout { store: store.into(), digest: digest.into() };
    let want = [
        ("base/image:1", image("context-base-image-1", &two)),
        ("context", local("_context")),
        ("exact", image("context-exact", &one)),
        ("far", NamedContext::Image("busybox".into())),
        ("lib", local("lib")),
    ];
    assert_eq!(build.dockerfile.contexts, want.map(|(name, context)| (name.to_owned(), context)).into());
    let session = build.request.session;
    assert_eq!(session.dirs.keys().collect::<Vec<_>>(), ["_context", "lib"]);
    assert_eq!(session.stores.keys().collect::<Vec<_>>(), ["oci:context-base-image-1", "oci:context-exact"]);
    // without a tag it is `latest`, or the only one
    assert!(told(contexts(&[&format!("a=oci-layout://{}", at("layout"))])).contains("PATH:TAG"));
    index(&layout, &[(&one, "one")]);
    let build = join(contexts(&[&format!("a=oci-layout://{}", at("layout"))])).unwrap();
    assert_eq!(build.dockerfile.contexts["a"], image("context-a", &one));
    assert!(told(contexts(&["a=/none/at/all"])).contains("\"a\""));
    assert!(told(contexts(&["a=oci-layout:///none"])).contains("/none"));
}
