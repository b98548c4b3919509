//! Patterns of `files` and `exclude_files`.
//!
//! Both have `?`, `*`, `[…]`, `[!…]` and `**` as a whole part of a path, and differ in one thing, as they do in Spin: `files`
//! are matched part by part, so that `*` ends at a `/`; `exclude_files` are matched against the whole path, where `*` and `?`
//! take a `/` too. A name that begins with a dot is a name like any other. Matching takes time linear in pattern times text.

/// A pattern that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum GlobError {
    #[error("`**` stands for whole directories only: write **/, or one *")]
    Recursive,
    #[error("more than two * in a row")]
    Stars,
    #[error("a [ without its ]")]
    Range,
}

/// Whether `text` would be a pattern, was there no such path.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['?', '*', '[', ']'])
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Sequence,
    /// `**`, with the `/` after it.
    Recursive,
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern over a whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub fn new(text: &str) -> Result<Self, GlobError> {
        let chars: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut rest = chars.as_slice();
        while let Some((&first, after)) = rest.split_first() {
            rest = match first {
                '?' => {
                    tokens.push(Token::Any);
                    after
                }
                '*' => {
                    let at_start = chars.len() == rest.len()
                        || chars.get(chars.len() - rest.len() - 1).is_some_and(|before| *before == '/');
                    stars(rest, at_start, &mut tokens)?
                }
                '[' => class(after, &mut tokens)?,
                other => {
                    tokens.push(Token::Char(other));
                    after
                }
            };
        }
        Ok(Self(tokens))
    }

    /// Whether the whole of `text` is described.
    pub fn matches(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        // which lengths of the text's beginning the tokens so far can take
        let mut open = vec![false; chars.len() + 1];
        if let Some(first) = open.first_mut() {
            *first = true;
        }
        for token in &self.0 {
            open = token.step(&open, &chars);
        }
        open.last().copied().unwrap_or(false)
    }
}

impl Token {
    /// The lengths reached from those in `open`.
    fn step(&self, open: &[bool], chars: &[char]) -> Vec<bool> {
        let one = |fits: &dyn Fn(char) -> bool| {
            let taken = open.iter().zip(chars).map(|(open, c)| *open && fits(*c));
            std::iter::once(false).chain(taken).collect()
        };
        match self {
            Self::Char(wanted) => one(&|c| c == *wanted),
            Self::Any => one(&|_| true),
            Self::Class { not, ranges } => {
                one(&|c| ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not)
            }
            Self::Sequence => {
                let mut reached = false;
                open.iter()
                    .map(|open| {
                        reached |= *open;
                        reached
                    })
                    .collect()
            }
            Self::Recursive => {
                let mut reached = false;
                let mut next: Vec<bool> = Vec::with_capacity(open.len());
                for (length, open) in open.iter().enumerate() {
                    let after_slash = length > 0 && chars.get(length - 1) == Some(&'/');
                    let at_end = length == chars.len();
                    next.push(*open || reached && (after_slash || at_end));
                    reached |= *open;
                }
                next
            }
        }
    }
}

/// One `*` or two; what follows them.
fn stars<'a>(rest: &'a [char], at_start: bool, tokens: &mut Vec<Token>) -> Result<&'a [char], GlobError> {
    let count = rest.iter().take_while(|c| **c == '*').count();
    let after = rest.get(count..).unwrap_or_default();
    match count {
        1 => {
            tokens.push(Token::Sequence);
            Ok(after)
        }
        2 if at_start => {
            let after = match after.split_first() {
                None => after,
                Some(('/', after)) => after,
                Some(_) => return Err(GlobError::Recursive),
            };
            if tokens.last() != Some(&Token::Recursive) {
                tokens.push(Token::Recursive);
            }
            Ok(after)
        }
        2 => Err(GlobError::Recursive),
        _ => Err(GlobError::Stars),
    }
}

