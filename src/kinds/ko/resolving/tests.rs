//! Which files are found, which references are programs, and what comes out.

use super::*;
use crate::model::tree::MemoryTree;

fn said(paths: &[&str]) -> Vec<At<String>> {
    let at =
        |(line, path): (usize, &&str)| At { value: (*path).to_owned(), line: line as u64 + 3, column: 5 };
    paths.iter().enumerate().map(at).collect()
}

fn programs() -> Vec<(String, ImageName)> {
    let of = |path: &str, image: &str| (path.to_owned(), image.parse().unwrap());
    vec![
        of("example.com/shop/web", "r.example.com/shop/web"),
        of("example.com/shop/job", "r.example.com/shop/job"),
    ]
}

fn tree() -> MemoryTree {
    MemoryTree::default()
        .with(
            "deploy/web.yaml",
            "image: ko://example.com/shop/web\n---\nagain: 'ko://example.com/shop/web/'\n",
        )
        .with("deploy/job.json", "{\"image\": \"ko://example.com/shop/job\"}")
        .with("deploy/notes.txt", "ko://nothing")
        .with("deploy/more/other.yaml", "image: busybox\n")
        .with("empty/README", "")
        .with("list.yml", "- ko://example.com/shop/job # here\n")
        .with_kind("link.yaml", EntryKind::Symlink, "list.yml")
}

fn planned(tree: &MemoryTree, paths: &[&str]) -> Result<Option<Manifests>, KindError> {
    plan(tree, &said(paths), &programs())
}

#[test]
fn files_stand_in_order_once_and_references_become_digests() {
    let tree = tree();
    assert_eq!(planned(&tree, &[]).unwrap(), None);
    let manifests =
        planned(&tree, &["./list.yml", "deploy/", "deploy/more", "deploy/web.yaml"]).unwrap().unwrap();
    assert_eq!(manifests.files, ["list.yml", "deploy/job.json", "deploy/web.yaml", "deploy/more/other.yaml"]);
    let names: Vec<_> = manifests.references.iter().map(|(name, image)| format!("{name} {image}")).collect();
    assert_eq!(
        names,
        [
            "ko://example.com/shop/job r.example.com/shop/job",
            "ko://example.com/shop/web r.example.com/shop/web",
            "ko://example.com/shop/web/ r.example.com/shop/web",
        ]
    );
    let (web, job) = (Digest::of(b"web"), Digest::of(b"job"));
    let built: BTreeMap<ImageName, Digest> = BTreeMap::from([
        ("r.example.com/shop/web".parse().unwrap(), web.clone()),
        ("r.example.com/shop/job".parse().unwrap(), job.clone()),
    ]);
    let (web, job) = (format!("r.example.com/shop/web@{web}"), format!("r.example.com/shop/job@{job}"));
    assert_eq!(
        resolved(&tree, &manifests, &built).unwrap(),
        format!(
            "- {job} # here\n---\n{{\"image\": \"{job}\"}}\n---\nimage: {web}\n---\nagain: '{web}'\n---\nimage: busybox\n---\n"
        )
    );
    // an image that was not made is never left as a reference
    let error = resolved(&tree, &manifests, &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "list.yml:1:3: no image was built for ko://example.com/shop/job");
}

#[test]
fn what_is_not_there_or_not_built_is_refused_before_anything_is_built() {
    let tree = tree()
        .with("bad/other.yaml", "a: 1\nimage: ko://example.com/shop/cron\n")
        .with("bad/lines.yaml", "a: [\n")
        .with("bad/escape.yaml", "# \u{1b}[2J\n");
    let mut told = String::new();
    for paths in [
        &["list.yml", "missing.yaml"][..],
        &["../other"],
        &["/etc/passwd"],
        &["empty"],
        &["link.yaml"],
        &["bad/other.yaml"],
        &["bad/lines.yaml"],
        &["bad/escape.yaml"],
    ] {
        told.push_str(&format!("{}\n", planned(&tree, paths).unwrap_err()));
    }
    insta::assert_snapshot!(told, @r#"
    build-config.yaml:4: ko_config.resolve: there is no missing.yaml in the tree
    build-config.yaml:3: ko_config.resolve: "../other" leaves the tree: use a relative path without '..'
    build-config.yaml:3: ko_config.resolve: "/etc/passwd" leaves the tree: use a relative path without '..'
    build-config.yaml:3: ko_config.resolve: ./empty has no *.yaml and no *.json
    link.yaml is a symbolic link; configuration is read from regular files only
    bad/other.yaml:2: ko://example.com/shop/cron is not built by this push, which builds example.com/shop/web, example.com/shop/job
    bad/lines.yaml:1:4: unclosed bracket '['
    bad/escape.yaml:1: a control character stands here, and YAML has none
    "#);
}

#[test]
fn number_and_size_are_bounded() {
    let refused = |tree: &MemoryTree, path: &str| planned(tree, &[path]).unwrap_err().to_string();
    let many =
        (0..=LIMIT_FILES).fold(MemoryTree::default(), |tree, n| tree.with(&format!("d/{n}.yaml"), "a: 1\n"));
    assert_eq!(refused(&many, "d"), "ko_config.resolve: more than 256 files");
    let large = MemoryTree::default().with("d/a.yaml", &"a\n".repeat(LIMIT_BYTES / 2 + 1));
    assert!(refused(&large, "d").contains("at most 1048576 are read"), "{}", refused(&large, "d"));
    let half = format!("# {}\n", "x".repeat(LIMIT_BYTES / 2));
    let halves = MemoryTree::default().with("d/a.yaml", &half).with("d/b.yaml", &half);
    assert_eq!(refused(&halves, "d"), "ko_config.resolve: more than 1048576 bytes");
    let list = "- ko://example.com/shop/web\n".repeat(LIMIT_REFERENCES + 1);
    let references = MemoryTree::default().with("d/a.yaml", &list);
    assert_eq!(refused(&references, "d"), "ko_config.resolve: more than 1000 references");
}

#[test]
fn a_hostile_file_ends_in_time_and_takes_no_stack() {
    let deep =
        |open: &str, close: &str, times: usize| format!("{}{}", open.repeat(times), close.repeat(times));
    let indented =
        |times: usize| -> String { (0..times).map(|n| format!("{}a:\n", " ".repeat(n))).collect() };
    for text in [
        deep("[", "]", LIMIT_BYTES / 2),
        deep("{a: ", "}", LIMIT_BYTES / 5),
        "- ".repeat(LIMIT_BYTES / 2),
        "? ".repeat(LIMIT_BYTES / 2),
        indented(1_400),
        "[".repeat(LIMIT_BYTES),
        "--- \n".repeat(LIMIT_BYTES / 5),
        "&a *a ".repeat(LIMIT_BYTES / 6),
        format!("a: \"{}", "\\u0041".repeat(LIMIT_BYTES / 7)),
        format!("{}: ko://example.com/shop/web", "a".repeat(LIMIT_BYTES - 100)),
    ] {
        let tree = MemoryTree::default().with("a.yaml", &text);
        // on the stack of a thread that serves
        let ended = std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(move || planned(&tree, &["a.yaml"]).map(drop).map_err(|error| error.to_string()));
        if let Err(said) = ended.unwrap().join().unwrap() {
            assert!(said.starts_with("a.yaml:"), "{said}");
        }
    }
}
