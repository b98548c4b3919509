//! Registry logins: listed without their secrets, opened for those who speak to a registry.

use std::sync::atomic::Ordering;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::seal::{KEY_FILE_NAME, SealingKey};
use super::{Result, Store, StoreError, Write, now_ms, parsed};
use crate::model::{AppName, RegistryLogin, RegistryPlace, Secret};

/// A login with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLogin {
    /// The app it belongs to, by id; none: all apps.
    pub app_id: Option<String>,
    pub place: RegistryPlace,
    pub username: String,
    pub secret: Secret,
}

/// What a secret is sealed for: it opens in no other row.
fn purpose(app_id: Option<&str>, place: &RegistryPlace, username: &str) -> Vec<u8> {
    // lengths, so that no two rows spell the same bytes
    let mut purpose = b"lemnos registry login".to_vec();
    for part in [app_id.unwrap_or_default(), place.as_str(), username] {
        purpose.extend_from_slice(&(part.len() as u64).to_be_bytes());
        purpose.extend_from_slice(part.as_bytes());
    }
    purpose
}

impl Store {
    /// Keeps a credential, in the place of an earlier one; `Ok(true)` where there was none.
    pub async fn put_login(
        &self,
        app: Option<&AppName>,
        place: &RegistryPlace,
        username: &str,
        secret: &Secret,
    ) -> Result<bool> {
        let app_id = self.login_app(app).await?;
        let mut tx = self.write().await?;
        let key = self.key_to_seal(&mut tx).await?;
        let sealed = key
            .seal(&purpose(app_id.as_deref(), place, username), secret.expose().as_bytes())
            .ok_or_else(|| self.wrong_key(place))?;
        let removed = sqlx::query("DELETE FROM registry_logins WHERE app_id IS ? AND place = ?")
            .bind(&app_id)
            .bind(place.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query(
            "INSERT INTO registry_logins (app_id, place, username, sealed, added_at_ms) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&app_id)
        .bind(place.as_str())
        .bind(username)
        .bind(sealed)
        .bind(now_ms())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.logins_changed();
        Ok(removed == 0)
    }

    /// Forgets a credential. Needs no key, so that a lost one can be given up.
    pub async fn remove_login(&self, app: Option<&AppName>, place: &RegistryPlace) -> Result<()> {
        let app_id = self.login_app(app).await?;
        let mut tx = self.write().await?;
        let removed = sqlx::query("DELETE FROM registry_logins WHERE app_id IS ? AND place = ?")
            .bind(&app_id)
            .bind(place.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        tx.commit().await?;
        self.logins_changed();
        match removed {
            0 => Err(StoreError::NoLogin { place: place.clone(), app: app.cloned() }),
            _ => Ok(()),
        }
    }

    /// All logins without their secrets, by place, those of all apps first.
    pub async fn logins(&self) -> Result<Vec<RegistryLogin>> {
        sqlx::query(
            "SELECT l.place, l.username, l.added_at_ms, a.name AS app FROM registry_logins l
             LEFT JOIN apps a ON a.id = l.app_id ORDER BY l.place, a.name",
        )
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(login_of)
        .collect()
    }

    /// The logins that count for an app, its own and those of all apps, with their secrets.
    pub async fn open_logins(&self, app_id: Option<&str>) -> Result<Vec<StoredLogin>> {
        let rows = sqlx::query(
            "SELECT app_id, place, username, sealed FROM registry_logins WHERE app_id IS NULL OR app_id = ?",
        )
        .bind(app_id)
        .fetch_all(self.pool())
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = SealingKey::read(&self.inner.data_dir)?.ok_or_else(|| self.no_key())?;
        rows.iter().map(|row| self.opened(&key, row)).collect()
    }

    /// Changes whenever a login does, through this handle or a clone of it.
    pub fn login_changes(&self) -> u64 {
        self.inner.login_changes.load(Ordering::Acquire)
    }

    fn logins_changed(&self) {
        self.inner.login_changes.fetch_add(1, Ordering::Release);
    }

    async fn login_app(&self, app: Option<&AppName>) -> Result<Option<String>> {
        let Some(name) = app else { return Ok(None) };
        let found = self.app(name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
        Ok(Some(found.id))
    }

    fn opened(&self, key: &SealingKey, row: &SqliteRow) -> Result<StoredLogin> {
        let app_id: Option<String> = row.try_get("app_id")?;
        let place: RegistryPlace = parsed("registry_logins.place", row.try_get("place")?)?;
        let username: String = row.try_get("username")?;
        let sealed: Vec<u8> = row.try_get("sealed")?;
        let opened = key.open(&purpose(app_id.as_deref(), &place, &username), &sealed);
        let secret =
            opened.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| Secret::parse(&text).ok());
        let secret = secret.ok_or_else(|| self.wrong_key(&place))?;
        Ok(StoredLogin { app_id, place, username, secret })
    }

    /// The key, made where nothing is sealed yet.
    pub(super) async fn key_to_seal(&self, tx: &mut Write) -> Result<SealingKey> {
        let there: i64 = sqlx::query(
            "SELECT (SELECT count(*) FROM registry_logins) + (SELECT count(*) FROM app_secrets) AS there",
        )
        .fetch_one(&mut **tx)
        .await?
        .try_get("there")?;
        match SealingKey::read(&self.inner.data_dir)? {
            Some(key) => Ok(key),
            // a new key beside old secrets would hide that theirs is lost
            None if there > 0 => Err(self.no_key()),
            None => SealingKey::make(&self.inner.data_dir),
        }
    }

    pub(super) fn no_key(&self) -> StoreError {
        StoreError::NoSecretKey { path: self.inner.data_dir.join(KEY_FILE_NAME) }
    }

    fn wrong_key(&self, place: &RegistryPlace) -> StoreError {
        StoreError::WrongSecretKey { place: place.clone(), path: self.inner.data_dir.join(KEY_FILE_NAME) }
    }
}

fn login_of(row: &SqliteRow) -> Result<RegistryLogin> {
    let app: Option<String> = row.try_get("app")?;
    Ok(RegistryLogin {
        place: parsed("registry_logins.place", row.try_get("place")?)?,
        app: app.map(|name| parsed("apps.name", &name)).transpose()?,
        username: row.try_get("username")?,
        added_at_ms: row.try_get("added_at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> RegistryPlace {
        text.parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_login_is_replaced_listed_without_its_secret_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let shop: AppName = "shop".parse().unwrap();
        let app = store.create_app(&shop, None).await.unwrap();
        let (host, team) = (place("r.example.com"), place("r.example.com/team"));
        assert!(!dir.path().join(KEY_FILE_NAME).exists(), "a key that nobody needs");
        let before = store.login_changes();
        assert!(store.put_login(None, &host, "all", &secret("canary-1")).await.unwrap());
        assert!(store.put_login(Some(&shop), &team, "own", &secret("canary-2")).await.unwrap());
        assert!(!store.put_login(None, &host, "all2", &secret("canary-3")).await.unwrap());
        assert_ne!(store.login_changes(), before);

        let listed = store.logins().await.unwrap();
        assert_eq!(listed.iter().map(|l| l.username.as_str()).collect::<Vec<_>>(), ["all2", "own"]);
        assert!(!serde_json::to_string(&listed).unwrap().contains("canary"));
        let users = |logins: Vec<StoredLogin>| {
            let mut found: Vec<_> =
                logins.into_iter().map(|l| (l.username, l.secret.expose().to_owned())).collect();
            found.sort();
            found
        };
        let all2 = ("all2".to_owned(), "canary-3".to_owned());
        assert_eq!(users(store.open_logins(Some("other")).await.unwrap()), vec![all2.clone()]);
        assert_eq!(users(store.open_logins(None).await.unwrap()), vec![all2.clone()]);
        let own = ("own".to_owned(), "canary-2".to_owned());
        assert_eq!(users(store.open_logins(Some(&app.id)).await.unwrap()), [all2, own]);
        // neither the database nor its log has the text
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"canary"));
        }

        assert!(matches!(store.remove_login(None, &team).await, Err(StoreError::NoLogin { .. })));
        store.remove_login(None, &host).await.unwrap();
        store.destroy_app(&shop).await.unwrap();
        assert_eq!(store.logins().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_lost_or_foreign_key_is_said_and_can_be_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let host = place("r.example.com");
        store.put_login(None, &host, "ada", &secret("one")).await.unwrap();
        std::fs::remove_file(dir.path().join(KEY_FILE_NAME)).unwrap();
        assert!(matches!(store.open_logins(None).await, Err(StoreError::NoSecretKey { .. })));
        let again = store.put_login(None, &host, "ada", &secret("two")).await;
        assert!(matches!(again, Err(StoreError::NoSecretKey { .. })));
        SealingKey::make(dir.path()).unwrap();
        assert!(matches!(store.open_logins(None).await, Err(StoreError::WrongSecretKey { .. })));
        store.remove_login(None, &host).await.unwrap();
        store.put_login(None, &host, "ada", &secret("two")).await.unwrap();
        assert_eq!(store.open_logins(None).await.unwrap().len(), 1);
    }
}
