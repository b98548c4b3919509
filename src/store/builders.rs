//! Builders that outlive a restart: those added at run time, and which ones are drained.

use sqlx::Row as _;

use super::{Result, Store, StoreError, now_ms};

/// What is remembered of a builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBuilder {
    pub name: String,
    /// As `--builder` takes it; none for one that is configured elsewhere and only drained here.
    pub spec: Option<String>,
    pub drained: bool,
}

impl Store {
    /// In the order of their names.
    pub async fn builders(&self) -> Result<Vec<StoredBuilder>> {
        let rows = sqlx::query("SELECT name, spec, drained FROM builders ORDER BY name")
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredBuilder {
                    name: row.try_get("name")?,
                    spec: row.try_get("spec")?,
                    drained: row.try_get("drained")?,
                })
            })
            .collect()
    }

    pub async fn add_builder(&self, name: &str, spec: &str) -> Result<()> {
        let added = self
            .change(
                // a row without a spec is the drain of one that is configured no more
                sqlx::query(
                    "INSERT INTO builders (name, spec, drained, changed_at_ms) VALUES (?1, ?2, 0, ?3)
                     ON CONFLICT (name) DO UPDATE SET spec = ?2, drained = 0, changed_at_ms = ?3 WHERE spec IS NULL",
                )
                .bind(name)
                .bind(spec)
                .bind(now_ms()),
            )
            .await?;
        if added == 0 { Err(StoreError::BuilderExists(name.to_owned())) } else { Ok(()) }
    }

    /// Forgets one that was added.
    pub async fn remove_builder(&self, name: &str) -> Result<()> {
        let removed = self
            .change(sqlx::query("DELETE FROM builders WHERE name = ? AND spec IS NOT NULL").bind(name))
            .await?;
        if removed == 0 { Err(StoreError::NoBuilder(name.to_owned())) } else { Ok(()) }
    }

    /// Remembers whether it is drained; it need not have been added here.
    pub async fn set_builder_drained(&self, name: &str, drained: bool) -> Result<()> {
        self.change(
            sqlx::query(
                "INSERT INTO builders (name, spec, drained, changed_at_ms) VALUES (?1, NULL, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET drained = ?2, changed_at_ms = ?3",
            )
            .bind(name)
            .bind(drained)
            .bind(now_ms()),
        )
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_added_and_drained_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        store.add_builder("arm", "tcp://arm.example.com:1234,name=arm").await.unwrap();
        store.set_builder_drained("arm", true).await.unwrap();
        store.set_builder_drained("configured", true).await.unwrap();
        let twice = store.add_builder("arm", "unix:///x").await;
        assert!(matches!(twice, Err(StoreError::BuilderExists(name)) if name == "arm"));
        store.close().await;
        let store = Store::open(dir.path()).await.unwrap();
        let stored = |name: &str, spec: Option<&str>, drained| StoredBuilder {
            name: name.to_owned(),
            spec: spec.map(str::to_owned),
            drained,
        };
        let arm = stored("arm", Some("tcp://arm.example.com:1234,name=arm"), true);
        assert_eq!(store.builders().await.unwrap(), [arm, stored("configured", None, true)]);
        store.remove_builder("arm").await.unwrap();
        assert!(matches!(store.remove_builder("arm").await, Err(StoreError::NoBuilder(_))));
        assert!(matches!(store.remove_builder("configured").await, Err(StoreError::NoBuilder(_))));
        // the flag of a builder that is gone does not stand in the way of a new one
        store.add_builder("configured", "unix:///y").await.unwrap();
        assert_eq!(store.builders().await.unwrap(), [stored("configured", Some("unix:///y"), false)]);
    }
}
