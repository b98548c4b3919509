//! What commands print: aligned tables, JSON, times as people read them. Knows no command.

use std::io::Write as _;
use std::ops::ControlFlow;

use crate::error::Report;
use crate::event::plain_json;

/// Plain columns, two spaces apart, as wide as their widest cell.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> std::fmt::Display for Table<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:width$}  ", width = *width));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
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

/// Prints a value as indented JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Report> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Report::internal(format!("writing JSON: {e}")))?;
    print_text(&format!("{}\n", plain_json(&text)))
}

/// `2026-11-21 08:02:33` in UTC.
pub fn time_text(unix_ms: i64) -> String {
    let nanoseconds = i128::from(unix_ms) * 1_000_000;
    match time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) {
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => unix_ms.to_string(),
    }
}

/// `850ms`, `12.3s`, `4m05s`.
pub fn duration_text(ms: i64) -> String {
    match ms.max(0) {
        ms if ms < 1_000 => format!("{ms}ms"),
        ms if ms < 60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        ms => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = Table::new(["A", "LONGER", "C"]);
        table.row(["größer".to_owned(), "b".to_owned(), String::new()]);
        insta::assert_snapshot!(table, @r"
        A       LONGER  C
        größer  b
        ");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00");
        assert_eq!(time_text(1_795_248_153_999), "2026-11-21 08:02:33");
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn durations_are_short() {
        let texts = [-5, 0, 999, 1_000, 12_345, 59_999, 60_000, 245_000].map(duration_text);
        assert_eq!(texts, ["0ms", "0ms", "999ms", "1.0s", "12.3s", "59.9s", "1m00s", "4m05s"]);
    }
}
