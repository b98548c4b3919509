//! Progress as text that only grows, as BuildKit's tools print it with `--progress=plain`: `#3 [2/4] RUN make`, its
//! output with the seconds since it began, and how it ended. One step speaks at a time; another gets its turn when it
//! ends or has waited.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use super::collect::{Lines, Step, Steps};
use super::shown::{bytes, line, seconds};
use super::{Moment, SolveEvent, VertexLog, VertexStatus};

/// How long a step has the word before it may be interrupted, and how much the others may have to say by then.
const TURN: Duration = Duration::from_secs(5);
const WAITING_LIMIT: usize = 2_000;
/// An action's progress is told when it has come so much further, or so much later.
const NEWS_SHARE: f64 = 0.05;
const NEWS_AFTER: Duration = Duration::from_secs(5);
/// Last lines of output, repeated for a step that failed.
const TAIL: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Plain {
    steps: Steps,
    said: HashMap<usize, Said>,
    /// Who has the word, since when.
    current: Option<(usize, Moment)>,
    numbers: usize,
    out: String,
}

/// What was said of a step, and what waits to be.
#[derive(Debug, Default)]
struct Said {
    /// Its number; 0 as long as nothing was said.
    number: usize,
    waiting: Vec<String>,
    waiting_since: Option<Moment>,
    lines: Lines,
    /// When the line that has no end yet was added to.
    stamp: String,
    statuses: HashMap<String, (i64, Option<Moment>)>,
    tail: VecDeque<String>,
    /// Whether its end was said.
    ended: bool,
}

impl Said {
    fn wait(&mut self, text: String, now: Moment) {
        self.waiting_since.get_or_insert(now);
        self.waiting.push(text);
    }

    fn log(&mut self, text: String, stamp: &str, now: Moment) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        let text = format!("{stamp} {text}");
        self.tail.push_back(text.clone());
        self.wait(text, now);
    }
}

impl Plain {
    pub fn update(&mut self, events: &[SolveEvent], now: Moment) -> String {
        let mut touched = BTreeSet::new();
        for event in events {
            touched.extend(self.take(event, now));
        }
        // those that have ended have the last word about themselves at once, the current one first
        let ended = touched.iter().filter_map(|place| {
            let step = self.steps.get(*place).filter(|step| step.is_started() && step.is_completed())?;
            let said = self.said.get(place)?;
            let silent = said.ended && said.waiting.is_empty();
            (!silent).then_some((!self.is_current(*place), step.ended(), *place))
        });
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        for (_, _, place) in ended {
            self.speak(place, now);
        }
        if let Some((place, _)) = self.current
            && self.said.get(&place).is_some_and(|said| !said.waiting.is_empty())
        {
            self.speak(place, now);
        }
        self.turn(now);
        std::mem::take(&mut self.out)
    }

    fn is_current(&self, place: usize) -> bool {
        self.current.is_some_and(|(current, _)| current == place)
    }

    /// What is left to say, and the output of what failed once more.
    pub fn finish(&mut self, now: Moment) -> String {
        let left: Vec<usize> =
            self.steps.iter().filter(|(_, step)| step.is_started()).map(|(at, _)| at).collect();
        for place in left {
            let open = self.said.entry(place).or_default();
            if let Some(text) = open.lines.rest() {
                let stamp = std::mem::take(&mut open.stamp);
                open.log(text, &stamp, now);
            }
            if !open.waiting.is_empty() || (!open.ended && open.number == 0) {
                self.speak(place, now);
            }
        }
        self.out.push_str(&failures(&self.steps, |place| {
            self.said.get(&place).map(|said| said.tail.iter().cloned().collect()).unwrap_or_default()
        }));
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, event: &SolveEvent, now: Moment) -> Option<usize> {
        let place = self.steps.take(event, now)?;
        let step = self.steps.get(place)?;
        let said = self.said.entry(place).or_default();
        match event {
            SolveEvent::Vertex(_) => {
                if step.is_started() && !step.is_completed() {
                    said.ended = false;
                    said.waiting_since.get_or_insert(now);
                }
            }
            SolveEvent::Status(status) => {
                if let Some(text) = news(said, status) {
                    said.wait(text, now);
                }
            }
            SolveEvent::Warning(warning) => said.wait(format!("WARN: {}", line(&warning.short)), now),
            SolveEvent::Log(log) => {
                let stamp = stamp(step, log);
                for text in said.lines.take(&log.data) {
                    said.log(text, &stamp, now);
                }
                said.stamp = stamp;
            }
        }
        if said.waiting.len() > WAITING_LIMIT {
            self.speak(place, now);
        }
        Some(place)
    }

