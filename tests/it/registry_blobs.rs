//! Blobs against a registry that fails on demand: what is sent, what is not, and to whom.

use std::time::Duration;

use lemnos::model::{Digest, ImageName, Tag};
use lemnos::registry::{BlobSource, INDEX, Problem, Registry, RegistryConfig};

use crate::fake::registry::{Auth, BlobWays, FakeRegistry, Fault, digest_of};

const LIMIT: u64 = 1 << 20;

fn config() -> RegistryConfig {
    RegistryConfig { retry_pause: Duration::from_millis(1), ..RegistryConfig::default() }
}

fn image(fake: &FakeRegistry, path: &str) -> ImageName {
    format!("{}/{path}", fake.host).parse().unwrap()
}

/// Half a megabyte without a pattern that repeats in a piece.
fn content() -> Vec<u8> {
    (0..500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn signed_in(host: &str) -> (tempfile::TempDir, RegistryConfig) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"auth":"YWRhOnMzY3JldA=="}}}}}}"#)).unwrap();
    (dir, RegistryConfig { docker_config: Some(file), ..config() })
}

fn bearer() -> Auth {
    Auth::Bearer { realm: String::new(), account: "ada:s3cret", identity: "", public: false }
}

/// What of the log is about this method.
fn of<'a>(log: &'a [String], method: &str) -> Vec<&'a str> {
    log.iter().filter(|line| line.starts_with(method)).map(String::as_str).collect()
}

#[tokio::test]
async fn a_blob_is_sent_once_and_read_back() {
    let fake = FakeRegistry::start().await;
    let registry = Registry::new(config()).unwrap();
    let (content, shop) = (content(), image(&fake, "team/shop"));
    let digest = Digest::of(&content);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    assert!(!registry.has_blob(&shop, &digest).await.unwrap());
    let size = content.len() as u64;
    for absolute_locations in [false, true] {
        fake.blob_ways(BlobWays { absolute_locations, ..BlobWays::default() });
        let path = format!("team/shop-{absolute_locations}");
        let source = BlobSource::File(file.path().to_owned());
        registry.put_blob(&image(&fake, &path), &digest, size, source).await.unwrap();
        assert_eq!(fake.blob(&path, digest.as_str()).unwrap(), content);
    }
    let bytes = BlobSource::Bytes(content.clone().into());
    registry.put_blob(&shop, &digest, size, bytes.clone()).await.unwrap();
    fake.take_log();
    registry.put_blob(&shop, &digest, size, bytes).await.unwrap();
    assert_eq!(fake.take_log(), [format!("HEAD /v2/team/shop/blobs/{digest} 200")]);
    assert_eq!(registry.get_blob(&shop, &digest, LIMIT).await.unwrap(), content);
    let error = registry.get_blob(&shop, &digest, size - 1).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::BlobTooLarge { .. }), "{error}");
    let copy = file.path().with_extension("copy");
    registry.fetch_blob(&shop, &digest, size, &copy).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), content);
    std::fs::remove_file(copy).unwrap();
    let empty = Digest::of(b"");
    registry.put_blob(&shop, &empty, 0, BlobSource::Bytes(bytes::Bytes::new())).await.unwrap();
    assert_eq!(registry.get_blob(&shop, &empty, 0).await.unwrap(), b"".as_slice());
}

