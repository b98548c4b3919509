//! One build's record while it runs: numbers its events, shows them to the pusher, writes them to the store.
//!
//! The sink never blocks a build. The stored log is bounded; what exceeds it is dropped with a mark, steps and
//! results are always kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::event::{BuildEvent, EventSink, Recorded};
use crate::model::{BuildId, KindName};
use crate::notify::text::TextRenderer;
use crate::store::{Store, StoreError};

/// Log lines of one build that are kept, in bytes; BuildKit itself clips a step at 2 MiB, unless told otherwise.
const LOG_LIMIT_BYTES: usize = 64 << 20;
/// What a line costs besides its text, waiting and stored: without it, empty lines would be without end.
const LINE_COST_BYTES: usize = 128;
/// Events per transaction of the writer.
const BATCH_EVENTS: usize = 512;
/// How long an event waits for company before it is written: each transaction costs a flush of the disk, and there is one
/// writer for all builds. Whoever follows the stored log is as far behind; the pusher is not.
const LINGER: Duration = Duration::from_millis(200);

/// Where the rendered lines go; called with whole lines, must not block.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Records one build. Dropping it without `finish` leaves the events written so far.
pub struct Recorder {
    shared: Arc<Shared>,
    writer: tokio::task::JoinHandle<Result<(), StoreError>>,
    heartbeat: tokio::task::JoinHandle<()>,
}

struct Shared {
    began: Instant,
    /// What its time began with: a build that goes on after a restart has events already.
    offset_ms: u64,
    state: Mutex<State>,
    lines: LineSink,
}

struct State {
    next_seq: u64,
    logged_bytes: usize,
    kind: Option<KindName>,
    clipped: bool,
    renderer: TextRenderer,
    last_line: Instant,
    /// When something last came of the build; our own notes are no sign of life.
    last_sign: Instant,
    store: Option<mpsc::UnboundedSender<Recorded>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // a renderer that panicked mid-line has lost a line, not its state
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        elapsed.saturating_add(self.offset_ms)
    }

    fn take(&self, event: BuildEvent) {
        let mut state = self.state();
        if let BuildEvent::StepLog { line, .. } = &event {
            state.logged_bytes = state.logged_bytes.saturating_add(line.len() + LINE_COST_BYTES);
            if state.logged_bytes > LOG_LIMIT_BYTES {
                state.last_sign = Instant::now();
                if state.clipped {
                    return;
                }
                state.clipped = true;
                let text =
                    format!("log limit of {} MiB reached: further output is dropped", LOG_LIMIT_BYTES >> 20);
                self.put(&mut state, BuildEvent::Note { text });
                return;
            }
        }
        self.put(&mut state, event);
    }

    fn put(&self, state: &mut State, event: BuildEvent) {
        if let BuildEvent::Detected { kind, .. } = &event {
            state.kind = Some(*kind);
        }
        let recorded = Recorded { seq: state.next_seq, at_ms: self.elapsed_ms(), event };
        state.next_seq += 1;
        if !matches!(recorded.event, BuildEvent::Note { .. }) {
            state.last_sign = Instant::now();
        }
        for line in state.renderer.render(&recorded) {
            (self.lines)(&line);
            state.last_line = Instant::now();
        }
        if let Some(store) = &state.store {
            // the writer ends early only when the store fails, and `finish` reports that
            let _ = store.send(recorded);
        }
    }
}

impl Recorder {
    /// Begins the record of a build whose row exists already, or goes on where one broke off.
    pub async fn resume(
        store: Store,
        build: BuildId,
        color: bool,
        heartbeat: Duration,
        lines: LineSink,
    ) -> Result<Self, StoreError> {
        let last = store.last_event(&build).await?;
        let (next_seq, offset_ms) = last.map_or((0, 0), |(seq, at_ms)| (seq.saturating_add(1), at_ms));
        Ok(Self::begin_at(store, build, color, heartbeat, lines, next_seq, offset_ms))
    }

    /// Begins the record of a build that has no events.
    pub fn begin(store: Store, build: BuildId, color: bool, heartbeat: Duration, lines: LineSink) -> Self {
        Self::begin_at(store, build, color, heartbeat, lines, 0, 0)
    }

    fn begin_at(
        store: Store,
        build: BuildId,
        color: bool,
        heartbeat: Duration,
        lines: LineSink,
        next_seq: u64,
        offset_ms: u64,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let now = Instant::now();
        let shared = Arc::new(Shared {
            began: now,
            offset_ms,
            state: Mutex::new(State {
                next_seq,
                logged_bytes: 0,
                kind: None,
                clipped: false,
                renderer: TextRenderer::new(color),
                last_line: now,
                last_sign: now,
                store: Some(sender),
            }),
            lines,
        });
        let writer = tokio::spawn(write(store, build, receiver));
        let heartbeat = tokio::spawn(beat(shared.clone(), heartbeat));
        Self { shared, writer, heartbeat }
    }

    pub fn sink(&self) -> EventSink {
        let shared = self.shared.clone();
        EventSink::new(move |event| shared.take(event))
    }

    pub fn elapsed_ms(&self) -> u64 {
        self.shared.elapsed_ms()
    }

    /// What was detected, once it was.
    pub fn kind(&self) -> Option<KindName> {
        self.shared.state().kind
    }

