//! Contexts over real repositories: times, listings, what is refused.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const FILE: i32 = 0o100_644;
const EXECUTABLE: i32 = 0o100_755;
const LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;

/// Path, mode, content.
type File<'a> = (&'a [u8], i32, &'a [u8]);

/// A bare repository, and commits of flat lists of files.
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

    fn tree(&self, files: &[File<'_>]) -> git2::Oid {
        let mut builder = self.git.treebuilder(None).unwrap();
        let mut dirs: BTreeMap<&[u8], Vec<File<'_>>> = BTreeMap::new();
        for (path, mode, content) in files {
            if let Some(slash) = path.iter().position(|b| *b == b'/') {
                dirs.entry(&path[..slash]).or_default().push((&path[slash + 1..], *mode, content));
                continue;
            }
            let oid = match *mode {
                SUBMODULE => git2::Oid::from_bytes(&[7; 20]).unwrap(),
                _ => self.git.blob(content).unwrap(),
            };
            builder.insert(std::str::from_utf8(path).unwrap(), oid, *mode).unwrap();
        }
        for (name, files) in dirs {
            builder.insert(std::str::from_utf8(name).unwrap(), self.tree(&files), 0o040_000).unwrap();
        }
        builder.write().unwrap()
    }

    fn commit_tree(&self, tree: git2::Oid) -> Sha {
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1_700_000_000, 0)).unwrap();
        let tree = self.git.find_tree(tree).unwrap();
        self.git.commit(None, &who, &who, "m", &tree, &[]).unwrap().to_string().parse().unwrap()
    }

    fn commit(&self, files: &[(&str, i32, &str)]) -> Sha {
        let files: Vec<File<'_>> = files.iter().map(|(p, m, c)| (p.as_bytes(), *m, c.as_bytes())).collect();
        self.commit_tree(self.tree(&files))
    }

    fn open(
        &self,
        commit: &Sha,
        subdir: &str,
        ledger: &mut Ledger,
        now_s: i64,
    ) -> Result<GitContext, ContextError> {
        GitContext::open(self.dir.path(), commit, subdir, ledger, now_s)
    }
}

fn paths(context: &GitContext) -> Vec<String> {
    context.entries().unwrap().iter().map(|entry| shown(&entry.path)).collect()
}

fn entry(context: &GitContext, path: &str) -> Entry {
    let entries = context.entries().unwrap();
    entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap().clone()
}

fn content(context: &GitContext, path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    context.open(&entry(context, path)).unwrap().read_to_end(&mut content).unwrap();
    content
}

#[test]
fn entries_stand_in_the_daemons_order_with_constant_modes() {
    let repository = Repository::new();
    let commit = repository.commit(&[
        ("foo.txt", FILE, "text"),
        ("foo/a", EXECUTABLE, "#!"),
        ("foo-bar/b", FILE, ""),
        ("foo0", LINK, "../elsewhere"),
        ("Über", FILE, "x"),
        ("vendor/lib", SUBMODULE, ""),
    ]);
    let context = repository.open(&commit, "", &mut Ledger::default(), 100).unwrap();
    assert_eq!(
        paths(&context),
        ["foo", "foo/a", "foo-bar", "foo-bar/b", "foo.txt", "foo0", "vendor", "vendor/lib", "Über"]
    );
    let seen: Vec<_> = ["foo", "foo/a", "foo-bar/b", "foo.txt", "foo0"]
        .map(|path| {
            let e = entry(&context, path);
            (format!("{:o}", e.mode & mode::PERMISSIONS), e.mode & mode::TYPE, e.size, shown(&e.linkname))
        })
        .into();
    let expected = [
        ("755", mode::DIR, 0, ""),
        ("755", 0, 2, ""),
        ("644", 0, 0, ""),
        ("644", 0, 4, ""),
        ("777", mode::SYMLINK, 12, "../elsewhere"),
    ];
    assert_eq!(seen, expected.map(|(p, t, s, l)| (p.to_owned(), t, s, l.to_owned())));
    assert_eq!(context.submodules(), ["vendor/lib"]);
    assert_eq!(entry(&context, "vendor/lib").missing, Some(Missing::Submodule));
    assert_eq!(content(&context, "foo.txt"), b"text");
    assert_eq!(content(&context, "foo-bar/b"), b"");
    for no_file in ["foo", "foo0", "vendor/lib"] {
        assert!(context.open(&entry(&context, no_file)).is_err(), "{no_file}");
    }
}

