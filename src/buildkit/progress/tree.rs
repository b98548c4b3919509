//! Progress on a terminal, redrawn in place: a line for each platform with what is done of it, and under it the steps
//! that work or failed, with what goes on in them and their latest output. Steps that ended well are a number.
//!
//! Invariants: no line is wider than the terminal, and no frame higher, so that going up again always finds its top; of
//! all that is foreign, no control character is printed.

use std::collections::{HashMap, VecDeque};

use super::collect::{Lines, Step, Steps};
use super::plain::{amount, failures};
use super::shown::{fit, line, seconds, width};
use super::{Moment, Size, SolveEvent};

/// Latest output shown of a step, and kept of it for the case that it fails.
const SHOWN: usize = 4;
const TAIL: usize = 20;
/// Actions shown of a step.
const ACTIONS: usize = 4;
/// Warnings repeated at the end.
const WARNING_LIMIT: usize = 50;

const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const FAINT: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

#[derive(Debug, Default)]
pub(super) struct Tree {
    steps: Steps,
    output: HashMap<usize, Output>,
    warnings: Vec<String>,
    /// Lines of the frame that stands there.
    drawn: usize,
    color: bool,
}

#[derive(Debug, Default)]
struct Output {
    lines: Lines,
    tail: VecDeque<String>,
}

/// One line of a frame.
struct Row {
    /// What goes first when the terminal is too low; 0 stays.
    spare: u8,
    color: &'static str,
    left: String,
    right: String,
}

/// Steps that belong together.
struct Group<'a> {
    label: String,
    steps: Vec<(usize, &'a Step)>,
}

impl Tree {
    pub fn new(color: bool) -> Self {
        Self { color, ..Self::default() }
    }

