//! Made-up sources, and the words that they and the other steps are made of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::language::Step;

pub type Any<T> = BoxedStrategy<T>;

pub fn one_of(texts: &'static [&'static str]) -> Any<String> {
    select(texts).prop_map(String::from).boxed()
}

pub fn some_of(texts: &'static [&'static str]) -> Any<Vec<String>> {
    subsequence(texts, 0..=texts.len()).prop_map(|list| list.into_iter().map(String::from).collect()).boxed()
}

/// Text that is hard to write down, or a word.
pub fn text() -> Any<String> {
    prop_oneof![3 => one_of(&["a", "b", "foo", "x y", "", "é", "<&>", "a=b", "\u{2028}\"\\"]), 1 => "\\PC{0,8}"].boxed()
}

pub fn path() -> Any<String> {
    prop_oneof![
        3 => one_of(&["/", "/a", "/a/b/", "a", "./a", "../a/.", "", ".", "..", "/a/../b", "a//b/", "/.", "*/x?"]),
        1 => "[/.a-c]{0,8}",
    ]
    .boxed()
}

pub fn word() -> Any<String> {
    one_of(&["a", "b", "c", "key", "x-y"])
}

pub fn hash() -> Any<String> {
    prop_oneof![
        Just(String::new()),
        Just(format!("sha256:{}", "ab".repeat(32))),
        Just(format!("sha512:{}", "0".repeat(128))),
        Just("sha256:short".into()),
    ]
    .boxed()
}

pub fn pairs() -> Any<Vec<(String, String)>> {
    vec((word(), text()), 0..3).boxed()
}

fn image() -> Any<Step> {
    let reference = prop_oneof![
        3 => one_of(&["alpine", "busybox:1", "ghcr.io/a/b", "localhost:5000/x:y", "docker.io/a"]),
        1 => "[a-zA-Z0-9./:_@-]{1,20}",
        1 => hash().prop_map(|hash| format!("a/b@{hash}")),
    ];
    (reference, one_of(&["", "pull", "local"]), one_of(&["", "internal"]), 0..3i64, hash())
        .prop_map(|(reference, mode, record, layers, checksum)| Step {
            op: "image".into(),
            reference,
            mode,
            record,
            layers,
            checksum,
            ..Step::default()
        })
        .boxed()
}

fn git() -> Any<Step> {
    let url = prop_oneof![
        2 => one_of(&["https://h.invalid/a/b.git", "h.invalid/a", "http://u:p@h.invalid/x?y#z", "git://h.invalid/%41 "]),
        1 => "(https?|git)://([a-z:%@]{0,6}@)?[a-zA-Z0-9.:\\[\\]%-]{0,10}(/[ -~é]{0,12})?",
    ];
    let flags = some_of(&["keep_git_dir", "skip_submodules", "fetch_by_commit", "checkout_bundle"]);
    let secret = || proptest::option::weighted(0.3, one_of(&["", "secret"]));
    let fragment = prop_oneof![one_of(&["", "main", "v1:sub", ":x", "a:../b/"]), "[a-c:/.#]{0,6}".boxed()];
    (
        url,
        fragment,
        one_of(&["", "r"]),
        path(),
        flags,
        secret(),
        secret(),
        hash(),
        one_of(&["", "commit"]),
        word(),
    )
        .prop_map(|(url, fragment, reference, subdir, flags, token, header, checksum, mtime, socket)| Step {
            op: "git".into(),
            url,
            fragment,
            reference,
            subdir,
            flags,
            token,
            header,
            checksum,
            mtime,
            socket,
            hosts: vec!["h k\n".into()],
            ..Step::default()
        })
        .boxed()
}

fn http() -> Any<Step> {
    let headers = prop_oneof![Just(Vec::new()), vec(text(), 2)];
    let signed = prop_oneof![Just(Vec::new()), vec(text(), 2)];
    let secret = proptest::option::weighted(0.3, one_of(&["secret"]));
    (hash(), text(), 0..0o7777u32, -1..2i64, -1..2i64, secret, headers, signed)
        .prop_map(|(checksum, filename, chmod, uid, gid, header, headers, signed)| Step {
            op: "http".into(),
            url: "https://example.invalid/file".into(),
            checksum,
            filename,
            chmod,
            uid,
            gid,
            header,
            headers,
            signed,
            ..Step::default()
        })
        .boxed()
}

fn local() -> Any<Step> {
    let lists = || vec(text(), 0..3);
    let flags = some_of(&["required", "metadata_only"]);
    (
        word(),
        one_of(&["", "s"]),
        lists(),
        lists(),
        lists(),
        text(),
        one_of(&["", "none", "metadata"]),
        flags,
        lists(),
    )
        .prop_map(|(id, session, include, exclude, follow, hint, differ, flags, except)| Step {
            op: "local".into(),
            id,
            session,
            include,
            exclude,
            follow,
            hint,
            differ,
            flags,
            except,
            ..Step::default()
        })
        .boxed()
}

fn stored() -> Any<Step> {
    let layers = 0..3i64;
    (
        one_of(&["oci", "blob", "ociblob"]),
        hash(),
        one_of(&["", "s"]),
        one_of(&["", "t"]),
        layers,
        text(),
        0..0o777u32,
    )
        .prop_map(|(op, hash, session, store, layers, filename, chmod)| Step {
            layers: if op == "oci" { layers } else { 0 },
            op,
            reference: format!("name@{hash}"),
            session,
            store,
            filename,
            chmod,
            ..Step::default()
        })
        .boxed()
}

fn other_source() -> Any<Step> {
    let id = one_of(&["docker-image://x", "local://raw", "oci-layout://x", "new://x", ""]);
    (id, pairs()).prop_map(|(id, attrs)| Step { op: "source".into(), id, attrs, ..Step::default() }).boxed()
}

pub fn source() -> Any<Step> {
    let scratch = Just(Step { op: "scratch".into(), ..Step::default() });
    prop_oneof![4 => image(), 2 => git(), 2 => http(), 2 => local(), 2 => stored(), 1 => other_source(), 2 => scratch]
        .boxed()
}