    /// Returns when nothing has come of the build for `limit`, counted from now at the earliest.
    pub async fn silent_for(&self, limit: Duration) {
        let began = Instant::now();
        loop {
            let silent = self.shared.state().last_sign.max(began).elapsed();
            match limit.checked_sub(silent) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// Waits until every event is in the store.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.heartbeat.abort();
        // sinks may live on in clones; taking the sender away is what ends the writer
        self.shared.state().store = None;
        match self.writer.await {
            Ok(result) => result,
            Err(e) => {
                tracing::error!(error = %e, "the event writer ended unexpectedly");
                Ok(())
            }
        }
    }
}

async fn write(
    store: Store,
    build: BuildId,
    mut events: mpsc::UnboundedReceiver<Recorded>,
) -> Result<(), StoreError> {
    let mut batch = Vec::with_capacity(BATCH_EVENTS);
    while events.recv_many(&mut batch, BATCH_EVENTS).await > 0 {
        let gathered = gather(&mut events, &mut batch);
        // ends early when the batch is full, and when no more will come
        let _ = tokio::time::timeout(LINGER, gathered).await;
        store.append_events(&build, &batch).await?;
        batch.clear();
    }
    Ok(())
}

async fn gather(events: &mut mpsc::UnboundedReceiver<Recorded>, batch: &mut Vec<Recorded>) {
    while let room @ 1.. = BATCH_EVENTS.saturating_sub(batch.len()) {
        if events.recv_many(batch, room).await == 0 {
            return;
        }
    }
}

/// Tells the pusher that the build is alive whenever nothing was shown for `interval`.
async fn beat(shared: Arc<Shared>, interval: Duration) {
    let mut next = interval;
    loop {
        tokio::time::sleep(next).await;
        let mut state = shared.state();
        let silent = state.last_line.elapsed();
        if silent >= interval {
            (shared.lines)(&state.renderer.heartbeat(shared.elapsed_ms()));
            state.last_line = Instant::now();
            next = interval;
        } else {
            next = interval.saturating_sub(silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, BuildState};

    async fn store_with_build(dir: &std::path::Path) -> (Store, BuildId) {
        let store = Store::open(dir).await.unwrap();
        store.create_app(&"shop".parse().unwrap(), None).await.unwrap();
        let id = BuildId::generate();
        let build = Build {
            state: BuildState::Running,
            started_at_ms: 1,
            ..Build::queued(
                id.clone(),
                "shop".parse().unwrap(),
                "ada".parse().unwrap(),
                "refs/heads/main".parse().unwrap(),
                "a".repeat(40).parse().unwrap(),
            )
        };
        store.create_build(&build).await.unwrap();
        (store, id)
    }

    fn screen() -> (LineSink, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        (Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned())), lines)
    }

    #[tokio::test]
    async fn what_was_shown_is_stored_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = store_with_build(dir.path()).await;
        let (lines, shown) = screen();
        let recorder = Recorder::begin(store.clone(), id.clone(), false, Duration::from_secs(60), lines);
        let events = recorder.sink();
        for n in 0..1_000 {
            events.emit(BuildEvent::Note { text: format!("note {n}") });
        }
        recorder.finish().await.unwrap();
        let stored = store.events(&id, 0, 2_000).await.unwrap();
        assert_eq!(stored.len(), 1_000);
        assert!(stored.iter().enumerate().all(|(n, e)| e.seq == n as u64));
        assert_eq!(shown.lock().unwrap().last().unwrap().trim(), "note 999");
    }

    #[tokio::test]
    async fn a_flood_is_cut_with_a_mark_and_results_still_come_through() {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = store_with_build(dir.path()).await;
        let (lines, shown) = screen();
        let recorder = Recorder::begin(store.clone(), id, false, Duration::from_secs(60), lines);
        let events = recorder.sink();
        let line = "x".repeat(LOG_LIMIT_BYTES / 4);
        for _ in 0..10 {
            events.emit(BuildEvent::StepLog { step: 1, line: line.clone() });
        }
        events.emit(BuildEvent::Succeeded { duration_ms: 1 });
        recorder.finish().await.unwrap();
        let shown = shown.lock().unwrap();
        assert_eq!(shown.iter().filter(|l| l.contains("log limit")).count(), 1);
        assert!(shown.last().unwrap().contains("Done"));
    }

    #[test]
    fn empty_lines_are_not_without_end() {
        let (lines, shown) = screen();
        let shared = Shared {
            began: Instant::now(),
            offset_ms: 0,
            state: Mutex::new(State {
                next_seq: 0,
                logged_bytes: LOG_LIMIT_BYTES - 2 * LINE_COST_BYTES,
                clipped: false,
                kind: None,
                renderer: TextRenderer::new(false),
                last_line: Instant::now(),
                last_sign: Instant::now(),
                store: None,
            }),
            lines,
        };
        for _ in 0..10 {
            shared.take(BuildEvent::StepLog { step: 1, line: String::new() });
        }
        let shown = shown.lock().unwrap();
        assert_eq!(shown.len(), 3, "two lines and the mark: {shown:?}");
        assert!(shown[2].contains("log limit of 64 MiB reached"), "{shown:?}");
    }

    #[tokio::test]
    async fn silence_is_broken_by_a_heartbeat() {
        let began = Instant::now();
        let (lines, shown) = screen();
        let shared = Arc::new(Shared {
            began,
            offset_ms: 0,
            state: Mutex::new(State {
                next_seq: 0,
                logged_bytes: 0,
                clipped: false,
                kind: None,
                renderer: TextRenderer::new(false),
                last_line: began,
                last_sign: began,
                store: None,
            }),
            lines,
        });
        // no interval at all: every wake-up finds silence
        let beat = tokio::spawn(beat(shared, Duration::ZERO));
        while shown.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        beat.abort();
        assert!(shown.lock().unwrap()[0].contains("still"));
    }
}
