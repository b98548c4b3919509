//! `go` writes into a program what it would write in a full clone, and templates know what git says there.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use lemnos::buildkit::session::filesync::DirSource as _;
use lemnos::model::Sha;
use lemnos::solve::git_dir::{GitView, git_dir, git_facts};
use tempfile::TempDir;

use crate::support::engines;

const MAIN: &str = "package main\n\nfunc main() { println(\"hello\") }\n";

/// A work tree, and what is pushed of it.
struct Story {
    home: TempDir,
    /// What the push goes to, and tags that come along.
    reference: String,
    pushed: Vec<(String, Sha)>,
    /// Where the module is that is built.
    module: &'static str,
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args);
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "Dev").env(format!("GIT_{name}_EMAIL"), "dev@example.com");
        command.env(format!("GIT_{name}_DATE"), "2026-01-02T03:04:05+05:00");
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    run(&mut command)
}

impl Story {
    /// One module at the top.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("work")).unwrap();
        let story = Self { home, reference: "refs/heads/main".to_owned(), pushed: Vec::new(), module: "" };
        story.git(&["init", "-q", "-b", "main"]);
        story.write("go.mod", "module example.com/shop\n\ngo 1.21\n");
        story.write("main.go", MAIN);
        story.commit("First");
        story
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.home.path().join("work"), args)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.home.path().join("work").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// `go version -m` of the program, and the program, built in `dir`.
    fn built(&self, dir: &Path) -> (String, Vec<u8>) {
        let program = self.home.path().join("program");
        let go = || {
            let mut command = Command::new(&engines().go);
            command.env("GOFLAGS", "").env("GOTOOLCHAIN", "local").env("GIT_CONFIG_GLOBAL", "/dev/null");
            command.env("CGO_ENABLED", "0");
            command
        };
        run(go()
            .current_dir(dir.join(self.module))
            .args(["build", "-trimpath", "-buildvcs=true", "-o"])
            .arg(&program)
            .arg("."));
        let said = run(go().args(["version", "-m"]).arg(&program));
        (said, std::fs::read(&program).unwrap())
    }

    /// Builds in a full clone and beside the directory made of a bare one, and returns what both say.
    #[track_caller]
    fn same(&self) -> String {
        let bare = self.home.path().join("bare.git");
        let (full, made) = (self.home.path().join("full"), self.home.path().join("made"));
        run(Command::new("git")
            .args(["clone", "-q", "--bare"])
            .arg(self.home.path().join("work"))
            .arg(&bare));
        let name = self.reference.strip_prefix("refs/heads/").or(self.reference.strip_prefix("refs/tags/"));
        let mut clone = Command::new("git");
        clone.args(["-c", "advice.detachedHead=false", "clone", "-q", "-b", name.unwrap()]);
        run(clone.arg(&bare).arg(&full));
        let tip: Sha = git(&bare, &["rev-parse", &self.reference]).parse().unwrap();
        // what the push brings is not in the repository yet
        let mut pushed = self.pushed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        if self.reference.starts_with("refs/tags/") {
            pushed.push(&self.reference);
        }
        for name in pushed {
            git(&bare, &["update-ref", "-d", name]);
        }
        let view = GitView { repository: &bare, tip: &tip, reference: &self.reference, pushed: &self.pushed };
        run(Command::new("cp").arg("-a").arg(&full).arg(&made));
        std::fs::remove_dir_all(made.join(".git")).unwrap();
        let directory = git_dir(&view).unwrap();
        for entry in directory.entries().unwrap().iter() {
            let path = made.join(".git").join(std::str::from_utf8(&entry.path).unwrap());
            if entry.is_dir() {
                std::fs::create_dir_all(&path).unwrap();
                continue;
            }
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::copy(&mut directory.open(entry).unwrap(), &mut std::fs::File::create(&path).unwrap())
                .unwrap();
        }
        assert_eq!(git(&made, &["status", "--porcelain"]), "");
        let (expected, found) = (self.built(&full), self.built(&made));
        assert_eq!(found.0, expected.0);
        assert!(found.1 == expected.1, "the programs differ, and say the same: {}", found.0);

        let facts = git_facts(&view).unwrap();
        assert_eq!(facts.branch, git(&full, &["rev-parse", "--abbrev-ref", "HEAD"]));
        assert_eq!(facts.full_commit, git(&full, &["rev-parse", "HEAD"]));
        assert_eq!(facts.short_commit, git(&full, &["show", "-s", "--format=%h", "HEAD"]));
        assert_eq!(facts.committed_at_s.to_string(), git(&full, &["show", "-s", "--format=%ct", "HEAD"]));
        let described = Command::new("git")
            .current_dir(&full)
            .args(["describe", "--tags", "--abbrev=0"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let tag = String::from_utf8(described.stdout).unwrap();
        assert_eq!(facts.tag.as_deref().unwrap_or_default(), tag.trim());
        found.0
    }
}

#[test]
fn a_commit_without_tags_is_stamped_with_its_time_and_name() {
    let story = Story::new();
    let said = story.same();
    let commit = story.git(&["rev-parse", "HEAD"]);
    for part in [
        format!("vcs.revision={commit}"),
        "vcs.time=2026-01-01T22:04:05Z".to_owned(),
        "vcs.modified=false".to_owned(),
        format!("v0.0.0-20260101220405-{}", &commit[..12]),
    ] {
        assert!(said.contains(&part), "{part} in {said}");
    }
    let story = Story::new();
    story.commit("Second");
    assert!(story.same().contains("v0.0.0-2026"));
}

#[test]
fn a_tag_on_the_commit_is_its_version() {
    let story = Story::new();
    story.commit("Second");
    // of several the highest counts; what is no version does not
    for name in ["v1.2.3", "v1.10.0", "v1.10.0-rc.1", "release", "v2", "v1.99", "v3.0.0"] {
        story.git(&["tag", name]);
    }
    assert!(story.same().contains("\texample.com/shop\tv1.10.0\t"));

    let mut story = Story::new();
    story.commit("Second");
    story.git(&["tag", "-a", "-m", "Release", "v1.2.3"]);
    assert!(story.same().contains("v1.2.3\t"));
    // the tag itself is pushed, to a repository that does not have it yet
    story = Story::new();
    story.git(&["tag", "-a", "-m", "Release", "v1.2.3"]);
    story.reference = "refs/tags/v1.2.3".to_owned();
    assert!(story.same().contains("v1.2.3\t"));
    // a branch with its tag
    story = Story::new();
    story.git(&["tag", "v1.5.0"]);
    story.pushed = vec![("refs/tags/v1.5.0".to_owned(), story.git(&["rev-parse", "HEAD"]).parse().unwrap())];
    assert!(story.same().contains("v1.5.0\t"));
}

#[test]
fn a_tag_in_the_history_is_the_base_of_a_version_and_one_beside_it_is_not() {
    let story = Story::new();
    story.git(&["tag", "v1.2.3"]);
    story.commit("Second");
    story.git(&["tag", "-a", "-m", "Not a version", "nightly"]);
    story.git(&["checkout", "-q", "-b", "side"]);
    story.commit("Aside");
    story.git(&["tag", "v1.9.0"]);
    story.git(&["checkout", "-q", "main"]);
    story.commit("Third");
    assert!(story.same().contains("v1.2.4-0.2026"));

    let story = Story::new();
    story.git(&["tag", "-a", "-m", "First", "v1.2.3"]);
    story.git(&["checkout", "-q", "-b", "side"]);
    story.commit("Aside");
    story.git(&["tag", "v1.3.0-beta.2"]);
    story.git(&["checkout", "-q", "main"]);
    story.commit("Third");
    story.git(&["merge", "-q", "--no-ff", "-m", "Merge", "side"]);
    story.commit("Fourth");
    assert!(story.same().contains("v1.3.0-beta.2.0.2026"));
}

#[test]
fn a_long_history_with_its_tag_at_the_other_end_is_stamped_alike() {
    let story = Story::new();
    story.git(&["tag", "v0.4.0"]);
    let mut import = Command::new("git")
        .current_dir(story.home.path().join("work"))
        .args(["fast-import", "--quiet", "--force"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = import.stdin.take().unwrap();
    let mut from = "from refs/heads/main^0\n";
    for second in 0..3000 {
        let at = 1_767_400_000 + second;
        let text = format!(
            "commit refs/heads/main\ncommitter Dev <dev@example.com> {at} +0000\ndata 1\nx\n{from}M 644 inline n\ndata 4\n{second:04}\n"
        );
        stream.write_all(text.as_bytes()).unwrap();
        from = "";
    }
    drop(stream);
    assert!(import.wait().unwrap().success());
    story.git(&["reset", "-q", "--hard"]);
    assert!(story.same().contains("v0.4.1-0.2026"));
}

#[test]
fn a_branch_may_be_called_anything() {
    let mut story = Story::new();
    let name = "feature/tag:-is-not-allowed-but-'quotes',$(this)&öäü%20-are".replace("tag:", "tag");
    story.git(&["checkout", "-q", "-b", &name]);
    story.reference = format!("refs/heads/{name}");
    story.git(&["tag", "v1.0.0"]);
    story.commit("Second");
    assert!(story.same().contains("v1.0.1-0.2026"));
}

#[test]
fn a_module_in_a_directory_has_versions_of_its_own() {
    for (module, path, tags, expected) in [
        ("sub", "example.com/shop/sub", ["sub/v1.2.3", "v1.9.0"], "v1.2.4-0.2026"),
        ("tools/gen", "example.com/shop/tools/gen", ["tools/gen/v0.1.0", "tools/v0.9.0"], "v0.1.1-0.2026"),
        ("v2", "example.com/shop/v2", ["v2.1.0", "v1.9.0"], "v2.1.1-0.2026"),
    ] {
        let mut story = Story::new();
        story.module = module;
        story.write(&format!("{module}/go.mod"), &format!("module {path}\n\ngo 1.21\n"));
        story.write(&format!("{module}/main.go"), MAIN);
        story.commit("A module more");
        for tag in tags {
            story.git(&["tag", tag]);
        }
        story.commit("Later");
        let said = story.same();
        assert!(said.contains(expected), "{module}: {said}");
    }
}

#[test]
fn files_that_a_checkout_changes_and_submodules_are_no_modification() {
    let story = Story::new();
    story.write(".gitattributes", "*.txt text eol=lf\n*.id ident\n*.bin filter=lfs\n");
    story.write("notes.txt", "one\ntwo\n");
    story.write("large.bin", "version https://git-lfs.github.com/spec/v1\n");
    story.write("deep/run.sh", "#!/bin/sh\n");
    let work = story.home.path().join("work");
    std::fs::set_permissions(work.join("deep/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("deep/run.sh", work.join("run")).unwrap();
    story.write("deep/empty", "");
    story.git(&["add", "-A"]);
    let commit = story.git(&["rev-parse", "HEAD"]);
    story.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},deep/module")]);
    story.git(&["commit", "-q", "-m", "Files of all kinds"]);
    assert!(story.same().contains("vcs.modified=false"));

    // the session serves no directory of a submodule
    let made = story.home.path().join("made");
    std::fs::remove_dir(made.join("deep/module")).unwrap();
    assert_eq!(git(&made, &["status", "--porcelain"]), "");
    // and a change is one
    std::fs::write(made.join("notes.txt"), "one\nTWO\n").unwrap();
    assert_eq!(git(&made, &["status", "--porcelain"]), "M notes.txt");
}
