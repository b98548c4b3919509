//! BuildKit's status stream as `BuildEvent`s: vertices become numbered steps, output becomes whole, harmless lines.
//!
//! Secrets are taken out of output before lines are cut of it, and of texts before they are shortened. One translator a solve; numbers are drawn from a counter that all solves of a build share. Keeps the last lines of
//! each step for the failure, and nothing else of the output.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::buildkit::{SolveEvent, Vertex, VertexLog, VertexStatus, Warning};
use crate::event::{BuildEvent, EventSink, MaskedStream, Masker, plain_line};
use crate::model::Platform;

use super::failure::{named_platform, shorten};

/// A line without end is cut into pieces of this size.
const LINE_BYTES: usize = 16 << 10;
/// Transfers of fewer bytes are not worth a line.
const TRANSFER_BYTES: i64 = 100_000;
const NAME_CHARS: usize = 200;

/// What BuildKit calls a step's standard error.
const STDERR: i64 = 2;

/// Lines kept for a failing step's tail, unless told otherwise.
const TAIL_LINES: usize = 20;

pub struct Translator {
    events: EventSink,
    numbers: Arc<AtomicU32>,
    steps: HashMap<String, Step>,
    /// Warnings come once a platform.
    warned: HashSet<(String, Option<u32>)>,
    transferred: HashSet<(String, String)>,
    dockerfile_path: String,
    /// The only platform of the solve: BuildKit names platforms in multi-platform solves only.
    only: Option<Platform>,
    tail_lines: usize,
    masker: Masker,
}

#[derive(Default)]
struct Step {
    number: u32,
    name: String,
    started: bool,
    done: bool,
    /// Standard output and standard error: what one says may stand between two halves of what the other does.
    streams: [MaskedStream; 2],
    partial: Vec<u8>,
    tail: VecDeque<String>,
}

impl Translator {
    pub fn new(
        events: EventSink,
        numbers: Arc<AtomicU32>,
        dockerfile_path: String,
        only: Option<Platform>,
    ) -> Self {
        Self {
            events,
            numbers,
            steps: HashMap::new(),
            warned: HashSet::new(),
            transferred: HashSet::new(),
            dockerfile_path: plain_line(&dockerfile_path),
            only,
            tail_lines: TAIL_LINES,
            masker: Masker::default(),
        }
    }

    /// Lets none of the masker's secrets through.
    #[must_use]
    pub fn masked(mut self, masker: &Masker) -> Self {
        self.masker = masker.clone();
        self
    }

    /// Keeps so many lines of each step.
    #[must_use]
    pub fn with_tail(mut self, lines: usize) -> Self {
        self.tail_lines = lines;
        self
    }

    pub fn take(&mut self, event: SolveEvent) {
        match event {
            SolveEvent::Vertex(vertex) => self.vertex(&vertex),
            SolveEvent::Log(log) => self.log(&log),
            SolveEvent::Status(status) => self.status(&status),
            SolveEvent::Warning(warning) => self.warning(&warning),
        }
    }

    /// The name and last lines of the vertex that failed the solve.
    pub fn failed(&mut self, digest: &str) -> Option<(String, Vec<String>)> {
        self.flush(digest);
        let step = self.steps.get(digest)?;
        Some((step.name.clone(), step.tail.iter().cloned().collect()))
    }

    /// Ends the steps that are under way: nothing more is heard of them.
    pub fn abandon(&mut self, why: &str) {
        let open = self.steps.iter().filter(|(_, step)| step.started && !step.done);
        let mut open: Vec<(u32, String)> = open.map(|(digest, step)| (step.number, digest.clone())).collect();
        open.sort_unstable();
        for (number, digest) in open {
            self.flush(&digest);
            if let Some(step) = self.steps.get_mut(&digest) {
                step.done = true;
            }
            let error = shorten(&plain_line(&format!("abandoned: {why}")), NAME_CHARS);
            self.events.emit(BuildEvent::StepFailed { step: number, error, duration_ms: 0 });
        }
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let masker = &self.masker;
        let step = self.steps.entry(vertex.digest.clone()).or_insert_with(|| Step::new(masker));
        let begins = vertex.started.is_some() || vertex.cached || vertex.error.is_some();
        if begins && !step.started {
            step.started = true;
            step.number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
            step.name = one_line(masker, &vertex.name);
            let platform = named_platform(&step.name).or_else(|| self.only.clone());
            self.events.emit(BuildEvent::StepStarted {
                step: step.number,
                name: step.name.clone(),
                platform,
            });
        }
        // the daemon repeats a finished vertex with every message that touches it
        let ends = vertex.completed.is_some() || vertex.error.is_some();
        if !ends || step.done || !step.started {
            return;
        }
        step.done = true;
        let number = step.number;
        let took = vertex.completed.zip(vertex.started).map(|(end, start)| end.since(start).as_millis());
        let duration_ms = took.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        self.flush(&vertex.digest);
        self.events.emit(match &vertex.error {
            Some(error) => {
                BuildEvent::StepFailed { step: number, error: one_line(&self.masker, error), duration_ms }
            }
            None => BuildEvent::StepDone { step: number, cached: vertex.cached, duration_ms },
        });
    }

