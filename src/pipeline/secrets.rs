//! The secrets of one build: opened when it begins, gone with it.

use super::{Pipeline, RefBuild, blocking, from_report};
use crate::error::Report;
use crate::event::{Failure, Masker};
use crate::model::SecretUse;
use crate::solve::BuildSecrets;

impl Pipeline {
    /// What the app's builds may mount, and what takes it, and the passwords that go to registries for it, out of texts.
    pub(super) async fn secrets(&self, job: &RefBuild) -> Result<BuildSecrets, Failure> {
        let app = &job.push.app;
        let opened = self.store.open_secrets(&app.name, &app.id).await;
        let opened = opened.map_err(|e| from_report(Report::from(e)))?;
        let logins = match self.store.open_logins(Some(&app.id)).await {
            Ok(logins) => logins,
            Err(error) => {
                // what cannot be opened goes to no builder either
                tracing::warn!(%error, "registry logins are not looked for in the build's output");
                Vec::new()
            }
        };
        let name = app.name.clone();
        blocking(move || {
            let values = opened.iter().map(|secret| secret.value.expose());
            let passwords = logins.iter().map(|login| login.secret.expose().as_bytes());
            let masker = Masker::new(values.chain(passwords));
            let mounts = opened.into_iter().filter(|secret| secret.used_as == SecretUse::Secret);
            Ok(BuildSecrets::new(name, mounts.map(|secret| (secret.name, secret.value)), masker))
        })
        .await
    }
}
