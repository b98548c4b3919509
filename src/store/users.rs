//! Users, their roles, and keys. A key is a user's or an app's (a deploy key), never both.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::apps::app_in;
use super::{Result, Store, StoreError, now_ms, parsed};
use crate::model::{AppName, Deploy, Fingerprint, KeyOwner, Role, User, UserKey, UserName};

/// The columns of a `UserKey`, in every query below.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "SELECT fingerprint, keys.user, apps.name AS app, keys.access, public_key, comment, added_at_ms \
             FROM keys LEFT JOIN apps ON apps.id = keys.app_id ",
            $rest
        )
    };
}

/// A user who was removed, and what went with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedUser {
    pub user: User,
    pub keys: u64,
    pub grants: u64,
}

impl Store {
    /// Makes a user without keys.
    pub async fn add_user(&self, name: &UserName, role: Role) -> Result<User> {
        let user = User { name: name.clone(), role, created_at_ms: now_ms() };
        let mut tx = self.write().await?;
        if user_in(&mut tx, name).await?.is_some() {
            return Err(StoreError::UserExists(name.clone()));
        }
        sqlx::query("INSERT INTO users (name, created_at_ms, role) VALUES (?, ?, ?)")
            .bind(name.as_str())
            .bind(user.created_at_ms)
            .bind(role.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(user)
    }

    /// All users by name.
    pub async fn users(&self) -> Result<Vec<User>> {
        sqlx::query("SELECT name, role, created_at_ms FROM users ORDER BY name")
            .fetch_all(self.pool())
            .await?
            .iter()
            .map(user_of)
            .collect()
    }

    pub async fn user(&self, name: &UserName) -> Result<Option<User>> {
        user_in(&mut *self.pool().acquire().await?, name).await
    }

    /// Removes a user with their keys and grants. Builds keep the name.
    pub async fn remove_user(&self, name: &UserName) -> Result<RemovedUser> {
        let mut tx = self.write().await?;
        let user = user_in(&mut tx, name).await?.ok_or_else(|| StoreError::NoUser(name.clone()))?;
        let keys = sqlx::query("DELETE FROM keys WHERE user = ?").bind(name.as_str());
        let keys = keys.execute(&mut *tx).await?.rows_affected();
        let grants = sqlx::query("DELETE FROM grants WHERE user = ?").bind(name.as_str());
        let grants = grants.execute(&mut *tx).await?.rows_affected();
        sqlx::query("DELETE FROM users WHERE name = ?").bind(name.as_str()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(RemovedUser { user, keys, grants })
    }

    /// Changes a user's role and returns who they were before.
    pub async fn set_role(&self, name: &UserName, role: Role) -> Result<User> {
        let mut tx = self.write().await?;
        let before = user_in(&mut tx, name).await?.ok_or_else(|| StoreError::NoUser(name.clone()))?;
        sqlx::query("UPDATE users SET role = ? WHERE name = ?")
            .bind(role.as_str())
            .bind(name.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(before)
    }

    /// Registers a key; its user appears, as a member, with the first one. Adding a key again under the same owner
    /// changes nothing (`Ok(false)`); under another one it is `KeyTaken`, since a key says who pushes.
    pub async fn add_key(&self, key: &UserKey) -> Result<bool> {
        Ok(self.add_keys(std::slice::from_ref(key)).await? == [true])
    }

    /// Registers several keys, all or none; says of each whether it is new.
    pub async fn add_keys(&self, keys: &[UserKey]) -> Result<Vec<bool>> {
        let mut tx = self.write().await?;
        let mut new = Vec::with_capacity(keys.len());
        for key in keys {
            new.push(add_in(&mut tx, key).await?);
        }
        tx.commit().await?;
        Ok(new)
    }

    /// All keys, or one owner's, by owner and age: users first, then apps.
    pub async fn keys(&self, user: Option<&UserName>) -> Result<Vec<UserKey>> {
        sqlx::query(select_keys!(
            "WHERE ?1 IS NULL OR keys.user = ?1 OR 'deploy:' || apps.name = ?1 \
             ORDER BY keys.user IS NULL, keys.user, apps.name, added_at_ms, fingerprint"
        ))
        .bind(user.map(UserName::as_str))
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(key_of)
        .collect()
    }

    /// The key as it was registered.
    pub async fn find_key(&self, fingerprint: &Fingerprint) -> Result<Option<UserKey>> {
        key_in(&mut *self.pool().acquire().await?, fingerprint).await
    }

    /// Whose key this is, with what they are now.
    pub async fn key_owner(&self, fingerprint: &Fingerprint) -> Result<Option<KeyOwner>> {
        let Some(key) = self.find_key(fingerprint).await? else { return Ok(None) };
        if let Some(deploy) = key.deploy {
            return Ok(Some(KeyOwner::Deploy(deploy)));
        }
        Ok(self.user(&key.user).await?.map(KeyOwner::User))
    }

    /// Removes a key and returns what it was. The user and their grants stay. With `of`, only that user's key.
    pub async fn remove_key(&self, fingerprint: &Fingerprint, of: Option<&UserName>) -> Result<UserKey> {
        let mut tx = self.write().await?;
        let key = key_in(&mut tx, fingerprint).await?;
        let Some(key) = key.filter(|key| of.is_none_or(|user| *user == key.user)) else {
            return Err(StoreError::NoKey(fingerprint.clone()));
        };
        sqlx::query("DELETE FROM keys WHERE fingerprint = ?")
            .bind(fingerprint.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(key)
    }
}

async fn user_in(connection: &mut SqliteConnection, name: &UserName) -> Result<Option<User>> {
    sqlx::query("SELECT name, role, created_at_ms FROM users WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(user_of)
        .transpose()
}

async fn key_in(connection: &mut SqliteConnection, fingerprint: &Fingerprint) -> Result<Option<UserKey>> {
    sqlx::query(select_keys!("WHERE fingerprint = ?"))
        .bind(fingerprint.as_str())
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(key_of)
        .transpose()
}

async fn add_in(connection: &mut SqliteConnection, key: &UserKey) -> Result<bool> {
    let app_id = match &key.deploy {
        Some(deploy) => {
            let app = app_in(connection, &deploy.app).await?;
            Some(app.ok_or_else(|| StoreError::NoApp(deploy.app.clone()))?.id)
        }
        None => None,
    };
    if let Some(known) = key_in(connection, &key.fingerprint).await? {
        if known.user != key.user {
            return Err(StoreError::KeyTaken { fingerprint: known.fingerprint, user: known.user });
        }
        if known.deploy != key.deploy {
            return Err(StoreError::OtherAccess(known.fingerprint));
        }
        return Ok(false);
    }
    if key.deploy.is_none() {
        sqlx::query("INSERT INTO users (name, created_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(key.user.as_str())
            .bind(key.added_at_ms)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO keys (fingerprint, user, app_id, access, public_key, comment, added_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.fingerprint.as_str())
    .bind(key.deploy.is_none().then_some(key.user.as_str()))
    .bind(app_id)
    .bind(key.deploy.as_ref().map(|deploy| deploy.access.as_str()))
    .bind(&key.public_key)
    .bind(&key.comment)
    .bind(key.added_at_ms)
    .execute(connection)
    .await?;
    Ok(true)
}

fn user_of(row: &SqliteRow) -> Result<User> {
    Ok(User {
        name: parsed("users.name", row.try_get("name")?)?,
        role: parsed("users.role", row.try_get("role")?)?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

fn key_of(row: &SqliteRow) -> Result<UserKey> {
    let (user, deploy) = match row.try_get::<Option<&str>, _>("user")? {
        Some(user) => (parsed("keys.user", user)?, None),
        None => {
            let app: AppName = parsed("apps.name", row.try_get("app")?)?;
            let access = parsed("keys.access", row.try_get("access")?)?;
            (UserName::of_deploy_key(&app), Some(Deploy { app, access }))
        }
    };
    Ok(UserKey {
        fingerprint: parsed("keys.fingerprint", row.try_get("fingerprint")?)?,
        user,
        deploy,
        public_key: row.try_get("public_key")?,
        comment: row.try_get("comment")?,
        added_at_ms: row.try_get("added_at_ms")?,
    })
}