#[test]
fn names_that_are_not_utf8_are_listed_as_they_are() {
    let repository = Repository::new();
    let blob = repository.git.blob(b"x").unwrap();
    let raw = [b"100644 caf\xe9\0".as_slice(), blob.as_bytes()].concat();
    let tree = repository.git.odb().unwrap().write(git2::ObjectType::Tree, &raw).unwrap();
    let context = repository.open(&repository.commit_tree(tree), "", &mut Ledger::default(), 1).unwrap();
    assert_eq!(context.entries().unwrap()[0].path, b"caf\xe9");
    assert_eq!(paths(&context), [r"caf\xe9"]);
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    let repository = Repository::new();
    let blob = repository.git.blob(b"x").unwrap();
    for name in ["..", ".", "a/b", ".git", ".Git"] {
        let raw = [b"100644 ".as_slice(), name.as_bytes(), b"\0", blob.as_bytes()].concat();
        let tree = repository.git.odb().unwrap().write(git2::ObjectType::Tree, &raw).unwrap();
        let refused = repository.open(&repository.commit_tree(tree), "", &mut Ledger::default(), 1);
        assert_eq!(refused.unwrap_err(), ContextError::BadName { name: name.to_owned() });
    }
}

#[test]
fn a_time_changes_exactly_when_content_or_mode_does() {
    let repository = Repository::new();
    let first = repository.commit(&[("a", FILE, "one"), ("b", FILE, "same"), ("run", FILE, "#!")]);
    let second = repository.commit(&[("a", FILE, "two"), ("b", FILE, "same"), ("run", EXECUTABLE, "#!")]);
    let mut ledger = Ledger::default();
    let mut times = Vec::new();
    // the second build edits a (same size) and makes run executable, the third reverts both, the fourth changes nothing
    for (commit, now_s) in [(&first, 1000), (&second, 2000), (&first, 3000), (&first, 4000)] {
        let context = repository.open(commit, "", &mut ledger, now_s).unwrap();
        times.push(["a", "b", "run"].map(|path| entry(&context, path).mtime_ns));
        ledger.finished(now_s + 5);
        ledger = Ledger::from_bytes(&ledger.to_bytes()).unwrap();
    }
    let seconds: Vec<_> = times.iter().map(|build| build.map(|ns| ns / 1_000_000_000)).collect();
    assert_eq!(seconds, [[1000, 1000, 1000], [2000, 1000, 2000], [3000, 1000, 3000], [3000, 1000, 3000]]);
    let nanos = |build: usize, file: usize| times[build][file] % 1_000_000_000;
    assert_ne!(nanos(0, 0), nanos(1, 0), "contents of one second must differ in their nanoseconds");
    assert_eq!(nanos(0, 0), nanos(2, 0));
    assert_eq!(times[3], times[2]);
}

#[test]
fn nanoseconds_are_the_object_id() {
    let repository = Repository::new();
    let commit = repository.commit(&[("a", FILE, "one")]);
    let context = repository.open(&commit, "", &mut Ledger::default(), 7).unwrap();
    let oid = git2::Oid::hash_object(git2::ObjectType::Blob, b"one").unwrap();
    let first: [u8; 8] = oid.as_bytes()[..8].try_into().unwrap();
    let nanos = (u64::from_be_bytes(first) % 1_000_000_000) as i64;
    assert_eq!(entry(&context, "a").mtime_ns, 7_000_000_000 + nanos);
}

