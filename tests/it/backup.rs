//! Backups taken while git works, restored, and refused where they are not what they should be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lemnos::backup::{self, BackupError, MANIFEST, Taken};
use lemnos::receive::Repositories;
use lemnos::store::Store;

struct House {
    dir: tempfile::TempDir,
    id: String,
}

fn git_path() -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|dir| Path::new(dir).join("git")).find(|p| p.is_file()).expect("git is not installed")
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(git_path());
    command.args(args).current_dir(dir).env_clear().env("LC_ALL", "C").env("HOME", dir);
    command.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")]);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "t").env(format!("GIT_{role}_EMAIL"), "t@example.org");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl House {
    /// A data directory with one app and one commit on its main branch.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let store = Store::open(&data).await.unwrap();
        let id = store.create_app(&"shop".parse().unwrap(), None).await.unwrap().id;
        store.close().await;
        Repositories::new(data.join("repositories")).create(&id).unwrap();
        std::fs::create_dir(data.join("ssh")).unwrap();
        std::fs::write(data.join("ssh/host_ed25519"), "a host key").unwrap();
        std::fs::write(data.join("secret.key"), "k".repeat(32)).unwrap();
        std::fs::write(data.join("lemnos.toml"), "concurrent_builds = 2\n").unwrap();
        let house = Self { dir, id };
        let work = house.at("work");
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        house.push("first");
        house
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn repository(&self, data: &Path) -> PathBuf {
        data.join(format!("repositories/{}.git", self.id))
    }

    fn push(&self, content: &str) -> String {
        let work = self.at("work");
        std::fs::write(work.join("file"), content).unwrap();
        git(&work, &["add", "-A"]);
        git(&work, &["commit", "-q", "--allow-empty", "-m", content]);
        let repository = self.repository(&self.at("data"));
        git(&work, &["push", "-q", "--force", repository.to_str().unwrap(), "HEAD:main"]);
        git(&work, &["rev-parse", "HEAD"])
    }

    async fn take(&self, with_secrets: bool) -> Result<Taken, BackupError> {
        backup::take(&self.at("data"), &self.at("backup"), &git_path(), with_secrets).await
    }

    async fn restore(&self, name: &str) -> Result<PathBuf, BackupError> {
        let data = self.at(name);
        backup::restore(&self.at("backup"), &data, &git_path()).await.map(|_| data)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_to_what_was_there() {
    let house = House::new().await;
    let tip = house.push("second");
    let taken = house.take(false).await.unwrap();
    assert_eq!((taken.apps, taken.with_secrets, taken.replaces_ms), (1, false, None));
    let data = house.restore("new").await.unwrap();
    let repository = house.repository(&data);
    assert_eq!(git(&repository, &["--git-dir", ".", "rev-parse", "refs/heads/main"]), tip);
    git(&repository, &["--git-dir", ".", "fsck", "--strict"]);
    let objects = std::fs::symlink_metadata(repository.join("objects")).unwrap();
    assert!(objects.is_symlink(), "laid out as a new one");
    assert_eq!(std::fs::read_to_string(data.join("lemnos.toml")).unwrap(), "concurrent_builds = 2\n");
    assert!(!data.join("secret.key").exists() && !data.join("ssh").exists());
    let store = Store::open(&data).await.unwrap();
    assert_eq!(store.app(&"shop".parse().unwrap()).await.unwrap().unwrap().id, house.id);
    store.close().await;
    // what is restored is nobody else's: writing there changes no backup
    std::fs::write(data.join("lemnos.toml"), "").unwrap();
    house.restore("again").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_along_when_asked_for() {
    let house = House::new().await;
    house.take(true).await.unwrap();
    let data = house.restore("new").await.unwrap();
    assert_eq!(std::fs::read_to_string(data.join("ssh/host_ed25519")).unwrap(), "a host key");
    assert_eq!(std::fs::read_to_string(data.join("secret.key")).unwrap(), "k".repeat(32));
    use std::os::unix::fs::MetadataExt as _;
    for path in ["ssh/host_ed25519", "secret.key", "lemnos.db"] {
        assert_eq!(std::fs::metadata(data.join(path)).unwrap().mode() & 0o777, 0o600, "{path}");
    }
    assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    // a later one without them does not keep them
    house.take(false).await.unwrap();
    assert!(!house.at("backup/secret.key").exists() && !house.at("backup/ssh").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_takes_over_what_did_not_change() {
    let house = House::new().await;
    let first = house.take(false).await.unwrap();
    house.push("more");
    let second = house.take(false).await.unwrap();
    assert_eq!(second.replaces_ms.is_some(), first.replaces_ms.is_none());
    assert_eq!(second.volume.reused_files, 3, "the first commit's three objects: {second:?}");
    house.restore("new").await.unwrap();
    let beside: Vec<_> =
        std::fs::read_dir(house.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().contains("partial")), "{beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backup_or_damaged_or_in_the_way_is_refused() {
    let house = House::new().await;
    let data = house.at("data");
    std::fs::create_dir(house.at("backup")).unwrap();
    std::fs::write(house.at("backup/photo"), "x").unwrap();
    assert!(matches!(house.take(false).await, Err(BackupError::Foreign(_))));
    assert!(house.at("backup/photo").exists());
    std::fs::remove_file(house.at("backup/photo")).unwrap();
    let inside = backup::take(&data, &data.join("backup"), &git_path(), false).await;
    assert!(matches!(inside, Err(BackupError::Inside(_))));
    let nothing = backup::take(&house.at("work"), &house.at("backup"), &git_path(), false).await;
    assert!(matches!(nothing, Err(BackupError::NoData(_))));
    assert!(matches!(house.restore("new").await, Err(BackupError::NoBackup { .. })));

    house.take(false).await.unwrap();
    assert!(matches!(house.restore("work").await, Err(BackupError::NotEmpty(_))));
    // one byte that differs, and one file that is missing
    let database = house.at("backup/lemnos.db");
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&database, &bytes).unwrap();
    let error = house.restore("new").await.unwrap_err();
    assert!(
        matches!(&error, BackupError::Damaged { .. }) && error.to_string().contains("lemnos.db"),
        "{error}"
    );
    assert!(!house.at("new").exists(), "nothing half-restored stands under the name");
    bytes[5000] ^= 1;
    std::fs::write(&database, &bytes).unwrap();
    house.restore("new").await.unwrap();
    let manifest = std::fs::read_to_string(house.at("backup").join(MANIFEST)).unwrap();
    let object = manifest.split('"').find(|path| path.contains("/objects/")).unwrap().to_owned();
    std::fs::remove_file(house.at("backup").join(object)).unwrap();
    assert!(matches!(house.restore("other").await, Err(BackupError::Damaged { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_during_pushes_and_repacks_are_whole() {
    let house = Arc::new(House::new().await);
    let stop = Arc::new(AtomicBool::new(false));
    let pushing = std::thread::spawn({
        let (house, stop) = (house.clone(), stop.clone());
        move || {
            let (mut pushed, repository) = (Vec::new(), house.repository(&house.at("data")));
            while !stop.load(Ordering::Relaxed) {
                pushed.push(house.push(&format!("content {}", pushed.len())));
                if pushed.len() % 3 == 0 {
                    git(&repository, &["--git-dir", ".", "repack", "-a", "-d", "-q"]);
                    git(&repository, &["--git-dir", ".", "prune-packed", "-q"]);
                }
            }
            pushed
        }
    });
    let mut tips = Vec::new();
    for n in 0..6 {
        house.take(false).await.unwrap();
        let data = house.restore(&format!("new{n}")).await.unwrap();
        let repository = house.repository(&data);
        git(&repository, &["--git-dir", ".", "fsck", "--strict", "--full"]);
        tips.push(git(&repository, &["--git-dir", ".", "rev-parse", "refs/heads/main"]));
    }
    stop.store(true, Ordering::Relaxed);
    let pushed = pushing.join().unwrap();
    let at = |tip: &String| pushed.iter().position(|sha| sha == tip);
    assert!(tips.windows(2).all(|pair| at(&pair[0]) <= at(&pair[1])), "tips go forward only");
    assert!(at(tips.last().unwrap()) > at(&tips[0]), "pushes went on meanwhile: {}", pushed.len());
}
