//! A build's progress on standard error, and what is remembered of it for the end: warnings.
//!
//! Invariants: what the daemon tells in one message is shown together; nothing is printed after `finish`, and `finish`
//! leaves the terminal as it was. A reader that went away does not end a build.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::excerpt;
use crate::buildkit::{Display, Mode, Moment, NoTerminal, Size, SolveEvent, Vertex, Warning};
use crate::config::Environment;
use crate::event::plain_line;
use crate::model::Digest;

/// How often a terminal is drawn anew.
const FRAME: Duration = Duration::from_millis(100);
/// Warnings remembered.
const WARNINGS: usize = 1_000;

/// Standard error, for whoever has something to show of one build.
#[derive(Clone)]
pub struct Screen {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

struct State {
    display: Display,
    mode: Mode,
    /// Told, and not yet shown.
    told: Vec<SolveEvent>,
    warnings: Vec<Warning>,
    finished: bool,
}

impl Screen {
    pub fn new(mode: Mode, environment: &Environment) -> Result<Self, NoTerminal> {
        let terminal = std::io::stderr().is_terminal();
        let color = terminal && environment.get("NO_COLOR").is_none();
        let display = Display::new(mode, terminal, color)?;
        let state = State { display, mode, told: Vec::new(), warnings: Vec::new(), finished: false };
        Ok(Self { state: Arc::new(Mutex::new(state)), news: Arc::default() })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn show(&self, event: SolveEvent) {
        self.with(|state| {
            if let SolveEvent::Warning(warning) = &event
                && state.warnings.len() < WARNINGS
            {
                state.warnings.push(warning.clone());
            }
            if !state.finished {
                state.told.push(event);
            }
        });
        self.news.notify_one();
    }

    /// Prints whole lines that are no progress, before the end.
    pub fn say(&self, lines: &str) {
        self.with(|state| print(&state.display.among(lines)));
    }

    /// Draws until it is dropped. It runs beside whoever tells, in the same task, so that a message is whole when it is
    /// shown.
    pub async fn draw(&self) -> std::convert::Infallible {
        loop {
            let frame = tokio::time::timeout(FRAME, self.news.notified()).await.is_err();
            self.with(|state| {
                state.show_told();
                if frame && !state.finished {
                    print(&state.display.tick(Moment::now(), size()));
                }
            });
        }
    }

    /// A step of ours among those of the daemon.
    pub async fn step<T, E: std::fmt::Display>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Moment::now();
        let vertex = Vertex {
            digest: Digest::of(format!("{name} {}", began.ns()).as_bytes()).to_string(),
            name: name.to_owned(),
            started: Some(began),
            ..Vertex::default()
        };
        self.show(SolveEvent::Vertex(vertex.clone()));
        let done = work.await;
        let error = done.as_ref().err().map(ToString::to_string);
        self.show(SolveEvent::Vertex(Vertex { completed: Some(Moment::now()), error, ..vertex }));
        done
    }

    /// The last of the progress, and the warnings in short.
    pub fn finish(&self, debug: bool) {
        self.with(|state| {
            state.show_told();
            if !std::mem::replace(&mut state.finished, true) {
                print(&state.display.finish(Moment::now(), size()));
                if !matches!(state.mode, Mode::Quiet | Mode::RawJson) {
                    print(&summary(&state.warnings, debug));
                }
            }
        });
    }

    /// What was warned of, as `rawjson` tells it.
    pub fn warnings_json(&self) -> Option<serde_json::Value> {
        let events: Vec<SolveEvent> =
            self.with(|state| state.warnings.iter().cloned().map(SolveEvent::Warning).collect());
        if events.is_empty() {
            return None;
        }
        let line = Display::new(Mode::RawJson, false, false).ok()?.update(&events, Moment::now());
        let mut told: serde_json::Value = serde_json::from_str(&line).ok()?;
        told.get_mut("warnings").map(serde_json::Value::take)
    }
}

impl State {
    fn show_told(&mut self) {
        let told = std::mem::take(&mut self.told);
        if !told.is_empty() && !self.finished {
            print(&self.display.update(&told, Moment::now()));
        }
    }
}

fn print(text: &str) {
    // nobody reads it any more: the build goes on
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn size() -> Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(found) if found.ws_col > 0 && found.ws_row > 0 => {
            Size { columns: found.ws_col, rows: found.ws_row }
        }
        _ => Size::default(),
    }
}

fn summary(warnings: &[Warning], debug: bool) -> String {
    let mut text = match warnings.len() {
        0 => return String::new(),
        1 => "\n 1 warning found".to_owned(),
        count => format!("\n {count} warnings found"),
    };
    text.push_str(if debug { ":\n" } else { " (use --debug to expand):\n" });
    for warning in warnings {
        text.push_str(&format!(" - {}\n", plain_line(&warning.short)));
        if !debug {
            continue;
        }
        for detail in &warning.detail {
            text.push_str(&format!("{}\n", plain_line(detail)));
        }
        if let Some(url) = &warning.url {
            text.push_str(&format!("More info: {}\n", plain_line(url)));
        }
        text.push_str(&warning.source.as_ref().map(excerpt::of).unwrap_or_default());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::{Position, Range, Source};

    #[test]
    fn warnings_are_counted_and_explained_on_demand() {
        let at = |line| Position { line, character: 0 };
        let warning = Warning {
            short: "WorkdirRelativePath: a \u{1b}[31mrelative path".into(),
            detail: vec!["Say where it is.".into()],
            url: Some("https://docs.example/w".into()),
            source: Some(Source {
                filename: "Dockerfile".into(),
                text: "FROM a\nWORKDIR x\n".into(),
                ranges: vec![Range { start: at(2), end: at(2) }],
                ..Source::default()
            }),
            ..Warning::default()
        };
        assert_eq!(summary(&[], true), "");
        let short = summary(&[warning.clone(), warning.clone()], false);
        assert!(
            short.starts_with("\n 2 warnings found (use --debug to expand):\n - WorkdirRelativePath: a "),
            "{short}"
        );
        assert!(!short.contains('\u{1b}') && !short.contains("More info"), "{short}");
        let long = summary(&[warning], true);
        assert!(
            long.contains("1 warning found:\n") && long.contains("More info: https://docs.example/w\n"),
            "{long}"
        );
        assert!(long.contains(">>> WORKDIR x"), "{long}");
    }
}