    fn log(&mut self, log: &VertexLog) {
        let Some(step) = self.steps.get_mut(&log.vertex).filter(|s| s.started) else { return };
        let [out, err] = &mut step.streams;
        let stream = if log.stream == STDERR { err } else { out };
        let masked = stream.push(&log.data);
        step.take(&masked, &self.events, self.tail_lines);
    }

    /// Output that ended without a line end.
    fn flush(&mut self, digest: &str) {
        let Some(step) = self.steps.get_mut(digest) else { return };
        for stream in 0..step.streams.len() {
            let kept = step.streams.get_mut(stream).map(MaskedStream::finish).unwrap_or_default();
            step.take(&kept, &self.events, self.tail_lines);
        }
        if !step.partial.is_empty() {
            step.end_line(&self.events, self.tail_lines);
        }
    }

    fn status(&mut self, status: &VertexStatus) {
        let Some(step) = self.steps.get(&status.vertex).filter(|s| s.started) else { return };
        if status.completed.is_none() || status.current < TRANSFER_BYTES {
            return;
        }
        if !self.transferred.insert((status.vertex.clone(), status.id.clone())) {
            return;
        }
        let what = match status.id.strip_prefix("sha256:").and_then(|hex| hex.get(..12)) {
            Some(hex) => format!("layer {hex}"),
            None => shorten(plain_line(&status.id).trim_end_matches(':'), 60),
        };
        self.events.emit(BuildEvent::StepProgress {
            step: step.number,
            what,
            current: u64::try_from(status.current).unwrap_or(0),
            total: u64::try_from(status.total).unwrap_or(0),
            done: true,
        });
    }

    fn warning(&mut self, warning: &Warning) {
        let line = warning.source.as_ref().and_then(|s| s.lines()).map(|(first, _)| first);
        let message = plain_line(&self.masker.text(&warning.short).replace('\n', " "));
        // the place is told before the message
        let told = line.map(|line| format!(" (line {line})")).unwrap_or_default();
        let message = shorten(message.strip_suffix(&told).unwrap_or(&message), NAME_CHARS);
        if !self.warned.insert((message.clone(), line)) {
            return;
        }
        self.events.emit(BuildEvent::Warning {
            message,
            url: warning.url.as_deref().map(plain_line),
            file: warning.source.as_ref().map(|_| self.dockerfile_path.clone()),
            line,
        });
    }
}

/// A daemon's text on one line, without secrets: what is cut off first could leave half of one.
fn one_line(masker: &Masker, text: &str) -> String {
    shorten(&plain_line(&masker.text(text).replace('\n', " ")), NAME_CHARS)
}

impl Step {
    fn new(masker: &Masker) -> Self {
        Self { streams: [masker.stream(), masker.stream()], ..Self::default() }
    }

    /// Output without secrets, cut into lines.
    fn take(&mut self, output: &[u8], events: &EventSink, tail_lines: usize) {
        for &byte in output {
            if byte == b'\n' {
                self.end_line(events, tail_lines);
            } else {
                self.partial.push(byte);
                if self.partial.len() >= LINE_BYTES {
                    self.end_line(events, tail_lines);
                }
            }
        }
    }

