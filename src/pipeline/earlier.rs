//! Images of earlier builds that serve again: the same tree and settings, and the registry still has them.

use super::{Pipeline, RefBuild};
use crate::assemble::Child;
use crate::event::{BuildEvent, EventSink};
use crate::model::{BuildPlan, Digest, ImageName, Sha};
use crate::store::Published;

/// Images of an earlier build.
pub(super) struct Reusable {
    commit: Sha,
    pub children: Vec<Child>,
}

impl Reusable {
    pub fn tell(&self, events: &EventSink) {
        events.emit(BuildEvent::Reused { children: self.children.len(), commit: self.commit.clone() });
    }
}

impl Pipeline {
    /// The images of an earlier build with this fingerprint, where they still stand in the registry.
    pub(super) async fn reusable(
        &self,
        job: &RefBuild,
        image: &ImageName,
        fingerprint: Option<&Digest>,
    ) -> Option<Reusable> {
        if job.push.options.no_cache || job.push.options.rebuild {
            return None;
        }
        let published = match self.store.published(fingerprint?).await {
            Ok(published) => published?,
            Err(error) => {
                tracing::warn!(%error, "earlier builds cannot be looked up: building");
                return None;
            }
        };
        let children: Vec<Child> = serde_json::from_str(&published.children_json).ok()?;
        let heads = children.iter().map(async |child| {
            let found = self.registry.head_manifest(image, &child.digest.clone().into()).await;
            matches!(found, Ok(Some(_)))
        });
        let all_stand = futures::future::join_all(heads).await.into_iter().all(|stands| stands);
        all_stand.then_some(Reusable { commit: published.commit, children })
    }

    /// Lets the next build with this fingerprint take these images. Forgetting costs a build, not a push.
    pub(super) async fn remember(
        &self,
        plan: &BuildPlan,
        image: &ImageName,
        fingerprint: Option<&Digest>,
        children: &[Child],
    ) {
        let Some(fingerprint) = fingerprint else { return };
        let Ok(children_json) = serde_json::to_string(children) else { return };
        let published = Published { image: image.clone(), commit: plan.commit.clone(), children_json };
        if let Err(error) = self.store.put_published(fingerprint, &published).await {
            tracing::warn!(%error, "this build's images are not remembered");
        }
    }
}
