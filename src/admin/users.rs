//! Users as people administer them.

use std::collections::BTreeMap;

use super::{Caller, Response, UserView, You};
use crate::error::Report;
use crate::model::{AppName, Deploy, Role, User, UserName};
use crate::store::{RemovedUser, Store};

pub(super) fn you(caller: &Caller) -> You {
    let (role, certificate, deploy) = match caller {
        Caller::Operator => (None, false, None),
        Caller::User { role, certificate, .. } => (Some(*role), *certificate, None),
        Caller::DeployKey { app, access, .. } => {
            (None, false, Some(Deploy { app: app.clone(), access: *access }))
        }
    };
    You { user: caller.name(), role, key: caller.key().cloned(), certificate, deploy }
}

/// Refuses a name that stands for an app's deploy keys, wherever a user would be made.
pub(super) fn must_be_person(user: &UserName) -> Result<(), Report> {
    if user.is_person() {
        return Ok(());
    }
    Err(Report::user(format!("{user} is no user's name: it stands for the deploy keys of an app"))
        .hint("a deploy key is added with `lemnos keys add --app APP FILE`"))
}

pub(super) async fn add(store: &Store, user: &UserName, role: Role) -> Result<User, Report> {
    must_be_person(user)?;
    Ok(store.add_user(user, role).await?)
}

pub(super) async fn list(store: &Store) -> Result<Vec<UserView>, Report> {
    let mut keys: BTreeMap<UserName, u64> = BTreeMap::new();
    for key in store.keys(None).await? {
        *keys.entry(key.user).or_default() += 1;
    }
    let mut apps: BTreeMap<UserName, Vec<AppName>> = BTreeMap::new();
    for app in store.apps().await? {
        for grant in store.grants(&app.name).await? {
            apps.entry(grant.user).or_default().push(app.name.clone());
        }
    }
    let view = |User { name, role, created_at_ms }: User| UserView {
        keys: keys.remove(&name).unwrap_or_default(),
        apps: apps.remove(&name).unwrap_or_default(),
        name,
        role,
        created_at_ms,
    };
    Ok(store.users().await?.into_iter().map(view).collect())
}

pub(super) async fn remove(store: &Store, user: &UserName) -> Result<Response, Report> {
    let RemovedUser { user, keys, grants } = store.remove_user(user).await?;
    Ok(Response::UserRemoved { user, keys, grants })
}

pub(super) async fn set_role(store: &Store, user: &UserName, role: Role) -> Result<Response, Report> {
    let before = store.set_role(user, role).await?;
    Ok(Response::RoleSet { changed: before.role != role, user: User { role, ..before } })
}
