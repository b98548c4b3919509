//! A local build's events on standard error: a live display on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::event::{BuildEvent, EventSink, Recorded};
use crate::notify::terminal::TerminalRenderer;
use crate::notify::text::TextRenderer;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// A live display on a terminal, plain text elsewhere.
    Auto,
    Plain,
    Tty,
}

/// Numbers the events of one build and shows them.
#[derive(Clone)]
pub struct Screen(Arc<Shared>);

struct Shared {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    next_seq: u64,
    view: View,
}

enum View {
    Plain(TextRenderer),
    Live(TerminalRenderer),
}

impl Screen {
    pub fn new(progress: Progress) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let live = match progress {
            Progress::Auto => terminal,
            Progress::Plain => false,
            Progress::Tty => true,
        };
        let view = match live {
            true => View::Live(TerminalRenderer::new(terminal)),
            false => View::Plain(TextRenderer::new(false)),
        };
        Self(Arc::new(Shared { began: Instant::now(), state: Mutex::new(State { next_seq: 0, view }) }))
    }

    pub fn emit(&self, event: BuildEvent) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at_ms = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let recorded = Recorded { seq: state.next_seq, at_ms, event };
        state.next_seq += 1;
        match &mut state.view {
            View::Live(view) => view.show(&recorded),
            View::Plain(view) => {
                for line in view.render(&recorded) {
                    // nobody reads it any more: the build goes on
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
        }
    }

    pub fn sink(&self) -> EventSink {
        let screen = self.clone();
        EventSink::new(move |event| screen.emit(event))
    }
}