    /// Gives the word to whom it is due.
    fn turn(&mut self, now: Moment) {
        let waiting = self.said.iter().filter(|(place, said)| {
            let begun = self.steps.get(**place).is_some_and(|step| step.is_started() && !step.is_completed());
            begun
                && said.waiting_since.is_some()
                && self.current.is_none_or(|(current, _)| current != **place)
        });
        let Some((place, since)) =
            waiting.filter_map(|(p, s)| Some((*p, s.waiting_since?))).min_by_key(|(p, s)| (*s, *p))
        else {
            return;
        };
        let due = match self.current {
            None => true,
            Some((_, taken)) => now.since(taken) >= TURN && now.since(since) >= TURN,
        };
        if due {
            self.speak(place, now);
        }
    }

    /// Says all that waits to be said of a step.
    fn speak(&mut self, place: usize, now: Moment) {
        let Some(step) = self.steps.get(place) else { return };
        let said = self.said.entry(place).or_default();
        let first = self.numbers == 0;
        if said.number == 0 {
            self.numbers += 1;
            said.number = self.numbers;
        }
        let number = said.number;
        let out = &mut self.out;
        if self.current.is_none_or(|(current, _)| current != place) {
            if let Some((left, _)) = self.current
                && let Some(left) = self.said.get(&left)
            {
                let _ = writeln!(out, "#{} ...", left.number);
            }
            if !first {
                out.push('\n');
            }
            let _ = writeln!(out, "#{number} {}", line(&step.name));
            self.current = Some((place, now));
        }
        let Some(said) = self.said.get_mut(&place) else { return };
        let ends = step.is_completed();
        if ends && let Some(text) = said.lines.rest() {
            let stamp = std::mem::take(&mut said.stamp);
            said.log(text, &stamp, now);
        }
        said.waiting_since = None;
        for text in said.waiting.drain(..) {
            let _ = writeln!(out, "#{number} {text}");
        }
        if ends {
            said.ended = true;
            self.current = None;
            let _ = writeln!(out, "#{number} {}", ending(step, now));
        }
    }
}

fn ending(step: &Step, now: Moment) -> String {
    match &step.error {
        Some(_) if step.is_canceled() => "CANCELED".to_owned(),
        Some(error) => format!("ERROR: {}", line(error)),
        None if step.cached => "CACHED".to_owned(),
        None => format!("DONE {}", seconds(step.elapsed(now))),
    }
}

/// Seconds since the step began, in as many digits as they are worth.
fn stamp(step: &Step, log: &VertexLog) -> String {
    let since = step.began().zip(log.at).map_or(Duration::ZERO, |(began, at)| at.since(began)).as_secs_f64();
    match since {
        s if s < 10.0 => format!("{s:.3}"),
        s if s < 100.0 => format!("{s:.2}"),
        s => format!("{s:.1}"),
    }
}

/// How an action inside a step stands, if that is worth a line.
fn news(said: &mut Said, status: &VertexStatus) -> Option<String> {
    if let Some((current, at)) = said.statuses.get(&status.id)
        && status.completed.is_none()
    {
        let further = status.current.saturating_sub(*current) as f64;
        let share = if status.total > 0 { further / status.total as f64 } else { 0.0 };
        let later = status.at.zip(*at).map_or(Duration::ZERO, |(now, then)| now.since(then));
        if share < NEWS_SHARE && later < NEWS_AFTER {
            return None;
        }
    }
    if said.statuses.len() < WAITING_LIMIT || said.statuses.contains_key(&status.id) {
        said.statuses.insert(status.id.clone(), (status.current, status.at));
    }
    let mut text = line(&status.id);
    text.push_str(&amount(status));
    let took = status.completed.or(status.at).zip(status.started).map(|(end, start)| end.since(start));
    if let Some(took) = took.filter(|took| took.as_secs_f64() > 0.01) {
        let _ = write!(text, " {}", seconds(took));
    }
    if status.completed.is_some() {
        text.push_str(" done");
    }
    Some(text)
}

/// How much of an action is done, with a space before it.
pub(super) fn amount(status: &VertexStatus) -> String {
    match (status.current, status.total) {
        (0, 0) => String::new(),
        (current, 0) => format!(" {}", bytes(current)),
        (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
    }
}

/// The last output of each step that failed.
pub(super) fn failures(steps: &Steps, tail: impl Fn(usize) -> Vec<String>) -> String {
    let mut out = String::new();
    for (place, step) in steps.iter().filter(|(_, step)| step.is_failed()) {
        let _ = writeln!(out, "------\n > {}:", line(&step.name));
        for text in tail(place) {
            let _ = writeln!(out, "{text}");
        }
        out.push_str("------\n");
    }
    out
}
