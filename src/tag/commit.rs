//! One pass through the commit point.

use std::collections::BTreeSet;
use std::path::Path;

use super::refs::RefTransaction;
use super::settle::{self, Outcome};
use super::shift::{self, ShiftError, Shifted};
use super::{Committed, Pending, RefError, Shared, TagError, entry_keys, keys, refs, shown};
use crate::event::{BuildEvent, EventSink};
use crate::failpoint::Point;
use crate::model::{Digest, Generation, ImageName, Move, Publication, RefUpdate, Sha, Tag};
use crate::store::JournalEntry;

/// More refs in one push are refused.
const MOVES_LIMIT: usize = 1000;

pub async fn run(
    shared: &Shared,
    app_id: &str,
    repository: &Path,
    moves: Vec<Move>,
    events: &EventSink,
) -> Result<Committed, TagError> {
    check(&moves)?;
    let keys = keys(app_id, &moves);
    let mut held = shared.hold(&keys).await?;
    let mut blocking = blocking(shared, &keys).await?;
    if !blocking.is_empty() {
        // an earlier push is not at its end: it is brought there under its own locks, or this one is refused
        drop(held);
        let mut cause = String::new();
        for entry in blocking {
            if let Outcome::Waiting { reason } = settle::one(shared, &entry, repository).await? {
                cause = reason;
            }
        }
        held = shared.hold(&keys).await?;
        blocking = self::blocking(shared, &keys).await?;
        if !blocking.is_empty() {
            return Err(TagError::Unsettled { what: shown(&keys), cause });
        }
    }
    let result = pass(shared, app_id, repository, moves, events).await;
    drop(held);
    result
}

