//! What is shown of builds: lists, one build with its images, its log, without a server and through one.

use std::process::Stdio;

use lemnos::event::{BuildEvent, Recorded};
use lemnos::model::{Build, BuildState, Digest, Form, PublishedImage};
use lemnos::store::{Finished, Store};

use super::{Home, server};

pub(super) fn build(id: &str, started_at_ms: i64) -> Build {
    Build {
        state: BuildState::Running,
        started_at_ms,
        ..Build::queued(
            id.parse().unwrap(),
            "shop".parse().unwrap(),
            "ann".parse().unwrap(),
            "refs/heads/main".parse().unwrap(),
            "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
        )
    }
}

pub(super) const FAILED: &str = "0000000000000000000000aaaa111111";
const GOOD: &str = "0000000000000000000001bbbb222222";

/// What a build of several images published.
fn images() -> Vec<PublishedImage> {
    let image = |below: &str, form, platforms: &[&str]| PublishedImage {
        name: format!("127.0.0.1:5000/shop{below}").parse().unwrap(),
        digest: Digest::of(b"x"),
        form: Some(form),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
        tags: vec!["git-0123456789ab".parse().unwrap(), "main".parse().unwrap()],
    };
    vec![
        image("", Form::Index, &["linux/amd64", "linux/arm64"]),
        image("/web", Form::Image, &["linux/amd64"]),
        image("/wasm", Form::Artifact, &[]),
    ]
}

/// A store with a failed and a good build.
async fn with_builds(home: &Home) -> Store {
    home.run("apps create shop");
    let store = home.store().await;
    for (id, state, reason) in [
        (FAILED, BuildState::Failed, Some("build failed: Dockerfile:3 RUN make, exit 2")),
        (GOOD, BuildState::Succeeded, None),
    ] {
        let build = build(id, 1_000);
        store.create_build(&build).await.unwrap();
        let events: Vec<_> =
            ["one", "two"].iter().enumerate().map(|(seq, text)| note(seq as u64, text)).collect();
        store.append_events(&build.id, &events).await.unwrap();
        let good = state == BuildState::Succeeded;
        let end = Finished {
            images: if good { images() } else { Vec::new() },
            ..Finished::as_state(state, 13_345, reason.map(str::to_owned))
        };
        store.finish_build(&build.id, &end).await.unwrap();
    }
    store
}

fn note(seq: u64, text: &str) -> Recorded {
    Recorded { seq, at_ms: seq, event: BuildEvent::Note { text: text.to_owned() } }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_without_a_server() {
    let home = Home::new();
    let store = with_builds(&home).await;
    insta::assert_snapshot!(home.run("builds list"), @r"
    BUILD       APP   REF   COMMIT        USER  STATE      STARTED              TOOK
    bbbb222222  shop  main  0123456789ab  ann   succeeded  T------------------  12.3s
    aaaa111111  shop  main  0123456789ab  ann   failed     T------------------  12.3s
    ");
    insta::assert_snapshot!(home.run("builds list --limit 1 --before bbbb222222 --app shop"), @r"
    BUILD       APP   REF   COMMIT        USER  STATE   STARTED              TOOK
    aaaa111111  shop  main  0123456789ab  ann   failed  T------------------  12.3s
    ");
    insta::assert_snapshot!(home.run("builds list --app nil"), @r"
    error: there is no app nil
    hint: `lemnos apps list` shows the apps; `lemnos apps create nil` makes it
    exit 3
    ");
    insta::assert_snapshot!(home.run("builds show bbbb222222"), @r"
    build    0000000000000000000001bbbb222222
    app      shop
    ref      refs/heads/main
    commit   0123456789abcdef0123456789abcdef01234567
    user     ann
    state    succeeded
    started  T------------------
    took     12.3s
    image    127.0.0.1:5000/shop@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    form     index of linux/amd64, linux/arm64
    tags     git-0123456789ab main
    image    127.0.0.1:5000/shop/web@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    form     image for linux/amd64
    tags     git-0123456789ab main
    image    127.0.0.1:5000/shop/wasm@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    form     artifact
    tags     git-0123456789ab main
    ");
    insta::assert_snapshot!(home.run("builds show 111111"), @r"
    build    0000000000000000000000aaaa111111
    app      shop
    ref      refs/heads/main
    commit   0123456789abcdef0123456789abcdef01234567
    user     ann
    state    failed
    started  T------------------
    took     12.3s
    reason   build failed: Dockerfile:3 RUN make, exit 2
    ");
    insta::assert_snapshot!(home.run("builds show 0000"), @r#"
    error: "0000" matches several builds: 0000000000000000000001bbbb222222, 0000000000000000000000aaaa111111
    hint: type more digits
    exit 2
    "#);
    insta::assert_snapshot!(home.run("builds show ffff"), @r#"
    error: no build matches "ffff"
    hint: `lemnos builds list` shows the builds; at least the last 4 digits of an id name one
    exit 3
    "#);
    insta::assert_snapshot!(home.run("builds logs 111111"), @r"
    one
    two
    ");
    insta::assert_snapshot!(home.run("builds logs -f 111111"), @r"
           one
           two
    exit 1
    ");
    insta::assert_snapshot!(home.run("builds logs 222222 --json"), @r#"
    {"seq":0,"at_ms":0,"event":{"type":"note","text":"one"}}
    {"seq":1,"at_ms":1,"event":{"type":"note","text":"two"}}
    "#);
    assert_eq!(home.json("builds list --json")[0]["id"], GOOD);
    assert_eq!(home.json("builds show 111111 --json")["state"], "failed");
    store.create_build(&build("0000000000000000000002cccc333333", 1_000)).await.unwrap();
    insta::assert_snapshot!(home.run("builds logs -f 333333"), @r"
    error: build cccc333333 has not ended, and no server runs that would end it
    hint: start the server: it takes up or closes what was interrupted
    exit 6
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_build_is_followed_to_its_end() {
    let home = Home::new();
    let server = server(&home).await;
    home.run("apps create shop");
    let build = build(FAILED, 1_000);
    server.store.create_build(&build).await.unwrap();
    server.store.append_events(&build.id, &[note(0, "one")]).await.unwrap();
    let mut child = home.command("builds logs -f 111111").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next = || lines.next().map(Result::unwrap);
    assert!(next().unwrap().contains("one"));
    server.store.append_events(&build.id, &[note(1, "two")]).await.unwrap();
    assert!(next().unwrap().contains("two"));
    let end = Finished::as_state(BuildState::Failed, 2_000, None);
    server.store.finish_build(&build.id, &end).await.unwrap();
    assert_eq!(next(), None);
    assert_eq!(child.wait().unwrap().code(), Some(1), "the build failed");
}
