//! `PushOutput`: what the pusher sees as `remote: …`, from any thread, without ever waiting.
//!
//! Bytes wait in one bounded buffer; a client that is too slow loses whole lines, and is told so. Must not block a build.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A line longer than this is cut.
const LINE_BYTES: usize = 8 * 1024;

/// After some was sent the next waits so long for company, unless there is this much or no more will come: each piece wakes
/// two processes here and two of the pusher's, and a build says most of what it says in bursts.
pub(super) const GATHERING: Duration = Duration::from_millis(40);
const GATHERED_BYTES: usize = 16 * 1024;

/// The writing end; clones write to the same terminal. Writing after the push was answered does nothing.
#[derive(Clone)]
pub struct PushOutput(Arc<Shared>);

/// The reading end: what is still to be sent.
pub(super) struct OutputReader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// There is nothing to gather any more.
    urgent: Notify,
    limit_bytes: usize,
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    closed: bool,
}

impl PushOutput {
    pub(super) fn channel(limit_bytes: usize, gone: CancellationToken) -> (Self, OutputReader) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            urgent: Notify::new(),
            limit_bytes,
            gone,
        });
        (Self(Arc::clone(&shared)), OutputReader(shared))
    }

    /// An output that nobody sees.
    pub fn discard() -> Self {
        let (output, reader) = Self::channel(0, CancellationToken::new());
        drop(reader);
        output
    }

    /// Returns when the pusher is gone; never, when they stay to the end.
    pub async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// One line. Control characters that could move the pusher's cursor are taken out; colours stay.
    pub fn line(&self, text: &str) {
        let mut line = visible(text);
        line.push('\n');
        self.write_raw(line.as_bytes());
    }

    /// Bytes as they are: all of them, or none when the buffer is full.
    pub fn write_raw(&self, bytes: &[u8]) {
        {
            let mut state = self.0.lock();
            if state.closed {
                return;
            }
            if state.waiting.len() + bytes.len() > self.0.limit_bytes {
                state.dropped += 1;
                return;
            }
            state.mark_dropped();
            state.waiting.extend_from_slice(bytes);
            if state.is_urgent(self.0.limit_bytes) {
                self.0.urgent.notify_one();
            }
        }
        self.0.changed.notify_one();
    }
}

impl std::fmt::Debug for PushOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PushOutput")
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // nothing panics while it is held, and a log line is no reason to
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_urgent(&self, limit_bytes: usize) -> bool {
        self.closed || self.waiting.len() >= GATHERED_BYTES.min(limit_bytes / 2)
    }

    fn mark_dropped(&mut self) {
        if self.dropped > 0 {
            let mark =
                format!("… {} lines left out here: the connection is slower than the build\n", self.dropped);
            self.waiting.extend_from_slice(mark.as_bytes());
            self.dropped = 0;
        }
    }
}

impl OutputReader {
    /// Everything that waits; none when the output was closed and all of it was read.
    pub(super) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.0.lock();
                if state.waiting.is_empty() {
                    state.mark_dropped();
                }
                if !state.waiting.is_empty() {
                    return Some(std::mem::take(&mut state.waiting));
                }
                if state.closed {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }

    /// Lets some gather, for who has just read.
    pub(super) async fn gather(&self, patience: Duration) {
        let enough = async {
            // an earlier word of it may be about what was read since
            while !self.0.lock().is_urgent(self.0.limit_bytes) {
                self.0.urgent.notified().await;
            }
        };
        let _ = tokio::time::timeout(patience, enough).await;
    }

    /// No more is taken; what waits can still be read.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
        self.0.urgent.notify_one();
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting = Vec::new();
    }
}

/// `text` without line ends and control characters, but for tabs and colour sequences (`ESC [ digits and ; m`).
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LINE_BYTES) + 1);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if shown.len() + c.len_utf8() > LINE_BYTES {
            shown.push('…');
            break;
        }
        let length = colour_length(rest).unwrap_or(c.len_utf8());
        let (head, tail) = rest.split_at(length);
        if length > 1 && c == '\x1b' || c == '\t' || !c.is_control() {
            shown.push_str(head);
        }
        rest = tail;
    }
    shown
}

/// The length of the colour sequence that `text` begins with.
fn colour_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let digits = body.bytes().take(24).take_while(|b| b.is_ascii_digit() || *b == b';').count();
    (body.as_bytes().get(digits) == Some(&b'm')).then_some(digits + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_and_tabs_survive_of_control_characters() {
        assert_eq!(visible("a\tb\x1b[1;31mred\x1b[0m"), "a\tb\x1b[1;31mred\x1b[0m");
        assert_eq!(visible("up\x1b[2A\x1b]0;title\x07\rover\nnext\u{9b}31m"), "up[2A]0;titleovernext31m");
        assert_eq!(visible(&"é".repeat(LINE_BYTES)).chars().count(), LINE_BYTES / 2 + 1);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_lines_and_is_told() {
        let (output, reader) = PushOutput::channel(16, CancellationToken::new());
        output.line("first");
        for _ in 0..3 {
            output.line("does not fit any more");
        }
        assert_eq!(reader.next().await.unwrap(), b"first\n");
        output.line("later");
        reader.close();
        output.line("after the end");
        let text = String::from_utf8(reader.next().await.unwrap()).unwrap();
        assert_eq!(text, "… 3 lines left out here: the connection is slower than the build\nlater\n");
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_wakes_for_a_line_from_another_thread() {
        let (output, reader) = PushOutput::channel(1024, CancellationToken::new());
        let writer = std::thread::spawn(move || output.line("hello"));
        assert_eq!(reader.next().await.unwrap(), b"hello\n");
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn what_comes_soon_after_goes_together_and_neither_much_nor_the_end_waits() {
        const NEVER: Duration = Duration::from_secs(3600);
        let (output, reader) = PushOutput::channel(1 << 20, CancellationToken::new());
        let at_once =
            async || tokio::time::timeout(Duration::from_secs(60), reader.gather(NEVER)).await.is_ok();
        output.line("one");
        assert_eq!(reader.next().await.unwrap(), b"one\n");
        output.line("two");
        output.line("three");
        reader.gather(Duration::from_millis(1)).await;
        assert_eq!(reader.next().await.unwrap(), b"two\nthree\n");
        let much = "x".repeat(LINE_BYTES - 1);
        output.line(&much);
        output.line(&much);
        assert!(at_once().await, "much of it");
        assert!(reader.next().await.unwrap().len() >= GATHERED_BYTES);
        // that was about what has been read
        let gathering = std::pin::pin!(reader.gather(NEVER));
        assert!(futures::poll!(gathering).is_pending());
        output.line("last");
        reader.close();
        assert!(at_once().await, "the end");
        assert_eq!(reader.next().await.unwrap(), b"last\n");
        assert!(reader.next().await.is_none());
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let (output, reader) = PushOutput::channel(1024, CancellationToken::new());
        drop(reader);
        output.line("lost");
        assert!(output.0.lock().waiting.is_empty());
        PushOutput::discard().line("lost too");
    }
}
