//! The registry client against a registry that fails on demand.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lemnos::error::{Kind, Report};
use lemnos::model::{Digest, ImageName, Tag};
use lemnos::registry::{INDEX, Problem, Reference, Registry, RegistryConfig, RegistryError};

use crate::fake::registry::{Auth, FakeRegistry, Fault, Removes, digest_of};

const BODY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn config() -> RegistryConfig {
    RegistryConfig {
        retry_pause: Duration::from_millis(1),
        retry_total: Duration::from_secs(20),
        helper_timeout: Duration::from_secs(5),
        ..RegistryConfig::default()
    }
}

fn client(config: RegistryConfig) -> Registry {
    Registry::new(config).unwrap()
}

fn image(fake: &FakeRegistry) -> ImageName {
    format!("{}/team/shop", fake.host).parse().unwrap()
}

fn tag(text: &str) -> Reference {
    text.parse::<Tag>().unwrap().into()
}

/// A docker config file in a directory of its own.
fn docker_config(json: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, json).unwrap();
    (dir, file)
}

fn account(host: &str, account: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(account);
    format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)
}

async fn put(registry: &Registry, fake: &FakeRegistry) -> Result<Digest, RegistryError> {
    registry.put_manifest(&image(fake), &tag("main"), INDEX, BODY).await
}

#[tokio::test]
async fn an_anonymous_call_is_one_request() {
    let fake = FakeRegistry::start().await;
    let registry = client(config());
    let digest = put(&registry, &fake).await.unwrap();
    assert_eq!(digest.as_str(), digest_of(BODY));
    let by_digest = Reference::from(digest.clone());
    registry.put_manifest(&image(&fake), &by_digest, INDEX, BODY).await.unwrap();
    assert_eq!(registry.head_manifest(&image(&fake), &tag("main")).await.unwrap(), Some(digest.clone()));
    assert_eq!(registry.head_manifest(&image(&fake), &tag("none")).await.unwrap(), None);
    let got = registry.get_manifest(&image(&fake), &by_digest).await.unwrap();
    assert_eq!((got.digest, got.media_type.as_str(), got.bytes.as_ref()), (digest, INDEX, BODY));
    assert_eq!(
        fake.take_log(),
        [
            "PUT /v2/team/shop/manifests/main 201".to_owned(),
            format!("PUT /v2/team/shop/manifests/{} 201", digest_of(BODY)),
            "HEAD /v2/team/shop/manifests/main 200".to_owned(),
            "HEAD /v2/team/shop/manifests/none 404".to_owned(),
            format!("GET /v2/team/shop/manifests/{} 200", digest_of(BODY)),
        ]
    );
}

#[tokio::test]
async fn a_base_is_read_from_a_mirror_and_from_its_registry_where_the_mirror_has_none() {
    let (own, empty, mirror) =
        (FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await);
    let mirrors = vec![format!("{}/kept", empty.host), mirror.host.clone()];
    let registry =
        client(RegistryConfig { mirrors: [(own.host.clone(), mirrors)].into(), attempts: 1, ..config() });
    let digest = put(&registry, &own).await.unwrap();
    put(&registry, &mirror).await.unwrap();
    own.take_log();
    let (place, found) = registry.find_manifest(&image(&own), &tag("main")).await.unwrap();
    assert_eq!((place, found.digest), (image(&mirror), digest.clone()));
    assert_eq!(empty.take_log(), ["GET /v2/kept/team/shop/manifests/main 404"]);
    assert_eq!(own.take_log(), [""; 0]);

    // the mirror fails: its registry is asked
    mirror.fail("GET", "/manifests/main", 1, Fault::Status(500, "", ""));
    let (place, found) = registry.find_manifest(&image(&own), &tag("main")).await.unwrap();
    assert_eq!((place, found.digest), (image(&own), digest));
    // nobody has it: the registry's own words
    let error = registry.find_manifest(&image(&own), &tag("none")).await.unwrap_err();
    assert!(error.to_string().contains(&own.host), "{error}");
    // what lemnos publishes is read where it was put, mirror or not
    mirror.take_log();
    registry.get_manifest(&image(&own), &tag("main")).await.unwrap();
    assert_eq!(mirror.take_log(), [""; 0]);
}

