//! Contexts from git objects against a real buildkitd: what arrives in images, and what is sent for a change.

mod project;

use std::process::Command;

use lemnos::buildkit::session::filesync::Missing;
use lemnos::solve::context::Ledger;

use project::{EXECUTABLE, FILE, LINK, Project, Sent, exported_by_buildctl};

const ALL: &str = "FROM scratch\nCOPY . /\n";

/// What one build sent of the context itself: the frontend asks for its `.dockerignore` in a call of its own.
fn context(sent: &[Sent]) -> &Sent {
    sent.iter().filter(|sent| sent.dir == "context").max_by_key(|sent| sent.stats).unwrap()
}

#[tokio::test]
async fn a_large_tree_arrives_whole_and_a_change_sends_one_file() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    for n in 0..7000_usize {
        project.write(&format!("src/d{}/f{n}.txt", n % 70), &format!("{n}\n").repeat(n % 40));
    }
    // names that git and BuildKit sort differently
    for path in ["foo/a", "foo.txt", "foo-bar/b", "foo0", "foo/b.d/c", "foo/b"] {
        project.write(path, path);
    }
    project.put("run.sh", EXECUTABLE, b"#!/bin/sh\n");
    project.put("link", LINK, b"foo/a");
    project.put("dangling", LINK, b"/nowhere");
    project.put("foo/up", LINK, b"../src/d1");
    let first = project.build().await.unwrap();
    assert_eq!(context(&first.sent).requests, 7000 + 6 + 2, "{:?}", first.sent);
    let files = project.expected();
    assert_eq!(first.export(), files);

    project.write("src/d3/f3.txt", "changed");
    let second = project.build().await.unwrap();
    assert_eq!(context(&second.sent).requests, 1, "{:?}", second.sent);
    assert_eq!(context(&second.sent).bytes, 7);
    assert_eq!(second.export(), project.expected());

    let third = project.build().await.unwrap();
    assert_eq!(context(&third.sent).requests, 0, "{:?}", third.sent);
    assert_eq!(third.digest, second.digest);
}

#[tokio::test]
async fn what_changed_is_never_stale_and_nothing_else_is_sent() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    project.write("a", "one");
    project.write("b", "same");
    project.write("dir/c", "same");
    project.build().await.unwrap();
    type Change = (&'static str, fn(&mut Project), u64);
    let changes: [Change; 7] = [
        ("an edit of the same size", |p| p.write("a", "two"), 1),
        ("a revert", |p| p.write("a", "one"), 1),
        ("an executable bit", |p| p.put("a", EXECUTABLE, b"one"), 1),
        ("its removal", |p| p.put("a", FILE, b"one"), 1),
        ("a rename", |p| p.rename("dir/c", "dir/d"), 1),
        ("a file where a directory was", |p| p.rename("dir/d", "dir"), 1),
        ("a link where a file was", |p| p.put("a", LINK, b"b"), 0),
    ];
    for (what, change, files) in changes {
        change(&mut project);
        let built = project.build().await.unwrap();
        assert_eq!(built.export(), project.expected(), "{what}");
        assert_eq!(context(&built.sent).requests, files, "{what}: {:?}", built.sent);
    }
}

#[tokio::test]
async fn a_lost_ledger_costs_a_transfer_and_nothing_else() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    project.write("a", "one");
    project.build().await.unwrap();
    project.write("a", "two");
    project.ledger = Ledger::default();
    project.clock_ahead_s = -1_000_000;
    let built = project.build().await.unwrap();
    assert_eq!(built.export(), project.expected());
    assert_eq!(context(&built.sent).requests, 2);
}

/// The host's make with its libraries, for an image that has none.
fn make_and_libraries(project: &mut Project) {
    let make = "/usr/bin/make";
    let linked = Command::new("ldd").arg(make).output().expect("ldd is part of libc-bin");
    let linked = String::from_utf8(linked.stdout).unwrap();
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    for path in [make].into_iter().chain(libraries) {
        let content = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e} (package make)"));
        project.put(&format!("tools{path}"), EXECUTABLE, &content);
    }
}

#[tokio::test]
async fn make_in_a_cache_mount_sees_every_change() {
    let mut project = Project::new();
    make_and_libraries(&mut project);
    project.write("src/Makefile", "/cache/%: %\n\techo made $* > /cache/log.$*; cp $< $@\n");
    for (way, step) in [
        ("bind", "RUN --mount=type=bind,source=src,target=/src --mount=type=cache,id=ID,target=/cache"),
        ("copy", "COPY src /src\nRUN --mount=type=cache,id=ID,target=/cache"),
    ] {
        let id = project.name.clone() + way;
        project.write(
            "Dockerfile",
            &format!(
                "FROM busybox\nCOPY tools /\n{} cd /src && make -s /cache/a /cache/b && mkdir /out && \
                 cp /cache/a /cache/b /out/\n",
                step.replace("ID", &id)
            ),
        );
        // b is new each time: a directory whose whole content was there before is taken from BuildKit's cache, with the
        // times it had then. a is edited, reverted, left alone, made executable.
        for (n, (a, mode)) in
            [("one", FILE), ("two", FILE), ("one", FILE), ("one", FILE), ("one", EXECUTABLE)]
                .into_iter()
                .enumerate()
        {
            project.put("src/a", mode, a.as_bytes());
            let b = format!("{id}{n}");
            project.write("src/b", &b);
            let files = project.build().await.unwrap().export();
            assert_eq!(files["out/a"].content(), a.as_bytes(), "{way} {n}");
            assert_eq!(files["out/b"].content(), b.as_bytes(), "{way} {n}");
        }
    }
}

