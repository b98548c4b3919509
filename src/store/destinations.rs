//! Names of images besides the apps' own that apps push to: each is one app's, for as long as there is that app.

use sqlx::Row as _;

use super::{Result, Store, StoreError, apps, parsed};
use crate::model::{ImageName, ImagePrefix};

impl Store {
    /// Makes an image the app's that is not its own one: `DestinationTaken` where it is another app's, or lies below
    /// another app's image. Claiming again is fine.
    pub async fn claim_destination(
        &self,
        app_id: &str,
        image: &ImageName,
        prefix: Option<&ImagePrefix>,
    ) -> Result<()> {
        if self.destination_owner(image).await?.as_deref() == Some(app_id) {
            return Ok(());
        }
        let taken = || StoreError::DestinationTaken { image: image.clone() };
        let mut tx = self.write().await?;
        let above = apps::apps_in(&mut tx).await?.into_iter().filter_map(|app| {
            let own = app.image(prefix)?;
            image.lies_at(&own).then_some((own.path().len(), app.id))
        });
        // of several, the nearest has it
        if above.max().is_some_and(|(_, owner)| owner != app_id) {
            return Err(taken());
        }
        let row = sqlx::query(
            "INSERT INTO destinations (image, app_id) VALUES (?, ?)
             ON CONFLICT (image) DO UPDATE SET image = image RETURNING app_id",
        )
        .bind(image.canonical().as_str())
        .bind(app_id)
        .fetch_one(&mut *tx)
        .await?;
        if row.try_get::<&str, _>("app_id")? != app_id {
            return Err(taken());
        }
        tx.commit().await?;
        Ok(())
    }

    /// The id of the app that pushes there.
    pub async fn destination_owner(&self, image: &ImageName) -> Result<Option<String>> {
        let owner = sqlx::query_scalar("SELECT app_id FROM destinations WHERE image = ?")
            .bind(image.canonical().as_str())
            .fetch_optional(self.pool())
            .await?;
        Ok(owner)
    }

    /// What other apps push to.
    pub async fn destinations_of_others(&self, app_id: &str) -> Result<Vec<ImageName>> {
        let rows = sqlx::query("SELECT image FROM destinations WHERE app_id != ?")
            .bind(app_id)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(|row| parsed("destinations.image", row.try_get("image")?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_one_app_s() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let prefix: ImagePrefix = "localhost:5000".parse().unwrap();
        let app = async |name: &str| store.create_app(&name.parse().unwrap(), Some(&prefix)).await.unwrap();
        let (shop, blog) = (app("shop").await, app("blog").await);
        let claim = async |id: &str, image: &str| {
            store.claim_destination(id, &image.parse().unwrap(), Some(&prefix)).await
        };
        let taken = |result| matches!(result, Err(StoreError::DestinationTaken { .. }));
        claim(&shop.id, "mirror.example.com/a").await.unwrap();
        claim(&shop.id, "mirror.example.com/a").await.unwrap();
        assert!(taken(claim(&blog.id, "Mirror.example.com/a").await), "one spelling");
        claim(&shop.id, "localhost:5000/shop/web").await.unwrap();
        assert!(taken(claim(&blog.id, "127.0.0.1:5000/shop/api").await), "below another app's image");
        assert!(taken(claim(&blog.id, "localhost:5000/shop").await));
        // somebody's own name within another app's: the nearest one decides
        let deep = store
            .change_settings(&blog.name, Some(&prefix), |mut settings| {
                settings.image = Some("localhost:5000/shop/blog".parse().unwrap());
                Ok::<_, StoreError>(settings)
            })
            .await
            .unwrap();
        claim(&deep.id, "localhost:5000/shop/blog/web").await.unwrap();
        assert!(taken(claim(&shop.id, "localhost:5000/shop/blog").await));
        // nor does an app get a name of its own that another pushes to
        let refused = store
            .change_settings(&blog.name, Some(&prefix), |mut settings| {
                settings.image = Some("mirror.example.com/a".parse().unwrap());
                Ok::<_, StoreError>(settings)
            })
            .await;
        assert!(matches!(refused, Err(StoreError::ImageTaken { owner, .. }) if owner == shop.name));
        let image = "mirror.example.com/a".parse().unwrap();
        assert_eq!(store.destination_owner(&image).await.unwrap(), Some(shop.id.clone()));
        let of_shop = ["localhost:5000/shop/web", "mirror.example.com/a"].map(|name| name.parse().unwrap());
        assert_eq!(store.destinations_of_others(&blog.id).await.unwrap(), of_shop);
        store.destroy_app(&shop.name).await.unwrap();
        claim(&blog.id, "mirror.example.com/a").await.unwrap();
    }
}
