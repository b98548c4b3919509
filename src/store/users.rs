//! Users and their keys. A user is nothing but a name that keys and grants hang on.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Result, Store, StoreError, parsed};
use crate::model::{Fingerprint, UserKey, UserName};

impl Store {
    /// Registers a key; its user appears with the first one. Adding a key again under the same user changes
    /// nothing (`Ok(false)`); under another user it is `KeyTaken`, since a key says who pushes.
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

    /// All keys, or one user's, by user and age.
    pub async fn keys(&self, user: Option<&UserName>) -> Result<Vec<UserKey>> {
        sqlx::query(
            "SELECT fingerprint, user, public_key, comment, added_at_ms FROM keys
             WHERE ?1 IS NULL OR user = ?1 ORDER BY user, added_at_ms, fingerprint",
        )
        .bind(user.map(UserName::as_str))
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(key_of)
        .collect()
    }

    /// Whose key this is.
    pub async fn find_key(&self, fingerprint: &Fingerprint) -> Result<Option<UserKey>> {
        sqlx::query(
            "SELECT fingerprint, user, public_key, comment, added_at_ms FROM keys WHERE fingerprint = ?",
        )
        .bind(fingerprint.as_str())
        .fetch_optional(self.pool())
        .await?
        .as_ref()
        .map(key_of)
        .transpose()
    }

    /// Removes a key and returns what it was. The user and their grants stay.
    pub async fn remove_key(&self, fingerprint: &Fingerprint) -> Result<UserKey> {
        let mut tx = self.write().await?;
        let removed = sqlx::query(
            "DELETE FROM keys WHERE fingerprint = ?
             RETURNING fingerprint, user, public_key, comment, added_at_ms",
        )
        .bind(fingerprint.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        removed.as_ref().map_or_else(|| Err(StoreError::NoKey(fingerprint.clone())), key_of)
    }
}

async fn add_in(connection: &mut SqliteConnection, key: &UserKey) -> Result<bool> {
    sqlx::query("INSERT INTO users (name, created_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(key.user.as_str())
        .bind(key.added_at_ms)
        .execute(&mut *connection)
        .await?;
    let owner = sqlx::query("SELECT user FROM keys WHERE fingerprint = ?")
        .bind(key.fingerprint.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = owner {
        let user: UserName = parsed("keys.user", row.try_get("user")?)?;
        if user == key.user {
            return Ok(false);
        }
        return Err(StoreError::KeyTaken { fingerprint: key.fingerprint.clone(), user });
    }
    sqlx::query(
        "INSERT INTO keys (fingerprint, user, public_key, comment, added_at_ms) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(key.fingerprint.as_str())
    .bind(key.user.as_str())
    .bind(&key.public_key)
    .bind(&key.comment)
    .bind(key.added_at_ms)
    .execute(connection)
    .await?;
    Ok(true)
}

fn key_of(row: &SqliteRow) -> Result<UserKey> {
    Ok(UserKey {
        fingerprint: parsed("keys.fingerprint", row.try_get("fingerprint")?)?,
        user: parsed("keys.user", row.try_get("user")?)?,
        public_key: row.try_get("public_key")?,
        comment: row.try_get("comment")?,
        added_at_ms: row.try_get("added_at_ms")?,
    })
}
