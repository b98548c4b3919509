//! Apps' secrets: listed without their values, opened for one app's build.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::seal::{KEY_FILE_NAME, SealingKey};
use super::{Result, Store, StoreError, Write, now_ms, parsed};
use crate::event::SECRETS_BYTES_MAX;
use crate::model::secret::SECRETS_MAX;
use crate::model::{AppName, AppSecret, SecretName, SecretUse, SecretValue};

/// A secret with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    pub name: SecretName,
    pub used_as: SecretUse,
    pub value: SecretValue,
}

/// What a secret is sealed for: it opens in no other row.
fn purpose(app_id: &str, name: &SecretName, used_as: SecretUse) -> Vec<u8> {
    // lengths, so that no two rows spell the same bytes
    let mut purpose = b"lemnos app secret".to_vec();
    for part in [app_id, name.as_str(), used_as.as_str()] {
        purpose.extend_from_slice(&(part.len() as u64).to_be_bytes());
        purpose.extend_from_slice(part.as_bytes());
    }
    purpose
}

impl Store {
    /// Keeps a secret of an app, in the place of an earlier one; `Ok(true)` where there was none.
    pub async fn put_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        used_as: SecretUse,
        value: &SecretValue,
    ) -> Result<bool> {
        let mut tx = self.write().await?;
        let app_id = id_of(&mut tx, app).await?;
        let key = self.key_to_seal(&mut tx).await?;
        let removed = delete(&mut tx, &app_id, name).await?;
        let others = sqlx::query(
            "SELECT count(*) AS names, coalesce(sum(bytes), 0) AS bytes FROM app_secrets WHERE app_id = ?",
        )
        .bind(&app_id)
        .fetch_one(&mut *tx)
        .await?;
        let (names, bytes): (i64, i64) = (others.try_get("names")?, others.try_get("bytes")?);
        let own = i64::try_from(value.expose().len()).unwrap_or(i64::MAX);
        if bytes.saturating_add(own) > i64::try_from(SECRETS_BYTES_MAX).unwrap_or(i64::MAX) {
            return Err(StoreError::SecretsTooLarge { app: app.clone(), limit: SECRETS_BYTES_MAX });
        }
        if usize::try_from(names).unwrap_or(usize::MAX) >= SECRETS_MAX {
            return Err(StoreError::TooManySecrets { app: app.clone(), limit: SECRETS_MAX });
        }
        let sealed = key
            .seal(&purpose(&app_id, name, used_as), value.expose())
            .ok_or_else(|| self.sealed_otherwise(app, name))?;
        sqlx::query(
            "INSERT INTO app_secrets (app_id, name, used_as, sealed, bytes, added_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&app_id)
        .bind(name.as_str())
        .bind(used_as.as_str())
        .bind(sealed)
        .bind(own)
        .bind(now_ms())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(removed == 0)
    }

    /// Forgets a secret. Needs no key, so that a lost one can be given up.
    pub async fn remove_secret(&self, app: &AppName, name: &SecretName) -> Result<()> {
        let mut tx = self.write().await?;
        let app_id = id_of(&mut tx, app).await?;
        let removed = delete(&mut tx, &app_id, name).await?;
        tx.commit().await?;
        match removed {
            0 => Err(StoreError::NoSecret { app: app.clone(), name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// An app's secrets without their values, by name.
    pub async fn secrets(&self, app: &AppName) -> Result<Vec<AppSecret>> {
        let found = self.app(app).await?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
        let rows =
            sqlx::query("SELECT name, used_as, added_at_ms FROM app_secrets WHERE app_id = ? ORDER BY name")
                .bind(&found.id)
                .fetch_all(self.pool())
                .await?;
        rows.iter()
            .map(|row| {
                Ok(AppSecret {
                    app: app.clone(),
                    name: parsed("app_secrets.name", row.try_get("name")?)?,
                    used_as: parsed("app_secrets.used_as", row.try_get("used_as")?)?,
                    added_at_ms: row.try_get("added_at_ms")?,
                })
            })
            .collect()
    }

    /// An app's secrets with their values, for as long as its build runs.
    pub async fn open_secrets(&self, app: &AppName, app_id: &str) -> Result<Vec<StoredSecret>> {
        let rows =
            sqlx::query("SELECT name, used_as, sealed FROM app_secrets WHERE app_id = ? ORDER BY name")
                .bind(app_id)
                .fetch_all(self.pool())
                .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = SealingKey::read(&self.inner.data_dir)?.ok_or_else(|| self.no_key())?;
        rows.iter().map(|row| self.opened_secret(&key, app, app_id, row)).collect()
    }

    fn opened_secret(
        &self,
        key: &SealingKey,
        app: &AppName,
        app_id: &str,
        row: &SqliteRow,
    ) -> Result<StoredSecret> {
        let name: SecretName = parsed("app_secrets.name", row.try_get("name")?)?;
        let used_as: SecretUse = parsed("app_secrets.used_as", row.try_get("used_as")?)?;
        let sealed: Vec<u8> = row.try_get("sealed")?;
        let value = key
            .open(&purpose(app_id, &name, used_as), &sealed)
            .map(SecretValue::new)
            .ok_or_else(|| self.sealed_otherwise(app, &name))?;
        Ok(StoredSecret { name, used_as, value })
    }

    fn sealed_otherwise(&self, app: &AppName, name: &SecretName) -> StoreError {
        let path = self.inner.data_dir.join(KEY_FILE_NAME);
        StoreError::SealedOtherwise { app: app.clone(), name: name.clone(), path }
    }
}

async fn id_of(tx: &mut Write, app: &AppName) -> Result<String> {
    let row = sqlx::query("SELECT id FROM apps WHERE name = ?")
        .bind(app.as_str())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| StoreError::NoApp(app.clone()))?;
    Ok(row.try_get("id")?)
}

async fn delete(tx: &mut Write, app_id: &str, name: &SecretName) -> Result<u64> {
    let done = sqlx::query("DELETE FROM app_secrets WHERE app_id = ? AND name = ?")
        .bind(app_id)
        .bind(name.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> SecretValue {
        SecretValue::new(bytes.to_vec())
    }

    #[tokio::test]
    async fn a_secret_is_replaced_listed_without_its_value_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let (shop, bank): (AppName, AppName) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let app = store.create_app(&shop, None).await.unwrap();
        let other = store.create_app(&bank, None).await.unwrap();
        let (token, key): (SecretName, SecretName) = ("token".parse().unwrap(), "default".parse().unwrap());
        let odd = b"canary\xff\0\n";
        assert!(store.put_secret(&shop, &token, SecretUse::Secret, &value(b"canary-old")).await.unwrap());
        assert!(!store.put_secret(&shop, &token, SecretUse::Secret, &value(odd)).await.unwrap());
        assert!(store.put_secret(&shop, &key, SecretUse::Ssh, &value(b"canary-key")).await.unwrap());
        let listed = store.secrets(&shop).await.unwrap();
        assert_eq!(listed.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["default", "token"]);
        assert!(!serde_json::to_string(&listed).unwrap().contains("canary"));
        let opened = store.open_secrets(&shop, &app.id).await.unwrap();
        assert_eq!(opened[1].value.expose(), odd);
        assert_eq!(opened[0].used_as, SecretUse::Ssh);
        assert_eq!(store.open_secrets(&bank, &other.id).await.unwrap(), [], "another app's");
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"canary"));
        }
        let gone = store.remove_secret(&bank, &token).await;
        assert!(matches!(gone, Err(StoreError::NoSecret { .. })));
        store.remove_secret(&shop, &token).await.unwrap();
        store.destroy_app(&shop).await.unwrap();
        assert_eq!(store.open_secrets(&shop, &app.id).await.unwrap(), [], "it went with its app");
    }

    #[tokio::test]
    async fn a_row_that_was_moved_does_not_open_and_a_lost_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let shop: AppName = "shop".parse().unwrap();
        let app = store.create_app(&shop, None).await.unwrap();
        let token: SecretName = "token".parse().unwrap();
        store.put_secret(&shop, &token, SecretUse::Secret, &value(b"value")).await.unwrap();
        sqlx::query("UPDATE app_secrets SET name = 'other'").execute(store.pool()).await.unwrap();
        let opened = store.open_secrets(&shop, &app.id).await;
        assert!(matches!(opened, Err(StoreError::SealedOtherwise { .. })), "{opened:?}");
        std::fs::remove_file(dir.path().join(KEY_FILE_NAME)).unwrap();
        assert!(matches!(store.open_secrets(&shop, &app.id).await, Err(StoreError::NoSecretKey { .. })));
        let again = store.put_secret(&shop, &token, SecretUse::Secret, &value(b"value")).await;
        assert!(matches!(again, Err(StoreError::NoSecretKey { .. })), "a new key would hide that");
    }

    #[tokio::test]
    async fn names_and_bytes_of_an_app_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let shop: AppName = "shop".parse().unwrap();
        store.create_app(&shop, None).await.unwrap();
        let put = async |name: &str, bytes: usize| {
            let value = SecretValue::new(vec![b'x'; bytes]);
            store.put_secret(&shop, &name.parse().unwrap(), SecretUse::Secret, &value).await
        };
        put("large", SECRETS_BYTES_MAX - 10).await.unwrap();
        assert!(matches!(put("more", 11).await, Err(StoreError::SecretsTooLarge { .. })));
        put("large", SECRETS_BYTES_MAX).await.unwrap();
        put("large", 10).await.unwrap();
        for n in 1..SECRETS_MAX {
            put(&format!("n{n}"), 4).await.unwrap();
        }
        assert!(matches!(put("one-more", 4).await, Err(StoreError::TooManySecrets { .. })));
        put("n1", 5).await.unwrap();
    }
}
