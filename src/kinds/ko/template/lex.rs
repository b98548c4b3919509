//! Templates as tokens: text, delimiters with their trim markers, words, literals.
//!
//! Source: text/template/parse/lex.go.

use super::Fault;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$` or `$name`, with the `$`.
    Variable(String),
    /// A function, a keyword, `true`, `false`, `nil`.
    Word(String),
    Quoted(String),
    Number(String),
    /// A character constant's value.
    Char(u32),
    Pipe,
    Assign,
    Declare,
    Comma,
    LeftParen,
    RightParen,
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

struct Lexer<'a> {
    rest: &'a str,
    tokens: Vec<Token>,
    depth: usize,
}

/// The template's tokens. Comments are gone; text that markers trim away is, too.
pub(super) fn tokens(template: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { rest: template, tokens: Vec::new(), depth: 0 };
    let mut trim_left = false;
    loop {
        let at = lexer.rest.find("{{");
        let (mut text, after) = lexer.rest.split_at(at.unwrap_or(lexer.rest.len()));
        if trim_left {
            text = text.trim_start_matches(SPACES);
        }
        let inside = after.strip_prefix("{{");
        let marked =
            inside.and_then(|inside| inside.strip_prefix('-')).filter(|rest| rest.starts_with(SPACES));
        if marked.is_some() {
            text = text.trim_end_matches(SPACES);
        }
        if !text.is_empty() {
            lexer.tokens.push(Token::Text(text.to_owned()));
        }
        let Some(inside) = inside else { return Ok(lexer.tokens) };
        // the marker's space belongs to it
        lexer.rest = marked.and_then(|rest| rest.get(1..)).unwrap_or(inside);
        trim_left = if lexer.rest.starts_with("/*") { lexer.comment()? } else { lexer.action()? };
    }
}

fn alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'a> Lexer<'a> {
    /// Whether it closes here: what follows, and whether text after it is trimmed.
    fn closing(&self) -> Option<(&'a str, bool)> {
        if let Some(rest) = self.rest.strip_prefix("}}") {
            return Some((rest, false));
        }
        let trimmed = self.rest.strip_prefix(SPACES)?.strip_prefix("-}}")?;
        Some((trimmed, true))
    }

    fn comment(&mut self) -> Result<bool, Fault> {
        let end = self.rest.find("*/").ok_or_else(|| Fault::syntax("unclosed comment"))?;
        self.rest = self.rest.get(end + 2..).unwrap_or_default();
        let (rest, trim) =
            self.closing().ok_or_else(|| Fault::syntax("comment ends before closing delimiter"))?;
        self.rest = rest;
        Ok(trim)
    }

    /// One action up to its end; whether the text after it is trimmed.
    fn action(&mut self) -> Result<bool, Fault> {
        self.tokens.push(Token::Open);
        self.depth = 0;
        loop {
            if let Some((rest, trim)) = self.closing() {
                if self.depth > 0 {
                    return Err(Fault::syntax("unclosed left paren"));
                }
                self.rest = rest;
                self.tokens.push(Token::Close);
                return Ok(trim);
            }
            let Some(c) = self.rest.chars().next() else { return Err(Fault::syntax("unclosed action")) };
            let token = self.token(c)?;
            self.tokens.push(token);
        }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn token(&mut self, c: char) -> Result<Token, Fault> {
        let second = self.rest.chars().nth(1);
        Ok(match c {
            c if SPACES.contains(&c) => self.space(),
            '=' => self.one(Token::Assign),
            ':' if second == Some('=') => {
                self.take(2);
                Token::Declare
            }
            ':' => return Err(Fault::syntax("expected :=")),
            '|' => self.one(Token::Pipe),
            ',' => self.one(Token::Comma),
            '(' => {
                self.depth += 1;
                self.one(Token::LeftParen)
            }
            ')' => {
                self.depth =
                    self.depth.checked_sub(1).ok_or_else(|| Fault::syntax("unexpected right paren"))?;
                self.one(Token::RightParen)
            }
            '"' => self.quoted('"')?,
            '\'' => self.quoted('\'')?,
            '`' => self.raw()?,
            '$' => {
                self.take(1);
                Token::Variable(format!("${}", self.name()?))
            }
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                self.take(1);
                match self.name()? {
                    "" => Token::Dot,
                    name => Token::Field(name.to_owned()),
                }
            }
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            c if alphanumeric(c) => Token::Word(self.name()?.to_owned()),
            c => return Err(Fault::syntax(format!("unexpected {c:?} in an action"))),
        })
    }

    fn one(&mut self, token: Token) -> Token {
        self.take(1);
        token
    }

    /// Spaces, but not the one that belongs to a trim marker.
    fn space(&mut self) -> Token {
        while self.rest.starts_with(SPACES) && self.closing().is_none() {
            self.take(1);
        }
        Token::Space
    }

    /// Letters, digits and underscores, and then something that may follow a name.
    fn name(&mut self) -> Result<&'a str, Fault> {
        let end = self.rest.find(|c| !alphanumeric(c)).unwrap_or(self.rest.len());
        let name = self.take(end);
        let next = self.rest.chars().next();
        let ends = next.is_none_or(|c| SPACES.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('))
            || self.rest.starts_with("}}");
        // `.` and `$` alone are followed by anything
        match next {
            Some(c) if !ends && !name.is_empty() => {
                Err(Fault::syntax(format!("bad character {c:?} after {name:?}")))
            }
            _ => Ok(name),
        }
    }

    /// A text or a character in quotes, its escapes resolved.
    fn quoted(&mut self, quote: char) -> Result<Token, Fault> {
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find_map(|(at, c)| {
            if !escaped && (c == quote || c == '\n') {
                return Some((at, c));
            }
            escaped = !escaped && c == '\\';
            (c == '\n').then_some((at, c))
        });
        let Some((end, c)) = end.filter(|(_, c)| *c == quote) else {
            return Err(Fault::syntax(if quote == '"' {
                "unterminated quoted string"
            } else {
                "unterminated character constant"
            }));
        };
        let inner = self.take(end + c.len_utf8()).get(1..end).unwrap_or_default();
        let text = unescape(inner, quote)?;
        if quote == '"' {
            return Ok(Token::Quoted(text));
        }
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(only), None) => Ok(Token::Char(u32::from(only))),
            _ => Err(Fault::syntax(format!("malformed character constant: '{inner}'"))),
        }
    }

    fn raw(&mut self) -> Result<Token, Fault> {
        let inner = self.rest.get(1..).unwrap_or_default();
        let end = inner.find('`').ok_or_else(|| Fault::syntax("unterminated raw quoted string"))?;
        self.take(end + 2);
        // Go leaves carriage returns out of raw strings
        Ok(Token::Quoted(inner.get(..end).unwrap_or_default().replace('\r', "")))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let end = self.rest.char_indices().find(|(at, c)| {
            let sign = matches!(c, '+' | '-');
            let before = self.rest.get(..*at).and_then(|s| s.chars().last());
            let hex = self.rest.trim_start_matches(['+', '-']).starts_with(['0'])
                && self
                    .rest
                    .trim_start_matches(['+', '-'])
                    .get(1..2)
                    .is_some_and(|x| x.eq_ignore_ascii_case("x"));
            let exponent = matches!(before, Some('e' | 'E') if !hex) || matches!(before, Some('p' | 'P'));
            !(alphanumeric(*c) || *c == '.' || sign && (*at == 0 || exponent))
        });
        let end = end.map_or(self.rest.len(), |(at, _)| at);
        Ok(Token::Number(self.take(end).to_owned()))
    }
}

