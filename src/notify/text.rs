//! Events as plain text: what a pusher reads over git's sideband, what `lemnos builds logs` prints again.
//!
//! Lines only, no cursor movement; colours when asked for. A pure function of the events, so that the stored log
//! and the live one are the same text. Builders' bookkeeping steps (`[internal] …`) appear only when they are slow.

use std::collections::BTreeMap;

use crate::event::{BuildEvent, Failure, Recorded};
use crate::model::{Form, Platform};

/// A bookkeeping step is shown once it took this long.
const SLOW_INTERNAL_MS: u64 = 2_000;

/// Renders one build's events, in order.
#[derive(Debug)]
pub struct TextRenderer {
    color: bool,
    steps: BTreeMap<u32, Step>,
    /// Progress lines already printed, so that a transfer is told once, when it is done.
    now_ms: u64,
}

#[derive(Debug)]
struct Step {
    name: String,
    started_ms: u64,
    internal: bool,
    running: bool,
    /// Whether the opening line stands on the screen.
    shown: bool,
}

#[derive(Clone, Copy)]
enum Style {
    Heading,
    Dim,
    Good,
    Warn,
    Bad,
}

impl TextRenderer {
    pub fn new(color: bool) -> Self {
        Self { color, steps: BTreeMap::new(), now_ms: 0 }
    }

    /// The lines that `recorded` adds, none for most of the bookkeeping.
    pub fn render(&mut self, recorded: &Recorded) -> Vec<String> {
        self.now_ms = self.now_ms.max(recorded.at_ms);
        match &recorded.event {
            BuildEvent::Received { reference, commit, subject, user } => vec![
                self.heading(&format!(
                    "Received {} at {}, pushed by {user}",
                    reference.short(),
                    commit.short(12)
                )),
                self.dim(&format!("       {subject}")),
            ],
            BuildEvent::Detected { kind, evidence } => {
                vec![self.heading(&format!("Build kind: {kind} ({evidence})"))]
            }
            BuildEvent::Planned { image, platforms, tags } => {
                // what runs on every platform names none
                let whom =
                    if platforms.is_empty() { String::new() } else { format!(" for {}", list(platforms)) };
                let mut lines = vec![self.heading(&format!("Building {image}{whom}"))];
                if !tags.is_empty() {
                    lines.push(self.dim(&format!("       tags when it is built: {}", list(tags))));
                }
                lines
            }
            BuildEvent::Plan { json } => json.lines().map(str::to_owned).collect(),
            BuildEvent::Note { text } => vec![format!("       {text}")],
            BuildEvent::SolveStarted { builder, platforms } => {
                vec![self.dim(&format!("       on builder {builder}: {}", list(platforms)))]
            }
            BuildEvent::Reused { children, commit, form } => vec![self.heading(&format!(
                "Nothing to build: tree and settings are those of {}, its {} again",
                commit.short(12),
                match (form, children) {
                    (Form::Artifact, _) => "artifact serves".to_owned(),
                    (_, 1) => "image serves".to_owned(),
                    (_, several) => format!("{several} images serve"),
                },
            ))],
            BuildEvent::StepStarted { step, name, platform } => {
                self.step_started(*step, name, platform.as_ref())
            }
            BuildEvent::StepDone { step, cached, duration_ms } => {
                self.step_done(*step, *cached, *duration_ms)
            }
            BuildEvent::StepFailed { step, error, duration_ms } => {
                self.step_failed(*step, error, *duration_ms)
            }
            BuildEvent::StepLog { step, line } => self.step_log(*step, line),
            BuildEvent::StepProgress { step, what, current, done, .. } => {
                self.step_progress(*step, what, *current, *done)
            }
            BuildEvent::Warning { message, url, file, line } => {
                let place = match (file, line) {
                    (Some(file), Some(line)) => format!("{file}:{line}: "),
                    (Some(file), None) => format!("{file}: "),
                    _ => String::new(),
                };
                let url = url.as_ref().map(|u| format!(" ({u})")).unwrap_or_default();
                vec![self.paint(Style::Warn, &format!("warning: {place}{message}{url}"))]
            }
            BuildEvent::Assembled { image, digest, platforms, indexed } => {
                let form = match (platforms.is_empty(), indexed) {
                    (true, _) => Form::Artifact,
                    (false, true) => Form::Index,
                    (false, false) => Form::Image,
                };
                let heading = self.heading(&format!("Pushed the {} to {image}", form.described(platforms)));
                vec![heading, format!("       {digest}")]
            }
            BuildEvent::Tagged { image, tag, .. } => vec![format!("       tagged {image}:{tag}")],
            BuildEvent::Succeeded { duration_ms } => {
                vec![self.paint(Style::Good, &format!("-----> Done in {}", seconds(*duration_ms)))]
            }
            BuildEvent::Failed { failure, duration_ms } => self.failed(failure, *duration_ms),
        }
    }

