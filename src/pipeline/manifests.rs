//! Kubernetes YAML of the commit with the images that were just made, kept with the build.
//!
//! Read from the commit's tree as data; nothing is checked out. Whether images were made now or served again is all the same.

use std::collections::BTreeMap;

use super::{Making, Pipeline, blocking, from_report};
use crate::error::Report;
use crate::event::{BuildEvent, Failure};
use crate::kinds::ko;
use crate::model::{Digest, ImageName, Publication};
use crate::receive::tree::CommitTree;

impl Pipeline {
    pub(super) async fn resolve_manifests(
        &self,
        making: &Making<'_>,
        published: &[Publication],
    ) -> Result<(), Failure> {
        let Making { job, plan, events, .. } = *making;
        let Some(manifests) = plan.manifests.clone() else { return Ok(()) };
        let built: BTreeMap<ImageName, Digest> =
            published.iter().map(|made| (made.image.clone(), made.digest.clone())).collect();
        let (repository, commit) = (job.repository.clone(), job.update.new.clone());
        let yaml = blocking(move || {
            let tree = CommitTree::open_ref_target(&repository, &commit)
                .map_err(|error| from_report(Report::from(error)))?;
            ko::resolved(&tree, &manifests, &built).map_err(|error| from_report(Report::from(error)))
        })
        .await?;
        let kept = self.store.put_resolved(&job.build, &yaml).await;
        kept.map_err(|error| from_report(Report::from(error)))?;
        let short = job.build.short();
        let text = format!(
            "YAML with these images: ssh HOST show {short} --resolved, or lemnos builds show {short} --resolved"
        );
        events.emit(BuildEvent::Note { text });
        Ok(())
    }
}