    pub fn take(&mut self, events: &[SolveEvent], now: Moment) {
        for event in events {
            let Some(place) = self.steps.take(event, now) else { continue };
            match event {
                SolveEvent::Log(log) => {
                    let output = self.output.entry(place).or_default();
                    for text in output.lines.take(&log.data) {
                        if output.tail.len() == TAIL {
                            output.tail.pop_front();
                        }
                        output.tail.push_back(text);
                    }
                }
                SolveEvent::Warning(warning) if self.warnings.len() < WARNING_LIMIT => {
                    let place = warning.source.as_ref().and_then(|source| {
                        Some(format!(" ({}:{})", line(&source.filename), source.lines()?.0))
                    });
                    self.warnings.push(format!("{}{}", line(&warning.short), place.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    /// What turns the frame that stands there into the current one.
    pub fn frame(&mut self, now: Moment, size: Size) -> String {
        let mut rows = self.rows(now, false);
        let limit = usize::from(size.rows).saturating_sub(1).max(1);
        for spare in (1..=3).rev() {
            while rows.len() > limit {
                let Some(at) = rows.iter().position(|row| row.spare == spare) else { break };
                rows.remove(at);
            }
        }
        if rows.len() > limit && limit == 1 {
            rows.truncate(1);
        } else if rows.len() > limit {
            let more = rows.len() - limit + 1;
            rows.truncate(limit - 1);
            rows.push(Row {
                spare: 0,
                color: "",
                left: format!(" ... and {more} more"),
                right: String::new(),
            });
        }
        self.draw(rows, size)
    }

    /// Takes the frame away, so that something else can be printed where it stood; the next one comes under that.
    pub fn withdraw(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            drawn => format!("\u{1b}[{drawn}A\r\u{1b}[J"),
        }
    }

    /// The last frame, the output of what failed, and the warnings.
    pub fn finish(&mut self, now: Moment, size: Size) -> String {
        let rows = self.rows(now, true);
        let mut out = self.draw(rows, size);
        self.drawn = 0;
        out.push_str(&failures(&self.steps, |place| self.tail(place, TAIL)));
        for warning in self.warnings.drain(..) {
            out.push_str(&format!("WARN: {warning}\n"));
        }
        out
    }

    fn draw(&mut self, rows: Vec<Row>, size: Size) -> String {
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\u{1b}[{}A\r", self.drawn));
        }
        self.drawn = rows.len();
        // the last column stays free: some terminals go to the next line when it is written
        let columns = usize::from(size.columns).saturating_sub(1).max(1);
        for row in rows {
            let text = row.fitted(columns);
            match (self.color, row.color) {
                (true, color) if !color.is_empty() => out.push_str(&format!("{color}{text}{PLAIN}")),
                _ => out.push_str(&text),
            }
            out.push_str("\u{1b}[K\n");
        }
        // what an earlier, higher frame left
        out.push_str("\u{1b}[J");
        out
    }

    fn rows(&self, now: Moment, last: bool) -> Vec<Row> {
        let now = self.steps.daemon_time(now);
        let (done, all) = self.steps.counts();
        let failed = self.steps.iter().any(|(_, step)| step.is_failed());
        let state = match (failed, done == all && all > 0) {
            (true, _) => " FAILED",
            (false, true) if last => " FINISHED",
            _ => "",
        };
        let took = seconds(self.steps.began.map(|began| now.since(began)).unwrap_or_default());
        let mut rows = vec![Row {
            spare: 0,
            color: if failed { RED } else { "" },
            left: format!("[+] Building {took} ({done}/{all}){state}"),
            right: String::new(),
        }];
        for group in self.groups() {
            rows.push(group.header(now));
            for (place, step) in &group.steps {
                if !step.is_started() || (step.is_completed() && step.error.is_none()) {
                    continue;
                }
                rows.push(step_row(step, now));
                if !step.is_completed() {
                    rows.extend(action_rows(step, now));
                    rows.extend(self.tail(*place, SHOWN).into_iter().map(|text| Row {
                        spare: 3,
                        color: FAINT,
                        left: format!("      | {text}"),
                        right: String::new(),
                    }));
                }
            }
        }
        rows
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (place, step) in self.steps.iter() {
            let label = label(&step.name);
            match groups.iter_mut().find(|group| group.label == label) {
                Some(group) => group.steps.push((place, step)),
                None => groups.push(Group { label, steps: vec![(place, step)] }),
            }
        }
        groups
    }

    fn tail(&self, place: usize, most: usize) -> Vec<String> {
        let Some(output) = self.output.get(&place) else { return Vec::new() };
        let mut lines: Vec<String> = output.tail.iter().cloned().chain(output.lines.unfinished()).collect();
        lines.drain(..lines.len().saturating_sub(most));
        lines
    }
}

impl Row {
    /// In at most `columns`; what stands at the right goes where there is no room for both.
    fn fitted(&self, columns: usize) -> String {
        let right = if width(&self.right) + 12 > columns { "" } else { self.right.as_str() };
        if right.is_empty() {
            return fit(&self.left, columns).trim_end().to_owned();
        }
        let left = fit(&self.left, columns - width(right) - 1);
        let gap = columns - width(&left) - width(right);
        format!("{left}{}{right}", " ".repeat(gap))
    }
}

impl Group<'_> {
    fn header(&self, now: Moment) -> Row {
        let steps = || self.steps.iter().map(|(_, step)| *step);
        let done = steps().filter(|step| step.is_completed()).count();
        let cached = steps().filter(|step| step.cached && step.is_completed()).count();
        let mut left = format!(" {}  {done}/{}", self.label, self.steps.len());
        if cached > 0 {
            left.push_str(&format!(", {cached} cached"));
        }
        let began = steps().filter_map(Step::began).min();
        let ended = (done == self.steps.len()).then(|| steps().filter_map(Step::ended).max()).flatten();
        let right = began.map(|began| seconds(ended.unwrap_or(now).since(began))).unwrap_or_default();
        let failed = steps().any(Step::is_failed);
        Row { spare: u8::from(ended.is_some() && !failed), color: if failed { RED } else { "" }, left, right }
    }
}

fn step_row(step: &Step, now: Moment) -> Row {
    let (word, color) = match step {
        step if step.is_failed() => ("ERROR ", RED),
        step if step.is_canceled() => ("CANCELED ", YELLOW),
        _ => ("", ""),
    };
    let left = format!("   => {word}{}", line(&step.name));
    Row { spare: 0, color, left, right: seconds(step.elapsed(now)) }
}

fn action_rows(step: &Step, now: Moment) -> Vec<Row> {
    let open = step.statuses.iter().filter(|status| status.completed.is_none());
    let rows = open.take(ACTIONS).map(|status| Row {
        spare: 2,
        color: "",
        left: format!("      => {}{}", line(&status.id), amount(status)),
        right: status.started.map(|started| seconds(now.since(started))).unwrap_or_default(),
    });
    rows.collect()
}

/// The group of a step, as its name tells: the platform in `[linux/amd64 2/3] RUN make`, or what part of the work it is.
fn label(name: &str) -> String {
    let Some((inside, _)) = name.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        let exports =
            ["exporting", "pushing", "writing", "sending"].iter().any(|verb| name.starts_with(verb));
        return if exports { "export" } else { "build" }.to_owned();
    };
    let first = inside.split(' ').next().unwrap_or_default();
    let first = line(first);
    let letters = |text: &str| text.bytes().any(|b| b.is_ascii_alphabetic());
    match first.split_once('/') {
        Some((os, arch)) if letters(os) && letters(arch) => first,
        _ if first == "internal" || first == "auth" => "internal".to_owned(),
        _ => "build".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_grouped_by_what_their_names_say() {
        for (name, group) in [
            ("[linux/amd64 2/3] RUN make", "linux/amd64"),
            ("[linux/arm64/v8 builder 2/3] RUN make", "linux/arm64/v8"),
            ("[linux/amd64->arm64 build 1/2] FROM go", "linux/amd64->arm64"),
            ("[linux/amd64 internal] load metadata", "linux/amd64"),
            ("[internal] load build definition", "internal"),
            ("[2/3] RUN make", "build"),
            ("[builder 2/3] RUN make", "build"),
            ("exporting to image", "export"),
            ("resolve image config for x", "build"),
            ("[\u{1b}[2Ja/b c] x", "a/b"),
        ] {
            assert_eq!(label(name), group, "{name}");
        }
    }

    #[test]
    fn a_row_keeps_to_its_columns() {
        let row =
            |left: &str, right: &str| Row { spare: 0, color: "", left: left.into(), right: right.into() };
        assert_eq!(row("abc", "1.0s").fitted(20), "abc             1.0s");
        assert_eq!(row("abcdefghijklmnopqrstuvwxyz", "1.0s").fitted(20), "abcdefghijkl... 1.0s");
        assert_eq!(row("abcdefghijklmnopqrstuvwxyz", "1.0s").fitted(9), "abcdef...");
    }
}
