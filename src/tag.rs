//! The commit point of a push: ref and tags move together, or not at all.
//!
//! What is tagged (an index, or one manifest) stands in the registry by digest before. Then: journal entry, ref transaction prepared (locked, old values
//! verified), unshared tags, shared tags, refs committed, journal closed. Up to the first shared tag a failure refuses the
//! push and nothing has changed for anyone. From then on the push goes forward: what cannot be moved now stays in the journal
//! and is moved by `keep_completing`, or by `recover` after a crash, unless a later push has moved the same tags.
//!
//! Tags may follow a ref that has moved before (`Move::following`): each accepted move of a ref is counted, and shared tags go to
//! a greater count only. So a tag stands at the newest accepted push that was built well.
//!
//! Invariants: one writer a ref and a tag (`locks`); a tag is believed when the registry says so itself; an entry that is
//! undecided is decided by what stands in the registry and in the repository, never by guessing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::Instrument as _;

use crate::event::EventSink;
use crate::failpoint::{Failpoints, Injected};
use crate::metrics;
use crate::model::{App, BuildId, Digest, Generation, ImageName, RefName, Sha, Tag};
use crate::registry::{Registry, RegistryError};
use crate::store::{JournalEntry, Store, StoreError};

mod commit;
mod locks;
pub mod refs;
mod settle;
mod shift;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::model::{Move, Publication};
pub use refs::{Git, RefError, clear_stale_locks};
pub use settle::{Outcome, Recovered};

use locks::{Held, Locks};

/// How the commit point behaves.
#[derive(Debug, Clone)]
pub struct TaggerConfig {
    pub git: Git,
    /// How long a push waits for another one of the same ref or tag.
    pub patience: Duration,
    /// Looks at a tag that was put, until it stands; pauses double from `read_back_pause`.
    pub read_back_tries: u32,
    pub read_back_pause: Duration,
    /// Pauses between tries to complete what was left over: doubling from the first to the second.
    pub complete_pause: (Duration, Duration),
    /// How long `recover` lets a git of the server before end by itself before its lock files are removed.
    pub lock_grace: Duration,
    pub failpoints: Failpoints,
}

impl TaggerConfig {
    /// With the git at `program`, an absolute path.
    pub fn new(program: PathBuf) -> Self {
        Self {
            git: Git::new(program, Duration::from_secs(30)),
            patience: Duration::from_secs(120),
            read_back_tries: 4,
            read_back_pause: Duration::from_millis(100),
            complete_pause: (Duration::from_secs(2), Duration::from_secs(300)),
            lock_grace: Duration::from_secs(2),
            failpoints: Failpoints::default(),
        }
    }
}

/// A push that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The tags that stand at their new digests, in the order of the moves.
    pub moved: Vec<(ImageName, Tag, Digest)>,
    /// The tags that do not yet, each with why; they are being completed.
    pub pending: Vec<Pending>,
    /// The counted moves of the refs, in the order of the moves.
    pub generations: Vec<Generation>,
}

impl Committed {
    /// One sentence for the pusher when something is still under way.
    pub fn notice(&self) -> Option<String> {
        let first = self.pending.first()?;
        let tags: Vec<String> = self.pending.iter().map(|one| format!("{}:{}", one.image, one.tag)).collect();
        Some(format!(
            "the push is accepted; still to be moved, and being tried again: {} ({})",
            tags.join(", "),
            first.reason
        ))
    }
}

/// A tag that is still to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub image: ImageName,
    pub tag: Tag,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("the push cannot be published: {0}")]
    Invalid(String),
    /// Nothing has changed.
    #[error(transparent)]
    Ref(#[from] RefError),
    /// Nothing has changed.
    #[error("the tags were not moved: {0}")]
    Registry(#[from] RegistryError),
    /// Nothing has changed.
    #[error("another push of {} is still at its end after {} s", .what.join(", "), .waited.as_secs())]
    Busy { what: Vec<String>, waited: Duration },
    /// Nothing of this push has changed.
    #[error("an earlier push of {} is not completed: {cause}", .what.join(", "))]
    Unsettled { what: Vec<String>, cause: String },
    /// Nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tags have moved, the refs follow by themselves.
    #[error("the tags have moved, but the ref could not be moved yet: {cause}")]
    RefPending { cause: RefError },
    /// No shared tag was moved.
    #[error("a newer push of {} was published meanwhile", .reference.short())]
    Overtaken { reference: RefName, by: Option<BuildId> },
    /// Nothing has changed.
    #[error("{} was deleted meanwhile", .reference.short())]
    Gone { reference: RefName },
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error("the commit point ended abnormally: {0}")]
    Abnormal(String),
}

/// The commit point. Cheap to clone; clones share locks, so there is one a server.
#[derive(Debug, Clone)]
pub struct Tagger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    registry: Registry,
    config: TaggerConfig,
    locks: Locks,
    /// Something was left in the journal.
    left_over: Notify,
    /// Counts the rounds in which what was left over was looked at.
    settled: watch::Sender<u64>,
}

