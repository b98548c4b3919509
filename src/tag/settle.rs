//! Bringing a push that was left at its commit point to an end: after a crash, or after a registry that went away.
//!
//! An undecided entry goes forward when one of its shared tags stands at the new index or one of its refs at the new value,
//! else back; and waits while the registry cannot be asked. Settling twice is settling once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::future::join_all;

use super::refs::{self, RefTransaction};
use super::shift::{self, Target};
use super::{Shared, TagError, entry_keys};
use crate::model::{ImageName, Move, RefUpdate, Sha, Tag};
use crate::store::JournalEntry;

/// How a left-over push ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Refs and tags stand at the new values.
    Forward,
    /// No shared tag had moved: all is as before the push.
    Back,
    /// A ref has gone on to another value meanwhile: its tags were left to whoever moved it.
    Overtaken,
    /// It cannot be completed now.
    Waiting { reason: String },
    /// It had ended already.
    Ended,
}

/// A push that was left over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub app_id: String,
    pub moves: Vec<Move>,
    pub outcome: Outcome,
}

type Owed = BTreeSet<(ImageName, Tag)>;

/// Settles `entries`, the latest first: what a later push moved is nothing that an earlier one owes.
pub async fn all(
    shared: &Shared,
    entries: Vec<JournalEntry>,
    repository_of: &impl Fn(&str) -> PathBuf,
) -> Result<Vec<Recovered>, TagError> {
    let mut recovered = Vec::new();
    for entry in entries.into_iter().rev() {
        let outcome = match one(shared, &entry, &repository_of(&entry.app_id)).await {
            Ok(Outcome::Ended) => continue,
            Ok(outcome) => outcome,
            Err(TagError::Store(error)) => return Err(error.into()),
            Err(error) => Outcome::Waiting { reason: error.to_string() },
        };
        tracing::info!(tag.entry = entry.id, app.id = %entry.app_id, "a push that was left over: {outcome:?}");
        recovered.push(Recovered { app_id: entry.app_id, moves: entry.moves, outcome });
    }
    Ok(recovered)
}

/// Settles one entry under its locks. Errors change nothing.
pub async fn one(shared: &Shared, entry: &JournalEntry, repository: &Path) -> Result<Outcome, TagError> {
    let _held = shared.hold(&entry_keys(entry)).await?;
    let mut journal = shared.store.journal().await?;
    let Some(at) = journal.iter().position(|other| other.id == entry.id) else { return Ok(Outcome::Ended) };
    let later = journal.split_off(at + 1);
    let Some(entry) = journal.pop() else { return Ok(Outcome::Ended) };
    let places = places(shared, &entry, repository).await?;
    if !entry.refs_done {
        match decide(shared, &entry, &places).await {
            Decision::Forward => {}
            Decision::Back => {
                shared.store.journal_close(&entry, false).await?;
                return Ok(Outcome::Back);
            }
            Decision::Later(reason) => return Ok(Outcome::Waiting { reason }),
        }
    }
    forward(shared, &entry, &places, &later, repository).await
}

/// Where a ref of an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Old,
    New,
    Elsewhere,
}

/// Of each move; a try counts as done.
async fn places(shared: &Shared, entry: &JournalEntry, repository: &Path) -> Result<Vec<Place>, TagError> {
    let names: Vec<_> = entry.moves.iter().filter_map(super::reference).collect();
    let mut found = refs::read(&shared.config.git, repository, &names).await?.into_iter();
    let mut places = Vec::with_capacity(entry.moves.len());
    for one in &entry.moves {
        let at = super::reference(one).and_then(|_| found.next());
        let at_new = |update: &RefUpdate| at.as_ref() == Some(&update.new);
        let place = match &one.update {
            Some(update) if at_new(update) => Place::New,
            Some(update) if at.as_ref() == Some(&update.old) => Place::Old,
            Some(_) => Place::Elsewhere,
            None if at.as_ref().is_some_and(Sha::is_zero) => Place::Elsewhere,
            None => Place::New,
        };
        let ref_is_done = entry.refs_done || one.update.is_none();
        let place = match &one.generation {
            // the ref's way after it moved is counted: its tags are this entry's until a later one has tags
            Some(generation) if ref_is_done && !at.as_ref().is_some_and(Sha::is_zero) => {
                let tags_at = shared.store.published_generation(&entry.app_id, &generation.reference).await?;
                match () {
                    () if tags_at.generation > generation.number => Place::Elsewhere,
                    () if tags_at.accepted > generation.number => Place::New,
                    () => place,
                }
            }
            _ => place,
        };
        places.push(place);
    }
    Ok(places)
}

