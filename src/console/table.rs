//! What verbs print: aligned tables, times as people read them. Knows no verb.

/// Plain columns, two spaces apart, as wide as their widest cell.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    width: Option<usize>,
}

impl<const N: usize> Table<N> {
    pub fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)], width: None }
    }

    /// Cuts lines at a screen's width, so that a list stays one line an entry.
    #[must_use]
    pub fn within(mut self, width: Option<usize>) -> Self {
        self.width = width;
        self
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
            let line = line.trim_end();
            match self.width.filter(|width| *width > 0 && line.chars().count() > *width) {
                Some(width) => writeln!(f, "{}…", line.chars().take(width - 1).collect::<String>())?,
                None => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
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
    fn a_line_that_a_screen_cannot_hold_is_cut() {
        let table = |width| {
            let mut table = Table::new(["A", "LONGER"]).within(width);
            table.row(["größer".to_owned(), "b".to_owned()]);
            table.to_string()
        };
        assert_eq!(table(Some(9)), "A       …\ngrößer  b\n");
        assert_eq!(table(Some(14)), table(None));
        assert_eq!(table(Some(1)), "…\n…\n");
        assert_eq!(table(Some(0)), table(None), "a terminal that does not know its width says 0");
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