#[tokio::test]
async fn a_blob_is_mounted_within_a_registry_and_sent_where_that_is_declined() {
    let fake = FakeRegistry::start().await;
    let registry = Registry::new(config()).unwrap();
    let content = content();
    let digest: Digest = fake.store_blob("base", &content).parse().unwrap();
    let (base, size) = (image(&fake, "base"), content.len() as u64);
    registry.copy_blob(&base, &image(&fake, "mounted"), &digest, size).await.unwrap();
    let log = fake.take_log();
    assert_eq!(of(&log, "POST"), [format!("POST /v2/mounted/blobs/uploads/?mount={digest}&from=base 201")]);
    assert!(of(&log, "PUT").is_empty() && of(&log, "GET").is_empty(), "{log:?}");
    // declined with an upload that has begun, and refused outright
    for (path, refused) in [("declined", false), ("refused", true)] {
        fake.blob_ways(BlobWays { declines_mounts: true, ..BlobWays::default() });
        if refused {
            fake.fail("POST", "&from=base", 1, Fault::Status(405, "", ""));
        }
        registry.copy_blob(&base, &image(&fake, path), &digest, size).await.unwrap();
        assert_eq!(fake.blob(path, digest.as_str()).unwrap(), content);
        assert_eq!(of(&fake.take_log(), "POST").len(), if refused { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories_in_one_token() {
    let fake = FakeRegistry::start().await;
    fake.demand(bearer());
    let (_dir, config) = signed_in(&fake.host);
    let registry = Registry::new(config).unwrap();
    let digest: Digest = fake.store_blob("base", b"layer").parse().unwrap();
    registry.copy_blob(&image(&fake, "base"), &image(&fake, "shop"), &digest, 5).await.unwrap();
    assert!(fake.blob("shop", digest.as_str()).is_some());
    let log = fake.take_log();
    let scopes: Vec<&str> = of(&log, "GET /token").into_iter().filter(|line| line.contains("base")).collect();
    assert_eq!(scopes.len(), 1, "{log:?}");
    let both = "scope=repository%3Ashop%3Apull%2Cpush&scope=repository%3Abase%3Apull ";
    assert!(scopes[0].contains(both), "{scopes:?}");
}

#[tokio::test]
async fn a_blob_goes_from_one_registry_to_another_and_is_checked() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let registry = Registry::new(config()).unwrap();
    let content = content();
    let digest: Digest = source.store_blob("base", &content).parse().unwrap();
    let (from, to, size) = (image(&source, "base"), image(&target, "shop"), content.len() as u64);
    // broken off on either side: again from the start
    source.fail("GET", digest.as_str(), 1, Fault::HalfBody);
    registry.copy_blob(&from, &to, &digest, size).await.unwrap();
    let second = image(&target, "second");
    target.fail("PUT", &digest.as_str().replace(':', "%3A"), 1, Fault::BreakOffAfter(200_000));
    registry.copy_blob(&from, &second, &digest, size).await.unwrap();
    for path in ["shop", "second"] {
        assert_eq!(target.blob(path, digest.as_str()).unwrap(), content);
    }
    assert_eq!(of(&source.take_log(), "GET").len(), 4);

    // another content under the same digest never becomes whole there
    let other = image(&target, "other");
    source.fail("GET", digest.as_str(), 9, Fault::OtherBody);
    let error = registry.copy_blob(&from, &other, &digest, size).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::WrongDigest { .. }), "{error}");
    assert_eq!(target.blob("other", digest.as_str()), None);
    assert_eq!(of(&source.take_log(), "GET").len(), 1, "the same lie is not asked for again");
    source.heal();
    let error = registry.copy_blob(&from, &other, &digest, size - 1).await.unwrap_err();
    assert!(error.to_string().contains("bytes were promised"), "{error}");
    assert_eq!(target.blob("other", digest.as_str()), None);
}

#[tokio::test]
async fn failures_for_a_moment_are_tried_again_and_others_are_not() {
    let fake = FakeRegistry::start().await;
    let registry = Registry::new(config()).unwrap();
    let (content, shop) = (content(), image(&fake, "shop"));
    let digest = Digest::of(&content);
    let put = |path: &str| {
        let source = BlobSource::Bytes(content.clone().into());
        let (registry, digest, to) = (registry.clone(), digest.clone(), image(&fake, path));
        async move { registry.put_blob(&to, &digest, 500_000, source).await }
    };
    let end = digest.as_str().replace(':', "%3A");
    fake.fail("POST", "uploads/", 1, Fault::Status(429, "Retry-After: 0", ""));
    fake.fail("PUT", &end, 1, Fault::Status(503, "", ""));
    put("shop").await.unwrap();
    assert_eq!(fake.blob("shop", digest.as_str()).unwrap(), content);
    // it took effect although it said nothing: it is not sent twice
    fake.take_log();
    fake.fail("PUT", &end, 1, Fault::ResetAfterEffect);
    put("quiet").await.unwrap();
    assert_eq!(of(&fake.take_log(), "PUT").len(), 1);
    for (fault, found) in [
        (Fault::Status(400, "", ""), "the registry refused (400)"),
        (Fault::DigestHeader(NONE), "where sha256:"),
        (Fault::Status(307, "Location: http://127.0.0.1:1/x", ""), "sent the request elsewhere"),
    ] {
        fake.fail("PUT", &end, 1, fault);
        let error = put("again").await.unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
        assert_eq!(of(&fake.take_log(), "PUT").len(), 1);
        fake.heal();
        fake.blob_ways(BlobWays::default());
        fake.forget_blobs("again");
    }
    fake.fail("GET", digest.as_str(), 1, Fault::Status(502, "", ""));
    fake.fail("GET", digest.as_str(), 1, Fault::HalfBody);
    assert_eq!(registry.get_blob(&shop, &digest, LIMIT).await.unwrap(), content);
    fake.fail("GET", digest.as_str(), 1, Fault::OtherBody);
    let error = registry.get_blob(&shop, &digest, LIMIT).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::WrongDigest { .. }), "{error}");
}