    fn end_line(&mut self, events: &EventSink, tail_lines: usize) {
        let bytes = std::mem::take(&mut self.partial);
        let line = plain_line(&String::from_utf8_lossy(&bytes));
        self.tail.push_back(line.clone());
        while self.tail.len() > tail_lines {
            self.tail.pop_front();
        }
        events.emit(BuildEvent::StepLog { step: self.number, line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::Moment;
    use std::sync::Mutex;

    fn translator() -> (Translator, Arc<Mutex<Vec<BuildEvent>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let events = EventSink::new(move |e| sink.lock().unwrap().push(e));
        (Translator::new(events, Arc::default(), "deploy/Dockerfile".into(), None), seen)
    }

    /// Nothing of what is shown would do anything but be shown.
    fn harmless(events: &[BuildEvent]) {
        let mut renderer = crate::notify::text::TextRenderer::new(false);
        for (seq, event) in events.iter().enumerate() {
            let recorded = crate::event::Recorded { seq: seq as u64, at_ms: 0, event: event.clone() };
            for line in renderer.render(&recorded) {
                let steers = |c: char| {
                    (c.is_control() && c != '\t')
                        || ('\u{202a}'..='\u{202e}').contains(&c)
                        || ('\u{2066}'..='\u{2069}').contains(&c)
                };
                assert!(!line.contains(steers), "{line:?}");
            }
        }
    }

    /// All that a builder can say, foreign bytes in every field, as it comes out on a terminal.
    #[test]
    fn fuzzed_progress_never_reaches_a_terminal_raw() {
        let corpus: [&[u8]; 4] = [
            b"[linux/amd64 2/3] RUN make\0gcc -O2 main.c\n10%\r50%\r100%\n\0exit code: 2\0https://example.com/check",
            b"\x1b[31mred\x1b[0m\0\x1b]0;title\x07text\n\0\x1b]8;;u\x1b\\link\0",
            b"plain\0no end of line\0\0",
            "fran\u{e7}ais \u{202e}\u{9b}8m\0\u{feff}caf\u{e9}\n\0\u{2066}x\0u".as_bytes(),
        ];
        let words: [&[u8]; 16] = [
            b"\x1b[",
            b"\x1b]0;",
            b"\x07",
            b"\x1b\\",
            b"\x9b",
            b"\xc2\x9b",
            b"\xe2\x80\xae",
            b"\r",
            b"\n",
            b"\x08\x08",
            b"\0",
            b"\x7f",
            b"\xff\xfe",
            b"\xe2\x80",
            b"\x1bP",
            b"\t",
        ];
        crate::fuzz::run("progress", 10_000, &corpus, &words, |input| {
            let fields: Vec<String> =
                input.split(|b| *b == 0).map(|f| String::from_utf8_lossy(f).into_owned()).collect();
            let field = |n: usize| fields.get(n).cloned().unwrap_or_default();
            let (mut translator, seen) = translator();
            let digest = "sha256:1".to_owned();
            let name = field(0);
            let mut step = Vertex {
                digest: digest.clone(),
                name,
                started: Some(Moment::from_ms(1)),
                ..Vertex::default()
            };
            translator.take(SolveEvent::Vertex(step.clone()));
            let log = input.split(|b| *b == 0).nth(1).unwrap_or_default();
            for piece in log.chunks(5) {
                let data = bytes::Bytes::copy_from_slice(piece);
                translator.take(SolveEvent::Log(VertexLog {
                    vertex: digest.clone(),
                    stream: 1,
                    data,
                    ..VertexLog::default()
                }));
            }
            let (short, url) = (field(2), Some(field(3)));
            translator.take(SolveEvent::Warning(Warning {
                vertex: digest.clone(),
                short,
                url,
                ..Warning::default()
            }));
            let (id, name) = (field(1), field(2));
            let status = VertexStatus {
                vertex: digest,
                id,
                name,
                current: 1 << 30,
                completed: Some(Moment::from_ms(2)),
                ..VertexStatus::default()
            };
            translator.take(SolveEvent::Status(status));
            (step.completed, step.error) = (Some(Moment::from_ms(2)), Some(field(2)));
            translator.take(SolveEvent::Vertex(step));
            harmless(&seen.lock().unwrap());
            // both kinds of input must come
            String::from_utf8_lossy(input).chars().any(|c| c.is_control() && c != '\0' && c != '\n')
        });
    }

    fn vertex(name: &str, started: i64, completed: Option<i64>) -> SolveEvent {
        SolveEvent::Vertex(Vertex {
            digest: "sha256:a".into(),
            name: name.into(),
            started: Some(Moment::from_ms(started)),
            completed: completed.map(Moment::from_ms),
            ..Vertex::default()
        })
    }

    fn log(data: &'static [u8]) -> SolveEvent {
        SolveEvent::Log(VertexLog { vertex: "sha256:a".into(), data: data.into(), ..VertexLog::default() })
    }

    #[test]
    fn a_step_starts_and_ends_once_however_often_it_is_told() {
        let (mut translator, seen) = translator();
        for _ in 0..2 {
            translator.take(vertex("[linux/arm64 2/2] RUN make", 1_000, None));
        }
        for _ in 0..2 {
            translator.take(vertex("[linux/arm64 2/2] RUN make", 1_000, Some(1_250)));
        }
        let seen = seen.lock().unwrap();
        assert_eq!(
            *seen,
            [
                BuildEvent::StepStarted {
                    step: 1,
                    name: "[linux/arm64 2/2] RUN make".into(),
                    platform: "linux/arm64".parse().ok(),
                },
                BuildEvent::StepDone { step: 1, cached: false, duration_ms: 250 },
            ]
        );
    }

    #[test]
    fn output_becomes_whole_harmless_lines_also_when_cut_inside_a_character() {
        let (mut translator, seen) = translator();
        translator.take(vertex("RUN", 1, None));
        for piece in [b"gr\xc3".as_slice(), b"\xbc\xc3\x9fe\n10%\r", b"99%\nlast \x1b[31mword"] {
            translator.take(SolveEvent::Log(VertexLog {
                vertex: "sha256:a".into(),
                data: bytes::Bytes::copy_from_slice(piece),
                ..VertexLog::default()
            }));
        }
        translator.take(vertex("RUN", 1, Some(2)));
        let lines: Vec<String> = seen
            .lock()
            .unwrap()
            .iter()
            .filter_map(|e| match e {
                BuildEvent::StepLog { line, .. } => Some(line.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(lines, ["grüße", "99%", "last word"]);
        assert_eq!(translator.failed("sha256:a").unwrap().1, lines);
    }

    #[test]
    fn the_tail_is_bounded_and_ends_with_the_last_line() {
        let (mut translator, _) = translator();
        translator.take(vertex("RUN", 1, None));
        for _ in 0..100 {
            translator.take(log(b"line\n"));
        }
        translator.take(log(b"end"));
        let (_, tail) = translator.failed("sha256:a").unwrap();
        assert_eq!((tail.len(), tail.last().map(String::as_str)), (TAIL_LINES, Some("end")));
    }

    #[test]
    fn numbers_are_not_platforms() {
        assert_eq!(named_platform("[2/3] RUN x"), None);
        assert_eq!(named_platform("[internal] load"), None);
        assert_eq!(named_platform("[linux/arm/v7 build 2/3] RUN x"), "linux/arm/v7".parse().ok());
    }

    #[test]
    fn secrets_are_masked_before_lines_are_cut_and_texts_shortened() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let events = EventSink::new(move |e| sink.lock().unwrap().push(e));
        let masker = Masker::new([b"swordfish".as_slice(), b"first line\nlast line"]);
        let mut translator =
            Translator::new(events, Arc::default(), "Dockerfile".into(), None).masked(&masker);
        let mut step = Vertex {
            digest: "sha256:1".to_owned(),
            name: format!("{} RUN swordfish", "x".repeat(NAME_CHARS - 9)),
            started: Some(Moment::from_ms(1)),
            ..Vertex::default()
        };
        translator.take(SolveEvent::Vertex(step.clone()));
        let mut say = |stream: i64, text: &str| {
            let data = bytes::Bytes::copy_from_slice(text.as_bytes());
            let vertex = "sha256:1".to_owned();
            translator.take(SolveEvent::Log(VertexLog { vertex, stream, data, ..VertexLog::default() }));
        };
        say(1, "is: sword");
        say(2, "a warning\n");
        say(1, "fish\nfirst ");
        say(1, "line\nlast line\nsword");
        step.completed = Some(Moment::from_ms(2));
        step.error = Some(format!("{}swordfish", "e".repeat(NAME_CHARS - 5)));
        translator.take(SolveEvent::Vertex(step));
        let (_, tail) = translator.failed("sha256:1").unwrap();
        // a secret of several lines is one
        assert_eq!(tail, ["is: a warning", "***", "***", "sword"]);
        let json = serde_json::to_string(&*seen.lock().unwrap()).unwrap();
        for part in ["swordf", "fish", "first", "last l"] {
            assert!(!json.contains(part), "{part}: {json}");
        }
    }
}