/// What stands after a `[`, up to its `]`; a `]` as the first character stands for itself.
fn class<'a>(after: &'a [char], tokens: &mut Vec<Token>) -> Result<&'a [char], GlobError> {
    let (not, inner) = match after.split_first() {
        Some(('!', inner)) => (true, inner),
        _ => (false, after),
    };
    let end = inner.iter().skip(1).position(|c| *c == ']').ok_or(GlobError::Range)? + 1;
    let mut left = inner.get(..end).unwrap_or_default();
    let mut ranges = Vec::new();
    while let Some((&from, after)) = left.split_first() {
        left = match after {
            ['-', to, rest @ ..] => {
                ranges.push((from, *to));
                rest
            }
            _ => {
                ranges.push((from, from));
                after
            }
        };
    }
    tokens.push(Token::Class { not, ranges });
    Ok(inner.get(end + 1..).unwrap_or_default())
}

/// A pattern over the parts of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of directories, also none.
    Directories,
    Name {
        text: String,
        pattern: Pattern,
    },
}

impl PathPattern {
    /// `text` in the form of a clean path: relative, without empty parts, `.` and `..`.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        let part = |part: &str| match part {
            "**" => Ok(Part::Directories),
            part => Ok(Part::Name { text: part.to_owned(), pattern: Pattern::new(part)? }),
        };
        Ok(Self(text.split('/').map(part).collect::<Result<_, _>>()?))
    }

    /// Whether it describes the file at `path`. `**` at the end describes directories only.
    pub fn matches_file(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        let mut open = vec![false; names.len() + 1];
        if let Some(first) = open.first_mut() {
            *first = true;
        }
        let ends_in_directories = matches!(self.0.last(), Some(Part::Directories));
        for part in &self.0 {
            open = match part {
                Part::Directories => {
                    let mut reached = false;
                    open.iter()
                        .map(|open| {
                            reached |= *open;
                            reached
                        })
                        .collect()
                }
                Part::Name { pattern, .. } => {
                    let taken = open.iter().zip(&names).map(|(open, name)| *open && pattern.matches(name));
                    std::iter::once(false).chain(taken).collect()
                }
            };
        }
        !ends_in_directories && open.last().copied().unwrap_or(false)
    }

    /// The directory in which all that it describes lies: its leading parts without a pattern, the last part left out.
    pub fn directory(&self) -> String {
        let leading = self.0.iter().map_while(|part| match part {
            Part::Name { text, .. } if !is_pattern(text) => Some(text.as_str()),
            _ => None,
        });
        let leading: Vec<&str> = leading.take(self.0.len().saturating_sub(1)).collect();
        leading.join("/")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    fn file(pattern: &str, path: &str) -> bool {
        PathPattern::new(pattern).unwrap().matches_file(path)
    }

    #[test]
    fn excluding_patterns_are_over_the_whole_path() {
        for (pattern, text) in [
            ("*.md", "a.md"),
            ("*.md", "docs/deep/a.md"),
            ("a?b", "a/b"),
            ("a[/]b", "a/b"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**", "a/b/c"),
            ("a/**/b", "a/b"),
            ("a/**/b", "a/x/y/b"),
            ("[a-c]", "b"),
            ("[!a-c]", "d"),
            ("[]a]", "]"),
            ("[!]]", "a"),
            ("[a-]", "-"),
            ("", ""),
            ("**", "a/b"),
            ("**/**/x", "a/x"),
            ("secrets/*", "secrets/a/b"),
            ("*", ".hidden"),
        ] {
            assert!(whole(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("*.md", "a.mdx"),
            ("A", "a"),
            ("a/**", "b/a/c"),
            ("**/x", "ax"),
            ("a/**/b", "a/xb"),
            ("[a-c]", "d"),
            ("[!a-c]", "b"),
            ("?", ""),
            ("secrets", "secrets/a"),
        ] {
            assert!(!whole(pattern, text), "{pattern} {text}");
        }
        for (bad, why) in [
            ("a**", GlobError::Recursive),
            ("**a", GlobError::Recursive),
            ("a/**b", GlobError::Recursive),
            ("***", GlobError::Stars),
            ("[", GlobError::Range),
            ("[]", GlobError::Range),
            ("[!", GlobError::Range),
            ("[!]", GlobError::Range),
            ("x[abc", GlobError::Range),
        ] {
            assert_eq!(Pattern::new(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn including_patterns_are_part_by_part() {
        for (pattern, path) in [
            ("*.md", "a.md"),
            ("docs/*", "docs/.hidden"),
            ("**/*", "a"),
            ("**/*", "a/b/c"),
            ("a/**/*.jpg", "a/x.jpg"),
            ("a/**/*.jpg", "a/b/c/x.jpg"),
            ("*/b", "a/b"),
            ("a/**/**/b", "a/b"),
            ("a[0-9]/x", "a1/x"),
        ] {
            assert!(file(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.md", "docs/a.md"),
            ("assets/**", "assets/a"),
            ("**", "a"),
            ("a?b", "a/b"),
            ("docs/*", "docs/a/b"),
            ("a/**/*.jpg", "x.jpg"),
        ] {
            assert!(!file(pattern, path), "{pattern} {path}");
        }
        for (pattern, directory) in
            [("a/b/*.md", "a/b"), ("a/**/*", "a"), ("*", ""), ("a/b/c", "a/b"), ("a?/b", ""), ("x", "")]
        {
            assert_eq!(PathPattern::new(pattern).unwrap().directory(), directory, "{pattern}");
        }
    }

    /// As slow as can be: every way to take the text is tried.
    fn slow(pattern: &[char], text: &[char], at_part: bool) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] if at_part => {
                let (rest, last) = match rest {
                    ['/', rest @ ..] => (rest, false),
                    rest => (rest, rest.is_empty()),
                };
                let fits = |n: usize| n == 0 || text[n - 1] == '/' || n == text.len();
                last || (0..=text.len()).any(|n| fits(n) && slow(rest, &text[n..], true))
            }
            ['*', rest @ ..] => (0..=text.len()).any(|n| slow(rest, &text[n..], false)),
            ['?', rest @ ..] => !text.is_empty() && slow(rest, &text[1..], false),
            ['[', '!', from, '-', to, ']', rest @ ..] => {
                text.first().is_some_and(|c| !(from..=to).contains(&c)) && slow(rest, &text[1..], false)
            }
            ['[', from, '-', to, ']', rest @ ..] => {
                text.first().is_some_and(|c| (from..=to).contains(&c)) && slow(rest, &text[1..], false)
            }
            [c, rest @ ..] => text.first() == Some(c) && slow(rest, &text[1..], *c == '/'),
        }
    }

    fn slow_file(parts: &[&str], names: &[&str]) -> bool {
        match (parts, names) {
            (["**"], _) => false,
            (["**", rest @ ..], _) => (0..=names.len()).any(|n| slow_file(rest, &names[n..])),
            ([part, rest @ ..], [name, names @ ..]) => {
                let chars = |text: &str| text.chars().collect::<Vec<_>>();
                slow(&chars(part), &chars(name), true) && slow_file(rest, names)
            }
            ([], []) => true,
            _ => false,
        }
    }

    const PIECE: &str = r"(a|b|\?|\*|\[a-b\]|\[!a-a\]){1,3}";

    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => PIECE.prop_map(|p| p.replace("**", "*").replace("**", "*")), 1 => Just("**".to_owned())];
        prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn fast_and_slow_agree(pattern in pattern(), path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(whole(&pattern, &path), slow(&chars(&pattern), &chars(&path), true), "whole");
            let parts: Vec<&str> = pattern.split('/').collect();
            let names: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(file(&pattern, &path), slow_file(&parts, &names), "by parts");
            let directory = PathPattern::new(&pattern).unwrap().directory();
            let below = directory.is_empty() || path.starts_with(&format!("{directory}/"));
            prop_assert!(below || !file(&pattern, &path), "all that matches lies in {directory}");
        }

        #[test]
        fn no_pattern_is_slow_or_fatal(pattern in r"[ab/*?\[\]!-]{0,40}", text in "[ab/]{0,60}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.matches(&text);
            }
        }
    }
}
