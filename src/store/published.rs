//! Published indexes by the fingerprint of what they were built from: an unchanged tree needs no solve.

use sqlx::Row as _;

use super::{Result, Store, now_ms, parsed};
use crate::model::{Digest, ImageName, Sha};

/// The children that an earlier build left in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub image: ImageName,
    /// The commit that was built.
    pub commit: Sha,
    /// Opaque here: `assemble` writes and reads it.
    pub children_json: String,
}

impl Store {
    pub async fn published(&self, fingerprint: &Digest) -> Result<Option<Published>> {
        let row = sqlx::query("SELECT image, commit_sha, children_json FROM published WHERE fingerprint = ?")
            .bind(fingerprint.as_str())
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Published {
            image: parsed("published.image", row.try_get("image")?)?,
            commit: parsed("published.commit_sha", row.try_get("commit_sha")?)?,
            children_json: row.try_get("children_json")?,
        }))
    }

    pub async fn put_published(&self, fingerprint: &Digest, published: &Published) -> Result<()> {
        self.change(
            sqlx::query(
                "INSERT INTO published (fingerprint, image, commit_sha, children_json, published_at_ms)
             VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (fingerprint) DO UPDATE SET image = excluded.image, commit_sha = excluded.commit_sha,
                 children_json = excluded.children_json, published_at_ms = excluded.published_at_ms",
            )
            .bind(fingerprint.as_str())
            .bind(published.image.as_str())
            .bind(published.commit.as_str())
            .bind(&published.children_json)
            .bind(now_ms()),
        )
        .await?;
        Ok(())
    }

    /// Forgets an entry whose children the registry no longer has.
    pub async fn remove_published(&self, fingerprint: &Digest) -> Result<()> {
        self.change(sqlx::query("DELETE FROM published WHERE fingerprint = ?").bind(fingerprint.as_str()))
            .await?;
        Ok(())
    }
}