impl Tagger {
    pub fn new(store: Store, registry: Registry, config: TaggerConfig) -> Self {
        let (locks, left_over, settled) = (Locks::default(), Notify::new(), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { store, registry, config, locks, left_over, settled }) }
    }

    /// Moves one ref, or all refs of an atomic push, with the tags of what was built for them. The indexes must stand in the
    /// registry by digest. Goes on to its end also when the caller goes away.
    pub async fn commit(
        &self,
        app: &App,
        repository: &Path,
        moves: Vec<Move>,
        events: &EventSink,
    ) -> Result<Committed, TagError> {
        let shared = self.shared.clone();
        let (app_id, repository, events) = (app.id.clone(), repository.to_owned(), events.clone());
        let run = async move {
            let _timing = metrics::time(metrics::Stage::Tag);
            let (moves_in_all, committed) =
                (moves.len(), commit::run(&shared, &app_id, &repository, moves, &events).await);
            tracing::info!(app.id = %app_id, moves = moves_in_all, refused = committed.as_ref().err().map(tracing::field::display), "commit point passed");
            committed
        };
        tokio::spawn(run.in_current_span()).await.map_err(|error| TagError::Abnormal(error.to_string()))?
    }

    /// Takes a tag away that nothing follows: no image's, and of no ref that is there.
    pub async fn remove(&self, image: &ImageName, tag: &Tag) -> Result<(), TagError> {
        Ok(self.shared.registry.remove_tag(image, tag).await?)
    }

    /// Counts one more accepted move of a ref that stays where it is: what is built anew for it follows in its turn. `Gone`
    /// or `Moved` when it does not stand at `commit`.
    pub async fn accept_in_place(
        &self,
        app: &App,
        repository: &Path,
        reference: &RefName,
        commit: &Sha,
    ) -> Result<Generation, TagError> {
        let shared = &self.shared;
        let _held = shared.hold(&BTreeSet::from([ref_key(&app.id, reference)])).await?;
        let found = refs::read(&shared.config.git, repository, &[reference]).await?.pop();
        match found {
            Some(at) if at == *commit => {
                let number = shared.store.next_generation(&app.id, reference).await?;
                Ok(Generation { reference: reference.clone(), number, commit: commit.clone() })
            }
            Some(at) if !at.is_zero() => {
                let detail = format!("it stands at {at}");
                Err(RefError::Moved { names: vec![reference.to_string()], detail }.into())
            }
            _ => Err(TagError::Gone { reference: reference.clone() }),
        }
    }

    /// Wakes whenever what was left in the journal was looked at again.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.shared.settled.subscribe()
    }

    /// At start, before pushes are taken: brings every push that was at its commit point to an end, forward or back. What
    /// cannot be completed now (`Outcome::Waiting`) stays for `keep_completing`.
    pub async fn recover(&self, repository_of: impl Fn(&str) -> PathBuf) -> Result<Vec<Recovered>, TagError> {
        let shared = &self.shared;
        let entries = shared.store.journal().await?;
        let repositories: BTreeSet<PathBuf> =
            entries.iter().map(|entry| repository_of(&entry.app_id)).collect();
        for repository in repositories.into_iter().filter(|path| path.is_dir()) {
            if let Err(error) = clear_stale_locks(&repository, shared.config.lock_grace).await {
                tracing::warn!("looking for lock files in {}: {error}", repository.display());
            }
        }
        settle::all(shared, entries, &repository_of).await
    }

    /// Completes what pushes left over, as it comes up; never returns. To be spawned once a server.
    pub async fn keep_completing(&self, repository_of: impl Fn(&str) -> PathBuf) {
        let (first, longest) = self.shared.config.complete_pause;
        let mut pause = first;
        loop {
            let waiting = match self.shared.store.journal().await {
                // an entry of a push that is under way waits for its locks, and is gone then
                Ok(entries) => match settle::all(&self.shared, entries, &repository_of).await {
                    Ok(settled) => settled.iter().any(|one| matches!(one.outcome, Outcome::Waiting { .. })),
                    Err(error) => {
                        tracing::warn!("completing earlier pushes: {error}");
                        true
                    }
                },
                Err(error) => {
                    tracing::warn!("reading the journal: {error}");
                    true
                }
            };
            self.shared.settled.send_modify(|count| *count = count.wrapping_add(1));
            if waiting {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(longest);
            } else {
                self.shared.left_over.notified().await;
                pause = first;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

impl Shared {
    async fn hold(&self, keys: &BTreeSet<String>) -> Result<Held<'_>, TagError> {
        let waited = self.config.patience;
        let busy = || TagError::Busy { what: shown(keys), waited };
        self.locks.hold(keys, waited).await.ok_or_else(busy)
    }
}

/// The locks of some moves of an app: its refs and its images' tags.
fn keys(app_id: &str, moves: &[Move]) -> BTreeSet<String> {
    let refs = moves.iter().filter_map(reference).map(|name| ref_key(app_id, name));
    let tags = moves
        .iter()
        .flat_map(|one| &one.publications)
        .flat_map(|publication| publication.tags.iter().map(|tag| tag_key(&publication.image, tag)));
    refs.chain(tags).collect()
}

/// The ref whose tags a move moves.
fn reference(one: &Move) -> Option<&RefName> {
    let of_update = one.update.as_ref().map(|update| &update.name);
    of_update.or_else(|| one.generation.as_ref().map(|generation| &generation.reference))
}

fn ref_key(app_id: &str, name: &RefName) -> String {
    format!("ref {app_id} {name}")
}

fn tag_key(image: &ImageName, tag: &Tag) -> String {
    format!("tag {image}:{tag}")
}

/// The keys as people know the things: refs where there are any, else tags.
fn shown(keys: &BTreeSet<String>) -> Vec<String> {
    let names = |kind: &str| -> Vec<String> {
        let of_kind = keys.iter().filter(|key| key.starts_with(kind));
        of_kind.filter_map(|key| key.rsplit(' ').next()).map(str::to_owned).collect()
    };
    Some(names("ref ")).filter(|refs| !refs.is_empty()).unwrap_or_else(|| names("tag "))
}

/// The locks under which an entry may be settled.
fn entry_keys(entry: &JournalEntry) -> BTreeSet<String> {
    keys(&entry.app_id, &entry.moves)
}