#[test]
fn a_clock_that_goes_back_gives_later_times_still() {
    let repository = Repository::new();
    let mut ledger = Ledger::default();
    let mut last = 0;
    for (content, now_s, end_s) in
        [("1", 1000, Some(1060)), ("2", 500, Some(501)), ("3", 500, None), ("4", 400, None)]
    {
        let commit = repository.commit(&[("a", FILE, content)]);
        let second =
            entry(&repository.open(&commit, "", &mut ledger, now_s).unwrap(), "a").mtime_ns / 1_000_000_000;
        assert!(second > last, "{content}: {second} after {last}");
        last = second.max(end_s.unwrap_or(0));
        if let Some(end_s) = end_s {
            ledger.finished(end_s);
        }
    }
    assert_eq!(last, 1063);
}

#[test]
fn a_deleted_file_that_comes_back_is_new() {
    let repository = Repository::new();
    let with = repository.commit(&[("a", FILE, "x"), ("b", FILE, "y")]);
    let without = repository.commit(&[("b", FILE, "y")]);
    let mut ledger = Ledger::default();
    for (commit, now_s) in [(&with, 10), (&without, 20)] {
        repository.open(commit, "", &mut ledger, now_s).unwrap();
    }
    let context = repository.open(&with, "", &mut ledger, 30).unwrap();
    assert_eq!(entry(&context, "a").mtime_ns / 1_000_000_000, 30);
    assert_eq!(entry(&context, "b").mtime_ns / 1_000_000_000, 10);
}

/// Deletes the blobs, so that any read of one fails.
fn delete_blobs(repository: &Repository, contents: &[&str]) {
    for content in contents {
        let oid = git2::Oid::hash_object(git2::ObjectType::Blob, content.as_bytes()).unwrap().to_string();
        std::fs::remove_file(repository.dir.path().join("objects").join(&oid[..2]).join(&oid[2..])).unwrap();
    }
}

#[test]
fn an_unchanged_listing_reads_no_blob() {
    let repository = Repository::new();
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:1111111111111111111111111111111111\nsize 9\n";
    let commit = repository.commit(&[("a", FILE, "text"), ("l", LINK, "to/a"), ("p", FILE, pointer)]);
    let mut ledger = Ledger::default();
    let before = repository.open(&commit, "", &mut ledger, 5).unwrap();
    delete_blobs(&repository, &["text", "to/a", pointer]);
    let mut ledger = Ledger::from_bytes(&ledger.to_bytes()).unwrap();
    let after = repository.open(&commit, "", &mut ledger, 50).unwrap();
    assert_eq!(after.entries().unwrap(), before.entries().unwrap());
    assert_eq!(after.lfs_pointers(), ["p"]);
    assert!(repository.open(&commit, "", &mut Ledger::default(), 5).is_err());
}

#[test]
fn only_lfs_pointers_are_taken_for_lfs_pointers() {
    let repository = Repository::new();
    let version = "version https://git-lfs.github.com/spec/v1\n";
    let oid = "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n";
    let commit = repository.commit(&[
        ("pointer", FILE, &format!("{version}{oid}size 12345\n")),
        ("sub/pointer", FILE, &format!("{version}ext-0-foo sha256:00\n{oid}size 1\n")),
        ("prose", FILE, &format!("A pointer begins with {version} and has {oid} in it, and is no prose.")),
        ("version-only", FILE, &format!("{version}{}", "and nothing else that a pointer has\n".repeat(3))),
        ("large", FILE, &format!("{version}{oid}{}", " ".repeat(1000))),
        ("link", LINK, &format!("{version}{oid}size 12345\n")),
    ]);
    let context = repository.open(&commit, "", &mut Ledger::default(), 1).unwrap();
    assert_eq!(context.lfs_pointers(), ["pointer", "sub/pointer"]);
}

