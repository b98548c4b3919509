//! The directory's bytes: what git and go make of them is a live test.

use super::*;

struct Repository {
    dir: tempfile::TempDir,
    git: git2::Repository,
}

impl Repository {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        Self { dir, git }
    }

    /// A commit of one file on `main`.
    fn commit(&self, content: &str, second: i64) -> git2::Oid {
        let mut tree = self.git.treebuilder(None).unwrap();
        tree.insert("main.go", self.git.blob(content.as_bytes()).unwrap(), 0o100_644).unwrap();
        let tree = self.git.find_tree(tree.write().unwrap()).unwrap();
        let who = git2::Signature::new("Dev", "dev@example.com", &git2::Time::new(second, 0)).unwrap();
        let parent =
            self.git.refname_to_id("refs/heads/main").ok().map(|id| self.git.find_commit(id).unwrap());
        let parents: Vec<_> = parent.iter().collect();
        self.git.commit(Some("refs/heads/main"), &who, &who, content, &tree, &parents).unwrap()
    }

    fn tag(&self, name: &str, commit: git2::Oid) {
        self.git.reference(&format!("refs/tags/{name}"), commit, true, "").unwrap();
    }

    fn dir(&self, commit: git2::Oid) -> GitDir {
        let tip = commit.to_string().parse().unwrap();
        let view =
            GitView { repository: self.dir.path(), tip: &tip, reference: "refs/heads/main", pushed: &[] };
        git_dir(&view).unwrap()
    }
}

fn text(dir: &GitDir, path: &str) -> String {
    String::from_utf8(dir.files.get(path.as_bytes()).unwrap().clone()).unwrap()
}

#[test]
fn a_long_history_makes_no_larger_directory_and_its_first_tag_is_in_it() {
    let repository = Repository::new();
    let first = repository.commit("0", 1_000_000_000);
    repository.tag("v1.2.3", first);
    let mut last = first;
    for number in 1..2000 {
        last = repository.commit(&number.to_string(), 1_000_000_000 + number);
    }
    let dir = repository.dir(last);
    // two commits, the stand-in, one tree
    let objects = dir.files.keys().filter(|path| path.starts_with(b"objects/")).count();
    assert_eq!(objects, 4);
    assert_eq!(text(&dir, "shallow"), format!("{first}\n"));
    assert!(text(&dir, "packed-refs").contains(&format!("{first} refs/tags/v1.2.3\n")));
    assert!(!dir.is_cut());
    let size: usize = dir.files.values().map(Vec::len).sum();
    assert!(size < 4096, "{size}");
}

#[test]
fn equal_commits_give_equal_bytes_and_times_and_another_commit_other_ones() {
    let repository = Repository::new();
    let first = repository.commit("0", 1_000_000_000);
    let second = repository.commit("1", 1_000_000_001);
    let (once, again, other) = (repository.dir(second), repository.dir(second), repository.dir(first));
    assert_eq!((&once.files, &once.entries), (&again.files, &again.entries));
    let time = |dir: &GitDir, path: &[u8]| dir.entries.iter().find(|e| e.path == path).unwrap().mtime_ns;
    for path in [b"index".as_slice(), b"packed-refs"] {
        assert_ne!(time(&once, path), time(&other, path));
    }
    assert_eq!(time(&once, b"config"), time(&other, b"config"));
}

#[test]
fn entries_come_in_the_order_of_a_session() {
    let repository = Repository::new();
    let dir = repository.dir(repository.commit("0", 1_000_000_000));
    let paths: Vec<_> = dir.entries().unwrap().iter().map(|entry| entry.path.clone()).collect();
    for (at, path) in paths.iter().enumerate() {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { continue };
        let above = paths.iter().position(|other| *other == path[..slash]).unwrap();
        assert!(above < at);
    }
    let mut sorted = paths.clone();
    sorted.sort_by(|a, b| a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/')));
    assert_eq!(paths, sorted);
    for entry in dir.entries().unwrap().iter().filter(|entry| entry.is_regular()) {
        let mut content = Vec::new();
        dir.open(entry).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, entry.size);
    }
    assert!(dir.open(&Entry { path: b"hooks/post-commit".to_vec(), ..Entry::default() }).is_err());
}

#[test]
fn what_is_no_commit_is_refused() {
    let repository = Repository::new();
    repository.commit("0", 1_000_000_000);
    let blob: Sha = repository.git.blob(b"0").unwrap().to_string().parse().unwrap();
    let view =
        GitView { repository: repository.dir.path(), tip: &blob, reference: "refs/heads/main", pushed: &[] };
    assert!(matches!(git_dir(&view), Err(GitDirError::Read { .. })));
    let nowhere = tempfile::tempdir().unwrap();
    let error = git_facts(&GitView { repository: nowhere.path(), ..view }).unwrap_err();
    assert!(error.to_string().contains("is not a git repository"), "{error}");
}
