//! Which Go files are built for a platform: the suffix of a name, `//go:build` and `// +build` lines.
//!
//! Source: go/build (goodOSArchFile, parseFileHeader, matchTag) and go/build/constraint of Go 1.26; `tests/oracle/ko` holds
//! them. Knows nothing of packages.

use crate::model::Platform;

const SYSTEMS: [&str; 18] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];
const UNIX: [&str; 12] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "linux",
    "netbsd",
    "openbsd",
    "solaris",
];
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];
/// Parentheses and `!` within each other.
const LIMIT_DEPTH: usize = 100;

/// What a file is built for.
#[derive(Debug, Clone)]
pub struct Target {
    pub platform: Platform,
    pub cgo: bool,
    /// Of `-tags`.
    pub tags: Vec<String>,
    /// The toolchain's: 26 of Go 1.26.
    pub minor: u32,
}

impl Target {
    fn matches(&self, tag: &str) -> bool {
        let Platform { os, arch, variant } = &self.platform;
        let also = match os.as_str() {
            "android" => tag == "linux",
            "illumos" => tag == "solaris",
            "ios" => tag == "darwin",
            _ => false,
        };
        let level = |text: &str| text.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        let is_level = arch == "amd64"
            && tag.strip_prefix("amd64.").and_then(level).is_some_and(|wanted| {
                wanted >= 1 && wanted <= variant.as_deref().and_then(level).unwrap_or(1)
            });
        tag == os
            || tag == arch
            || also
            || is_level
            || tag == "gc"
            || tag == "cgo" && self.cgo
            || tag == "unix" && UNIX.contains(&os.as_str())
            || self.tags.iter().any(|known| known == tag)
            || tag
                .strip_prefix("go1.")
                .and_then(|n| n.parse::<u32>().ok())
                .is_some_and(|n| (1..=self.minor).contains(&n))
    }

    /// Whether a file of this name is built, as far as its name says.
    pub(super) fn takes_name(&self, name: &str) -> bool {
        let stem = name.split('.').next().unwrap_or_default();
        // what stands before the first underscore is never looked at: `linux.go` is for all
        let Some((_, words)) = stem.split_once('_') else { return true };
        let mut words: Vec<&str> = words.split('_').collect();
        if words.last() == Some(&"test") {
            words.pop();
        }
        let system = |word: &&str| SYSTEMS.contains(word);
        let architecture = |word: &&str| ARCHITECTURES.contains(word);
        match words.as_slice() {
            [.., os, arch] if system(os) && architecture(arch) => self.matches(os) && self.matches(arch),
            [.., word] if system(word) || architecture(word) => self.matches(word),
            _ => true,
        }
    }

    /// Whether a file of this content is built; an error where its constraint cannot be read.
    pub(super) fn takes_header(&self, content: &str) -> Result<bool, &'static str> {
        let header = header(content)?;
        if let Some(line) = header.go_build {
            let tokens = tokens(line)?;
            let mut parser = Parser { tokens: &tokens, target: self, depth: 0 };
            let value = parser.or()?;
            return if parser.tokens.is_empty() {
                Ok(value)
            } else {
                Err("unexpected token after a build constraint")
            };
        }
        Ok(header.plus_build.iter().all(|line| self.takes_plus_build(line)))
    }

    /// `// +build a,!b c`: a and not b, or c.
    fn takes_plus_build(&self, arguments: &str) -> bool {
        let literal = |word: &str| {
            let (negated, tag) = word.strip_prefix('!').map_or((false, word), |tag| (true, tag));
            if tag.is_empty() || !tag.chars().all(is_tag_char) {
                return false;
            }
            self.matches(tag) != negated
        };
        arguments.split_whitespace().any(|option| option.split(',').all(literal))
    }
}

fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

#[derive(Default)]
struct Header<'a> {
    go_build: Option<&'a str>,
    /// Arguments of `// +build` lines that a blank line follows.
    plus_build: Vec<&'a str>,
}

/// What follows `keyword` on its line, if that is what the line is.
fn arguments<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(keyword)?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then(|| rest.trim())
}

/// The comments before the first line that is none.
fn header(content: &str) -> Result<Header<'_>, &'static str> {
    let mut header = Header::default();
    let (mut pending, mut ended, mut in_comment) = (Vec::new(), false, false);
    'lines: for line in content.split('\n') {
        let mut line = line.trim();
        if line.is_empty() && !ended {
            header.plus_build.append(&mut pending);
            continue;
        }
        if !line.starts_with("//") {
            ended = true;
        }
        if !in_comment && let Some(expression) = arguments(line, "//go:build") {
            if header.go_build.is_some() {
                return Err("multiple //go:build comments");
            }
            header.go_build = Some(expression);
        }
        if !in_comment
            && let Some(comment) = line.strip_prefix("//")
            && let Some(options) = arguments(comment.trim_start(), "+build")
        {
            pending.push(options);
        }
        while !line.is_empty() {
            if in_comment {
                let Some((_, rest)) = line.split_once("*/") else { continue 'lines };
                in_comment = false;
                line = rest.trim();
            } else if line.starts_with("//") {
                continue 'lines;
            } else if let Some(rest) = line.strip_prefix("/*") {
                in_comment = true;
                line = rest.trim();
            } else {
                break 'lines;
            }
        }
    }
    Ok(header)
}

fn tokens(expression: &str) -> Result<Vec<&str>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '(' | ')' | '!' => 1,
            '&' if rest.starts_with("&&") => 2,
            '|' if rest.starts_with("||") => 2,
            c if is_tag_char(c) => rest.find(|c| !is_tag_char(c)).unwrap_or(rest.len()),
            _ => return Err("invalid syntax in a build constraint"),
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after.trim_start_matches([' ', '\t']);
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    target: &'a Target,
    depth: usize,
}

impl Parser<'_> {
    fn next_is(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if *first == token => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn or(&mut self) -> Result<bool, &'static str> {
        let mut value = self.and()?;
        while self.next_is("||") {
            value |= self.and()?;
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<bool, &'static str> {
        let mut value = self.not()?;
        while self.next_is("&&") {
            value &= self.not()?;
        }
        Ok(value)
    }

    fn not(&mut self) -> Result<bool, &'static str> {
        if self.next_is("!") {
            if self.next_is("!") {
                return Err("double negation in a build constraint");
            }
            return self.atom().map(|value| !value);
        }
        self.atom()
    }

    fn atom(&mut self) -> Result<bool, &'static str> {
        self.depth += 1;
        if self.depth > LIMIT_DEPTH {
            return Err("a build constraint with too many parentheses");
        }
        if self.next_is("(") {
            let value = self.or()?;
            self.depth -= 1;
            return if self.next_is(")") {
                Ok(value)
            } else {
                Err("missing close paren in a build constraint")
            };
        }
        self.depth -= 1;
        match self.tokens.split_first() {
            Some((tag, rest)) if tag.starts_with(is_tag_char) => {
                self.tokens = rest;
                Ok(self.target.matches(tag))
            }
            _ => Err("missing tag in a build constraint"),
        }
    }
}
