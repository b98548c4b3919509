//! Kubernetes YAML that names a build's images; it goes with the build.

use super::{Result, Store};
use crate::model::BuildId;

impl Store {
    /// Keeps it; that of the same build's earlier attempt goes.
    pub async fn put_resolved(&self, build: &BuildId, yaml: &str) -> Result<()> {
        self.change(
            sqlx::query(
                "INSERT INTO resolved (build_id, yaml) VALUES (?, ?)
                 ON CONFLICT (build_id) DO UPDATE SET yaml = excluded.yaml",
            )
            .bind(build.as_str())
            .bind(yaml),
        )
        .await?;
        Ok(())
    }

    pub async fn resolved(&self, build: &BuildId) -> Result<Option<String>> {
        let yaml = sqlx::query_scalar("SELECT yaml FROM resolved WHERE build_id = ?").bind(build.as_str());
        Ok(yaml.fetch_optional(self.pool()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, BuildState};
    use crate::store::Finished;

    #[tokio::test]
    async fn it_is_kept_as_long_as_its_build() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        let (app, user) = ("shop".parse().unwrap(), "ann".parse().unwrap());
        let (reference, commit) = ("refs/heads/main".parse().unwrap(), "a".repeat(40).parse().unwrap());
        let build = Build::queued(BuildId::generate(), app, user, reference, commit);
        assert!(store.put_resolved(&build.id, "a: 1\n").await.is_err(), "of no build");
        store.create_build(&build).await.unwrap();
        assert_eq!(store.resolved(&build.id).await.unwrap(), None);
        for yaml in ["a: 1\n", "a: 2\n"] {
            store.put_resolved(&build.id, yaml).await.unwrap();
            assert_eq!(store.resolved(&build.id).await.unwrap().as_deref(), Some(yaml));
        }
        let end = Finished::as_state(BuildState::Succeeded, 1, None);
        store.finish_build(&build.id, &end).await.unwrap();
        store.drop_build(&build.id).await.unwrap();
        assert_eq!(store.resolved(&build.id).await.unwrap(), None);
    }
}
