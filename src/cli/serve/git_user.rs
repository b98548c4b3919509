//! Gives git's children a user of their own, where the server is root and that user can reach what it needs.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::house::Surroundings;
use crate::config::Config;
use crate::error::{Kind, Report};
use crate::owner;

/// Settles who owns the repositories. Asked for, it must be possible; by default it is done where it is.
pub(super) async fn settle(config: &Config, around: &Surroundings, runtime_dir: &Path) -> Result<(), Report> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut id = config.git_uid;
    if id != 0
        && let Some((what, closed)) = obstacle(config, around, runtime_dir)
    {
        let message = format!("user {id}, whom git is to run as, cannot pass {closed} to {what}");
        let hint = format!(
            "let others pass it (`chmod o+x {closed}`), or set git_uid = 0 in lemnos.toml: git then runs as root"
        );
        if config.git_uid_asked {
            return Err(Report::new(Kind::User, message).hint(hint));
        }
        tracing::warn!("{message}: git runs as root; {hint}");
        id = 0;
    }
    if id != 0 {
        let failed = |e: std::io::Error| Report::internal(format!("{}: {e}", config.data_dir.display()));
        // to be passed, not to be listed: what is in it has modes of its own
        let mode = std::fs::metadata(&config.data_dir).map_err(failed)?.mode();
        std::fs::set_permissions(&config.data_dir, std::fs::Permissions::from_mode(mode | 0o001))
            .map_err(failed)?;
    }
    let repositories = config.data_dir.join("repositories");
    let settling = tokio::task::spawn_blocking(move || owner::settle(&repositories, id));
    let settled = settling.await.map_err(std::io::Error::other).and_then(|settled| settled);
    settled.map_err(|e| Report::internal(format!("giving the repositories to user {id}: {e}")))
}

/// What git's user needs and cannot reach: what, and the directory or file in the way.
fn obstacle(config: &Config, around: &Surroundings, runtime_dir: &Path) -> Option<(&'static str, String)> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut needed = vec![
        ("the repositories", parent(&config.data_dir)),
        ("this program", around.lemnos.clone()),
        ("git", around.git.clone()),
    ];
    if !runtime_dir.starts_with(&config.data_dir) {
        needed.push(("the hooks' socket", parent(runtime_dir)));
    }
    needed.into_iter().find_map(|(what, path)| Some((what, owner::unreachable(&path)?.display().to_string())))
}
