//! The standard output of a command. Knows no command.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use crate::console::json_text;
use crate::error::Report;
use crate::event::{plain_json, plain_text};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line an entry, for people.
    Table,
    /// One JSON object a line, sizes in bytes.
    Json,
}

/// Prints a text; a reader that went away (`| head`) ends the command quietly.
pub fn print_text(text: &str) -> Result<(), Report> {
    print_while_read(text).map(drop)
}

/// Prints a text; breaks off when the reader went away.
pub fn print_while_read(text: &str) -> Result<ControlFlow<()>, Report> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(e) => Err(Report::internal(format!("writing to standard output: {e}"))),
    }
}

/// Prints a value as one line of JSON without characters that a terminal would obey.
pub fn print_json_line(value: &impl serde::Serialize) -> Result<ControlFlow<()>, Report> {
    let line = serde_json::to_string(value).map_err(|e| Report::internal(format!("writing JSON: {e}")))?;
    print_while_read(&format!("{}\n", plain_json(&line)))
}

/// Prints bytes as they are, or, to a terminal, as text that it cannot take for orders.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Report> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        drop(out);
        return print_text(&format!("{}\n", plain_text(&String::from_utf8_lossy(bytes))));
    }
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Report::internal(format!("writing to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Report> {
    print_text(&json_text(value)?)
}