#[tokio::test]
async fn a_file_of_150_megabytes_arrives_whole() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    let mut state = 1_u32;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()
    })
    .take((150 << 20) / 4)
    .flatten()
    .collect();
    project.put("large", FILE, &large);
    let built = project.build().await.unwrap();
    assert_eq!(context(&built.sent).bytes, (150 << 20) + ALL.len() as u64);
    assert_eq!(built.export(), project.expected());
}

#[tokio::test]
async fn names_that_are_not_utf8_get_a_clear_answer() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    project.put_raw(b"caf\xe9", FILE, b"x");
    let error = project.build().await.err().unwrap();
    assert!(error.contains(r#"the name of "caf\xe9" is not UTF-8"#), "{error}");
    assert!(error.contains("rename it, or exclude it in .dockerignore"), "{error}");
    project.write(".dockerignore", "caf?\n.dockerignore\n");
    let built = project.build().await.unwrap();
    assert_eq!(built.export().keys().collect::<Vec<_>>(), ["Dockerfile"]);
}

#[tokio::test]
async fn an_empty_dockerfile_gets_a_clear_answer() {
    let mut project = Project::new();
    project.write("Dockerfile", "");
    project.write("a", "x");
    let error = project.build().await.err().unwrap();
    assert!(error.contains("the Dockerfile cannot be empty"), "{error}");
}

#[tokio::test]
async fn a_submodule_in_the_context_is_reported() {
    let mut project = Project::new();
    project.write("Dockerfile", ALL);
    project.put("vendor/lib", project::SUBMODULE, b"");
    let built = project.build().await.unwrap();
    let concerns: Vec<_> = built.concerns.iter().map(|c| (c.path.as_str(), c.missing)).collect();
    assert_eq!(concerns, [("vendor/lib", Missing::Submodule)]);
}

#[tokio::test]
async fn the_dockerfile_may_stand_outside_the_context() {
    let mut project = Project::new();
    project.write("docker/web.Dockerfile", ALL);
    project.write("docker/web.Dockerfile.dockerignore", "*.md\n");
    project.write("app/a.md", "ignored");
    project.write("app/sub/a.md", "kept");
    project.write("app/.dockerignore", "sub\n");
    project.write("outside", "not sent");
    project.context = "app";
    project.dockerfile = "docker/web.Dockerfile";
    let built = project.build().await.unwrap();
    assert_eq!(built.export().keys().collect::<Vec<_>>(), [".dockerignore", "sub", "sub/a.md"]);
}

#[tokio::test]
async fn ignore_files_leave_out_what_buildctl_leaves_out() {
    let dockerfiles = [
        ALL,
        "FROM scratch\nCOPY docs/*.md foo/bar /x/\nCOPY foo.txt /y\n",
        "FROM scratch\nCOPY link/x lin*/y /z/\nCOPY --exclude=*.go foo /w\n",
    ];
    let ignores = [
        "",
        "# comment\n\n  foo  \n",
        "*\n!foo/bar\n!docs/**/*.md\n!foo.txt\n!link\n!real\n",
        "**/*.go\n!foo/a.go\n",
        "/docs/\nfoo/*\n!foo/bar\n",
        "**\n!**/*.md\n!foo/bar/b.go\n!foo.txt\n!real/*\n!link\n",
        "\u{feff}docs/a\n[f]oo/a*\n",
        "docs/?\nfoo/b*r/*.go\n!foo/bar/b.go\nreal/y\n",
        "foo\n!foo/bar\nfoo/bar/c.txt\n",
        "Dockerfile\n.dockerignore\n",
    ];
    let (mut same, mut failed) = (0, 0);
    for dockerfile in dockerfiles {
        for ignore in ignores {
            let mut project = Project::new();
            project.write("Dockerfile", dockerfile);
            project.write(".dockerignore", ignore);
            for path in [
                "foo.txt",
                "foo/a.go",
                "foo/bar/b.go",
                "foo/bar/c.txt",
                "foo-x/a.go",
                "docs/README.md",
                "docs/a/b.md",
                "docs/b",
                "real/x",
                "real/y",
            ] {
                project.write(path, path);
            }
            project.put("link", LINK, b"real");
            let ours = project.build().await.map(|built| built.export());
            let theirs = exported_by_buildctl(&project);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(ours, theirs, "{dockerfile:?} with {ignore:?}");
                    same += 1;
                }
                (Err(_), Err(_)) => failed += 1,
                (ours, theirs) => {
                    panic!("{dockerfile:?} with {ignore:?}: ours {ours:?}, buildctl {theirs:?}")
                }
            }
        }
    }
    assert!(same >= 15 && same + failed == 30, "{same} builds compared, {failed} fail in both");
}
