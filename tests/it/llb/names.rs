//! Descriptions of one thing with a name that must be read: image references, git URLs, command lines, paths, owners,
//! platforms.

use proptest::prelude::*;

use super::language::{Action, Description, Limits, Step};

fn image() -> Step {
    Step { op: "image".into(), reference: "alpine".into(), ..Step::default() }
}

fn reference() -> BoxedStrategy<String> {
    let digest = prop_oneof![
        Just(format!("@sha256:{}", "ab".repeat(32))),
        Just(format!("@sha384:{}", "ab".repeat(48))),
        Just(format!("@sha256+b64u:{}", "ab".repeat(32))),
        "@[a-z0-9+._-]{1,8}:[a-fA-F0-9]{30,66}",
    ];
    let host = "([a-zA-Z0-9.-]{1,8}|\\[[a-f0-9:]{1,8}\\]|localhost|docker.io|index.docker.io)(:[0-9]{0,5})?/";
    let name = "[a-z0-9]{1,3}([._-]{0,3}[a-zA-Z0-9]{1,3}){0,3}(/[a-z0-9_.-]{1,6}){0,3}";
    let tag = ":[a-zA-Z0-9_.-]{0,8}";
    let part = |pattern: &'static str| prop_oneof![1 => Just(String::new()), 1 => pattern];
    (part(host), name, part(tag), prop_oneof![2 => Just(String::new()), 1 => digest])
        .prop_map(|(host, name, tag, digest)| host + &name + &tag + &digest)
        .boxed()
}

fn url() -> BoxedStrategy<String> {
    // an ssh URL without host keys has Go ask the host: only hosts that answer at once
    let scheme = "([hH]ttps?|git|ftp)(://|:/|:)";
    let user = "([a-z:%~!@;&é ]{0,5}@)?";
    let host = "([a-z0-9.%-]{0,8}|\\[[a-f0-9:.%]{1,9}\\]|\\[fe80::1%25[a-z %]{0,3}\\])(:[0-9:a]{0,4})?";
    let rest = "(/[a-zA-Z0-9%/.~!$&'()*+,;=:@\\[\\]\"<>^`{|} é-]{0,10})?([?][a-z=&;%]{0,5})?(#[a-z%:]{0,4})?";
    let plain = format!("{scheme}{user}{host}{rest}");
    let bare = format!("[a-z]{{1,3}}[.][a-z]{{1,3}}{rest}");
    let scp = format!("[a-zA-Z0-9_-]{{1,4}}@127[.]0[.]0[.]1:{rest}");
    let clean = "https://([a-z!$&'()*+,;=]{1,4}@)?[a-z!$&'()*+,;=]{1,4}/[a-z!$&'()*+,;=:@\\[\\]%41]{0,9}";
    prop_oneof![3 => regex(&plain), 2 => regex(clean), 1 => regex(&bare), 1 => regex(&scp)].boxed()
}

fn regex(pattern: &str) -> BoxedStrategy<String> {
    proptest::string::string_regex(pattern).unwrap().boxed()
}

fn action(kind: &'static str, path: String, to: String, owner: String) -> Step {
    let action = Action { kind: kind.into(), from: 1, path, to, owner, mode: 1, ..Action::default() };
    Step { op: "file".into(), actions: vec![action], ..Step::default() }
}

fn set(change: &[&str]) -> Step {
    Step { op: "set".into(), set: vec![change.iter().map(|&part| part.into()).collect()], ..Step::default() }
}

fn run() -> Step {
    Step { op: "run".into(), args: vec!["x".into()], ..Step::default() }
}

pub fn names() -> BoxedStrategy<Description> {
    let path = || "[/.a-b ]{0,9}";
    let owner = "(root|[+-]?[0-9]{0,11}|[a-z]{1,3})(:(root|[+-]?[0-9]{0,11}|[a-z]{0,3}))?";
    let steps = prop_oneof![
        reference().prop_map(|reference| vec![Step { op: "image".into(), reference, ..Step::default() }]),
        reference().prop_map(|reference| vec![Step { op: "blob".into(), reference, ..Step::default() }]),
        (url(), "([a-z/:.#]{0,6})").prop_map(|(url, fragment)| {
            vec![Step { op: "git".into(), url, fragment, hosts: vec!["k".into()], ..Step::default() }]
        }),
        "[a-c'\"\\\\# \n\t]{1,12}"
            .prop_map(|shell| vec![image(), Step { op: "run".into(), shell, ..Step::default() }]),
        (path(), path()).prop_map(|(a, b)| vec![image(), set(&["dir", &a]), set(&["dir", &b]), run()]),
        (path(), path(), path(), owner).prop_map(|(dir, path, to, owner)| {
            vec![
                image(),
                set(&["dir", &dir]),
                action("copy", path.clone(), to, owner.clone()),
                action("mkdir", path, String::new(), owner),
            ]
        }),
        ("[a-zA-Z0-9]{0,5}", "(a(rm|md|arch)(hf|el|64|v7)?|x86[_-]64|i?386)", "v?[0-9]([.]0)?").prop_map(
            |(os, architecture, variant)| vec![
                image(),
                set(&["platform", &os, &architecture, &variant]),
                run()
            ]
        ),
    ];
    let ground = Limits { unique: "u".into(), ..Limits::default() };
    steps
        .prop_map(move |steps| Description { steps, marshal: Some(ground.clone()), ..Description::default() })
        .boxed()
}