/// Go's escapes within quotes.
fn unescape(inner: &str, quote: char) -> Result<String, Fault> {
    let bad = || Fault::syntax(format!("invalid escape in {inner:?}"));
    let mut bytes = Vec::new();
    let mut rest = inner;
    let digits = |rest: &str, count: usize, radix: u32| -> Option<u32> {
        let digits = rest.get(..count)?;
        digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        if c != '\\' {
            bytes.extend(c.to_string().bytes());
            continue;
        }
        let kind = rest.chars().next().ok_or_else(bad)?;
        let skip = match kind {
            '0'..='7' => 0,
            kind => kind.len_utf8(),
        };
        rest = rest.get(skip..).unwrap_or_default();
        let (count, radix) = match kind {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => (0, 0),
        };
        if count > 0 {
            let value = digits(rest, count, radix).ok_or_else(bad)?;
            rest = rest.get(count..).unwrap_or_default();
            if matches!(kind, 'u' | 'U') {
                bytes.extend(char::from_u32(value).ok_or_else(bad)?.to_string().bytes());
            } else {
                let byte = u8::try_from(value).map_err(|_| bad())?;
                // of a character constant it is the character, of a text the byte
                if quote == '"' {
                    bytes.push(byte)
                } else {
                    bytes.extend(char::from(byte).to_string().bytes())
                }
            }
            continue;
        }
        bytes.push(match kind {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            kind if kind == quote => u8::try_from(quote).map_err(|_| bad())?,
            _ => return Err(bad()),
        });
    }
    String::from_utf8(bytes).map_err(|_| Fault::unsupported("a text that is not UTF-8"))
}
