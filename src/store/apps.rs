//! Apps, their settings, and who has access to them. Two apps never share an image name.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Result, Store, StoreError, from_json, now_ms, parsed, to_json};

use crate::model::{Access, App, AppName, AppSettings, Grant, ImagePrefix, UserName, Visible};

impl Store {
    /// Creates an app with the default settings. `prefix` is what apps without an image name of their own are put
    /// under; where it is not known, only names that were set are compared.
    pub async fn create_app(&self, name: &AppName, prefix: Option<&ImagePrefix>) -> Result<App> {
        let app = App {
            id: uuid::Uuid::now_v7().simple().to_string(),
            name: name.clone(),
            settings: AppSettings::default(),
            created_at_ms: now_ms(),
        };
        let mut tx = self.write().await?;
        if app_in(&mut tx, name).await?.is_some() {
            return Err(StoreError::AppExists(name.clone()));
        }
        refuse_shared_image(&mut tx, &app, prefix).await?;
        sqlx::query("INSERT INTO apps (id, name, settings_json, created_at_ms) VALUES (?, ?, ?, ?)")
            .bind(&app.id)
            .bind(app.name.as_str())
            .bind(to_json("apps.settings_json", &app.settings)?)
            .bind(app.created_at_ms)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(app)
    }

    /// All apps by name.
    pub async fn apps(&self) -> Result<Vec<App>> {
        apps_in(&mut *self.pool().acquire().await?).await
    }

    /// The apps that are there for somebody, by name.
    pub async fn apps_seen(&self, visible: &Visible) -> Result<Vec<App>> {
        let Visible::GrantedTo(user) = visible else { return self.apps().await };
        sqlx::query(
            "SELECT apps.id, name, settings_json, created_at_ms FROM apps
             JOIN grants ON grants.app_id = apps.id WHERE grants.user = ? ORDER BY name",
        )
        .bind(user.as_str())
        .fetch_all(self.pool())
        .await?
        .iter()
        .map(app_of)
        .collect()
    }

    pub async fn app(&self, name: &AppName) -> Result<Option<App>> {
        app_in(&mut *self.pool().acquire().await?, name).await
    }

    /// Replaces an app's settings and returns it as it is now.
    pub async fn update_settings(
        &self,
        name: &AppName,
        settings: &AppSettings,
        prefix: Option<&ImagePrefix>,
    ) -> Result<App> {
        let settings = settings.clone();
        self.change_settings(name, prefix, move |_| Ok::<_, StoreError>(settings)).await
    }

