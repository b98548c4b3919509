//! The standard output of a command. Knows no command.

use std::io::Write as _;
use std::ops::ControlFlow;

use crate::console::json_text;
use crate::error::Report;

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

/// Prints a value as indented JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Report> {
    print_text(&json_text(value)?)
}
