//! One renderer for each way of showing progress, behind one face. All are pure: events, the time and the terminal's
//! size go in, text comes out, and whoever calls prints it.

use std::fmt;
use std::str::FromStr;

use super::plain::Plain;
use super::tree::Tree;
use super::{Moment, SolveEvent, rawjson};

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// `Tty` on a terminal, else `Plain`.
    #[default]
    Auto,
    Tty,
    Plain,
    RawJson,
    Quiet,
}

/// That is no way of showing progress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no way of showing progress: write auto, tty, plain, rawjson or quiet")]
pub struct UnknownMode {
    pub given: String,
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Ok(match text {
            "auto" | "" => Self::Auto,
            "tty" => Self::Tty,
            "plain" => Self::Plain,
            "rawjson" => Self::RawJson,
            "quiet" => Self::Quiet,
            _ => return Err(UnknownMode { given: text.to_owned() }),
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tty => "tty",
            Self::Plain => "plain",
            Self::RawJson => "rawjson",
            Self::Quiet => "quiet",
        })
    }
}

/// The redrawn tree was asked for where nothing can be redrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("progress as a tree (tty) needs a terminal, and there is none: write plain, or auto")]
pub struct NoTerminal;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

/// Events that wait for the next tick, at most.
const GATHERED: usize = 1_000;

/// A build's progress as text.
#[derive(Debug)]
pub struct Display {
    renderer: Renderer,
    gathered: Vec<SolveEvent>,
}

#[derive(Debug)]
enum Renderer {
    Tree(Box<Tree>),
    Plain(Box<Plain>),
    RawJson,
    Quiet,
}

impl Display {
    /// `terminal`: whether the text goes to one; `color`: whether it may have colours there.
    pub fn new(mode: Mode, terminal: bool, color: bool) -> Result<Self, NoTerminal> {
        let renderer = match mode {
            Mode::Tty if !terminal => return Err(NoTerminal),
            Mode::Auto if !terminal => Renderer::Plain(Box::default()),
            Mode::Auto | Mode::Tty => Renderer::Tree(Box::new(Tree::new(color))),
            Mode::Plain => Renderer::Plain(Box::default()),
            Mode::RawJson => Renderer::RawJson,
            Mode::Quiet => Renderer::Quiet,
        };
        Ok(Self { renderer, gathered: Vec::new() })
    }

    /// Whether `tick` has something to do: a frame tells how long steps take even when nothing else happens.
    pub fn is_redrawn(&self) -> bool {
        matches!(self.renderer, Renderer::Tree(_))
    }

    /// Takes events in as they come, one message of the daemon's in each call; what it gives is to be printed at once.
    /// With `rawjson` that is a line; text for people waits for the next tick, so that steps interrupt each other less.
    pub fn gather(&mut self, mut events: Vec<SolveEvent>, now: Moment) -> String {
        if !matches!(self.renderer, Renderer::Plain(_)) {
            return self.update(&events, now);
        }
        self.gathered.append(&mut events);
        if self.gathered.len() < GATHERED { String::new() } else { self.let_out(now) }
    }

    fn let_out(&mut self, now: Moment) -> String {
        let events = std::mem::take(&mut self.gathered);
        self.update(&events, now)
    }

    /// Takes events in; what it gives is to be printed at once. With `rawjson`, each call is a line.
    pub fn update(&mut self, events: &[SolveEvent], now: Moment) -> String {
        match &mut self.renderer {
            Renderer::Tree(tree) => {
                tree.take(events, now);
                String::new()
            }
            Renderer::Plain(plain) => plain.update(events, now),
            Renderer::RawJson => rawjson::line(events),
            Renderer::Quiet => String::new(),
        }
    }

    /// To be called every 100 ms or so, and printed.
    pub fn tick(&mut self, now: Moment, size: Size) -> String {
        match &mut self.renderer {
            Renderer::Tree(tree) => tree.frame(now, size),
            Renderer::Plain(_) => self.let_out(now),
            Renderer::RawJson | Renderer::Quiet => String::new(),
        }
    }

    /// What prints whole lines of somebody else's among the progress.
    pub fn among(&mut self, lines: &str) -> String {
        match &mut self.renderer {
            Renderer::Tree(tree) => tree.withdraw() + lines,
            Renderer::Plain(_) | Renderer::RawJson | Renderer::Quiet => lines.to_owned(),
        }
    }

    /// After the last event: what is left to print.
    pub fn finish(&mut self, now: Moment, size: Size) -> String {
        let gathered = self.let_out(now);
        match &mut self.renderer {
            Renderer::Tree(tree) => tree.finish(now, size),
            Renderer::Plain(plain) => gathered + &plain.finish(now),
            Renderer::RawJson | Renderer::Quiet => String::new(),
        }
    }
}
