//! The source rules of one build: the operator's policy, and whose images are whose at this moment.

use std::sync::Arc;

use super::{Pipeline, RefBuild, from_report, internal};
use crate::error::Report;
use crate::event::Failure;
use crate::model::{ImageName, SourceRules, Tenant};

impl Pipeline {
    pub(super) async fn source_rules(&self, job: &RefBuild) -> Result<Arc<SourceRules>, Failure> {
        let (settings, app) = (&self.settings, &job.push.app);
        let prefix = Some(&settings.image_prefix);
        let own = app.image(prefix).ok_or_else(|| internal("the app has no image name"))?;
        let apps = self.store.apps().await.map_err(|e| from_report(Report::from(e)))?;
        let others = apps.iter().filter(|other| other.id != app.id);
        let mut others: Vec<ImageName> = others.filter_map(|other| other.image(prefix)).collect();
        let pushed = self.store.destinations_of_others(&app.id).await;
        others.extend(pushed.map_err(|e| from_report(Report::from(e)))?);
        let tenant = Tenant { own: &own, prefix, others: &others, frontends: &settings.frontends };
        let rules = SourceRules::new(&settings.policy, &tenant);
        rules.map(Arc::new).ok_or_else(|| internal("the policy of base images cannot be made into rules"))
    }
}
