//! Ignore and include patterns with the meaning that moby/patternmatcher 0.6.1 gives them, its oddities included:
//! what `docker build` sends is what we send.
//!
//! Patterns and paths are bytes. Compared with the Go library itself by the tables in `tests/oracle`.

use std::borrow::Cow;
use std::sync::OnceLock;

use regex::bytes::Regex;

use super::paths::{BadPattern, clean, dir, first_char, shell_match};
use super::regexp;

/// A list of patterns; later ones win.
#[derive(Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

/// One pattern, cleaned, without its `!`.
#[derive(Debug)]
pub struct Pattern {
    text: Vec<u8>,
    exception: bool,
    /// Compiled when first needed, as in Go: a pattern that is never tried may be wrong without harm.
    matcher: OnceLock<Result<Matcher, BadPattern>>,
}

#[derive(Debug)]
enum Matcher {
    Exact,
    /// The pattern up to here begins the path.
    Prefix(usize),
    /// The pattern from behind its `**` ends the path.
    Suffix,
    Regex(Box<Regex>),
}

/// Why patterns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPattern {
    #[error("the pattern {0:?} is wrong: a set is not closed, or an escape has no meaning")]
    Syntax(String),
    #[error("the patterns with wildcards have more than {WILDCARDS_LIMIT_BYTES} bytes together")]
    TooMany,
}

/// What patterns with wildcards may have together, in bytes. A byte compiles to about a kilobyte, and every path is held
/// against all of them; people write some hundred bytes.
const WILDCARDS_LIMIT_BYTES: usize = 64 << 10;

impl WrongPattern {
    fn of(pattern: &[u8]) -> Self {
        Self::Syntax(String::from_utf8_lossy(pattern).chars().take(200).collect())
    }
}

impl Pattern {
    /// The pattern without its `!`.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
    /// Whether it began with `!`.
    pub fn is_exception(&self) -> bool {
        self.exception
    }

    fn matches(&self, path: &[u8]) -> Result<bool, WrongPattern> {
        let matcher = self.matcher.get_or_init(|| compile(&self.text));
        let matcher = matcher.as_ref().map_err(|BadPattern| WrongPattern::of(&self.text))?;
        Ok(match matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix(len) => self.text.get(..*len).is_some_and(|prefix| path.starts_with(prefix)),
            Matcher::Suffix => {
                let suffix = self.text.get(2..).unwrap_or_default();
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|bare| path == bare)
            }
            Matcher::Regex(regex) => regex.is_match(&as_go_reads(path)),
        })
    }

    /// Whether `path` or one of the directories above it matches; a wrong pattern matches none of those above.
    fn matches_or_above(&self, path: &[u8]) -> Result<bool, WrongPattern> {
        if self.matches(path)? {
            return Ok(true);
        }
        let parent = dir(path);
        if parent == b"." {
            return Ok(false);
        }
        let ends = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in ends.chain([parent.len()]) {
            if self.matches(parent.get(..end).unwrap_or_default())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl PatternMatcher {
    /// Blank patterns are left out; a leading `!` makes an exception of the patterns before it.
    pub fn new<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Self, WrongPattern> {
        let mut matcher = Self::default();
        let mut wildcard_bytes = 0_usize;
        for given in patterns {
            let given = given.as_ref();
            let trimmed = trim(given);
            if trimmed.is_empty() {
                continue;
            }
            let mut text = clean(trimmed);
            let exception = text.first() == Some(&b'!');
            if exception {
                text.remove(0);
            }
            if text.is_empty() || shell_match(&text, b".").is_err() {
                return Err(WrongPattern::of(given));
            }
            if text.iter().any(|b| b"*?[\\".contains(b)) {
                wildcard_bytes = wildcard_bytes.saturating_add(text.len());
            }
            if wildcard_bytes > WILDCARDS_LIMIT_BYTES {
                return Err(WrongPattern::TooMany);
            }
            matcher.exceptions |= exception;
            matcher.patterns.push(Pattern { text, exception, matcher: OnceLock::new() });
        }
        Ok(matcher)
    }

    /// The patterns, blank ones left out.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }
    /// Whether any is an exception.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether the last pattern that applies to `path` or to a directory above it is no exception.
    pub fn matches_or_above(&self, path: &[u8]) -> Result<bool, WrongPattern> {
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exception == matched && pattern.matches_or_above(path)? {
                matched = !pattern.exception;
            }
        }
        Ok(matched)
    }

    /// [`Self::matches_or_above`] during a walk. `above` holds what was found for the directory that `path` stands in,
    /// and is empty where nothing was; what is found for `path` replaces `found`, one value a pattern.
    pub fn matches_below(
        &self,
        path: &[u8],
        above: &[bool],
        found: &mut Vec<bool>,
    ) -> Result<bool, WrongPattern> {
        found.clear();
        let mut matched = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let mut hit = above.get(at).copied().unwrap_or(false);
            if !hit && pattern.exception == matched {
                hit =
                    if above.is_empty() { pattern.matches_or_above(path)? } else { pattern.matches(path)? };
            }
            found.push(hit);
            if hit {
                matched = !pattern.exception;
            }
        }
        Ok(matched)
    }
}

