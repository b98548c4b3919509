//! The audit record as everybody writes it: a [`Trail`] that is handed around, entries of one type, and a writer of its own.
//!
//! Nobody waits for an entry to be written who does not ask to: a refusal costs its caller a place in a bounded queue. What
//! changes something waits, or is written with the change itself (`Store::noting`). A flood of strangers becomes a few
//! entries that say how many. Must not decide anything: it records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::event::plain_line;
use crate::metrics;
pub use crate::model::audit::{Entry, Event, Filter, Logged, Verdict, Who};
use crate::store::Store;
pub use crate::store::now_ms;

mod flood;

use flood::Flood;

/// Entries that wait for the writer; what comes on top is counted and not kept.
const QUEUE: usize = 8_192;
/// Entries that wait for a store that takes none; what comes on top is counted and not kept.
const KEPT: usize = 8_192;
/// Entries of one transaction.
const BATCH: usize = 512;
/// How long an entry that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(50);
/// How often held back entries and lost ones are looked at.
const ROUND: Duration = Duration::from_secs(5);

/// Where entries go. Clones write the same record.
#[derive(Debug, Clone)]
pub struct Trail(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Item>,
    lost: Arc<AtomicU64>,
}

/// What the writer is sent.
enum Item {
    /// To be written in good time.
    Note(Box<Entry>),
    /// To be written now; the sender is told when it is on disk (the error is a sentence).
    Record(Vec<Entry>, oneshot::Sender<Result<(), String>>),
}

/// An entry of now.
pub fn entry(actor: Who, event: Event) -> Entry {
    Entry::new(now_ms(), actor, event)
}

/// The log and the metrics have it as well, for those who watch these.
fn say(entry: &Entry) {
    metrics::audited(entry);
    tracing::info!(
        target: "audit", event = entry.event.name(), actor = %entry.actor, key = entry.key.as_ref().map(|k| k.as_str()),
        peer = entry.peer.map(tracing::field::display), app = entry.app.as_ref().map(|a| a.as_str()),
        request = entry.request, refused = entry.event.refusal().map(plain_line), times = entry.times, "audit",
    );
}

impl Trail {
    /// Starts the writer, which ends with the last clone. Needs a tokio runtime.
    pub fn start(store: Store) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        tokio::spawn(
            Writer { store, items, lost: lost.clone(), flood: Flood::default(), kept: Vec::new() }.run(),
        );
        Self(Some(Arc::new(Inner { queue, lost })))
    }

    /// Keeps nothing: for a process that lives for one command, and tests of a part that is not about it.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// Whether a writer runs, so that entries come.
    pub fn is_written(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves an entry to be written in good time; never waits.
    pub fn note(&self, entry: Entry) {
        say(&entry);
        let Some(inner) = &self.0 else { return };
        if inner.queue.try_send(Item::Note(Box::new(entry))).is_err() {
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns when the entries, and all that were left before them, are on disk. The error is a sentence; they are written
    /// later, when the store takes them.
    pub async fn record(&self, entries: Vec<Entry>) -> Result<(), String> {
        entries.iter().for_each(say);
        let Some(inner) = &self.0 else { return Ok(()) };
        let (told, done) = oneshot::channel();
        let stopped = || "the writer of the audit record has stopped".to_owned();
        inner.queue.send(Item::Record(entries, told)).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }

    /// Returns when everything that was left so far is on disk, what was held back included.
    pub async fn flush(&self) -> Result<(), String> {
        self.record(Vec::new()).await
    }
}

/// The one task that writes.
struct Writer {
    store: Store,
    items: mpsc::Receiver<Item>,
    lost: Arc<AtomicU64>,
    flood: Flood,
    /// What the store did not take, to be written before anything else once it does.
    kept: Vec<Entry>,
}

impl Writer {
    async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        let mut round = Instant::now() + ROUND;
        let mut open = true;
        while open {
            tokio::select! {
                taken = self.items.recv_many(&mut items, BATCH) => {
                    open = taken > 0;
                    if open {
                        self.gather(&mut items).await;
                    }
                }
                () = sleep_until(round) => {}
            }
            let asked = items.iter().any(|item| matches!(item, Item::Record(..)));
            if Instant::now() >= round {
                round = Instant::now() + ROUND;
            }
            self.write(&mut items, asked || !open).await;
        }
    }

    /// Waits for company, unless somebody waits for what is there already.
    async fn gather(&mut self, items: &mut Vec<Item>) {
        let until = Instant::now() + LINGER;
        while items.len() < BATCH && !items.iter().any(|item| matches!(item, Item::Record(..))) {
            let room = BATCH - items.len();
            tokio::select! {
                more = self.items.recv_many(items, room) => if more == 0 { return },
                () = sleep_until(until) => return,
            }
        }
    }

    async fn write(&mut self, items: &mut Vec<Item>, all: bool) {
        let now = Instant::now();
        let mut entries = std::mem::take(&mut self.kept);
        let mut waiting = Vec::new();
        for item in items.drain(..) {
            match item {
                Item::Note(entry) => entries.extend(self.flood.pass(*entry, now)),
                Item::Record(these, told) => {
                    entries.extend(these);
                    waiting.push(told);
                }
            }
        }
        entries.extend(self.flood.release(now, all));
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            entries.push(entry(Who::Server, Event::Lost { entries: lost }));
        }
        let written = if entries.is_empty() { Ok(()) } else { self.store.append_audit(&entries).await };
        if let Err(error) = &written {
            tracing::error!(%error, entries = entries.len(), "the audit record cannot be written");
            self.keep(entries, lost);
        }
        for told in waiting {
            // whoever has gone away need not be told
            let _ = told.send(written.as_ref().map_err(ToString::to_string).copied());
        }
    }

    /// Entries for the next try; `lost` stands in the last of them, and is counted on instead.
    fn keep(&mut self, mut entries: Vec<Entry>, lost: u64) {
        if lost > 0 {
            entries.pop();
        }
        let over = entries.len().saturating_sub(KEPT);
        entries.truncate(KEPT);
        self.lost.fetch_add(lost.saturating_add(over as u64), Ordering::Relaxed);
        self.kept = entries;
    }
}

#[cfg(test)]
mod tests;
