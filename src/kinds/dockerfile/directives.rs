//! The head of a Dockerfile as BuildKit reads it: parser directives, above all `# syntax=`.
//!
//! Follows buildkit v0.32 frontend/dockerfile/parser/directives.go rule by rule, oddities included, because a file that
//! two parsers read differently is an attack. The table of tests was compared with that parser.

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
