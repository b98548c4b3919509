//! The context ledger's bytes, opaque here: which times the files of a build context were given.
//!
//! Keys begin with the app's id and a slash (`APP_ID/refs/heads/main`), so that an app's entries go with it.

use sqlx::Row as _;

use super::{Result, Store};

impl Store {
    pub async fn ledger(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT content FROM ledger WHERE key = ?")
            .bind(key)
            .fetch_optional(self.pool())
            .await?;
        Ok(row.map(|row| row.try_get("content")).transpose()?)
    }

    pub async fn put_ledger(&self, key: &str, content: &[u8], at_ms: i64) -> Result<()> {
        self.change(sqlx::query(
            "INSERT INTO ledger (key, content, updated_at_ms) VALUES (?, ?, ?)
             ON CONFLICT (key) DO UPDATE SET content = excluded.content, updated_at_ms = excluded.updated_at_ms",
        )
        .bind(key)
        .bind(content)
        .bind(at_ms)).await?;
        Ok(())
    }

    /// Forgets one entry, when its ref is deleted.
    pub async fn remove_ledger(&self, key: &str) -> Result<()> {
        self.change(sqlx::query("DELETE FROM ledger WHERE key = ?").bind(key)).await?;
        Ok(())
    }
}
