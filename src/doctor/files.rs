//! What lies in the data directory: who may read it, and whether the database is sound.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Finding;
use super::server::State;
use crate::store;

/// What only the server's user may read, by path below the data directory.
const PRIVATE: [&str; 4] = [store::FILE_NAME, store::KEY_FILE_NAME, "control.sock", "lemnos.json"];

/// What a file looks like from outside.
#[derive(Debug, Clone, Copy)]
struct About {
    mode: u32,
    owner: u32,
}

pub(super) fn permissions(data_dir: &Path) -> Vec<Finding> {
    let about = |path: &Path| {
        let meta = std::fs::symlink_metadata(path).ok()?;
        Some(About { mode: meta.mode(), owner: meta.uid() })
    };
    let Some(dir) = about(data_dir) else {
        return vec![Finding::warn(
            "permissions",
            format!("there is no data directory {}", data_dir.display()),
            "name it with --data or LEMNOS_DATA; `lemnos serve` makes it",
        )];
    };
    let mut private: Vec<PathBuf> = PRIVATE.iter().map(|name| data_dir.join(name)).collect();
    let keys =
        std::fs::read_dir(data_dir.join("ssh")).into_iter().flatten().flatten().map(|entry| entry.path());
    private.extend(keys.filter(|path| path.extension().is_none_or(|e| e != "pub")));
    let files =
        private.into_iter().filter_map(|path| Some((about(&path)?, path))).map(|(about, path)| (path, about));
    judge_permissions(data_dir, dir, files.collect(), rustix::process::geteuid().as_raw())
}

fn judge_permissions(data_dir: &Path, dir: About, files: Vec<(PathBuf, About)>, user: u32) -> Vec<Finding> {
    let check = "permissions";
    let mut found = Vec::new();
    if dir.owner != user {
        found.push(Finding::warn(
            check,
            format!("{} belongs to user {}, and this is user {user}", data_dir.display(), dir.owner),
            "run this, as every command, as the user that the server runs as",
        ));
    }
    if dir.mode & 0o022 != 0 {
        found.push(Finding::fail(
            check,
            format!("others may write to {}", data_dir.display()),
            format!("chmod go-w {}", data_dir.display()),
        ));
    }
    for (path, about) in &files {
        if about.mode & 0o077 != 0 {
            found.push(Finding::fail(
                check,
                format!("others may use {} (mode {:o})", path.display(), about.mode & 0o777),
                format!("chmod go= {}; who may read it may be this server", path.display()),
            ));
        } else if about.owner != dir.owner {
            found.push(Finding::warn(
                check,
                format!("{} belongs to another user than its directory", path.display()),
                format!("chown --reference={} {}", data_dir.display(), path.display()),
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(
            check,
            format!("{} and its {} private files", data_dir.display(), files.len()),
        ));
    }
    found
}

pub(super) async fn store(data_dir: &Path) -> Vec<Finding> {
    if !data_dir.join(store::FILE_NAME).exists() {
        return Vec::new();
    }
    vec![match store::sound(data_dir).await {
        Ok(()) => Finding::ok("database", "sound"),
        Err(error) => Finding::fail(
            "database",
            error.to_string(),
            "stop the server and restore a backup (`lemnos restore DIR --data NEWDIR`); keep the damaged file",
        ),
    }]
}

/// When the last build began.
pub(super) async fn last_build_ms(data_dir: &Path, _state: &State) -> Option<i64> {
    store::last_build_ms(data_dir).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_others_may_touch_is_said_file_by_file() {
        let dir = Path::new("/d");
        let mine = |mode| About { mode, owner: 7 };
        let judge = |about, files: &[(&str, About)]| {
            let files = files.iter().map(|(path, about)| (PathBuf::from(path), *about)).collect();
            let found = judge_permissions(dir, about, files, 7);
            found.into_iter().map(|f| (f.level, f.says)).collect::<Vec<_>>()
        };
        assert_eq!(judge(mine(0o700), &[("/d/secret.key", mine(0o600))])[0].0, Level::Ok);
        assert_eq!(judge(mine(0o770), &[])[0].0, Level::Fail);
        assert_eq!(judge(About { mode: 0o700, owner: 8 }, &[])[0].0, Level::Warn);
        let readable = judge(mine(0o700), &[("/d/secret.key", mine(0o644))]);
        assert_eq!(readable, [(Level::Fail, "others may use /d/secret.key (mode 644)".to_owned())]);
        assert_eq!(judge(mine(0o700), &[("/d/x", About { mode: 0o600, owner: 0 })])[0].0, Level::Warn);
    }

    #[tokio::test]
    async fn a_database_that_is_none_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert!(store(dir.path()).await.is_empty());
        std::fs::write(dir.path().join(store::FILE_NAME), "this is no database, though long enough for one")
            .unwrap();
        assert_eq!(store(dir.path()).await[0].level, Level::Fail);
        assert_eq!(permissions(&dir.path().join("absent"))[0].level, Level::Warn);
    }
}