enum Decision {
    Forward,
    Back,
    Later(String),
}

async fn decide(shared: &Shared, entry: &JournalEntry, places: &[Place]) -> Decision {
    let ref_moved =
        entry.moves.iter().zip(places).any(|(one, place)| one.update.is_some() && *place == Place::New);
    if entry.forward || ref_moved {
        return Decision::Forward;
    }
    let targets: Vec<Target<'_>> = entry
        .moves
        .iter()
        .flat_map(|one| &one.publications)
        .flat_map(|publication| publication.shared_tags().iter().map(move |tag| Target { publication, tag }))
        .collect();
    let standing = join_all(targets.iter().map(|target| shift::standing(shared, *target))).await;
    let mut unknown = None;
    for (target, found) in targets.iter().zip(standing) {
        match found {
            Ok(found) if found.as_ref() == Some(&target.publication.digest) => return Decision::Forward,
            Ok(_) => {}
            Err(error) => unknown = Some(error.to_string()),
        }
    }
    unknown.map_or(Decision::Back, Decision::Later)
}

/// Moves what has not moved: the refs are locked first, as in a push.
async fn forward(
    shared: &Shared,
    entry: &JournalEntry,
    places: &[Place],
    later: &[JournalEntry],
    repository: &Path,
) -> Result<Outcome, TagError> {
    let moves = || entry.moves.iter().zip(places.iter().copied());
    let updates: Vec<RefUpdate> = moves()
        .filter(|(_, place)| *place == Place::Old && !entry.refs_done)
        .filter_map(|(one, _)| one.update.clone())
        .collect();
    let transaction = if updates.is_empty() {
        None
    } else {
        Some(RefTransaction::prepare(&shared.config.git, repository, &updates).await?)
    };
    // a ref that stands elsewhere was moved by someone since, and so were its tags, or they are not its tags any more
    let lost = |place: Place| place == Place::Elsewhere || (place == Place::Old && entry.refs_done);
    let targets: Vec<Target<'_>> = moves()
        .filter(|(_, place)| !lost(*place))
        .flat_map(|(one, _)| &one.publications)
        .flat_map(|publication| publication.tags.iter().map(move |tag| Target { publication, tag }))
        .filter(|target| entry.owed.contains(&key(*target)))
        .collect();
    let mut owed = Owed::new();
    let mut reason = None;
    // one after the other: the unshared ones are the first of each publication
    for target in targets {
        let placed = if later.iter().any(|entry| entry.owed.contains(&key(target))) {
            Err("a later push of the same tag is not at its end".to_owned())
        } else {
            shift::place(shared, target).await.map_err(|error| error.to_string())
        };
        if let Err(error) = placed {
            owed.insert(key(target));
            reason = Some(error);
        }
    }
    if let Some(transaction) = transaction {
        transaction.commit().await?;
    }
    if let Some(reason) = reason {
        shared.store.journal_forward(entry, &owed, true).await?;
        return Ok(Outcome::Waiting { reason });
    }
    shared.store.journal_close(entry, true).await?;
    Ok(if moves().any(|(_, place)| lost(place)) { Outcome::Overtaken } else { Outcome::Forward })
}

fn key(target: Target<'_>) -> (ImageName, Tag) {
    (target.publication.image.clone(), target.tag.clone())
}