    /// A line that tells what is still going on after a silence; `at_ms` counts from the build's begin.
    pub fn heartbeat(&self, at_ms: u64) -> String {
        let running: Vec<&Step> = self.steps.values().filter(|s| s.running && !s.internal).collect();
        let text = match running.as_slice() {
            [] => format!("... still at work after {}", seconds(at_ms)),
            [only] => {
                format!(
                    "... still running after {}: {}",
                    seconds(at_ms.saturating_sub(only.started_ms)),
                    only.name
                )
            }
            [first, rest @ ..] => format!(
                "... still running after {}: {} and {} more",
                seconds(at_ms.saturating_sub(first.started_ms)),
                first.name,
                rest.len()
            ),
        };
        self.dim(&text)
    }

    fn step_started(&mut self, step: u32, name: &str, platform: Option<&Platform>) -> Vec<String> {
        // `[internal]`, or `[linux/amd64 internal]` where the solve has several platforms
        let tag = name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(tag, _)| tag);
        let internal = tag == "auth" || tag.rsplit(' ').next() == Some("internal");
        // BuildKit writes the platform into the names of multi-platform solves itself
        let name = match platform {
            Some(p) if !name.contains(&p.to_string()) => match name.strip_prefix('[') {
                Some(rest) => format!("[{p} {rest}"),
                None => format!("[{p}] {name}"),
            },
            _ => name.to_owned(),
        };
        let now = self.now_ms;
        let known = self.steps.get(&step).is_some_and(|s| s.shown);
        self.steps.insert(step, Step { name, started_ms: now, internal, running: true, shown: known });
        if internal || known { Vec::new() } else { self.open(step) }
    }

    /// The step's opening line, once.
    fn open(&mut self, step: u32) -> Vec<String> {
        match self.steps.get_mut(&step) {
            Some(s) if !s.shown => {
                s.shown = true;
                vec![format!("#{step} {}", s.name)]
            }
            _ => Vec::new(),
        }
    }

    fn step_done(&mut self, step: u32, cached: bool, duration_ms: u64) -> Vec<String> {
        let Some(s) = self.steps.get_mut(&step) else { return Vec::new() };
        s.running = false;
        if s.internal && !s.shown && duration_ms < SLOW_INTERNAL_MS {
            return Vec::new();
        }
        let mut lines = self.open(step);
        lines.push(if cached {
            self.dim(&format!("#{step} CACHED"))
        } else {
            self.dim(&format!("#{step} DONE {}", seconds(duration_ms)))
        });
        lines
    }

    fn step_failed(&mut self, step: u32, error: &str, duration_ms: u64) -> Vec<String> {
        if let Some(s) = self.steps.get_mut(&step) {
            s.running = false;
        }
        let mut lines = self.open(step);
        let word = if error.contains("context canceled") { "CANCELED" } else { "ERROR" };
        let detail = if word == "ERROR" { format!(": {error}") } else { String::new() };
        lines.push(self.paint(Style::Bad, &format!("#{step} {word} {}{detail}", seconds(duration_ms))));
        lines
    }

    fn step_log(&mut self, step: u32, line: &str) -> Vec<String> {
        let mut lines = self.open(step);
        lines.push(format!("#{step} {line}"));
        lines
    }

    fn step_progress(&mut self, step: u32, what: &str, current: u64, done: bool) -> Vec<String> {
        let internal = self.steps.get(&step).is_none_or(|s| s.internal && !s.shown);
        // transfers worth a line; every "resolve" and "sha256:…" is not
        if !done || internal && current < 1_000_000 || current == 0 {
            return Vec::new();
        }
        let mut lines = self.open(step);
        lines.push(self.dim(&format!("#{step} {what} {}", bytes(current))));
        lines
    }

    fn failed(&self, failure: &Failure, duration_ms: u64) -> Vec<String> {
        let mut lines =
            vec![self.paint(Style::Bad, &format!("-----> Failed after {}", seconds(duration_ms)))];
        if !failure.log_tail.is_empty() {
            lines.push("       the step's last lines:".to_owned());
            lines.extend(failure.log_tail.iter().map(|l| format!("       | {l}")));
        }
        if !failure.excerpt.is_empty() {
            if let Some(location) = &failure.location {
                lines.push(format!("       at {location}:"));
            }
            lines.extend(failure.excerpt.iter().map(|l| format!("       {l}")));
        }
        let mut cause = failure.cause.lines();
        lines.push(self.paint(Style::Bad, &format!("error: {}", cause.next().unwrap_or(&failure.reason))));
        lines.extend(cause.map(|l| format!("       {l}")));
        if let Some(remedy) = &failure.remedy {
            lines.extend(remedy.lines().enumerate().map(|(i, l)| match i {
                0 => self.paint(Style::Warn, &format!("hint: {l}")),
                _ => format!("      {l}"),
            }));
        }
        lines
    }

    fn heading(&self, text: &str) -> String {
        self.paint(Style::Heading, &format!("-----> {text}"))
    }

    fn dim(&self, text: &str) -> String {
        self.paint(Style::Dim, text)
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match style {
            Style::Heading => "1;36",
            Style::Dim => "2",
            Style::Good => "1;32",
            Style::Warn => "33",
            Style::Bad => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// `a, b, c`
pub(crate) fn list(items: &[impl std::fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `0.4s`, `12.3s`, `3m05s`
pub fn seconds(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// `812 B`, `4.2 kB`, `80.1 MB`
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{}.{} kB", count / 1_000, count % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", count / 1_000_000, count % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", count / 1_000_000_000, count % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(events: Vec<(u64, BuildEvent)>) -> String {
        let mut renderer = TextRenderer::new(false);
        let mut out = Vec::new();
        for (seq, (at_ms, event)) in events.into_iter().enumerate() {
            out.extend(renderer.render(&Recorded { seq: seq as u64, at_ms, event }));
        }
        out.join("\n")
    }

    #[test]
    fn a_failing_build_ends_with_cause_and_remedy() {
        let text = render(vec![
            (
                0,
                BuildEvent::StepStarted {
                    step: 1,
                    name: "[internal] load build definition from Dockerfile".into(),
                    platform: None,
                },
            ),
            (5, BuildEvent::StepDone { step: 1, cached: false, duration_ms: 5 }),
            (
                6,
                BuildEvent::StepStarted {
                    step: 2,
                    name: "[linux/amd64 2/2] RUN make".into(),
                    platform: "linux/amd64".parse().ok(),
                },
            ),
            (7, BuildEvent::StepLog { step: 2, line: "no rule".into() }),
            (900, BuildEvent::StepFailed { step: 2, error: "exit code: 2".into(), duration_ms: 894 }),
            (
                901,
                BuildEvent::Failed {
                    failure: Failure {
                        reason: "build failed: Dockerfile:3 RUN make, exit 2".into(),
                        cause: "RUN make ended with exit code 2".into(),
                        remedy: Some("run it locally".into()),
                        location: Some("Dockerfile:3".into()),
                        excerpt: vec![">  3: RUN make".into()],
                        log_tail: vec!["no rule".into()],
                    },
                    duration_ms: 901,
                },
            ),
        ]);
        insta::assert_snapshot!(text, @r"
        #2 [linux/amd64 2/2] RUN make
        #2 no rule
        #2 ERROR 0.8s: exit code: 2
        -----> Failed after 0.9s
               the step's last lines:
               | no rule
               at Dockerfile:3:
               >  3: RUN make
        error: RUN make ended with exit code 2
        hint: run it locally
        ");
    }

    #[test]
    fn a_slow_bookkeeping_step_is_shown_a_quick_one_is_not() {
        let step = |ms| {
            render(vec![
                (
                    0,
                    BuildEvent::StepStarted {
                        step: 1,
                        name: "[linux/amd64 internal] load metadata".into(),
                        platform: None,
                    },
                ),
                (ms, BuildEvent::StepDone { step: 1, cached: false, duration_ms: ms }),
            ])
        };
        assert_eq!(step(1_999), "");
        assert_eq!(step(2_000), "#1 [linux/amd64 internal] load metadata\n#1 DONE 2.0s");
    }

    #[test]
    fn the_only_platform_of_a_solve_is_written_as_buildkit_writes_several() {
        let step = |name: &str| {
            let platform = "linux/arm64".parse().ok();
            render(vec![(0, BuildEvent::StepStarted { step: 1, name: name.into(), platform })])
        };
        assert_eq!(step("[1/2] FROM busybox"), "#1 [linux/arm64 1/2] FROM busybox");
        assert_eq!(step("[linux/arm64 1/2] FROM busybox"), "#1 [linux/arm64 1/2] FROM busybox");
        assert_eq!(step("exporting to image"), "#1 [linux/arm64] exporting to image");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(seconds(59_999), "59.9s");
        assert_eq!(seconds(185_000), "3m05s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(80_150_000), "80.1 MB");
    }
}
