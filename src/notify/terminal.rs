//! Events on a terminal: finished lines scroll, the running steps stand below with their times.
//!
//! Not for pushes: git's sideband knows no cursor. Piped, `lemnos build` prints the plain text alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::text::TextRenderer;
use crate::event::{BuildEvent, Recorded};

/// At most this many running steps are drawn at once.
const BARS: usize = 8;

/// Draws one build on stderr.
pub struct TerminalRenderer {
    screen: MultiProgress,
    state: Mutex<State>,
}

struct State {
    text: TextRenderer,
    bars: BTreeMap<u32, ProgressBar>,
}

impl TerminalRenderer {
    pub fn new(color: bool) -> Self {
        let state = State { text: TextRenderer::new(color), bars: BTreeMap::new() };
        Self { screen: MultiProgress::new(), state: Mutex::new(state) }
    }

    /// Shows what `recorded` adds.
    pub fn show(&self, recorded: &Recorded) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for line in state.text.render(recorded) {
            // a terminal that went away takes nothing from the build
            let _ = self.screen.println(line);
        }
        match &recorded.event {
            BuildEvent::StepStarted { step, name, .. } if state.bars.len() < BARS => {
                let bar = self.screen.add(ProgressBar::new_spinner());
                bar.set_style(style());
                bar.set_message(format!("#{step} {name}"));
                bar.enable_steady_tick(Duration::from_millis(120));
                state.bars.insert(*step, bar);
            }
            BuildEvent::StepDone { step, .. } | BuildEvent::StepFailed { step, .. } => {
                if let Some(bar) = state.bars.remove(step) {
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
            }
            BuildEvent::Succeeded { .. } | BuildEvent::Failed { .. } => {
                state.bars.clear();
                let _ = self.screen.clear();
            }
            _ => {}
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
