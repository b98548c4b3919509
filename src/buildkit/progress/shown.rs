//! Foreign text made fit to be shown: no control character of a name, a log or an error reaches a terminal, no escape
//! sequence, and nothing that turns the direction of what is read.

use std::iter::Peekable;
use std::time::Duration;

/// `line` without line ends: escape sequences and control characters are gone, a tab is a space, and of a line redrawn
/// with carriage returns the last state stays.
pub(super) fn line(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\t' | '\n' => out.push(' '),
            c if steers(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Whether a terminal would do something else with `c` than show it.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn skip_escape(chars: &mut Peekable<impl Iterator<Item = char>>) {
    match chars.next_if(|c| !c.is_control()) {
        Some('[') => skip_control_sequence(chars),
        // a string of the terminal's own, up to a bell or a string terminator
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                match c {
                    '\u{7}' | '\u{9c}' => return,
                    '\u{1b}' => {
                        chars.next_if_eq(&'\\');
                        return;
                    }
                    _ => {}
                }
            }
        }
        // one that names a character set has one character more
        Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => {
            chars.next_if(|c| !c.is_control());
        }
        Some(_) | None => {}
    }
}

fn skip_control_sequence(chars: &mut Peekable<impl Iterator<Item = char>>) {
    while chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
    chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
}

/// Columns of a terminal that `c` takes: East Asian and emoji characters take two, combining ones none.
fn columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{20d0}'..='\u{20ff}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        // an emoji may stand among these; one column too many does no harm
        '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' => 2,
        _ => 1,
    }
}

/// Columns that `text` takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// `text` in at most `limit` columns; what is cut off leaves `...` where there is room for it.
pub(super) fn fit(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let dots = if limit >= 8 { "..." } else { "" };
    let mut left = limit.saturating_sub(dots.len());
    let kept = text.chars().take_while(|c| {
        let fits = columns(*c) <= left;
        left = left.saturating_sub(columns(*c));
        fits
    });
    let mut kept: String = kept.collect();
    kept.push_str(dots);
    kept
}

/// As in `12.34MB`: decimal units, whole bytes below a thousand.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut scaled = count.unsigned_abs() as f64;
    let mut unit = None;
    for name in UNITS {
        if scaled < 1000.0 {
            break;
        }
        scaled /= 1000.0;
        unit = Some(name);
    }
    match unit {
        Some(unit) => format!("{}{scaled:.2}{unit}", if count < 0 { "-" } else { "" }),
        None => format!("{count}B"),
    }
}

/// As in `1.2s`.
pub(super) fn seconds(took: Duration) -> String {
    format!("{:.1}s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        for (given, shown) in [
            ("plain \u{e9}\u{4e2d}", "plain \u{e9}\u{4e2d}"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("10%\r20%\r\n", "20%"),
            ("a\tb\u{8}c", "a bc"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://e\u{1b}\\link", "link"),
            ("\u{9b}2Jx\u{202e}y", "xy"),
            ("\u{1b}(0q\u{1b}7z", "qz"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(line(given), shown, "{given:?}");
        }
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!(fit("abcdefghij", 10), "abcdefghij");
        assert_eq!(fit("abcdefghijk", 10), "abcdefg...");
        assert_eq!(fit("\u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d}", 8), "\u{4e2d}\u{4e2d}...");
        assert_eq!(fit("abcdef", 3), "abc");
    }

    #[test]
    fn sizes_read_as_buildkits_do() {
        for (count, text) in
            [(0, "0B"), (999, "999B"), (1234, "1.23kB"), (1_500_000, "1.50MB"), (-1234, "-1.23kB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}