#[test]
fn a_directory_of_the_tree_can_be_the_context() {
    let repository = Repository::new();
    let commit = repository.commit(&[
        ("Dockerfile", FILE, "FROM x"),
        ("app/docker/Dockerfile", FILE, "FROM y"),
        ("app/main.c", FILE, "main"),
        ("app.txt", FILE, "no"),
        ("other/file", FILE, "other"),
    ]);
    let mut ledger = Ledger::default();
    let app = repository.open(&commit, "./app/", &mut ledger, 9).unwrap();
    assert_eq!(paths(&app), ["docker", "docker/Dockerfile", "main.c"]);
    assert_eq!(content(&app, "main.c"), b"main");

    let docker = app.at("app/docker").unwrap();
    assert_eq!(
        (paths(&docker), content(&docker, "Dockerfile")),
        (vec!["Dockerfile".to_owned()], b"FROM y".to_vec())
    );
    assert_eq!(docker.entries().unwrap()[0].mtime_ns, entry(&app, "docker/Dockerfile").mtime_ns);
    assert_eq!(paths(&app.at("other").unwrap()), ["file"]);
    assert_eq!(content(&app.at("").unwrap(), "Dockerfile"), b"FROM x");
    for missing in ["nowhere", "app/main.c", "app/docker/x", "app/nowhere", "../app"] {
        assert!(matches!(app.at(missing), Err(ContextError::NoDirectory { .. })), "{missing}");
        let opened = repository.open(&commit, missing, &mut ledger, 9);
        assert!(matches!(opened, Err(ContextError::NoDirectory { .. })), "{missing}");
    }
}

#[test]
fn contexts_of_one_branch_keep_their_times_apart() {
    let repository = Repository::new();
    let commit = repository.commit(&[("a/x", FILE, "1"), ("b/x", FILE, "1")]);
    let mut ledger = Ledger::default();
    let second = |context: GitContext| entry(&context, "x").mtime_ns / 1_000_000_000;
    assert_eq!(second(repository.open(&commit, "a", &mut ledger, 10).unwrap()), 10);
    assert_eq!(second(repository.open(&commit, "b", &mut ledger, 20).unwrap()), 20);
    assert_eq!(second(repository.open(&commit, "a", &mut ledger, 30).unwrap()), 10);
    for n in 0..20 {
        let files = [(format!("d{n}/x"), FILE, "1")].map(|(p, m, c)| (p.into_bytes(), m, c.as_bytes()));
        let files: Vec<File<'_>> = files.iter().map(|(p, m, c)| (p.as_slice(), *m, *c)).collect();
        let commit = repository.commit_tree(repository.tree(&files));
        repository.open(&commit, &format!("d{n}"), &mut ledger, 100 + n).unwrap();
    }
    // forgotten: the ledger is bounded
    assert_eq!(second(repository.open(&commit, "a", &mut ledger, 500).unwrap()), 500);
}

#[test]
fn large_files_are_streamed_by_git_and_read_whole_without() {
    let repository = Repository::new();
    let large: Vec<u8> = (0..5_000_000_u32).flat_map(|n| n.to_le_bytes()[..1].to_vec()).collect();
    let commit = repository.commit_tree(repository.tree(&[(b"large", FILE, &large)]));
    let whole = repository.open(&commit, "", &mut Ledger::default(), 1).unwrap();
    assert!(content(&whole, "large") == large);
    let streamed = whole.clone().streaming_with("git".into());
    assert!(content(&streamed, "large") == large);
    // two at once: the second waits for the first, and is read when that is gone
    let first = whole.open(&entry(&whole, "large")).unwrap();
    let second = {
        let whole = whole.clone();
        std::thread::spawn(move || content(&whole, "large"))
    };
    drop(first);
    assert!(second.join().unwrap() == large);
}

