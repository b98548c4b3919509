//! The head of a Dockerfile as BuildKit reads it: parser directives, above all `# syntax=`.
//!
//! Follows buildkit v0.32 frontend/dockerfile/parser/directives.go rule by rule, oddities included, because a file that
//! two parsers read differently is an attack. One difference is left: a JSON string with half of a surrogate pair is no
//! syntax here. It has no effect, nor would another: a solve never leaves the choice to the file (see `attrs`).

/// A syntax line: the first word of its value, and its line from 1 (0 for the JSON form without a shebang).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syntax {
    pub image: String,
    pub line: usize,
}

/// Go's scanner gives up at a line that does not fit its buffer with the line end.
const LIMIT_LINE_BYTES: usize = 64 * 1024;

/// The frontend that the file asks for, if it does: `# syntax=`, else `// syntax=`, else `{"syntax": …}`.
pub(super) fn syntax(source: &[u8]) -> Option<Syntax> {
    let source = source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source);
    let (source, skipped) = match source.strip_prefix(b"#!") {
        Some(rest) => {
            (rest.iter().position(|b| *b == b'\n').and_then(|at| rest.get(at + 1..)).unwrap_or(b""), 1)
        }
        None => (source, 0),
    };
    comment_syntax(source, b"#", skipped)
        .or_else(|| comment_syntax(source, b"//", skipped))
        .or_else(|| json_syntax(source, skipped))
}

fn comment_syntax(source: &[u8], comment: &[u8], skipped: usize) -> Option<Syntax> {
    let mut seen: Vec<String> = Vec::new();
    for (at, line) in source.split(|b| *b == b'\n').enumerate() {
        if line.len() >= LIMIT_LINE_BYTES {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (key, value) = directive(line.strip_prefix(comment)?)?;
        if seen.contains(&key) {
            return None;
        }
        if key == "syntax" {
            let image = value.split(|b| *b == b' ').next().unwrap_or_default();
            return Some(Syntax {
                image: String::from_utf8_lossy(image).into_owned(),
                line: skipped + at + 1,
            });
        }
        seen.push(key);
    }
    None
}

/// `KEY = VALUE` after the comment sign, for the three known keys in any case; none ends the head of the file.
fn directive(line: &[u8]) -> Option<(String, &[u8])> {
    let line = trim_unicode_space(line);
    let key_len = line.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let (key, rest) = line.split_at(key_len);
    if !key.first().is_some_and(u8::is_ascii_alphabetic) {
        return None;
    }
    let rest = trim_start(rest).strip_prefix(b"=")?;
    let value = match trim_start(rest) {
        // of nothing but spaces, the pattern leaves the last one as the value
        [] => rest.get(rest.len().checked_sub(1)?..)?,
        text => trim_end(text),
    };
    let key = String::from_utf8_lossy(key).to_ascii_lowercase();
    matches!(key.as_str(), "syntax" | "escape" | "check").then_some((key, value))
}

/// What `\s` is in Go's patterns.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\x0C' | b'\r')
}

fn trim_start(text: &[u8]) -> &[u8] {
    text.get(text.iter().take_while(|b| is_space(**b)).count()..).unwrap_or_default()
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !is_space(*b)).map_or(0, |at| at + 1);
    text.get(..end).unwrap_or_default()
}

