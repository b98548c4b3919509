//! `BuildEvent`: the one progress stream. Renderers (terminal, stored log, SSE) read it; nothing else is printed.
//!
//! Text in events is plain: whoever makes an event passes foreign text through `plain_line`.
//! Stored events outlive versions: fields are only added, each with a default.

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Form, ImageName, KindName, Platform, RefName, Sha, Tag};

mod mask;
mod masked;

pub use mask::{MaskedStream, Masker, SECRET_BYTES_MIN, SECRETS_BYTES_MAX};

/// An event with its place in the build's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// From 0, without gaps.
    pub seq: u64,
    /// Milliseconds since the build began.
    pub at_ms: u64,
    pub event: BuildEvent,
}

/// Events of before there were others.
fn yes() -> bool {
    true
}

/// What happened. Steps are named by `step`, a small number given in order of appearance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BuildEvent {
    /// The push was taken in.
    Received { reference: RefName, commit: Sha, subject: String, user: String },
    /// The kind was chosen.
    Detected { kind: KindName, evidence: String },
    /// The plan stands.
    Planned { image: ImageName, platforms: Vec<Platform>, tags: Vec<Tag> },
    /// The whole plan, for `-o plan`.
    Plan { json: String },
    /// Something the pusher should know, one line.
    Note { text: String },
    /// A solve begins on a builder.
    SolveStarted { builder: String, platforms: Vec<Platform> },
    /// No solve: the children of an earlier build serve.
    Reused {
        children: usize,
        commit: Sha,
        /// Of what the tags will stand at.
        #[serde(default)]
        form: Form,
    },
    /// A step began. `platform` is set where the step belongs to one of several.
    StepStarted { step: u32, name: String, platform: Option<Platform> },
    /// A step ended well.
    StepDone { step: u32, cached: bool, duration_ms: u64 },
    /// A step failed or was cancelled because another failed.
    StepFailed { step: u32, error: String, duration_ms: u64 },
    /// Output of a step, whole lines without the line end; not UTF-8 is replaced.
    StepLog { step: u32, line: String },
    /// Bytes moved by a step (context transfer, layer pushes); `total` may be 0 for unknown.
    StepProgress { step: u32, what: String, current: u64, total: u64, done: bool },
    /// A check of the frontend, with where.
    Warning { message: String, url: Option<String>, file: Option<String>, line: Option<u32> },
    /// What the tags will stand at was pushed by digest: an index, or one image (`indexed` is false).
    Assembled {
        image: ImageName,
        digest: Digest,
        /// None of an artifact that runs anywhere.
        platforms: Vec<Platform>,
        #[serde(default = "yes")]
        indexed: bool,
    },
    /// A tag moved.
    Tagged { image: ImageName, tag: Tag, digest: Digest },
    /// The build ended well.
    Succeeded { duration_ms: u64 },
    /// The build failed.
    Failed { failure: Failure, duration_ms: u64 },
}

/// A failure as people see it: in the terminal, in git's refusal, in the stored record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failure {
    /// One line for git's `[remote rejected] main -> main (…)`: `build failed: Dockerfile:3 RUN make, exit 2`.
    pub reason: String,
    /// The cause in full, one or more sentences.
    pub cause: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// `Dockerfile:3`
    pub location: Option<String>,
    /// Source lines around the location, as `number: text`, the guilty ones marked.
    pub excerpt: Vec<String>,
    /// The failing step's last lines.
    pub log_tail: Vec<String>,
}

impl Failure {
    pub fn new(reason: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause: cause.into(), ..Self::default() }
    }
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Where a stage puts its events. Cheap to clone; never blocks, so that no renderer slows a build.
#[derive(Clone)]
pub struct EventSink(std::sync::Arc<dyn Fn(BuildEvent) + Send + Sync>);

impl EventSink {
    pub fn new(f: impl Fn(BuildEvent) + Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(f))
    }
    pub fn emit(&self, event: BuildEvent) {
        (self.0)(event);
    }
    /// A sink that drops everything.
    pub fn discard() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

/// `line` made harmless for any terminal: escape sequences and control characters are gone, a tab is kept, and of a
/// line redrawn with carriage returns the last state stays.
pub fn plain_line(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push(c),
            c if steers(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Whether a terminal would do something else with `c` than show it: control characters, and direction overrides, which
/// could show a different text than the bytes say.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, of several lines, each made harmless.
pub fn plain_text(text: &str) -> String {
    text.lines().map(plain_line).collect::<Vec<_>>().join("\n")
}

/// JSON made harmless and still the same value: what would steer a terminal stands there as `\uXXXX`.
pub fn plain_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) && c != '\n' {
            // all of them have one unit
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Skips what follows an ESC: a CSI sequence up to its final byte, an OSC string up to BEL or ST, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            for c in chars.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cannot_steer_the_terminal() {
        assert_eq!(plain_line("a\u{1b}[31mred\u{1b}[0m\u{7}b"), "aredb");
        assert_eq!(plain_line("\u{1b}]0;title\u{7}x\u{1b}]8;;u\u{1b}\\y"), "xy");
        assert_eq!(plain_line("10%\r50%\r100%\r\n"), "100%");
        assert_eq!(plain_line("a\tb\u{202e}c"), "a\tbc");
        assert_eq!(plain_line("cut \u{1b}["), "cut ");
        assert_eq!(plain_text("a\u{1b}[8mb\nc\u{9b}d\r\ne"), "ab\ncd\ne");
    }

    #[test]
    fn harmless_json_is_the_same_value() {
        let value = serde_json::json!({ "a\u{9b}b": ["\u{202e}", "\u{1b}[8m", "ü\u{7f}\n"] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let plain = plain_json(&json);
        assert!(plain.contains("\\u009b") && plain.contains("\\u202e") && plain.contains('ü'));
        assert!(!plain.chars().any(|c| steers(c) && c != '\n'), "{plain:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
    }
}
