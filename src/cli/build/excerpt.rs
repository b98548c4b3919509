//! Lines of a definition file, with those marked that something is said about.

use crate::buildkit::Source;
use crate::event::plain_line;

/// Lines shown around the marked ones, together: fewer around several.
const AROUND_ONE: usize = 4;
const AROUND_SEVERAL: usize = 2;
const RULE: &str = "--------------------\n";

/// The excerpt; nothing where the place is not in the text.
pub fn of(source: &Source) -> String {
    let lines: Vec<&str> = source.text.split('\n').collect();
    let Some((first, last)) = source.lines() else { return String::new() };
    let (first, last) = (first as usize, (last as usize).min(lines.len()));
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last);
    let around = if first == last { AROUND_ONE } else { AROUND_SEVERAL };
    let mut padded = 0;
    while padded < around {
        if start > 1 {
            start -= 1;
            padded += 1;
        }
        if end != lines.len() {
            end += 1;
            padded += 1;
        }
        // where there is no line left on either side
        padded += 1;
    }
    let mut text = format!("{}:{first}\n{RULE}", plain_line(&source.filename));
    for (at, line) in
        lines.iter().enumerate().map(|(at, line)| (at + 1, line)).skip(start - 1).take(end + 1 - start)
    {
        let marked = source.ranges.iter().any(|range| {
            let last = range.end.line.max(range.start.line) as usize;
            (range.start.line as usize..=last).contains(&at)
        });
        let mark = if marked { ">>>" } else { "   " };
        text.push_str(&format!(" {at:3} | {mark} {}\n", plain_line(line)));
    }
    text.push_str(RULE);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::{Position, Range};

    fn source(lines: std::ops::RangeInclusive<u32>) -> Source {
        let at = |line| Position { line, character: 0 };
        Source {
            filename: "Dockerfile".into(),
            text: "FROM a\nRUN one\nRUN two \\\n  three\nRUN four\nRUN five\n".into(),
            ranges: vec![Range { start: at(*lines.start()), end: at(*lines.end()) }],
            ..Source::default()
        }
    }

    #[test]
    fn the_lines_are_marked_and_some_stand_around_them() {
        insta::assert_snapshot!(of(&source(3..=4)), @r"
        Dockerfile:3
        --------------------
           2 |     RUN one
           3 | >>> RUN two \
           4 | >>>   three
           5 |     RUN four
        --------------------
        ");
        insta::assert_snapshot!(of(&source(2..=2)), @r"
        Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> RUN one
           3 |     RUN two \
           4 |       three
        --------------------
        ");
        assert_eq!(of(&source(40..=41)), "");
    }
}
