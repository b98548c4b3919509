//! `backup` errors as people see them.

use super::{Kind, Report};
use crate::backup::BackupError;

impl From<BackupError> for Report {
    fn from(error: BackupError) -> Self {
        use BackupError as E;
        let message = error.to_string();
        let (kind, hint) = match error {
            E::Store(error) => return error.into(),
            E::Repository(error) => return error.into(),
            E::Io { .. } => (
                Kind::Unavailable,
                "check the path, its permissions and the room on its disk; run this as the user that the server runs as",
            ),
            E::NoData(_) => (Kind::NotFound, "name the server's directory with --data DIR or LEMNOS_DATA"),
            E::Foreign(_) => {
                (Kind::Conflict, "name a directory that is empty, not there, or holds an earlier backup")
            }
            E::Inside(_) => (Kind::User, "name a directory outside of it, best on another disk"),
            E::Busy(_) => (Kind::Conflict, "wait for its end, or name another directory"),
            E::NoBackup { .. } => (Kind::User, "name the directory that `lemnos backup` was given"),
            E::NewerFormat { .. } => {
                (Kind::Conflict, "restore it with the lemnos that wrote it, or a newer one")
            }
            E::Damaged { .. } => (Kind::Conflict, "take another backup: nothing was restored"),
            E::NotEmpty(_) => (
                Kind::Conflict,
                "name a data directory that is empty or not there; nothing is ever restored over one in use",
            ),
            E::Unsteady { .. } => {
                (Kind::Unavailable, "try again; if it stays so, look at the repository with `git fsck`")
            }
        };
        Self::new(kind, message).hint(hint)
    }
}