/// Each refusal with its own sentence and remedy, and how often it was tried.
#[tokio::test]
async fn every_refusal_has_its_own_sentence_and_remedy() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"tag is immutable"}]}"#;
    let cases: [(Fault, usize, Kind, &str); 9] = [
        (
            Fault::Status(403, "", denied),
            1,
            Kind::Forbidden,
            "an anonymous client may not do this (403): tag is immutable",
        ),
        (
            Fault::Status(404, "", ""),
            1,
            Kind::NotFound,
            "the registry has no such repository or manifest (404)",
        ),
        (Fault::Status(429, "", ""), 4, Kind::Unavailable, "the registry asks for fewer requests (429)"),
        (
            Fault::Status(429, "Retry-After: 3600", ""),
            1,
            Kind::Unavailable,
            "the registry asks for fewer requests (429), again in 3600 s",
        ),
        (Fault::Status(504, "", "<html>"), 4, Kind::Unavailable, "the registry failed (504)"),
        (Fault::Status(400, "", denied), 1, Kind::Conflict, "the registry refused (400): tag is immutable"),
        (
            Fault::Status(307, "Location: http://elsewhere.example/", ""),
            1,
            Kind::Unavailable,
            "the registry sent the request elsewhere (307, to http://elsewhere.example/)",
        ),
        (
            Fault::Status(401, "WWW-Authenticate: Basic", ""),
            1,
            Kind::Forbidden,
            "the registry wants to know who asks, and there are no credentials for it (401)",
        ),
        (
            Fault::Status(401, "", ""),
            1,
            Kind::Unavailable,
            "the registry's answer makes no sense: 401 without a Basic or Bearer challenge in WWW-Authenticate",
        ),
    ];
    let mut remedies = Vec::new();
    for (fault, requests, kind, sentence) in cases {
        let fake = FakeRegistry::start().await;
        fake.fail("PUT", "/main", usize::MAX, fault);
        let error = put(&client(config()), &fake).await.unwrap_err();
        assert_eq!(error.to_string(), format!("putting {}:main: {sentence}", image(&fake)));
        assert_eq!(fake.take_log().len(), requests, "{sentence}");
        let report = Report::from(error);
        assert_eq!(report.kind, kind, "{sentence}");
        remedies.push(report.hint.unwrap().replace(&fake.host, "HOST"));
    }
    insta::assert_snapshot!(remedies.join("\n"), @r"
    give the server credentials that may push to HOST, as `docker login HOST` does
    create the repository in the registry if it does not do so itself, and check the image name (lemnos apps show)
    wait, then push again
    wait, then push again
    look into the log of the registry at HOST, then push again
    the registry at HOST does not allow this: look at its rules for tags and media types
    use the registry's final host in the image name
    name a docker config file with credentials for HOST (registry.docker_config), as `docker login HOST` writes it
    check what stands between this server and the registry at HOST (a proxy?), and the registry's log
    ");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_broke_off_too() {
    let faults = [
        Fault::Status(503, "", ""),
        Fault::Status(429, "Retry-After: 0", ""),
        Fault::Reset,
        Fault::ResetAfterEffect,
        Fault::StatusAfterEffect(504),
    ];
    for fault in faults {
        let fake = FakeRegistry::start().await;
        fake.fail("PUT", "/main", 3, fault.clone());
        put(&client(config()), &fake).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(fake.take_log().len(), 4, "{fault:?}");
        assert_eq!(fake.at("team/shop", "main"), Some(digest_of(BODY)));
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_when_short() {
    let fake = FakeRegistry::start().await;
    fake.fail("PUT", "/main", 1, Fault::Status(429, "Retry-After: 1", ""));
    let begun = Instant::now();
    put(&client(config()), &fake).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn connections_that_fail_are_told_apart() {
    let once = || RegistryConfig { attempts: 1, ..config() };
    let problem = async |config: RegistryConfig, host: &str| {
        let image = format!("{host}/shop").parse().unwrap();
        *client(config).head_manifest(&image, &tag("main")).await.unwrap_err().problem
    };
    let free = crate::fake::port::own();
    assert_eq!(problem(once(), &free.to_string()).await, Problem::ConnectionRefused);

    let fake = FakeRegistry::start().await;
    fake.fail("HEAD", "/main", usize::MAX, Fault::Slow(Duration::from_secs(60)));
    let after = Duration::from_millis(100);
    let hasty = RegistryConfig { request_timeout: after, ..once() };
    assert_eq!(problem(hasty, &fake.host).await, Problem::Timeout { after });

    fake.heal();
    fake.fail("HEAD", "/main", usize::MAX, Fault::Reset);
    let broken = problem(once(), &fake.host).await;
    assert!(matches!(broken, Problem::Broken { .. }), "{broken:?}");
    fake.heal();
    fake.fail("HEAD", "/main", usize::MAX, Fault::Garbage);
    let broken = problem(once(), &fake.host).await;
    assert!(matches!(broken, Problem::Broken { .. }), "{broken:?}");

    let unresolved = problem(once(), "registry.invalid:5000").await;
    assert!(matches!(unresolved, Problem::Unresolved { .. }), "{unresolved:?}");
}

/// A name that is not loopback is spoken to with TLS, unless it is listed; and what answers in the clear is told so.
#[tokio::test]
async fn plain_http_is_for_loopback_and_listed_hosts() {
    // reaches this machine, and is no loopback address
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("0.0.0.0:{}", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 3];
            stream.read_exact(&mut first).await.unwrap();
            seen.push(first);
            stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_buf(&mut rest).await;
        }
        seen
    });
    let image: ImageName = format!("{host}/shop").parse().unwrap();
    let strict = RegistryConfig { attempts: 1, ..config() };
    let error = client(strict).head_manifest(&image, &tag("main")).await.unwrap_err();
    assert_eq!(*error.problem, Problem::PlainHttp, "{error}");
    assert!(error.remedy().contains("registry.plain_http"));
    let listed = RegistryConfig { plain_http: vec![host], ..config() };
    assert_eq!(client(listed).head_manifest(&image, &tag("main")).await.unwrap(), None);
    let seen = server.await.unwrap();
    assert_eq!(seen[0][..2], [0x16, 0x03], "a TLS hello");
    assert_eq!(&seen[1], b"HEA");
}

