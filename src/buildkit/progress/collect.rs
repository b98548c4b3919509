//! What is known of each step, folded from events. Pure: no clock, no output; both renderers for people stand on it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Moment, SolveEvent, Vertex, VertexStatus};

/// Most steps, runs of one step, and actions of one step that are remembered.
const STEP_LIMIT: usize = 20_000;
const RUN_LIMIT: usize = 1_000;
const STATUS_LIMIT: usize = 1_000;

/// One step, or a progress group's steps as one.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub name: String,
    /// From when to when it worked: once, mostly.
    runs: BTreeMap<Moment, Option<Moment>>,
    pub cached: bool,
    pub error: Option<String>,
    /// What goes on in it, in the order of appearance.
    pub statuses: Vec<VertexStatus>,
    /// The steps that it stands for, if it is a group, by digest.
    members: BTreeMap<String, Vertex>,
    /// A group of which only weak members have begun.
    pub hidden: bool,
}

impl Step {
    pub fn is_started(&self) -> bool {
        !self.runs.is_empty() && !self.hidden
    }

    pub fn is_completed(&self) -> bool {
        !self.runs.is_empty() && self.runs.values().all(Option::is_some)
    }

    pub fn is_canceled(&self) -> bool {
        self.error.as_deref().is_some_and(|error| error.ends_with("context canceled"))
    }

    /// Whether it failed by itself, and not because another step did.
    pub fn is_failed(&self) -> bool {
        self.error.is_some() && !self.is_canceled()
    }

    /// When its latest run began.
    pub fn began(&self) -> Option<Moment> {
        self.runs.last_key_value().map(|(start, _)| *start)
    }

    /// When its latest run ended.
    pub fn ended(&self) -> Option<Moment> {
        self.runs.values().filter_map(|stop| *stop).max()
    }

    /// How long it has worked until `now`, where runs that overlap count once.
    pub fn elapsed(&self, now: Moment) -> Duration {
        let mut total = Duration::ZERO;
        let mut until: Option<Moment> = None;
        for (start, stop) in &self.runs {
            let stop = stop.unwrap_or(now);
            let from = until.map_or(*start, |until| until.max(*start));
            total += stop.since(from);
            until = Some(until.map_or(stop, |until| until.max(stop)));
        }
        total
    }

    fn run(&mut self, vertex: &Vertex) {
        if let Some(started) = vertex.started
            && (self.runs.len() < RUN_LIMIT || self.runs.contains_key(&started))
        {
            self.runs.insert(started, vertex.completed);
        }
    }

    fn regroup(&mut self) {
        self.cached = self.members.values().all(|member| member.cached);
        self.error = self.members.values().find_map(|member| member.error.clone());
        let strong = |v: &Vertex| v.started.is_some() && v.group.as_ref().is_some_and(|group| !group.weak);
        self.hidden = self.error.is_none() && !self.members.values().any(strong);
    }
}

/// All steps of a build.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// By digest, or by a group's id.
    places: HashMap<String, usize>,
    all: Vec<Step>,
    /// When the first step began.
    pub began: Option<Moment>,
    /// What to add to the daemon's clock to get ours.
    shift: i64,
}

impl Steps {
    /// Takes an event in, and says which step it is about.
    pub fn take(&mut self, event: &SolveEvent, now: Moment) -> Option<usize> {
        match event {
            SolveEvent::Vertex(vertex) => self.vertex(vertex, now),
            SolveEvent::Status(status) => {
                let place = self.place(&status.vertex)?;
                let statuses = &mut self.all.get_mut(place)?.statuses;
                if let Some(known) = statuses.iter_mut().find(|known| known.id == status.id) {
                    known.clone_from(status);
                } else if statuses.len() < STATUS_LIMIT {
                    statuses.push(status.clone());
                }
                Some(place)
            }
            SolveEvent::Log(log) => self.place(&log.vertex),
            SolveEvent::Warning(warning) => self.place(&warning.vertex),
        }
    }

    fn vertex(&mut self, vertex: &Vertex, now: Moment) -> Option<usize> {
        if let (None, Some(started)) = (self.began, vertex.started) {
            self.began = Some(started);
            self.shift = now.ns().saturating_sub(started.ns());
        }
        let key = vertex.group.as_ref().map_or(&vertex.digest, |group| &group.id);
        let place = self.find_or_make(key)?;
        let step = self.all.get_mut(place)?;
        step.run(vertex);
        match &vertex.group {
            Some(group) => {
                step.name.clone_from(&group.name);
                if step.members.len() < STEP_LIMIT {
                    step.members.insert(vertex.digest.clone(), vertex.clone());
                }
                step.regroup();
                self.places.insert(vertex.digest.clone(), place);
            }
            // one that is named again before it begins takes nothing back
            None if vertex.started.is_some() || step.runs.is_empty() => {
                step.name.clone_from(&vertex.name);
                step.cached = vertex.cached;
                step.error.clone_from(&vertex.error);
            }
            None => {}
        }
        Some(place)
    }

