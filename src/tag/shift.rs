//! Moving tags: the unshared ones first, each read back, and what is known when one fails.

use futures::future::{join_all, try_join_all};

use super::{Pending, Shared};
use crate::event::{BuildEvent, EventSink};
use crate::failpoint::Point;
use crate::model::{Digest, ImageName, Publication, Tag};
use crate::registry::{Problem, RegistryError};

/// One tag to move, and to what.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub publication: &'a Publication,
    pub tag: &'a Tag,
}

impl Target<'_> {
    pub fn moved(&self) -> (ImageName, Tag, Digest) {
        (self.publication.image.clone(), self.tag.clone(), self.publication.digest.clone())
    }
    pub fn pending(&self, reason: &dyn std::fmt::Display) -> Pending {
        Pending { image: self.publication.image.clone(), tag: self.tag.clone(), reason: reason.to_string() }
    }
}

/// How far the tags of a push came.
#[derive(Debug)]
pub enum Shifted {
    /// All stand, or the first shared one does and some others are pending.
    Past { pending: Vec<Pending> },
    /// No shared tag has moved.
    Before(ShiftError),
}

/// Why the tags stayed.
#[derive(Debug, thiserror::Error)]
pub enum ShiftError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Injected(#[from] crate::failpoint::Injected),
}

/// Moves all tags of `publications`: every unshared one and its proof, then the first shared one, then the rest.
pub async fn all(shared: &Shared, publications: &[&Publication], events: &EventSink) -> Shifted {
    let unshared = targets(publications, Publication::unshared_tags);
    let owned = targets(publications, Publication::shared_tags);
    if let Err(error) = before(shared, &unshared, events).await {
        return Shifted::Before(error);
    }
    let Some((first, rest)) = owned.split_first() else { return Shifted::Past { pending: Vec::new() } };
    let mut pending = Vec::new();
    match put(shared, *first).await {
        Ok(()) => {}
        Err(error) => match after_failed_put(shared, *first, &error).await {
            Standing::Moved => {}
            Standing::Not => return Shifted::Before(error.into()),
            // it may have moved or may move yet: going on is the only way that ends with ref and tags agreeing
            Standing::Unknown => pending.push(first.pending(&error)),
        },
    }
    if let Err(error) = shared.config.failpoints.reach(Point::AfterFirstSharedTag).await {
        pending.extend(owned.iter().map(|target| target.pending(&error)));
        return Shifted::Past { pending };
    }
    // the order of the rest means nothing to anyone: the first one's proof and all others at once
    let prove_first = async {
        if !pending.is_empty() {
            return Ok(());
        }
        read_back(shared, *first).await.inspect(|()| tell(*first, events))
    };
    let others = join_all(rest.iter().enumerate().map(|(at, target)| other(shared, at, *target, events)));
    let (proof, others) = futures::join!(prove_first, others);
    pending.extend(proof.err().map(|error| first.pending(&error)));
    pending.extend(others.into_iter().flatten());
    Shifted::Past { pending }
}

/// Every unshared tag, put and proven.
async fn before(shared: &Shared, unshared: &[Target<'_>], events: &EventSink) -> Result<(), ShiftError> {
    try_join_all(unshared.iter().map(async |target| {
        place(shared, *target).await?;
        tell(*target, events);
        Ok::<(), RegistryError>(())
    }))
    .await?;
    if !unshared.is_empty() {
        shared.config.failpoints.reach(Point::AfterUnsharedTag).await?;
    }
    Ok(())
}

/// A shared tag after the first, the `at`-th of these.
async fn other(shared: &Shared, at: usize, target: Target<'_>, events: &EventSink) -> Option<Pending> {
    if let Err(error) = place(shared, target).await {
        return Some(target.pending(&error));
    }
    tell(target, events);
    if at == 0
        && let Err(error) = shared.config.failpoints.reach(Point::AfterSecondSharedTag).await
    {
        return Some(target.pending(&error));
    }
    None
}

fn targets<'a>(publications: &[&'a Publication], tags: fn(&Publication) -> &[Tag]) -> Vec<Target<'a>> {
    publications
        .iter()
        .flat_map(|publication| tags(publication).iter().map(|tag| Target { publication, tag }))
        .collect()
}

fn tell(target: Target<'_>, events: &EventSink) {
    let (image, tag, digest) = target.moved();
    events.emit(BuildEvent::Tagged { image, tag, digest });
}

/// Puts the index under the tag and sees that it stands.
pub async fn place(shared: &Shared, target: Target<'_>) -> Result<(), RegistryError> {
    put(shared, target).await?;
    read_back(shared, target).await
}

async fn put(shared: &Shared, target: Target<'_>) -> Result<(), RegistryError> {
    let Target { publication, tag } = target;
    let bytes = publication.bytes.clone();
    let reference = tag.clone().into();
    shared.registry.put_manifest(&publication.image, &reference, &publication.media_type, bytes).await?;
    Ok(())
}

/// Sees that the tag stands at the index: the answer to a PUT is not believed alone.
async fn read_back(shared: &Shared, target: Target<'_>) -> Result<(), RegistryError> {
    let mut pause = shared.config.read_back_pause;
    let mut tries = shared.config.read_back_tries.max(1);
    loop {
        let found = standing(shared, target).await?;
        if found.as_ref() == Some(&target.publication.digest) {
            return Ok(());
        }
        tries -= 1;
        if tries == 0 {
            return Err(not_standing(target, found));
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
}

fn not_standing(target: Target<'_>, found: Option<Digest>) -> RegistryError {
    let Target { publication, tag } = target;
    let problem = match found {
        Some(found) => Problem::WrongDigest { expected: publication.digest.clone(), found },
        None => Problem::NotFound { detail: "though the registry has just taken it".to_owned() },
    };
    RegistryError::new(publication.image.host(), format!("reading {}:{tag} back", publication.image), problem)
}

/// What stands at the tag.
pub async fn standing(shared: &Shared, target: Target<'_>) -> Result<Option<Digest>, RegistryError> {
    shared.registry.head_manifest(&target.publication.image, &target.tag.clone().into()).await
}

enum Standing {
    Moved,
    Not,
    Unknown,
}

/// Whether a PUT that failed has moved its tag all the same: a gateway may give up on a registry that does not.
async fn after_failed_put(shared: &Shared, target: Target<'_>, error: &RegistryError) -> Standing {
    if !error.may_have_happened() {
        return Standing::Not;
    }
    match standing(shared, target).await {
        Ok(found) if found.as_ref() == Some(&target.publication.digest) => Standing::Moved,
        Ok(_) => Standing::Not,
        Err(_) => Standing::Unknown,
    }
}