#[tokio::test]
async fn digests_are_computed_here() {
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let wrong = |result: Result<(), RegistryError>| {
        let error = result.unwrap_err();
        assert!(matches!(*error.problem, Problem::WrongDigest { .. }), "{error}");
    };
    let fake = FakeRegistry::start().await;
    let registry = client(config());
    fake.store("team/shop", Some("main"), INDEX, BODY);
    fake.fail("*", "/main", usize::MAX, Fault::DigestHeader(other));
    wrong(registry.get_manifest(&image(&fake), &tag("main")).await.map(drop));
    wrong(put(&registry, &fake).await.map(drop));
    // a PUT by a digest that is not the bytes' is not even sent
    fake.take_log();
    wrong(
        registry
            .put_manifest(&image(&fake), &other.parse::<Digest>().unwrap().into(), INDEX, BODY)
            .await
            .map(drop),
    );
    assert_eq!(fake.take_log(), [] as [String; 0]);
    // other bytes under the digest asked for
    fake.heal();
    fake.store("team/shop", Some(other), INDEX, BODY);
    wrong(registry.get_manifest(&image(&fake), &other.parse::<Digest>().unwrap().into()).await.map(drop));
    // without the header, the bytes say it
    fake.fail("*", "/main", usize::MAX, Fault::DigestHeader(""));
    let found = registry.head_manifest(&image(&fake), &tag("main")).await.unwrap();
    assert_eq!(found, Some(Digest::of(BODY)));
    fake.heal();
    fake.fail("*", "/main", usize::MAX, Fault::DigestHeader("md5:1"));
    let error = registry.head_manifest(&image(&fake), &tag("main")).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Nonsense { .. }), "{error}");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let fake = FakeRegistry::start().await;
    let registry = client(RegistryConfig { manifest_bytes_limit: 1000, ..config() });
    fake.fail("GET", "/main", usize::MAX, Fault::Huge(1001));
    let error = registry.get_manifest(&image(&fake), &tag("main")).await.unwrap_err();
    assert_eq!(*error.problem, Problem::TooLarge { limit_bytes: 1000 });
    let error = registry.put_manifest(&image(&fake), &tag("main"), INDEX, vec![0; 1001]).await.unwrap_err();
    assert_eq!(*error.problem, Problem::TooLarge { limit_bytes: 1000 });
}

