//! The tags of a ref that is gone: free for others at once, and its layer caches leave the registry when the push is answered.
//!
//! A registry that removes nothing costs storage, never the push: what stays is said in the log and in the audit record.

use std::time::Duration;

use tracing::Instrument as _;

use super::Shared;
use crate::audit::{Event, Who, entry};
use crate::event::plain_line;
use crate::model::{ImageName, Push, RefName, Tag};
use crate::plan;
use crate::store::Store;
use crate::tag::Tagger;

/// For all the caches of one ref.
const PATIENCE: Duration = Duration::from_secs(120);

impl Shared {
    pub(super) async fn release_tags(&self, push: &Push, reference: &RefName) {
        let freed = match self.store.release_tags(&push.app.id, reference).await {
            Ok(freed) => freed,
            Err(error) => {
                tracing::warn!(%error, %reference, "the deleted ref still owns its tags");
                return;
            }
        };
        let caches: Vec<_> = freed.into_iter().filter(|(_, tag)| plan::is_cache_tag(tag)).collect();
        if caches.is_empty() {
            return;
        }
        let (store, tagger) = (self.store.clone(), self.tagger.clone());
        let (app, id, reference) = (push.app.name.clone(), push.id.to_string(), reference.clone());
        let removing = async move {
            let Err((reason, left)) = remove(&tagger, &caches).await else {
                tracing::info!(%reference, tags = caches.len(), "the layer caches of a deleted ref are removed");
                return;
            };
            let left =
                left.iter().map(|(image, tag)| format!("{image}:{tag}")).collect::<Vec<_>>().join(", ");
            tracing::warn!(%reference, %reason, %left, "layer caches of a deleted ref stay in the registry");
            let event = Event::Administered {
                action: "remove_layer_caches".to_owned(),
                target: Some(reference.to_string()),
                refused: Some(plain_line(&reason)),
            };
            let note = entry(Who::Server, event).app(app).request(&id).detail(format!("left: {left}"));
            record(&store, note).await;
        };
        self.tasks.spawn(removing.in_current_span());
    }
}

/// Removes one after the other; at the first that stays, why, and what is left.
async fn remove<'a>(
    tagger: &Tagger,
    caches: &'a [(ImageName, Tag)],
) -> Result<(), (String, &'a [(ImageName, Tag)])> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for (at, (image, tag)) in caches.iter().enumerate() {
        let removed = tokio::time::timeout_at(deadline, tagger.remove(image, tag)).await;
        let reason = match removed {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the registry is not through after {} s", PATIENCE.as_secs()),
        };
        return Err((reason, caches.get(at..).unwrap_or_default()));
    }
    Ok(())
}

async fn record(store: &Store, note: crate::audit::Entry) {
    if let Err(error) = store.append_audit(&[note]).await {
        tracing::warn!(%error, "the audit record does not say which layer caches stay");
    }
}