/// Without white space at both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let Some((c, len)) = first_char(text)
        && c.is_whitespace()
    {
        text = text.get(len..).unwrap_or_default();
    }
    'end: loop {
        for len in 1..=text.len().min(4) {
            let (rest, tail) = text.split_at(text.len() - len);
            if std::str::from_utf8(tail).is_ok_and(|tail| tail.chars().all(char::is_whitespace)) {
                text = rest;
                continue 'end;
            }
        }
        return text;
    }
}

/// Text as Go's decoder sees it: every byte that belongs to no character is a U+FFFD of its own.
fn as_go_reads(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok() {
        return Cow::Borrowed(bytes);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some((c, len)) = first_char(rest) {
        text.push(c);
        rest = rest.get(len..).unwrap_or_default();
    }
    Cow::Owned(text.into_bytes())
}

/// How a pattern is matched, and the Go expression for those that need one.
fn compile(pattern: &[u8]) -> Result<Matcher, BadPattern> {
    #[derive(PartialEq)]
    enum Shape {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let readable = as_go_reads(pattern);
    let text = std::str::from_utf8(&readable).map_err(|_| BadPattern)?;
    // the scanner behind the Go library drops a byte order mark
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let mut regex = String::from("^");
    let mut shape = Shape::Exact;
    let mut at_start = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    regex.push_str("(.*/)?");
                    shape = Shape::Regex;
                } else if shape == Shape::Exact {
                    shape = Shape::Prefix;
                } else {
                    regex.push_str(".*");
                    shape = Shape::Regex;
                }
                if at_start {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                shape = Shape::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                shape = Shape::Regex;
            }
            // not '|', '{' and '}': the Go library means to escape them and does not, so they act
            '.' | '+' | '(' | ')' | '$' => regex.extend(['\\', c]),
            '\\' => {
                regex.push('\\');
                if let Some(escaped) = chars.next() {
                    regex.push(escaped);
                    shape = Shape::Regex;
                }
            }
            '[' | ']' => {
                regex.push(c);
                shape = Shape::Regex;
            }
            c => regex.push(c),
        }
        at_start = false;
    }
    Ok(match shape {
        Shape::Exact => Matcher::Exact,
        Shape::Prefix => Matcher::Prefix(pattern.len().saturating_sub(2)),
        Shape::Suffix => Matcher::Suffix,
        Shape::Regex => {
            regex.push('$');
            Matcher::Regex(Box::new(regexp::compile(&regex)?))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzzed_patterns_mean_the_same_step_by_step_and_at_once() {
        let corpus: [&[u8]; 6] = [
            b"**/*.rs\n!src/main.rs\0src/main.rs",
            b"target\nnode_modules/**\0target/debug/x",
            b"*\n!keep\0keep/this",
            b"a?c[x-z]\\*\0abcx*",
            b"/docs/**/img-*\0docs/a/b/img-1.png",
            b"[\0x",
        ];
        let words: [&[u8]; 16] = [
            b"*",
            b"**",
            b"**/",
            b"/**",
            b"?",
            b"[a-z]",
            b"[^",
            b"]",
            b"\\",
            b"!",
            b"/",
            b"../",
            b".",
            b"\n",
            b"\xc3\xa9",
            b"\xff",
        ];
        crate::fuzz::run("ignore patterns", 2_000, &corpus, &words, |input| {
            let cut = input.iter().position(|b| *b == 0).unwrap_or(input.len());
            let (patterns, path) = input.split_at(cut);
            let patterns: Vec<&[u8]> = patterns.split(|b| *b == b'\n').collect();
            let Ok(matcher) = PatternMatcher::new(&patterns) else { return false };
            let parts: Vec<&[u8]> =
                path.split(|b| *b == b'/' || *b == 0).filter(|p| !matches!(*p, b"" | b"." | b"..")).collect();
            let (mut above, mut found) = (Vec::new(), Vec::new());
            for end in 1..=parts.len().min(6) {
                let path = parts[..end].join(&b'/');
                let at_once = matcher.matches_or_above(&path);
                let stepwise = matcher.matches_below(&path, &above, &mut found);
                let (Ok(at_once), Ok(stepwise)) = (at_once, stepwise) else { return false };
                // with exceptions Go's two ways differ as well (a skipped pattern counts as one that does not match
                // below); the table of Go's own answers holds ours to them
                if !matcher.has_exceptions() {
                    assert_eq!(at_once, stepwise, "{}", path.escape_ascii());
                }
                std::mem::swap(&mut above, &mut found);
            }
            true
        });
    }

    #[test]
    fn wildcards_are_bounded_and_plain_names_are_not() {
        let plain: Vec<String> = (0..50_000).map(|n| format!("data/file-{n}")).collect();
        assert!(PatternMatcher::new(&plain).unwrap().matches_or_above(b"data/file-49999/x").unwrap());
        let some: Vec<String> = (0..3_000).map(|n| format!("**/{n}*x?{n}/y")).collect();
        assert!(PatternMatcher::new(&some).is_ok());
        let many: Vec<String> = (0..20_000).map(|n| format!("**/{n}*x?{n}/y")).collect();
        assert_eq!(PatternMatcher::new(&many).unwrap_err(), WrongPattern::TooMany);
    }
}
