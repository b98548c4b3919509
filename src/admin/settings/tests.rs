//! Tests of `apps set`.

use super::*;
use crate::model::Compression;

fn applied(settings: AppSettings, changes: &[(&str, &str)]) -> Result<AppSettings, Report> {
    let owned: Vec<_> = changes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    apply(settings, &owned)
}

fn set(changes: &[(&str, &str)]) -> AppSettings {
    applied(AppSettings::default(), changes).unwrap()
}

fn refused(key: &str, value: &str) -> String {
    applied(AppSettings::default(), &[(key, value)]).unwrap_err().to_string()
}

/// A value that each key takes, and that is not its default.
const CHANGES: [(&str, &str); 18] = [
    ("main-branch", "trunk"),
    ("branches", "dev, release/*,dev"),
    ("build-tags", "true"),
    ("platforms", "linux/arm64,linux/x86_64"),
    ("tags", "{branch},v-{sha12}"),
    ("build-args", "A=1,B="),
    ("build-arg.C", "x,y=z"),
    ("labels", "a.b=c"),
    ("label.d", "e, f"),
    ("image", "registry.example.com/team/shop"),
    ("compression", "zstd"),
    ("dockerfile", "./docker//Dockerfile"),
    ("context", "sub/dir/"),
    ("target", "final"),
    ("build-timeout", "60"),
    ("silence-timeout", "30"),
    ("cache", "registry"),
    ("attest", "provenance:max,sbom"),
];

#[test]
fn every_key_of_the_table_sets_something_and_an_empty_value_resets_it() {
    let names = |key: &str| key.split_once('.').map_or(key.to_owned(), |(kind, _)| format!("{kind}.NAME"));
    assert_eq!(CHANGES.map(|(key, _)| names(key)), KEYS.map(|(key, _)| key.to_owned()));
    for (key, value) in CHANGES {
        let changed = set(&[(key, value)]);
        assert_ne!(changed, AppSettings::default(), "{key}");
        assert_eq!(applied(changed, &[(key, "")]).unwrap(), AppSettings::default(), "{key}");
    }
}

#[test]
fn values_are_kept_in_their_normal_form() {
    let settings = set(&CHANGES);
    let args = [("A", "1"), ("B", ""), ("C", "x,y=z")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let labels = [("a.b", "c"), ("d", "e, f")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let expected = AppSettings {
        main_branch: "trunk".to_owned(),
        build_branches: vec!["dev".to_owned(), "release/*".to_owned()],
        build_tags: true,
        platforms: vec!["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()],
        tags: vec!["{branch}".to_owned(), "v-{sha12}".to_owned()],
        build_args: args.into(),
        labels: labels.into(),
        image: Some("registry.example.com/team/shop".parse().unwrap()),
        compression: Compression::Zstd,
        dockerfile_path: Some("docker/Dockerfile".to_owned()),
        context_path: Some("sub/dir".to_owned()),
        target: Some("final".to_owned()),
        build_timeout_s: Some(60),
        silence_timeout_s: Some(30),
        cache: crate::model::LayerCache::Registry,
        attest: "provenance:max,sbom".parse().unwrap(),
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_is_shown_can_be_set_again() {
    let settings = set(&CHANGES
        .map(|(k, v)| if k == "build-arg.C" { (k, "x") } else { (k, v) })
        .map(|(k, v)| if k == "label.d" { (k, "e") } else { (k, v) }));
    let shown = show(&settings);
    let changes: Vec<_> = shown.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(AppSettings { image: settings.image.clone(), ..set(&changes) }, settings);
}

#[test]
fn later_changes_win_and_one_bad_change_refuses_all() {
    assert_eq!(set(&[("main-branch", "a"), ("main-branch", "refs/heads/b")]).main_branch, "b");
    assert!(applied(AppSettings::default(), &[("target", "x"), ("nope", "y")]).is_err());
    assert_eq!(set(&[("build-args", "A=1"), ("build-args", "B=2")]).build_args.len(), 1, "a list replaces");
    assert_eq!(set(&[("build-args", "A=1"), ("build-arg.B", "2")]).build_args.len(), 2, "one name is added");
}

#[test]
fn bad_values_say_which_key_and_what_is_allowed() {
    insta::assert_snapshot!(refused("platform", "linux/amd64"), @r"
    error: platform: unknown setting
    hint: did you mean platforms? known settings: main-branch, branches, build-tags, platforms, tags, build-args, build-arg.NAME, labels, label.NAME, image, compression, dockerfile, context, target, build-timeout, silence-timeout, cache, attest
    ");
    insta::assert_snapshot!(refused("platforms", "linux/amd64,amd64"), @r#"
    error: platforms: "amd64" is not a valid platform
    hint: OS/ARCH[/VARIANT], for example linux/amd64 or linux/arm/v7
    "#);
    insta::assert_snapshot!(refused("compression", "estargz"), @r#"
    error: compression: "estargz" is not a valid compression
    hint: use gzip, zstd or uncompressed
    "#);
    insta::assert_snapshot!(refused("build-tags", "maybe"), @r#"error: build-tags: "maybe" is neither true nor false"#);
    insta::assert_snapshot!(refused("dockerfile", "../Dockerfile"), @r#"error: dockerfile: "../Dockerfile" leaves the tree: use a relative path without '..'"#);
    insta::assert_snapshot!(refused("build-args", "A=1,2"), @r#"
    error: build-args: "2" is not NAME=VALUE
    hint: a value with a comma is set alone: build-arg.NAME=VALUE, label.NAME=VALUE
    "#);
    for (key, value) in [
        ("main-branch", "-x"),
        ("main-branch", "a..b"),
        ("main-branch", "a b"),
        ("branches", "*x"),
        ("branches", "a*b*"),
        ("branches", "-*"),
        ("tags", "{nope}"),
        ("build-arg.BUILDKIT_SYNTAX", "evil/image"),
        ("build-arg.buildkit_cache_mount_ns", "x"),
        ("build-arg.1A", "x"),
        ("build-arg.", "x"),
        ("label.a=b", "x"),
        ("label.", "x"),
        ("label.a", "two\nlines"),
        ("image", "shop"),
        ("image", "localhost:5000/Shop"),
        ("context", "/etc"),
        ("target", "a b"),
        ("cache", "local"),
        ("attest", "provenance:all"),
        ("attest", "sbom:r.example.com/scan:1"),
    ] {
        let said = refused(key, value);
        assert!(said.starts_with(&format!("error: {key}: ")), "{said}");
    }
    assert!(refused("tags", &"x".repeat(LIMIT_VALUE_BYTES + 1)).contains("more than"));
    let many = (0..=LIMIT_ITEMS).map(|n| format!("b{n}")).collect::<Vec<_>>().join(",");
    assert!(refused("branches", &many).contains("more than 100"));
}

#[test]
fn all_branches_can_be_said() {
    assert_eq!(set(&[("branches", "*")]).build_branches, ["*"]);
}