/// The digest of nothing.
const NONE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn credentials_stay_with_their_registry() {
    let (fake, storage) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for auth in [bearer(), Auth::Basic("ada:s3cret")] {
        fake.demand(auth);
        let (_dir, config) = signed_in(&fake.host);
        let registry = Registry::new(config).unwrap();
        let (content, shop) = (content(), image(&fake, "shop"));
        let digest: Digest = fake.store_blob("shop", &content).parse().unwrap();
        storage.store_blob("shop", &content);
        let storage_host = Some(storage.host.clone());
        fake.blob_ways(BlobWays {
            read_at: storage_host.clone(),
            upload_at: storage_host,
            ..BlobWays::default()
        });
        assert!(registry.has_blob(&shop, &digest).await.unwrap());
        assert_eq!(registry.get_blob(&shop, &digest, LIMIT).await.unwrap(), content);
        let sent = b"sent";
        let other = Digest::of(sent);
        let source = BlobSource::Bytes(bytes::Bytes::from_static(sent));
        registry.put_blob(&image(&fake, "new"), &other, 4, source).await.unwrap();
        assert_eq!(storage.blob("new", &digest_of(sent)).unwrap(), sent);
        assert!(fake.signatures().iter().any(|(asked, _)| asked.starts_with("GET /v2/shop/blobs/")));
        // a storage that asks who is there is not told
        storage.fail(
            "GET",
            digest.as_str(),
            9,
            Fault::Status(401, r#"WWW-Authenticate: Basic realm="x""#, ""),
        );
        let error = registry.get_blob(&shop, &digest, LIMIT).await.unwrap_err();
        assert!(matches!(*error.problem, Problem::Storage { status: 401, .. }), "{error}");
        storage.heal();
        assert_eq!(storage.signatures(), []);
        // and out of loopback nothing is asked in the clear
        let away = "Location: http://169.254.169.254/latest";
        fake.fail("GET", digest.as_str(), 1, Fault::Status(307, away, ""));
        let error = registry.get_blob(&shop, &digest, LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("in the clear"), "{error}");
        storage.forget_blobs("new");
        fake.heal();
    }
}

#[tokio::test]
async fn what_stands_still_is_given_up() {
    let fake = FakeRegistry::start().await;
    let blob_stall = Duration::from_millis(200);
    let registry = Registry::new(RegistryConfig { blob_stall, attempts: 1, ..config() }).unwrap();
    let digest: Digest = fake.store_blob("shop", b"layer").parse().unwrap();
    fake.fail("GET", digest.as_str(), 1, Fault::Slow(Duration::from_secs(3600)));
    let error = registry.get_blob(&image(&fake, "shop"), &digest, LIMIT).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn referrers_are_listed_by_the_registry_or_under_the_tag_that_the_spec_names() {
    let fake = FakeRegistry::start().await;
    let registry = Registry::new(config()).unwrap();
    let shop = image(&fake, "shop");
    let subject = Digest::of(b"subject");
    let tag = subject.as_str().replace(':', "-");
    let about = |text: &str| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": text,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json" }, "layers": [],
            "subject": { "digest": subject.as_str() },
        })
        .to_string()
    };
    for text in ["one", "two", "one"] {
        registry.put_referrer(&shop, &subject, about(text)).await.unwrap();
    }
    let listed: serde_json::Value = serde_json::from_slice(&fake.content("shop", &tag).unwrap()).unwrap();
    let types: Vec<&str> = listed["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["artifactType"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["one", "two"]);
    assert_eq!(listed["manifests"][0]["digest"], digest_of(about("one").as_bytes()));
    fake.list_referrers();
    let digest = registry.put_referrer(&image(&fake, "new"), &subject, about("one")).await.unwrap();
    assert!(fake.at("new", digest.as_str()).is_some());
    assert_eq!(fake.at("new", &tag), None, "the registry lists it itself");
}

/// The tag's list of referrers is read and written whole.
#[tokio::test]
async fn referrers_of_one_subject_that_come_at_once_are_all_listed_and_old_ones_make_room() {
    let fake = FakeRegistry::start().await;
    let registry = Registry::new(config()).unwrap();
    let shop = image(&fake, "shop");
    let subject = Digest::of(b"subject");
    let tag: Tag = subject.as_str().replace(':', "-").parse().unwrap();
    let about = |n: usize, kind: &str| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json" }, "layers": [],
            "subject": { "digest": subject.as_str() }, "annotations": { "kind": kind }, "n": n,
        })
        .to_string()
    };
    let listed = || {
        let bytes = fake.content("shop", tag.as_str()).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["manifests"].as_array().unwrap().clone()
    };
    let puts = (0..12).map(|n| registry.put_referrer(&shop, &subject, about(n, "one")));
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(listed().len(), 12);

    let entry = |n: usize, kind: &str| serde_json::json!({ "digest": format!("sha256:{n:064}"), "artifactType": kind, "annotations": { "kind": kind } });
    let mut full = vec![entry(0, "other")];
    full.extend((1..1000).map(|n| entry(n, "one")));
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": full });
    registry.put_manifest(&shop, &tag.clone().into(), INDEX, index.to_string()).await.unwrap();
    let newest = registry.put_referrer(&shop, &subject, about(0, "one")).await.unwrap();
    let now = listed();
    assert_eq!((now.len(), &now[0]), (1000, &entry(0, "other")), "what says something else stays");
    assert_eq!((&now[1], &now[999]["digest"]), (&entry(2, "one"), &newest.as_str().into()));
    let refused = registry.put_referrer(&shop, &subject, about(0, "third")).await.unwrap_err();
    assert!(refused.to_string().contains("too many referrers"), "{refused}");
}