#[tokio::test]
async fn basic_credentials_are_sent_when_asked_for_then_at_once() {
    let fake = FakeRegistry::start().await;
    fake.demand(Auth::Basic("ada:pw"));
    let (_dir, file) = docker_config(&account(&fake.host, "ada:pw"));
    let registry = client(RegistryConfig { docker_config: Some(file.clone()), ..config() });
    put(&registry, &fake).await.unwrap();
    put(&registry, &fake).await.unwrap();
    let statuses: Vec<String> =
        fake.take_log().iter().map(|line| line[line.len() - 3..].to_owned()).collect();
    assert_eq!(statuses, ["401", "201", "201"]);

    // the file changes while we run
    fake.demand(Auth::Basic("ada:new"));
    let error = put(&registry, &fake).await.unwrap_err();
    assert_eq!(*error.problem, Problem::BadCredentials { user: "ada".to_owned() });
    std::fs::write(&file, account(&fake.host, "ada:new").replace("}}}", "}} }")).unwrap();
    put(&registry, &fake).await.unwrap();
    // and vanishes
    std::fs::remove_file(&file).unwrap();
    assert_eq!(registry.credentials().for_host(&fake.host).await.unwrap(), None);
}

fn bearer() -> Auth {
    Auth::Bearer { realm: String::new(), account: "ada:pw", identity: "refreshing", public: true }
}

#[tokio::test]
async fn one_token_serves_a_repository_until_it_is_refused() {
    let fake = FakeRegistry::start().await;
    fake.demand(bearer());
    let (_dir, file) = docker_config(&account(&fake.host, "ada:pw"));
    let registry = client(RegistryConfig { docker_config: Some(file), ..config() });
    put(&registry, &fake).await.unwrap();
    registry.head_manifest(&image(&fake), &tag("main")).await.unwrap();
    put(&registry, &fake).await.unwrap();
    let log = fake.take_log();
    assert_eq!(log.len(), 5, "{log:?}");
    assert!(log[1].contains("scope=repository%3Ateam%2Fshop%3Apull%2Cpush"), "{log:?}");
    // the token expires on the registry's side: asked for again, and the call succeeds
    fake.tokens_last(0);
    put(&registry, &fake).await.unwrap();
    let log = fake.take_log();
    assert_eq!(log.len(), 3, "{log:?}");
}

