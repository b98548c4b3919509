//! The registry client, the index and the commit point against a real registry, read back by crane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use lemnos::assemble;
use lemnos::event::EventSink;
use lemnos::failpoint::Failpoints;
use lemnos::model::{BuildId, ImageName, Platform, RefUpdate, Sha, Tag};
use lemnos::registry::{INDEX, Reference, Registry, RegistryConfig};
use lemnos::store::Store;
use lemnos::tag::{Move, Publication, Tagger, TaggerConfig};

use crate::support::engines;

fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program:?} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn tag(text: &str) -> Reference {
    text.parse::<Tag>().unwrap().into()
}

/// A repository of its own with busybox for both platforms in it.
fn with_busybox() -> ImageName {
    let engines = engines();
    let image = format!("{}/registry-test/{}", engines.registry, BuildId::generate());
    let base = format!("{}/library/busybox:latest", engines.base_registry);
    run(&engines.crane, &["copy", "--insecure", &base, &format!("{image}:base")]);
    image.parse().unwrap()
}

fn platforms() -> Vec<Platform> {
    ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).into()
}

/// An index over busybox with an annotation, pushed by digest.
async fn pushed_index(registry: &Registry, image: &ImageName, revision: &str) -> assemble::Index {
    let base = registry.get_manifest(image, &tag("base")).await.unwrap();
    let children = assemble::fetch(registry, image, &[(base.digest, None)]).await.unwrap();
    let annotations = BTreeMap::from([("org.opencontainers.image.revision".to_owned(), revision.to_owned())]);
    let index = assemble::index(&platforms(), children, &annotations).unwrap();
    let digest = assemble::push(registry, image, &index, &Failpoints::default()).await.unwrap();
    assert_eq!(digest, index.digest);
    index
}

#[tokio::test]
async fn a_commit_is_what_crane_sees() {
    let image = with_busybox();
    let registry = Registry::new(RegistryConfig::default()).unwrap();
    registry.ping(image.host()).await.unwrap();
    let index = pushed_index(&registry, &image, "abc").await;
    assert_eq!(registry.head_manifest(&image, &tag("main")).await.unwrap(), None);

    let root = tempfile::tempdir().unwrap();
    let git = PathBuf::from(run(Path::new("/bin/sh"), &["-c", "command -v git"]));
    let repository = root.path().join("shop.git");
    let path = repository.to_str().unwrap();
    run(&git, &["init", "-q", "--bare", path]);
    let tree = run(&git, &["--git-dir", path, "hash-object", "-w", "-t", "tree", "/dev/null"]);
    let identity = ["-c", "user.name=a", "-c", "user.email=a"];
    let commit: Sha =
        run(&git, &[&identity[..], &["--git-dir", path, "commit-tree", "-m", "a", &tree]].concat())
            .parse()
            .unwrap();

    let store = Store::open(root.path()).await.unwrap();
    let app = store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
    let tagger = Tagger::new(store, registry.clone(), TaggerConfig::new(git.clone()));
    let tags = ["git-abc", "main", "latest"];
    let update =
        RefUpdate { name: "refs/heads/main".parse().unwrap(), old: Sha::zero(), new: commit.clone() };
    let publication = Publication {
        build: BuildId::generate(),
        image: image.clone(),
        digest: index.digest.clone(),
        media_type: index.media_type.clone(),
        form: Default::default(),
        platforms: Vec::new(),
        bytes: index.bytes.clone(),
        tags: tags.map(|tag| tag.parse().unwrap()).into(),
        unshared: 1,
    };
    let moves = vec![Move::of_ref(update, Some(publication))];
    let done = tagger.commit(&app, &repository, moves, &EventSink::discard()).await.unwrap();
    assert_eq!(done.pending, []);

    let crane = &engines().crane;
    for tag in tags {
        assert_eq!(run(crane, &["digest", "--insecure", &format!("{image}:{tag}")]), index.digest.as_str());
    }
    for platform in ["linux/amd64", "linux/arm64"] {
        let config = run(crane, &["config", "--insecure", "--platform", platform, &format!("{image}:main")]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(format!("linux/{}", config["architecture"].as_str().unwrap()), platform);
    }
    assert_eq!(run(&git, &["--git-dir", path, "rev-parse", "refs/heads/main"]), commit.as_str());
    let read = registry.get_manifest(&image, &tag("latest")).await.unwrap();
    assert_eq!((read.media_type.as_str(), read.bytes.as_ref()), (INDEX, index.bytes.as_slice()));
}

#[tokio::test]
async fn children_that_the_registry_lost_are_recognised() {
    let image = with_busybox();
    let registry = Registry::new(RegistryConfig::default()).unwrap();
    let base = registry.get_manifest(&image, &tag("base")).await.unwrap();
    let children = assemble::children(&base.bytes, &base.media_type, None).unwrap();
    let elsewhere: ImageName = format!("{image}-elsewhere").parse().unwrap();
    let index = assemble::index(&platforms(), vec![children], &BTreeMap::new()).unwrap();
    let error = assemble::push(&registry, &elsewhere, &index, &Failpoints::default()).await.unwrap_err();
    assert!(error.may_lack_children(), "{error}");
}
