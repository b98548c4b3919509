//! `store` errors as people see them.

use super::{Kind, Report};
use crate::store::StoreError;

impl From<StoreError> for Report {
    fn from(error: StoreError) -> Self {
        let (kind, hint) = verdict(&error);
        let report = Self::new(kind, error.to_string());
        match hint {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

fn verdict(error: &StoreError) -> (Kind, Option<String>) {
    use StoreError as E;
    let (kind, hint) = match error {
        E::DataDir { .. } => (Kind::Internal, "check that the data directory exists and belongs to the user lemnos runs as".to_owned()),
        E::Open { cause, .. } => return verdict(cause),
        E::NewerSchema { .. } => (Kind::Conflict, "run the newer lemnos, or restore a copy of the database from before it ran".to_owned()),
        E::Migration { .. } => (Kind::Internal, "nothing was changed; keep the file and restore a copy, or report this".to_owned()),
        E::Locked => (Kind::Unavailable, "try again; if it stays so, look for another program that has the database open (`fuser lemnos.db`)".to_owned()),
        E::ReadOnly(_) => (Kind::Unavailable, "make the data directory and lemnos.db writable for the user lemnos runs as, and check that the file system is not mounted read-only".to_owned()),
        E::Full(_) => (Kind::Unavailable, "free some space on the file system of the data directory; nothing was changed".to_owned()),
        E::Disk(_) => (Kind::Unavailable, "look at the file system of the data directory: is it mounted read-only since an error (`findmnt`, `dmesg`)? Nothing was changed".to_owned()),
        E::Corrupt(_) | E::Damaged { .. } => (Kind::Internal, "`sqlite3 lemnos.db 'pragma integrity_check'` says more; restore a copy of the database".to_owned()),
        E::KeyTaken { user, fingerprint } => (Kind::Conflict, format!("a key says who pushes, so it has one user: remove it from {user} first (`lemnos keys remove {fingerprint}`), or add another key")),
        E::OtherAccess(fingerprint) => (Kind::Conflict, format!("remove it first: `lemnos keys remove {fingerprint}`")),
        E::NoKey(_) => (Kind::NotFound, "`lemnos keys list` shows the registered keys".to_owned()),
        E::NoUser(user) => (Kind::NotFound, format!("a user appears with the first key: `lemnos keys add {user} FILE`")),
        E::UserExists(user) => (Kind::Conflict, format!("`lemnos users role {user} admin|member` changes what they may do")),
        E::NoApp(app) => (Kind::NotFound, format!("`lemnos apps list` shows the apps; `lemnos apps create {app}` makes it")),
        E::AppExists(app) => (Kind::Conflict, format!("`lemnos apps show {app}` shows it")),
        E::ImageTaken { .. } => (Kind::Conflict, "two apps never share an image name: set another one with `lemnos apps set APP image=HOST/PATH`".to_owned()),
        E::NoGrant { app, .. } => (Kind::NotFound, format!("`lemnos apps show {app}` shows who may use it")),
        E::NoBuild(_) => (Kind::NotFound, "`lemnos builds list` shows the builds; at least the last 4 digits of an id name one".to_owned()),
        E::AmbiguousBuild { .. } => (Kind::User, "type more digits".to_owned()),
        E::DestinationTaken { .. } => (Kind::Conflict, "two apps never share an image name: name another one under destinations in build-config.yaml, or rename the program".to_owned()),
        E::TagTaken { owner, .. } => (Kind::Conflict, format!("two refs never share a tag: push another name, delete {}, or set tag templates that tell them apart (`lemnos apps set APP tags=…`)", owner.short())),
        E::NoLogin { .. } => (Kind::NotFound, "`lemnos registry list` shows the logins".to_owned()),
        E::SecretKey { .. } => (Kind::Internal, "check that the data directory and this file belong to the user lemnos runs as, and that the disk has space".to_owned()),
        E::UnsafeSecretKey { path, .. } => (Kind::Internal, format!("make it a file of 32 bytes that only the user lemnos runs as may read (`chmod 600 {}`); if others could read it, change the passwords at the registries and log in anew", path.display())),
        E::NoSecretKey { .. } => (Kind::Internal, "put the file back from where you keep it (it is not in a backup unless that was asked for), or give up what it sealed and add it again: `lemnos registry logout` every login that `lemnos registry list` shows, `lemnos secrets remove` every secret of each app".to_owned()),
        E::WrongSecretKey { place, .. } => (Kind::Internal, format!("put back the key file that belongs to this database, or log in again: `lemnos registry logout {place}`, then `lemnos registry login {place} -u USER --password-stdin`")),
        E::SealedOtherwise { app, name, .. } => (Kind::Internal, format!("put back the key file that belongs to this database, or add it again: `lemnos secrets remove {app} {name}`, then `lemnos secrets add {app} {name} <FILE`")),
        E::NoSecret { app, .. } => (Kind::NotFound, format!("`lemnos secrets list {app}` shows them")),
        E::SecretsTooLarge { app, .. } | E::TooManySecrets { app, .. } => (Kind::User, format!("remove those that no build needs any more: `lemnos secrets list {app}`, `lemnos secrets remove {app} NAME`")),
        E::BuilderExists(_) => (Kind::Conflict, "give it another name with ,name=NAME, or remove that one first".to_owned()),
        E::NoBuilder(_) => (Kind::NotFound, "`lemnos builders list` shows the builders".to_owned()),
        E::BuildEnded(_) => return (Kind::Conflict, None),
        E::Database(_) => return (Kind::Internal, None),
    };
    (kind, Some(hint))
}