    fn find_or_make(&mut self, key: &str) -> Option<usize> {
        if let Some(place) = self.place(key) {
            return Some(place);
        }
        if self.all.len() >= STEP_LIMIT {
            return None;
        }
        self.all.push(Step::default());
        self.places.insert(key.to_owned(), self.all.len() - 1);
        Some(self.all.len() - 1)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.places.get(key).copied()
    }

    pub fn get(&self, place: usize) -> Option<&Step> {
        self.all.get(place)
    }

    /// Every step with its place, in the order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.all.iter().enumerate().filter(|(_, step)| !step.hidden)
    }

    /// The moment that it is by the daemon's clock, when it is `now` by ours.
    pub fn daemon_time(&self, now: Moment) -> Moment {
        now.shifted(self.shift.saturating_neg())
    }

    /// Steps that have ended, and all of them.
    pub fn counts(&self) -> (usize, usize) {
        self.iter().fold((0, 0), |(done, all), (_, step)| (done + usize::from(step.is_completed()), all + 1))
    }
}

/// Output of one step, cut into lines as it comes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

/// Longest line; longer ones are broken.
const LINE_LIMIT: usize = 16 << 10;

impl Lines {
    /// The lines that `data` completes.
    pub fn take(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_LIMIT) {
                self.partial.extend_from_slice(part);
                if self.partial.ends_with(b"\n") || self.partial.len() >= LINE_LIMIT {
                    lines.extend(self.rest());
                }
            }
        }
        lines
    }

    /// The line that has no end yet, as it stands.
    pub fn unfinished(&self) -> Option<String> {
        (!self.partial.is_empty()).then(|| super::shown::line(&String::from_utf8_lossy(&self.partial)))
    }

    /// The line that will have no end any more.
    pub fn rest(&mut self) -> Option<String> {
        let line = self.unfinished();
        self.partial.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::ProgressGroup;

    fn at(ms: i64) -> Option<Moment> {
        Some(Moment::from_ms(ms))
    }

    fn vertex(digest: &str, started: i64, completed: Option<i64>) -> Vertex {
        let completed = completed.map(Moment::from_ms);
        Vertex {
            digest: digest.into(),
            name: digest.into(),
            started: at(started),
            completed,
            ..Vertex::default()
        }
    }

    #[test]
    fn overlapping_runs_count_once() {
        let mut steps = Steps::default();
        for (start, stop) in [(0, 1000), (500, 2000), (3000, 4000)] {
            steps.take(&SolveEvent::Vertex(vertex("a", start, Some(stop))), Moment::from_ms(0));
        }
        let step = steps.get(0).unwrap();
        assert_eq!(step.elapsed(Moment::from_ms(9000)), Duration::from_secs(3));
        assert!(step.is_completed());
    }

    #[test]
    fn a_group_is_one_step_and_weak_members_alone_do_not_show_it() {
        let mut steps = Steps::default();
        let member = |digest: &str, weak, started| Vertex {
            group: Some(ProgressGroup { id: "g".into(), name: "group".into(), weak }),
            cached: true,
            ..vertex(digest, started, Some(started + 10))
        };
        steps.take(&SolveEvent::Vertex(member("a", true, 0)), Moment::from_ms(0));
        assert_eq!(steps.iter().count(), 0);
        steps.take(&SolveEvent::Vertex(member("b", false, 5)), Moment::from_ms(0));
        let shown: Vec<_> = steps.iter().map(|(_, step)| (step.name.clone(), step.cached)).collect();
        assert_eq!(shown, [("group".to_owned(), true)]);
        let log = super::super::VertexLog { vertex: "a".into(), ..Default::default() };
        assert_eq!(steps.take(&SolveEvent::Log(log), Moment::from_ms(0)), Some(0));
    }

    #[test]
    fn the_daemons_clock_is_told_by_its_first_step() {
        let mut steps = Steps::default();
        steps.take(&SolveEvent::Vertex(vertex("a", 1_000, None)), Moment::from_ms(61_000));
        assert_eq!(steps.daemon_time(Moment::from_ms(62_000)), Moment::from_ms(2_000));
    }

    #[test]
    fn lines_are_joined_over_pieces_and_broken_when_too_long() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\nb"), ["a"]);
        assert_eq!(lines.take(b"c\r\n\n"), ["bc", ""]);
        assert_eq!(lines.take(&[b'x'; LINE_LIMIT + 1]).len(), 1);
        assert_eq!(lines.rest().as_deref(), Some("x"));
        assert_eq!(lines.rest(), None);
    }
}
