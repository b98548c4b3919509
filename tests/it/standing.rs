//! The standing assertion of docs/SECURITY.md as far as this binary sees it: that the process lives shows in its going on, and
//! files are each fixture's own; here is that what was refused is on record, once, in words.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lemnos::audit::{Entry, Filter, Trail};
use lemnos::store::Store;
use tempfile::TempDir;

/// How long an entry may take to be written.
const PATIENCE: Duration = Duration::from_secs(30);

/// An audit record of one test.
pub struct Record {
    pub trail: Trail,
    store: Store,
    /// The last entry that was looked at.
    seen: AtomicI64,
    _dir: TempDir,
}

impl Record {
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        Self { trail: Trail::start(store.clone()), store, seen: AtomicI64::new(0), _dir: dir }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was refused since the last call: exactly this, each an event's name and a part of its reason, in this order.
    #[track_caller]
    pub fn refused(&self, wanted: &[(&str, &str)]) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        let wanted: Vec<(String, String)> =
            wanted.iter().map(|(name, part)| ((*name).to_owned(), (*part).to_owned())).collect();
        async move {
            let deadline = Instant::now() + PATIENCE;
            let (mut found, mut last) = self.refusals().await;
            // what is noted when a connection ends comes after its client has seen the end
            while found.len() < wanted.len() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
                (found, last) = self.refusals().await;
            }
            self.seen.store(last, Ordering::Relaxed);
            let fits = |entry: &Entry, (name, part): &(String, String)| {
                entry.event.name() == name
                    && entry.event.refusal().is_some_and(|why| why.contains(part.as_str()))
            };
            let all = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(e, w)| fits(e, w));
            assert!(all, "{at}: wanted {wanted:#?}, on record is {found:#?}");
            found.iter().for_each(reads_well);
        }
    }

    async fn refusals(&self) -> (Vec<Entry>, i64) {
        self.trail.flush().await.unwrap();
        let after = self.seen.load(Ordering::Relaxed);
        let filter = Filter { after_seq: Some(after), limit: 10_000, ..Filter::default() };
        let logged = self.store.audit(&filter).await.unwrap();
        let last = logged.last().map_or(after, |one| one.seq);
        let refused = logged.into_iter().map(|one| one.entry).filter(|entry| entry.event.refusal().is_some());
        let each = refused.flat_map(|entry| {
            let times = usize::try_from(entry.times).unwrap();
            std::iter::repeat_n(entry, times)
        });
        (each.collect(), last)
    }
}

/// One line, which neither steers a terminal nor shows the inside of the program.
fn reads_well(entry: &Entry) {
    let why = entry.event.refusal().unwrap();
    assert!(why.chars().any(char::is_alphabetic) && why.chars().count() <= 400, "{why:?}");
    assert!(!why.chars().any(char::is_control) && !why.contains("panicked"), "{why:?}");
}
