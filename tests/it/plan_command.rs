//! `lemnos plan` and `lemnos detect` as the real binary, on directories and commits; every example with its expected plan.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lemnos::model::{BuildPlan, Sha};

/// Writes a directory as one commit of a new repository, at a fixed time, so that its id is always the same.
fn commit_of(dir: &Path, gitdir: &Path) -> Sha {
    let repository = git2::Repository::init_bare(gitdir).unwrap();
    let root = repository.find_tree(write_tree(&repository, dir)).unwrap();
    let who =
        git2::Signature::new("lemnos", "lemnos@example.org", &git2::Time::new(1_700_000_000, 0)).unwrap();
    let id = repository.commit(Some("refs/heads/main"), &who, &who, "Example\n", &root, &[]).unwrap();
    repository.set_head("refs/heads/main").unwrap();
    id.to_string().parse().unwrap()
}

fn write_tree(repository: &git2::Repository, dir: &Path) -> git2::Oid {
    let mut builder = repository.treebuilder(None).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (oid, mode) = if entry.file_type().unwrap().is_dir() {
            (write_tree(repository, &entry.path()), 0o040_000)
        } else {
            (repository.blob_path(&entry.path()).unwrap(), 0o100_644)
        };
        builder.insert(entry.file_name().to_str().unwrap(), oid, mode).unwrap();
    }
    builder.write().unwrap()
}

fn lemnos(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lemnos")).args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = lemnos(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every folder of buildpacks/ has an example: what the real binary plans of it as a commit is its `expect.json`; a kind whose
/// builds come later has none, is found, and is refused as such.
#[test]
fn every_example_plans_as_expected() {
    let buildpacks = Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks");
    let mut seen = 0;
    for entry in std::fs::read_dir(&buildpacks).unwrap() {
        let folder: PathBuf = entry.unwrap().path();
        let kind = folder.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(folder.join("example").is_dir(), "{kind} has no example");
        let work = tempfile::tempdir().unwrap();
        let gitdir = work.path().join("shop.git");
        commit_of(&folder.join("example"), &gitdir);
        let source = format!("{}@main", gitdir.display());
        if !folder.join("expect.json").is_file() {
            let found: serde_json::Value =
                serde_json::from_str(&stdout(&["detect", "--json", &source])).unwrap();
            assert_eq!(found["kind"], serde_json::Value::String(kind));
            let refused = lemnos(&["plan", "--json", &source]);
            let text = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(
                !refused.status.success() && text.contains("which this version cannot make yet"),
                "{text}"
            );
            continue;
        }
        let planned: serde_json::Value = serde_json::from_str(&stdout(&["plan", "--json", &source])).unwrap();
        let expect = std::fs::read_to_string(folder.join("expect.json")).unwrap_or_default();
        let expect: serde_json::Value = serde_json::from_str(&expect).unwrap_or_default();
        assert_eq!(planned, expect, "buildpacks/{kind}/expect.json should be\n{planned:#}");
        assert_eq!(planned["detected"]["kind"], serde_json::Value::String(kind));
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn the_commands_take_directories_branches_tags_and_ids() {
    let work = tempfile::tempdir().unwrap();
    let (dir, gitdir) = (work.path().join("My App"), work.path().join("shop.git"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\n").unwrap();
    let sha = commit_of(&dir, &gitdir);
    let repository = git2::Repository::open(&gitdir).unwrap();
    let commit = repository.find_object(git2::Oid::from_str(sha.as_str()).unwrap(), None).unwrap();
    let who = git2::Signature::new("t", "t@example.org", &git2::Time::new(1, 0)).unwrap();
    repository.tag("v1.2", &commit, &who, "annotated", false).unwrap();
    repository.reference("refs/heads/deep/er", commit.id(), false, "test").unwrap();

    let plan = |args: &[&str]| -> BuildPlan {
        serde_json::from_str(&stdout(&[&["plan", "--json"], args].concat())).unwrap()
    };
    let tags =
        |plan: &BuildPlan| plan.images[0].tags.iter().map(|t| t.as_str().to_owned()).collect::<Vec<_>>();
    let at = |name: &str| format!("{}@{name}", gitdir.display());
    let git = format!("git-{}", sha.short(12));
    for (source, expect) in [
        (at("main"), vec![git.as_str(), "main", "latest"]),
        (at("HEAD"), vec![&git, "main", "latest"]),
        (at("deep/er"), vec![&git, "deep-er"]),
        (at("v1.2"), vec![&git, "v1.2"]),
        (at("refs/tags/v1.2"), vec![&git, "v1.2"]),
        (at(sha.as_str()), vec![&git, "main", "latest"]),
        (at(sha.short(8)), vec![&git, "main", "latest"]),
        (dir.display().to_string(), vec!["main", "latest"]),
    ] {
        let plan = plan(&[&source]);
        assert_eq!(tags(&plan), expect, "{source}");
        assert_eq!(plan.commit.is_zero(), !source.contains('@'));
        assert_eq!(plan.app.as_str(), if source.contains('@') { "shop" } else { "app" });
    }
    let version = plan(&[&at("v1.2")]).images[0].annotations["org.opencontainers.image.version"].clone();
    assert_eq!(version, "1.2");
    let tried =
        plan(&[&at("main"), "-o", "try", "-o", "platform=linux/arm64", "--ref", "topic", "--app", "x"]);
    assert_eq!(tags(&tried), [format!("try-topic-{}", sha.short(12))]);
    assert!(tried.notes.iter().any(|n| n.contains("would not build")), "{:?}", tried.notes);

    for (args, code, expect) in [
        (vec!["plan".to_owned(), at("none")], 3, "has no branch, tag or commit \"none\""),
        (vec!["plan".to_owned(), at("main~1")], 3, "has no branch, tag or commit"),
        (vec!["detect".to_owned(), format!("{}/none", dir.display())], 3, "is not a directory"),
        (vec!["plan".to_owned(), format!("{}@main", dir.display())], 3, "is not a git repository"),
        (vec!["detect".to_owned(), work.path().display().to_string()], 2, "nothing to build was found"),
        (vec!["plan".to_owned(), at("main"), "-o".to_owned(), "tri".to_owned()], 2, "unknown push option"),
    ] {
        let output = lemnos(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(
            text.starts_with("error: ") && text.contains(expect) && text.contains("hint: ") || code == 2,
            "{text}"
        );
        assert!(text.contains(expect), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn settings_come_from_a_file_and_misspelt_ones_are_refused() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).display().to_string();
    std::fs::write(work.path().join("web.df"), "FROM busybox\n").unwrap();
    let settings = r#"{"id": "x", "settings": {"dockerfile_path": "web.df", "platforms": ["linux/amd64"]}}"#;
    std::fs::write(at("app.json"), settings).unwrap();
    let text =
        stdout(&["plan", &at(""), "--settings", &at("app.json"), "--app", "shop", "--image", "r.example/x"]);
    for line in ["image        r.example/x", "build        web.df, context .", "platforms    linux/amd64"] {
        assert!(text.contains(&format!("{line}\n")), "{text}");
    }
    let found = stdout(&["detect", &at(""), "--settings", &at("app.json")]);
    assert!(found.starts_with("dockerfile: web.df, named by the app's settings\n"), "{found}");
    std::fs::write(at("bad.json"), r#"{"dockerfile": "web.df"}"#).unwrap();
    let output = lemnos(&["plan", &at(""), "--settings", &at("bad.json")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("unknown setting \"dockerfile\"\nhint: "), "{text}");
    assert_eq!(output.status.code(), Some(2));
}