/// What no registry or repository needs to be asked about.
fn check(moves: &[Move]) -> Result<(), TagError> {
    let invalid = |text: String| Err(TagError::Invalid(text));
    if moves.is_empty() || moves.len() > MOVES_LIMIT {
        return invalid(format!("{} refs at once; 1 to {MOVES_LIMIT} are taken", moves.len()));
    }
    let mut names = BTreeSet::new();
    let mut tags = BTreeSet::new();
    for one in moves {
        if let Some(update) = &one.update {
            if !names.insert(&update.name) {
                return invalid(format!("{} is named twice", update.name));
            }
            if update.old.is_zero() && update.new.is_zero() {
                return invalid(format!("{} goes from nothing to nothing", update.name));
            }
        }
        let following = one.update.is_none() && one.generation.is_some();
        let moves_ref = one.update.as_ref().is_some_and(|update| !update.is_delete());
        for publication in &one.publications {
            if !following && !moves_ref && !publication.shared_tags().is_empty() {
                return invalid(format!("{} would move shared tags without a ref", publication.image));
            }
            if Digest::of(&publication.bytes) != publication.digest {
                return invalid(format!(
                    "what {} is to stand at does not have the digest {}",
                    publication.image, publication.digest
                ));
            }
            for tag in publication.shared_tags() {
                if !tags.insert((&publication.image, tag)) {
                    return invalid(format!(
                        "two refs, or two images, would share the tag {}:{tag}",
                        publication.image
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Entries that must be at their end before these refs and tags move. One that goes forward and owes only tags is in nobody's
/// way: a later push of these tags makes it moot.
async fn blocking(shared: &Shared, mine: &BTreeSet<String>) -> Result<Vec<JournalEntry>, TagError> {
    let mut entries = shared.store.journal().await?;
    entries.retain(|entry| !entry.refs_done && !entry_keys(entry).is_disjoint(mine));
    Ok(entries)
}

/// The steps themselves, under the locks.
async fn pass(
    shared: &Shared,
    app_id: &str,
    repository: &Path,
    moves: Vec<Move>,
    events: &EventSink,
) -> Result<Committed, TagError> {
    in_its_turn(shared, app_id, repository, &moves, events).await?;
    let updates: Vec<RefUpdate> = moves.iter().filter_map(|one| one.update.clone()).collect();
    let publications: Vec<&Publication> = moves.iter().flat_map(|one| &one.publications).collect();
    let failpoints = &shared.config.failpoints;
    failpoints.reach(Point::BeforeCommit).await?;
    // a ref alone is git's own transaction, tags of a try alone are nobody's: only both together need the journal
    let counted = moves.iter().any(|one| one.generation.is_some());
    let entry = if publications.is_empty() || (updates.is_empty() && !counted) {
        None
    } else {
        Some(shared.store.journal_open(app_id, &moves).await?)
    };
    let generations = match &entry {
        Some(entry) => entry.moves.iter().filter_map(|one| one.generation.clone()).collect(),
        None => count(shared, app_id, &updates).await?,
    };
    let prepared = async {
        failpoints.reach(Point::AfterJournal).await?;
        if updates.is_empty() {
            return Ok(None);
        }
        let transaction = RefTransaction::prepare(&shared.config.git, repository, &updates).await?;
        if let Err(error) = failpoints.reach(Point::AfterPrepare).await {
            transaction.abort().await;
            return Err(error.into());
        }
        Ok(Some(transaction))
    };
    let transaction = match prepared.await {
        Ok(transaction) => transaction,
        Err(error) => return Err(refuse(shared, entry.as_ref(), None, error).await),
    };
    let pending = match shift::all(shared, &publications, events).await {
        Shifted::Past { pending } => pending,
        Shifted::Before(error) => {
            let error = match error {
                ShiftError::Registry(error) => TagError::Registry(error),
                ShiftError::Injected(error) => TagError::Injected(error),
            };
            return Err(refuse(shared, entry.as_ref(), transaction, error).await);
        }
    };
    if let Some(transaction) = transaction
        && let Err(error) = move_refs(shared, transaction).await
    {
        return Err(ref_stays(shared, entry.as_ref(), error).await);
    }
    finish(shared, entry.as_ref(), &pending).await;
    for Generation { reference, number, .. } in generations.iter().filter(|one| one.commit.is_zero()) {
        // a build of before, if it still runs, finds the ref gone as well
        if let Err(error) = shared.store.close_generations(app_id, reference, *number).await {
            tracing::warn!(%reference, "counting a deletion: {error}");
        }
    }
    Ok(Committed { generations, ..committed(&publications, pending, events) })
}

/// Counts moves of refs that no image goes with.
async fn count(shared: &Shared, app_id: &str, updates: &[RefUpdate]) -> Result<Vec<Generation>, TagError> {
    let mut generations = Vec::with_capacity(updates.len());
    for update in updates {
        let number = shared.store.next_generation(app_id, &update.name).await?;
        let (reference, commit) = (update.name.clone(), update.new.clone());
        generations.push(Generation { reference, number, commit });
    }
    Ok(generations)
}

/// Tags follow a ref only as long as no newer move of it has tags, and the ref is there. The unshared ones are nobody's: what
/// was built gets them in any case.
async fn in_its_turn(
    shared: &Shared,
    app_id: &str,
    repository: &Path,
    moves: &[Move],
    events: &EventSink,
) -> Result<(), TagError> {
    for one in moves.iter().filter(|one| one.update.is_none()) {
        let Some(generation) = one.generation.as_ref().filter(|_| !one.publications.is_empty()) else {
            continue;
        };
        let reference = generation.reference.clone();
        let tags_at = shared.store.published_generation(app_id, &reference).await?;
        let found = refs::read(&shared.config.git, repository, &[&reference]).await?;
        let gone = found.iter().all(Sha::is_zero);
        if tags_at.generation <= generation.number && !gone {
            continue;
        }
        let of_nobody = |one: &Publication| Publication { tags: one.unshared_tags().to_vec(), ..one.clone() };
        let unshared: Vec<Publication> = one.publications.iter().map(of_nobody).collect();
        let unshared: Vec<&Publication> = unshared.iter().collect();
        if let Shifted::Before(error) = shift::all(shared, &unshared, events).await {
            tracing::warn!("tagging a build that was overtaken: {error}");
        }
        return Err(match gone {
            true => TagError::Gone { reference },
            false => TagError::Overtaken { reference, by: tags_at.build },
        });
    }
    Ok(())
}

/// Nothing has changed, and nothing is left of the try.
async fn refuse(
    shared: &Shared,
    entry: Option<&JournalEntry>,
    transaction: Option<RefTransaction>,
    error: TagError,
) -> TagError {
    if let Some(transaction) = transaction {
        transaction.abort().await;
    }
    if let Some(entry) = entry
        && let Err(error) = shared.store.journal_close(entry, false).await
    {
        // it stays undecided, and is decided back: no shared tag stands at the new index
        tracing::warn!("closing a journal entry: {error}");
        shared.left_over.notify_one();
    }
    error
}

async fn move_refs(shared: &Shared, transaction: RefTransaction) -> Result<(), RefError> {
    if let Err(injected) = shared.config.failpoints.reach(Point::BeforeRefCommit).await {
        transaction.abort().await;
        return Err(RefError::Git { detail: injected.to_string() });
    }
    transaction.commit().await
}

/// The refs did not move at the last step. Without an entry nothing else has; with one, the tags have.
async fn ref_stays(shared: &Shared, entry: Option<&JournalEntry>, error: RefError) -> TagError {
    let Some(entry) = entry else { return TagError::Ref(error) };
    let owed = entry.owed.clone();
    if let Err(error) = shared.store.journal_forward(entry, &owed, false).await {
        tracing::warn!("deciding a journal entry forward: {error}");
    }
    shared.left_over.notify_one();
    TagError::RefPending { cause: error }
}

/// Closes the entry, or leaves in it what is pending. The push is accepted either way: the refs have moved.
async fn finish(shared: &Shared, entry: Option<&JournalEntry>, pending: &[Pending]) {
    let Some(entry) = entry else { return };
    let write = async {
        let failpoints = &shared.config.failpoints;
        failpoints.reach(Point::AfterRefCommit).await?;
        if pending.is_empty() {
            failpoints.reach(Point::BeforeJournalClose).await?;
            shared.store.journal_close(entry, true).await?;
            return Ok(failpoints.reach(Point::AfterJournalClose).await?);
        }
        let owed: BTreeSet<(ImageName, Tag)> =
            pending.iter().map(|one| (one.image.clone(), one.tag.clone())).collect();
        Ok::<(), TagError>(shared.store.journal_forward(entry, &owed, true).await?)
    };
    let written = write.await;
    if let Err(error) = &written {
        // an undecided entry whose refs have moved is decided forward, and nothing is left to do for it
        tracing::warn!("closing a journal entry: {error}");
    }
    if written.is_err() || !pending.is_empty() {
        shared.left_over.notify_one();
    }
}

fn committed(publications: &[&Publication], pending: Vec<Pending>, events: &EventSink) -> Committed {
    let is_pending =
        |image: &ImageName, tag: &Tag| pending.iter().any(|one| one.image == *image && one.tag == *tag);
    let moved = publications
        .iter()
        .flat_map(|publication| publication.tags.iter().map(move |tag| (publication, tag)))
        .filter(|(publication, tag)| !is_pending(&publication.image, tag))
        .map(|(publication, tag)| (publication.image.clone(), tag.clone(), publication.digest.clone()))
        .collect();
    let committed = Committed { moved, pending, generations: Vec::new() };
    if let Some(text) = committed.notice() {
        events.emit(BuildEvent::Note { text });
    }
    committed
}
