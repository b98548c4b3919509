//! Which ref owns which tag of an app's image: two refs never share one.

use sqlx::Row as _;

use super::{Result, Store, StoreError, parsed};
use crate::model::{ImageName, RefName, Tag};

impl Store {
    /// Claims all the tags for a ref, or none: `TagTaken` names the ref that has one. Claiming again is fine.
    /// A tag that says nothing of its ref (`git-…`) is not to be claimed: two refs may stand at one commit.
    pub async fn claim_tags(
        &self,
        app_id: &str,
        image: &ImageName,
        reference: &RefName,
        tags: &[Tag],
    ) -> Result<()> {
        let mut tx = self.write().await?;
        for tag in tags {
            let row = sqlx::query(
                "INSERT INTO tag_claims (app_id, image, tag, reference) VALUES (?, ?, ?, ?)
                 ON CONFLICT (app_id, image, tag) DO UPDATE SET tag = tag RETURNING reference",
            )
            .bind(app_id)
            .bind(image.as_str())
            .bind(tag.as_str())
            .bind(reference.as_str())
            .fetch_one(&mut *tx)
            .await?;
            let owner: RefName = parsed("tag_claims.reference", row.try_get("reference")?)?;
            if owner != *reference {
                return Err(StoreError::TagTaken { image: image.clone(), tag: tag.clone(), owner });
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Frees every tag of a ref, when the ref is deleted; which these were.
    pub async fn release_tags(&self, app_id: &str, reference: &RefName) -> Result<Vec<(ImageName, Tag)>> {
        let mut tx = self.write().await?;
        let rows =
            sqlx::query("DELETE FROM tag_claims WHERE app_id = ? AND reference = ? RETURNING image, tag")
                .bind(app_id)
                .bind(reference.as_str())
                .fetch_all(&mut *tx)
                .await?;
        tx.commit().await?;
        let freed = |row: &sqlx::sqlite::SqliteRow| {
            let image: ImageName = parsed("tag_claims.image", row.try_get("image")?)?;
            Ok((image, parsed("tag_claims.tag", row.try_get("tag")?)?))
        };
        rows.iter().map(freed).collect()
    }
}