#[tokio::test]
async fn without_credentials_reading_may_work_and_writing_is_explained() {
    let fake = FakeRegistry::start().await;
    fake.demand(bearer());
    fake.store("team/shop", Some("main"), INDEX, BODY);
    let (_dir, file) = docker_config(r#"{"auths":{}}"#);
    let registry = client(RegistryConfig { docker_config: Some(file.clone()), ..config() });
    registry.get_manifest(&image(&fake), &tag("main")).await.unwrap();
    let error = put(&registry, &fake).await.unwrap_err();
    assert_eq!(*error.problem, Problem::NoCredentials { config: Some(file.display().to_string()) });
    assert_eq!(
        error.remedy(),
        format!("add credentials for {0} to {1}, as `docker login {0}` does", fake.host, file.display())
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let fake = FakeRegistry::start().await;
    fake.demand(bearer());
    let json =
        format!(r#"{{"auths":{{"{}":{{"auth":"PHRva2VuPjo=","identitytoken":"refreshing"}}}}}}"#, fake.host);
    let (_dir, file) = docker_config(&json);
    let registry = client(RegistryConfig { docker_config: Some(file), ..config() });
    put(&registry, &fake).await.unwrap();
    let log = fake.take_log();
    assert_eq!(log[1], "POST /token 200", "never in a URL");
}

#[tokio::test]
async fn a_token_service_elsewhere_gets_nothing() {
    let fake = FakeRegistry::start().await;
    for realm in ["http://auth.example.net/token", "https://auth.example.net/token"] {
        fake.demand(Auth::Bearer { realm: realm.to_owned(), account: "ada:pw", identity: "", public: false });
        let (_dir, file) = docker_config(&account(&fake.host, "ada:pw"));
        let registry = client(RegistryConfig { docker_config: Some(file), ..config() });
        let error = put(&registry, &fake).await.unwrap_err();
        assert_eq!(*error.problem, Problem::ForeignRealm { realm: realm.to_owned() });
        assert!(error.remedy().contains("registry.token_hosts"));
    }
}

#[tokio::test]
async fn a_token_service_that_fails_is_not_called_the_registry() {
    let fake = FakeRegistry::start().await;
    fake.demand(bearer());
    fake.fail("GET", "push", 2, Fault::Status(502, "", ""));
    let (_dir, file) = docker_config(&account(&fake.host, "ada:pw"));
    let patient = client(RegistryConfig { docker_config: Some(file.clone()), ..config() });
    put(&patient, &fake).await.unwrap();
    fake.tokens_last(0);
    fake.fail("GET", "push", usize::MAX, Fault::Status(502, "", ""));
    let error = put(&patient, &fake).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::TokenService { transient: true, .. }), "{error}");
    let (_dir, file) = docker_config(&account(&fake.host, "ada:wrong"));
    fake.heal();
    let error =
        put(&client(RegistryConfig { docker_config: Some(file), ..config() }), &fake).await.unwrap_err();
    assert_eq!(*error.problem, Problem::BadCredentials { user: "ada".to_owned() });
}

#[tokio::test]
async fn ping_asks_once() {
    let fake = FakeRegistry::start().await;
    let registry = client(config());
    registry.ping(&fake.host).await.unwrap();
    fake.demand(Auth::Basic("ada:pw"));
    registry.ping(&fake.host).await.unwrap();
    fake.fail("GET", "/v2/", usize::MAX, Fault::Status(503, "", ""));
    assert!(registry.ping(&fake.host).await.is_err());
    assert_eq!(fake.take_log().len(), 3);
}

#[tokio::test]
async fn a_tag_is_removed_alone_whether_the_registry_removes_tags_or_digests() {
    let fake = FakeRegistry::start().await;
    let image = image(&fake);
    // one that hands out tokens for what they were asked for, and nothing more
    fake.demand(Auth::Bearer { realm: String::new(), account: "ada:pw", identity: "", public: false });
    let (_dir, file) = docker_config(&account(&fake.host, "ada:pw"));
    let registry = client(RegistryConfig { docker_config: Some(file), ..config() });
    let gone: Tag = "buildcache-gone".parse().unwrap();
    for removes in [Removes::Tags, Removes::Digests] {
        fake.removes(removes);
        // the same bytes at both: who removes by digest removes both
        for name in ["buildcache-gone", "buildcache-main"] {
            registry.put_manifest(&image, &tag(name), INDEX, BODY).await.unwrap();
        }
        registry.remove_tag(&image, &gone).await.unwrap();
        assert_eq!(fake.tags("team/shop"), ["buildcache-main"], "{removes:?}");
        assert_eq!(fake.at("team/shop", "buildcache-main"), Some(digest_of(BODY)), "{removes:?}");
        registry.remove_tag(&image, &gone).await.unwrap();
    }
    fake.removes(Removes::Nothing);
    registry.put_manifest(&image, &tag("buildcache-gone"), INDEX, BODY).await.unwrap();
    let error = registry.remove_tag(&image, &gone).await.unwrap_err();
    assert!(error.to_string().starts_with("removing "), "{error}");
    assert!(error.to_string().contains("the registry refused (405)"), "{error}");
    assert_eq!(fake.at("team/shop", "buildcache-gone"), Some(digest_of(BODY)), "what stays is what it was");
}

#[test]
fn a_port_is_free_again_whoever_still_has_a_copy_of_its_socket() {
    let address = crate::fake::port::own();
    let listener = std::net::TcpListener::bind(address).unwrap();
    let _copy = listener.try_clone().unwrap();
    drop(crate::fake::port::Ends(listener));
    std::net::TcpListener::bind(address).unwrap();
}
