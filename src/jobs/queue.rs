//! The queue of builds: how many run at once, who is next, and what those who wait are told.
//!
//! Fair between apps (see `turns`), bounded as a whole and for each app. A place is given back by dropping it, be it in
//! the line or at work, so that no way out of a build can keep one. Names of other apps are told to nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::AppName;
use crate::turns::{Ticket, Turns};

/// How often one that waits is told of a new place at most.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// Running builds of the same app that a waiting one is told by name.
const NAMED: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Builds at work at once, at least one.
    pub running: usize,
    /// Builds that wait; further ones are refused.
    pub waiting: usize,
    /// Of these, builds of one app.
    pub waiting_per_app: usize,
}

/// The line cannot take another build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{waiting} builds are waiting already")]
    Queue { waiting: usize },
    #[error("{waiting} builds of {app} are waiting already")]
    App { app: AppName, waiting: usize },
}

/// Where one that waits stands, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// 1 is next.
    pub position: usize,
    /// What of the same app is at work, oldest first, and for how long.
    pub own: Vec<(String, Duration)>,
    /// How many builds of other apps are at work.
    pub others: usize,
}

impl std::fmt::Display for Place {
    /// `3rd in line; running: shop main (2m), 1 of another app`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in line; running: ", ordinal(self.position))?;
        let mut running: Vec<String> =
            self.own.iter().take(NAMED).map(|(what, since)| format!("{what} ({})", rough(*since))).collect();
        match self.own.len().saturating_sub(NAMED) {
            0 => {}
            more => running.push(format!("{more} more of this app")),
        }
        match self.others {
            0 => {}
            1 => running.push("1 build of another app".to_owned()),
            n => running.push(format!("{n} builds of other apps")),
        }
        f.write_str(&if running.is_empty() { "nothing yet".to_owned() } else { running.join(", ") })
    }
}

/// The queue as it is, for metrics and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub limits: Limits,
    /// At work, oldest first.
    pub running: Vec<Entry>,
    /// The next first.
    pub waiting: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub app: AppName,
    /// As in `shop main`.
    pub what: String,
    /// Since it waits or runs.
    pub since: Duration,
}

/// Clones are the same queue.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
    tell_every: Duration,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    /// Counts the changes of `state`.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    turns: Turns<AppName, ()>,
    known: BTreeMap<Ticket, Known>,
    /// The line's order, as long as nothing changes.
    positions: Option<BTreeMap<Ticket, usize>>,
}

struct Known {
    app: AppName,
    what: String,
    since: Instant,
    running: bool,
}

/// A place in the line, and later at work; dropping it gives it back.
#[must_use]
pub struct Slot {
    shared: Arc<Shared>,
    app: AppName,
    ticket: Ticket,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { running: limits.running.max(1), ..limits };
        let (changes, _) = watch::channel(0);
        let shared = Arc::new(Shared { limits, state: Mutex::default(), changes });
        Self { shared, tell_every: TELL_EVERY }
    }

    /// Waits for a turn; `what` is shown to pushers of the same app, as in `shop main`. `on_place` is called when it must
    /// wait and whenever its place has changed, every few seconds at most. Dropping the future gives the place up.
    pub async fn enter(
        &self,
        app: &AppName,
        what: impl Into<String>,
        on_place: impl Fn(Place),
    ) -> Result<Slot, Full> {
        let mut changes = self.shared.changes.subscribe();
        let slot = self.shared.join(app, what.into())?;
        let mut told: Option<Place> = None;
        let mut tell_at = Instant::now();
        loop {
            changes.borrow_and_update();
            let Some(place) = self.shared.place(&slot) else { return Ok(slot) };
            let news = told.as_ref().is_none_or(|told| !told.reads_as(&place));
            let later = news && Instant::now() < tell_at;
            if news && !later {
                on_place(place.clone());
                told = Some(place);
                tell_at = Instant::now() + self.tell_every;
            }
            tokio::select! {
                // the sender lives as long as the queue does
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(tell_at), if later => {}
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.state();
        let entry = |known: &Known| Entry {
            app: known.app.clone(),
            what: known.what.clone(),
            since: known.since.elapsed(),
        };
        let mut running: Vec<&Known> = state.known.values().filter(|known| known.running).collect();
        running.sort_by_key(|known| known.since);
        Snapshot {
            limits: self.shared.limits,
            running: running.into_iter().map(entry).collect(),
            waiting: state.turns.order().iter().filter_map(|t| state.known.get(t)).map(entry).collect(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // nothing panics while it is held but for a lack of memory
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Self>, app: &AppName, what: String) -> Result<Slot, Full> {
        let ticket = {
            let mut state = self.state();
            let must_wait = state.turns.at_work() >= self.limits.running;
            if must_wait {
                let (all, of_app) = (state.turns.waiting(), state.turns.waiting_of(app));
                if all >= self.limits.waiting {
                    return Err(Full::Queue { waiting: all });
                }
                if of_app >= self.limits.waiting_per_app {
                    return Err(Full::App { app: app.clone(), waiting: of_app });
                }
            }
            let ticket = state.turns.join(app, ());
            let known = Known { app: app.clone(), what, since: Instant::now(), running: false };
            state.known.insert(ticket, known);
            state.fill(self.limits.running);
            ticket
        };
        self.tell();
        Ok(Slot { shared: self.clone(), app: app.clone(), ticket })
    }

    fn leave(&self, app: &AppName, ticket: Ticket) {
        {
            let mut state = self.state();
            state.turns.leave(app, ticket);
            state.known.remove(&ticket);
            state.fill(self.limits.running);
        }
        self.tell();
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// None once it is at work.
    fn place(&self, slot: &Slot) -> Option<Place> {
        let mut state = self.state();
        if state.known.get(&slot.ticket).is_none_or(|known| known.running) {
            return None;
        }
        let position = state.position(slot.ticket);
        let mut own: Vec<(String, Duration)> = state
            .known
            .values()
            .filter(|known| known.running && known.app == slot.app)
            .map(|known| (known.what.clone(), known.since.elapsed()))
            .collect();
        own.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        let others = state.turns.at_work().saturating_sub(own.len());
        Some(Place { position, own, others })
    }
}

impl State {
    fn fill(&mut self, running: usize) {
        self.positions = None;
        while self.turns.at_work() < running {
            let Some((ticket, ())) = self.turns.grant(|_, ()| true) else { return };
            if let Some(known) = self.known.get_mut(&ticket) {
                known.running = true;
                known.since = Instant::now();
            }
        }
    }

    fn position(&mut self, ticket: Ticket) -> usize {
        let positions =
            self.positions.get_or_insert_with(|| self.turns.order().into_iter().zip(1..).collect());
        positions.get(&ticket).copied().unwrap_or(1)
    }
}

impl Place {
    /// Whether it says the same but for the passing of time.
    fn reads_as(&self, other: &Self) -> bool {
        let names = |place: &Self| place.own.iter().map(|(what, _)| what.clone()).collect::<Vec<_>>();
        self.position == other.position && self.others == other.others && names(self) == names(other)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.leave(&self.app, self.ticket);
    }
}

fn ordinal(n: usize) -> String {
    let suffix = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

/// `40s`, `2m`, `3h`
fn rough(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s => format!("{}h", s / 3_600),
    }
}

#[cfg(test)]
mod tests;