#[test]
fn a_stream_that_git_cannot_give_is_an_error_and_no_end_of_file() {
    let repository = Repository::new();
    let large = vec![b'x'; 5 << 20];
    let commit = repository.commit_tree(repository.tree(&[(b"large", FILE, &large)]));
    let context = repository.open(&commit, "", &mut Ledger::default(), 1).unwrap();
    let large_entry = entry(&context, "large");
    let no_git = context.clone().streaming_with("/nonexistent/git".into());
    let error = no_git.open(&large_entry).err().unwrap().to_string();
    assert!(error.starts_with("reading large: /nonexistent/git"), "{error}");
    delete_blobs(&repository, &[std::str::from_utf8(&large).unwrap()]);
    let mut reader = context.streaming_with("git".into()).open(&large_entry).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("git cat-file"), "{error}");
}

#[test]
fn what_is_no_repository_or_commit_is_said_so() {
    let nowhere = tempfile::tempdir().unwrap();
    let commit: Sha = "1".repeat(40).parse().unwrap();
    let opened = GitContext::open(nowhere.path(), &commit, "", &mut Ledger::default(), 1);
    assert!(matches!(opened, Err(ContextError::NotARepository { .. })));
    let opened = Repository::new().open(&commit, "", &mut Ledger::default(), 1);
    assert!(matches!(opened, Err(ContextError::Commit { .. })));
}

#[test]
fn shared_keys_are_stable_apart_and_fit_the_daemon() {
    let key = shared_key("app1", "refs/heads/main", "");
    assert_eq!(key, shared_key("app1", "refs/heads/main", ""));
    assert_eq!(key, "lemnos-bf99b7705bfa71b959c325f89fd1dee3");
    for other in [
        shared_key("app2", "refs/heads/main", ""),
        shared_key("app1", "refs/heads/next", ""),
        shared_key("app1", "refs/heads/main", "app"),
        shared_key("app1refs/heads/main", "", ""),
    ] {
        assert_ne!(key, other);
        assert!(!other.contains(':'));
    }
}

fn filled() -> Ledger {
    let repository = Repository::new();
    let commit = repository.commit(&[
        ("a", FILE, "1"),
        ("dir/a", EXECUTABLE, "2"),
        ("dir/ab", LINK, "a"),
        ("dir/b", FILE, ""),
    ]);
    let mut ledger = Ledger::default();
    repository.open(&commit, "", &mut ledger, 10).unwrap();
    repository.open(&commit, "dir", &mut ledger, -20).unwrap();
    ledger.finished(99);
    ledger
}

#[test]
fn a_ledger_survives_its_bytes_and_a_damaged_one_is_replaced() {
    let ledger = filled();
    let bytes = ledger.to_bytes();
    assert_eq!(Ledger::from_bytes(&bytes).unwrap(), ledger);
    assert_eq!(Ledger::load(Some(&bytes)), ledger);
    assert_eq!(Ledger::load(None), Ledger::default());
    assert_eq!(Ledger::load(Some(b"what is this")), Ledger::default());
    for len in 0..bytes.len() {
        assert!(Ledger::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        assert!(Ledger::from_bytes(&damaged).is_err(), "byte {at} changed");
    }
}

proptest! {
    /// With a right checksum, so that it is the reader that is tried.
    #[test]
    fn no_bytes_make_the_reader_panic(at in 16_usize..150, junk in proptest::collection::vec(any::<u8>(), 1..20)) {
        static FILLED: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| filled().to_bytes());
        let mut bytes = FILLED.clone();
        bytes.truncate(bytes.len() - 16);
        let at = at.min(bytes.len());
        let end = (at + junk.len()).min(bytes.len());
        bytes.splice(at..end, junk);
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum[..16]);
        if let Ok(ledger) = Ledger::from_bytes(&bytes) {
            prop_assert_eq!(Ledger::from_bytes(&ledger.to_bytes()).unwrap(), ledger);
        }
    }
}
