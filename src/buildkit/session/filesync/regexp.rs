//! Go's regular expressions, as far as ignore patterns can form them, on the `regex` crate.
//!
//! The two syntaxes differ (nested sets, set operators, escapes, word characters), so the expression is read by Go's
//! rules and written again in a form that means the same here. Matching stays linear in the text.

use std::fmt::Write;

use regex::bytes::{Regex, RegexBuilder};

use super::paths::BadPattern;

/// Compiled programs larger than this are refused.
const SIZE_LIMIT_BYTES: usize = 4 << 20;

/// Compiles an expression that Go would compile; anything that Go refuses is an error here too.
pub(super) fn compile(go: &str) -> Result<Regex, BadPattern> {
    let mut reader = Reader { rest: go, out: String::with_capacity(go.len() * 4) };
    reader.expression()?;
    RegexBuilder::new(&reader.out).size_limit(SIZE_LIMIT_BYTES).build().map_err(|_| BadPattern)
}

struct Reader<'a> {
    rest: &'a str,
    out: String,
}

/// Members of Go's `\d`, `\s` and `\w`, which are ASCII only.
fn perl_class(letter: char) -> Option<&'static str> {
    match letter.to_ascii_lowercase() {
        'd' => Some("0-9"),
        's' => Some(r"\t\n\x0C\r\x20"),
        'w' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn literal(&mut self, c: char) {
        // writing to a String cannot fail
        let _ = write!(self.out, r"\x{{{:x}}}", u32::from(c));
    }

    fn expression(&mut self) -> Result<(), BadPattern> {
        let mut repeated = false;
        let mut open = 0_u32;
        while let Some(c) = self.next() {
            match c {
                '*' | '?' | '{' => {
                    let Some(repetition) = self.repetition(c)? else {
                        self.literal(c);
                        repeated = false;
                        continue;
                    };
                    let nothing = self.out.is_empty() || self.out.ends_with("(?:") || self.out.ends_with('|');
                    if repeated || nothing {
                        return Err(BadPattern);
                    }
                    self.out.push_str(&repetition);
                    repeated = true;
                    continue;
                }
                '|' => self.out.push('|'),
                '(' => {
                    self.out.push_str("(?:");
                    open += 1;
                }
                ')' => {
                    open = open.checked_sub(1).ok_or(BadPattern)?;
                    self.out.push(')');
                }
                '.' => self.out.push_str(r"[^\n]"),
                '^' => self.out.push_str(r"\A"),
                '$' => self.out.push_str(r"\z"),
                '[' => self.set()?,
                '\\' => self.escape()?,
                c => self.literal(c),
            }
            repeated = false;
        }
        if open == 0 { Ok(()) } else { Err(BadPattern) }
    }

    /// The repetition that `first` begins, or none where it is a brace like any character.
    fn repetition(&mut self, first: char) -> Result<Option<String>, BadPattern> {
        if first != '{' {
            return Ok(Some(first.to_string()));
        }
        let Some((inside, rest)) = self.rest.split_once('}') else { return Ok(None) };
        let (min, max) = inside.split_once(',').map_or((inside, None), |(min, max)| (min, Some(max)));
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain && (digits.len() == 1 || !digits.starts_with('0'))
        };
        if !number(min) || !max.is_none_or(|max| max.is_empty() || number(max)) {
            return Ok(None);
        }
        let small = |digits: &str| digits.parse::<u32>().ok().filter(|n| *n <= 1000).ok_or(BadPattern);
        let low = small(min)?;
        if let Some(max) = max.filter(|max| !max.is_empty())
            && small(max)? < low
        {
            return Err(BadPattern);
        }
        self.rest = rest;
        Ok(Some(format!("{{{inside}}}")))
    }

    /// Behind a backslash, outside a set.
    fn escape(&mut self) -> Result<(), BadPattern> {
        if self.eat("A") {
            self.out.push_str(r"\A");
        } else if self.eat("z") {
            self.out.push_str(r"\z");
        } else if self.eat("b") {
            self.out.push_str(r"(?-u:\b)");
        } else if self.eat("B") {
            self.out.push_str(r"(?-u:\B)");
        } else if self.eat("Q") {
            let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
            self.rest = rest;
            for c in quoted.chars() {
                self.literal(c);
            }
        } else if !self.class_escape()? {
            let c = self.escaped_char()?;
            self.literal(c);
        }
        Ok(())
    }

    /// `\pL`, `\d` and their kind, the backslash already read; false, and nothing read, for anything else.
    fn class_escape(&mut self) -> Result<bool, BadPattern> {
        let mut ahead = self.rest.chars();
        match ahead.next() {
            Some(letter @ ('p' | 'P')) => {
                let group = match ahead.next().ok_or(BadPattern)? {
                    '{' => {
                        let (name, rest) = ahead.as_str().split_once('}').ok_or(BadPattern)?;
                        ahead = rest.chars();
                        name.to_owned()
                    }
                    c => c.to_string(),
                };
                let (negated, name) = group.strip_prefix('^').map_or((false, &*group), |name| (true, name));
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return Err(BadPattern);
                }
                let letter = if (letter == 'P') != negated { 'P' } else { 'p' };
                let _ = write!(self.out, r"\{letter}{{{name}}}");
            }
            Some(letter) => {
                let Some(members) = perl_class(letter) else { return Ok(false) };
                let not = if letter.is_ascii_uppercase() { "^" } else { "" };
                let _ = write!(self.out, "[{not}{members}]");
            }
            None => return Ok(false),
        }
        self.rest = ahead.as_str();
        Ok(true)
    }

    /// The character that an escape stands for, the backslash already read.
    fn escaped_char(&mut self) -> Result<char, BadPattern> {
        let c = self.next().ok_or(BadPattern)?;
        let octal =
            |rest: &str| rest.chars().next().filter(|c| ('0'..='7').contains(c)).and_then(|c| c.to_digit(8));
        match c {
            '0'..='7' => {
                // a single digit other than 0 would be a back reference
                if c != '0' && octal(self.rest).is_none() {
                    return Err(BadPattern);
                }
                let mut value = c.to_digit(8).ok_or(BadPattern)?;
                for _ in 0..2 {
                    let Some(digit) = octal(self.rest) else { break };
                    value = value * 8 + digit;
                    self.next();
                }
                char::from_u32(value).ok_or(BadPattern)
            }
            'x' if self.eat("{") => {
                let (digits, rest) = self.rest.split_once('}').ok_or(BadPattern)?;
                self.rest = rest;
                // Go adds the digits up, so leading zeros do no harm, and a sign is none
                let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let significant = digits.trim_start_matches('0');
                let value = match significant {
                    "" => 0,
                    digits => u32::from_str_radix(digits, 16).map_err(|_| BadPattern)?,
                };
                if hex { char::from_u32(value).ok_or(BadPattern) } else { Err(BadPattern) }
            }
            'x' => {
                let high = self.next().and_then(|c| c.to_digit(16)).ok_or(BadPattern)?;
                let low = self.next().and_then(|c| c.to_digit(16)).ok_or(BadPattern)?;
                char::from_u32(high * 16 + low).ok_or(BadPattern)
            }
            'a' => Ok('\x07'),
            'f' => Ok('\x0c'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0b'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
            _ => Err(BadPattern),
        }
    }

    /// A set, its opening bracket already read.
    fn set(&mut self) -> Result<(), BadPattern> {
        let opening = if self.eat("^") { "[^" } else { "[" };
        self.out.push_str(opening);
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.rest.starts_with("[:") && self.posix_class()? {
                continue;
            }
            let before = self.rest;
            if self.eat("\\") {
                if self.class_escape()? {
                    continue;
                }
                self.rest = before;
            }
            let low = self.set_char()?;
            let ranged = self.rest.starts_with('-') && self.rest.len() >= 2 && !self.rest.starts_with("-]");
            let high = if ranged {
                self.next();
                self.set_char()?
            } else {
                low
            };
            if high < low {
                return Err(BadPattern);
            }
            self.literal(low);
            self.out.push('-');
            self.literal(high);
        }
        self.next();
        self.out.push(']');
        Ok(())
    }

    fn set_char(&mut self) -> Result<char, BadPattern> {
        match self.next().ok_or(BadPattern)? {
            '\\' => self.escaped_char(),
            c => Ok(c),
        }
    }

    /// `[:alpha:]`; false, and nothing read, where no `:]` follows.
    fn posix_class(&mut self) -> Result<bool, BadPattern> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|behind| behind.split_once(":]"))
        else {
            return Ok(false);
        };
        let (not, bare) = name.strip_prefix('^').map_or(("", name), |bare| ("^", bare));
        if !POSIX_CLASSES.contains(&bare) {
            return Err(BadPattern);
        }
        let _ = write!(self.out, "[:{not}{bare}:]");
        self.rest = rest;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[track_caller]
    fn check(go: &str, yes: &[&str], no: &[&str]) {
        let regex = compile(go).unwrap();
        for text in yes {
            assert!(regex.is_match(text.as_bytes()), "{go} should match {text:?}");
        }
        for text in no {
            assert!(!regex.is_match(text.as_bytes()), "{go} should not match {text:?}");
        }
    }

    #[test]
    fn sets_are_read_by_gos_rules() {
        check("^[a&&b]$", &["a", "&", "b"], &["c"]);
        check("^[[a]$", &["[", "a"], &["]"]);
        check("^[[^/]*]$", &["]", "[^]"], &["", "a]"]);
        check("^[]a]$", &["]", "a"], &["b"]);
        check(r"^[\d-]$", &["7", "-"], &["x", "٣"]);
        check("^[[:alpha:]_]$", &["q", "_"], &["4", ":"]);
        check("^[^\\W]$", &["q"], &["-", "é"]);
    }

    #[test]
    fn escapes_and_anchors_are_read_by_gos_rules() {
        check(r"^\Qa.*\Eb$", &["a.*b"], &["aaab"]);
        check(r"^\Qa$", &["a$"], &["a"]);
        check("^a^b$", &[], &["ab", "a^b"]);
        check(r"^\x41\0101\t$", &[], &["AA\t"]);
        check(r"^\x41\101\t$", &["AA\t"], &[]);
        check(r"^\bé$", &[], &["é"]);
        check(r"^\Bé$", &["é"], &[]);
        check(r"^\pLx$", &["éx"], &["1x"]);
        check("^.*$", &["", "ab"], &["a\nb"]);
        check(r"^\x{e9}\p{Greek}$", &["éα"], &["éa"]);
        check("^a|b$", &["ax", "xb"], &["xa", "bx"]);
        check("^a{2}{,3}[^/]*$", &["aa{,3}x"], &["aaa"]);
        check("^{a,b}{01}$", &["{a,b}{01}"], &["a", "{a,b}"]);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [
            "[",
            "[a",
            "[]",
            "[b-a]",
            r"\1",
            r"\8",
            r"\q",
            r"\é",
            r"\C",
            "[[:nope:]]",
            r"\p\{",
            "a**",
            "(",
            ")",
            r"\",
            "a{2,1}",
            "a{1001}",
            "a*{2}",
            "a|{2}",
            r"\x{}",
            r"\p{}",
        ] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}
