//! Images of earlier builds that serve again: the same tree and settings, and the registry still has them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Pipeline, RefBuild};
use crate::assemble::Child;
use crate::event::{BuildEvent, EventSink};
use crate::model::{BuildPlan, Digest, Form, ImageName, Sha};
use crate::store::Published;

/// Images of an earlier build.
pub(super) struct Reusable {
    commit: Sha,
    pub children: Vec<Child>,
}

impl Reusable {
    pub fn tell(&self, events: &EventSink) {
        let (children, commit) = (self.children.len(), self.commit.clone());
        events.emit(BuildEvent::Reused { children, commit, form: Form::Index });
    }
}

impl Pipeline {
    /// What an earlier build with this fingerprint left, and its commit; whether its images still stand has not been asked.
    pub(super) async fn recalled<T: DeserializeOwned>(
        &self,
        job: &RefBuild,
        fingerprint: Option<&Digest>,
    ) -> Option<(T, Sha)> {
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
        Some((serde_json::from_str(&published.children_json).ok()?, published.commit))
    }

    /// As `recalled`, where all its images still stand in the registry.
    pub(super) async fn earlier<T: DeserializeOwned>(
        &self,
        job: &RefBuild,
        image: &ImageName,
        fingerprint: Option<&Digest>,
        images: impl FnOnce(&T) -> Vec<Digest>,
    ) -> Option<(T, Sha)> {
        let (kept, commit) = self.recalled(job, fingerprint).await?;
        let heads = images(&kept).into_iter().map(async |digest| {
            let found = self.registry.head_manifest(image, &digest.into()).await;
            matches!(found, Ok(Some(_)))
        });
        let all_stand = futures::future::join_all(heads).await.into_iter().all(|stands| stands);
        all_stand.then_some((kept, commit))
    }

    /// The images of an earlier build with this fingerprint, where they still stand in the registry.
    pub(super) async fn reusable(
        &self,
        job: &RefBuild,
        image: &ImageName,
        fingerprint: Option<&Digest>,
    ) -> Option<Reusable> {
        let digests = |children: &Vec<Child>| children.iter().map(|child| child.digest.clone()).collect();
        let (children, commit) = self.earlier(job, image, fingerprint, digests).await?;
        Some(Reusable { commit, children })
    }

    /// Lets the next build with this fingerprint take these images. Forgetting costs a build, not a push.
    pub(super) async fn keep(
        &self,
        plan: &BuildPlan,
        image: &ImageName,
        fingerprint: Option<&Digest>,
        kept: &impl Serialize,
    ) {
        let Some(fingerprint) = fingerprint else { return };
        let Ok(children_json) = serde_json::to_string(kept) else { return };
        let published = Published { image: image.clone(), commit: plan.commit.clone(), children_json };
        if let Err(error) = self.store.put_published(fingerprint, &published).await {
            tracing::warn!(%error, "this build's images are not remembered");
        }
    }
}