    /// Computes new settings from the present ones in one transaction, so that two changes at once both count.
    pub async fn change_settings<E: From<StoreError>>(
        &self,
        name: &AppName,
        prefix: Option<&ImagePrefix>,
        change: impl FnOnce(AppSettings) -> std::result::Result<AppSettings, E>,
    ) -> std::result::Result<App, E> {
        let mut tx = self.write().await?;
        let mut app = app_in(&mut tx, name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
        app.settings = change(app.settings)?;
        refuse_shared_image(&mut tx, &app, prefix).await?;
        sqlx::query("UPDATE apps SET settings_json = ? WHERE id = ?")
            .bind(to_json("apps.settings_json", &app.settings)?)
            .bind(&app.id)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(app)
    }

    /// Forgets an app with its grants, builds, events, ledger entries, published indexes and tag claims, and
    /// returns what it was. Its repository is the caller's to remove.
    pub async fn destroy_app(&self, name: &AppName) -> Result<App> {
        let mut tx = self.write().await?;
        let app = app_in(&mut tx, name).await?.ok_or_else(|| StoreError::NoApp(name.clone()))?;
        // ids are hexadecimal: no character of them means anything to GLOB
        sqlx::query("DELETE FROM ledger WHERE key GLOB ? || '/*'").bind(&app.id).execute(&mut *tx).await?;
        sqlx::query(
            "DELETE FROM published WHERE image IN
                (SELECT json_extract(one.value, '$.name') FROM builds, json_each(images_json) AS one WHERE app_id = ?)",
        )
            .bind(&app.id)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM apps WHERE id = ?").bind(&app.id).execute(&mut *tx).await?;
        tx.commit().await?;
        self.builds_changed();
        Ok(app)
    }

    /// Gives a user access to an app, in place of what they had; `Ok(false)` where they had just that.
    /// The user must exist, so that a misspelt name does not pass.
    pub async fn grant(&self, app: &AppName, user: &UserName, access: Access) -> Result<bool> {
        let mut tx = self.write().await?;
        let app = app_in(&mut tx, app).await?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
        let known = sqlx::query("SELECT 1 FROM users WHERE name = ?").bind(user.as_str());
        if known.fetch_optional(&mut *tx).await?.is_none() {
            return Err(StoreError::NoUser(user.clone()));
        }
        let changed = sqlx::query(
            "INSERT INTO grants (app_id, user, access, granted_at_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET access = excluded.access, granted_at_ms = excluded.granted_at_ms
             WHERE access != excluded.access",
        )
        .bind(&app.id)
        .bind(user.as_str())
        .bind(access.as_str())
        .bind(now_ms())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Takes a grant back.
    pub async fn revoke(&self, app: &AppName, user: &UserName) -> Result<()> {
        let mut tx = self.write().await?;
        let found = app_in(&mut tx, app).await?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
        let removed = sqlx::query("DELETE FROM grants WHERE app_id = ? AND user = ?")
            .bind(&found.id)
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if removed == 0 {
            return Err(StoreError::NoGrant { app: app.clone(), user: user.clone() });
        }
        tx.commit().await?;
        Ok(())
    }

    /// Who has access to an app, by name.
    pub async fn grants(&self, app: &AppName) -> Result<Vec<Grant>> {
        let found = self.app(app).await?.ok_or_else(|| StoreError::NoApp(app.clone()))?;
        sqlx::query("SELECT user, access FROM grants WHERE app_id = ? ORDER BY user")
            .bind(&found.id)
            .fetch_all(self.pool())
            .await?
            .iter()
            .map(|row| {
                let user = parsed("grants.user", row.try_get("user")?)?;
                Ok(Grant { user, access: parsed("grants.access", row.try_get("access")?)? })
            })
            .collect()
    }

    /// What the user was granted on the app; none also where either does not exist.
    pub async fn access(&self, user: &UserName, app: &AppName) -> Result<Option<Access>> {
        sqlx::query(
            "SELECT access FROM grants JOIN apps ON apps.id = grants.app_id
             WHERE apps.name = ? AND grants.user = ?",
        )
        .bind(app.as_str())
        .bind(user.as_str())
        .fetch_optional(self.pool())
        .await?
        .map(|row| parsed("grants.access", row.try_get("access")?))
        .transpose()
    }
}

pub(super) async fn apps_in(connection: &mut SqliteConnection) -> Result<Vec<App>> {
    sqlx::query("SELECT id, name, settings_json, created_at_ms FROM apps ORDER BY name")
        .fetch_all(connection)
        .await?
        .iter()
        .map(app_of)
        .collect()
}

pub(super) async fn app_in(connection: &mut SqliteConnection, name: &AppName) -> Result<Option<App>> {
    sqlx::query("SELECT id, name, settings_json, created_at_ms FROM apps WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(app_of)
        .transpose()
}

fn app_of(row: &SqliteRow) -> Result<App> {
    Ok(App {
        id: row.try_get("id")?,
        name: parsed("apps.name", row.try_get("name")?)?,
        settings: from_json("apps.settings_json", row.try_get("settings_json")?)?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

/// Apps are few, and this runs on changes only: a scan under the write lock keeps names of both origins unique.
async fn refuse_shared_image(
    connection: &mut SqliteConnection,
    app: &App,
    prefix: Option<&ImagePrefix>,
) -> Result<()> {
    let Some(image) = app.image(prefix) else { return Ok(()) };
    for other in apps_in(&mut *connection).await? {
        if other.id != app.id && other.image(prefix).is_some_and(|theirs| theirs.same_repository(&image)) {
            return Err(StoreError::ImageTaken { image, owner: other.name });
        }
    }
    let pushed: Option<String> = sqlx::query_scalar(
        "SELECT apps.name FROM destinations JOIN apps ON apps.id = app_id WHERE image = ? AND app_id != ?",
    )
    .bind(image.canonical().as_str())
    .bind(&app.id)
    .fetch_optional(connection)
    .await?;
    if let Some(owner) = pushed {
        return Err(StoreError::ImageTaken { image, owner: parsed("apps.name", &owner)? });
    }
    Ok(())
}