/// Leading white space of Unicode; a byte that is not UTF-8 is none.
fn trim_unicode_space(text: &[u8]) -> &[u8] {
    let valid = match std::str::from_utf8(text) {
        Ok(valid) => valid,
        Err(e) => std::str::from_utf8(text.get(..e.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
    };
    let spaces = valid.len() - valid.trim_start().len();
    text.get(spaces..).unwrap_or_default()
}

fn json_syntax(source: &[u8], skipped: usize) -> Option<Syntax> {
    let text = String::from_utf8_lossy(source);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
    let image = object.get("syntax")?.as_str()?.to_owned();
    Some(Syntax { image, line: skipped })
}

/// Whether anything but comments and blank lines stands in the file.
pub(super) fn has_instructions(source: &[u8]) -> bool {
    let source = source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source);
    source.split(|b| *b == b'\n').any(|line| {
        let text = trim_unicode_space(line);
        !text.is_empty() && !text.starts_with(b"#")
    })
}

/// Notes on `RUN` flags that a daemon without special entitlements refuses, so that the pusher knows before the build.
pub(super) fn refused_flags(source: &[u8], path: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(source);
    let mut notes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("RUN")) {
            continue;
        }
        let flags = words.take_while(|word| word.starts_with("--"));
        for flag in flags.filter(|f| matches!(*f, "--security=insecure" | "--network=host")) {
            if notes.len() < 5 {
                notes.push(format!(
                    "{path}:{}: RUN {flag} is refused by BuildKit: builds get no such right",
                    at + 1
                ));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static [u8], Option<(&'static str, usize)>);

    /// Files, and what BuildKit v0.32.2's own `parser.DetectSyntax` says of them: image and line.
    const BUILDKIT_SAYS: &[Row] = &[
        (b"", None),
        (b"FROM x\n", None),
        (b"# syntax=docker/dockerfile:1\nFROM x\n", Some(("docker/dockerfile:1", 1))),
        (b"#syntax=a/b", Some(("a/b", 1))),
        (b"# SYNTAX = a/b", Some(("a/b", 1))),
        (b"#  sYnTaX\t=\ta/b extra words \r\n", Some(("a/b", 1))),
        (b"# syntax=a/b\r", Some(("a/b", 1))),
        (b"\n# syntax=a/b\n", None),
        (b" # syntax=a/b\n", None),
        (b"# a comment\n# syntax=a/b\n", None),
        (b"# escape=`\n# syntax=a/b\n", Some(("a/b", 2))),
        (b"# check=skip=all\n# escape=`\n# syntax=a/b\n", Some(("a/b", 3))),
        (b"# escape=`\n# escape=`\n# syntax=a/b\n", None),
        (b"# syntax=a/b\n# syntax=c/d\n", Some(("a/b", 1))),
        (b"# other=1\n# syntax=a/b\n", None),
        (b"# syntaxx=a/b\n", None),
        (b"# 1syntax=a/b\n", None),
        (b"# syntax a/b\n", None),
        (b"# syntax=\n", None),
        (b"# syntax=   \n", Some(("", 1))),
        (b"# syntax = \t\n", Some(("\u{9}", 1))),
        (b"# syntax==a\n", Some(("=a", 1))),
        (b"\xef\xbb\xbf# syntax=a/b\n", Some(("a/b", 1))),
        (b"\xef\xbb\xbf\xef\xbb\xbf# syntax=a/b\n", None),
        (b"#!/bin/sh\n# syntax=a/b\n", Some(("a/b", 2))),
        (b"\xef\xbb\xbf#!/bin/sh\n# syntax=a/b\n", Some(("a/b", 2))),
        (b"#!/bin/sh\n#!/bin/sh\n# syntax=a/b\n", None),
        (b"#!syntax=a/b\n", None),
        (b"#!", None),
        (b"// syntax=a/b\n", Some(("a/b", 1))),
        (b"//syntax=a/b\n# syntax=c/d\n", Some(("a/b", 1))),
        (b"# comment\n// syntax=a/b\n", None),
        (b"# escape=`\n// syntax=a/b\n", None),
        (b"#!x\n// syntax=a/b", Some(("a/b", 2))),
        (b"{\"syntax\": \"a/b\"}", Some(("a/b", 0))),
        (b" \n{\"x\": [1], \"syntax\": \"a/b\"}\n", Some(("a/b", 0))),
        (b"{\"Syntax\": \"a/b\"}", None),
        (b"{\"syntax\": \"a/b\", \"syntax\": \"c/d\"}", Some(("c/d", 0))),
        (b"{\"s\\u0079ntax\": \"a/b c\"}", Some(("a/b c", 0))),
        (b"{\"syntax\": 1}", None),
        (b"{\"syntax\": \"a/b\"} x", None),
        (b"#!x\n{\"syntax\": \"a/b\"}", Some(("a/b", 1))),
        (b"{\"syntax\": \"a\xff\"}", Some(("a\u{fffd}", 0))),
        (b"#\x0bsyntax=a/b\n", Some(("a/b", 1))),
        (b"#\xc2\x85\xc2\xa0syntax=a/b\n", Some(("a/b", 1))),
        (b"#\x85syntax=a/b\n", None),
        (b"#\xe2\x80\xa8syntax\x0c=\x0ca/b\n", Some(("a/b", 1))),
        (b"# syntax\x0b=a/b\n", None),
        (b"# syntax\xc2\xa0=a/b\n", None),
        (b"# syntax=a/b\x0b\n", Some(("a/b\u{b}", 1))),
        (b"# \xc5\xbfyntax=a/b\n", None),
        (b"# syntax=\xff\xfe x\n", Some(("\u{fffd}\u{fffd}", 1))),
        (b"# syntax=a\x00b\n", Some(("a\u{0}b", 1))),
        (b"# syntax=a/b # c", Some(("a/b", 1))),
    ];

    #[test]
    fn syntax_lines_are_seen_as_buildkit_sees_them() {
        for (source, expect) in BUILDKIT_SAYS {
            let expect = expect.map(|(image, line)| Syntax { image: image.to_owned(), line });
            assert_eq!(syntax(source), expect, "{:?}", String::from_utf8_lossy(source));
        }
    }

    #[test]
    fn a_line_longer_than_go_s_scanner_takes_ends_the_head() {
        for (length, seen) in [(65_535, true), (65_536, false)] {
            let line = format!("# syntax={}", "a".repeat(length - 9));
            assert_eq!(syntax(line.as_bytes()).is_some(), seen, "{length}");
            assert_eq!(syntax(format!("{line}\n").as_bytes()).is_some(), seen, "{length}");
        }
    }

    #[test]
    fn instructions_are_more_than_comments_and_blanks() {
        for (source, expect) in [
            ("", false),
            ("\n \t\n", false),
            ("# FROM x\n  # y\n", false),
            ("\u{feff}# x\n", false),
            ("# x\nFROM x", true),
            ("  FROM x", true),
        ] {
            assert_eq!(has_instructions(source.as_bytes()), expect, "{source:?}");
        }
    }

    #[test]
    fn refused_flags_are_named_by_line() {
        let source = "FROM x\nRUN --network=host curl x\nrun --mount=type=cache,target=/c --security=insecure y\nRUN echo --network=host\nRUN --network=none z\n";
        assert_eq!(
            refused_flags(source.as_bytes(), "Dockerfile"),
            [
                "Dockerfile:2: RUN --network=host is refused by BuildKit: builds get no such right",
                "Dockerfile:3: RUN --security=insecure is refused by BuildKit: builds get no such right",
            ]
        );
    }
}
