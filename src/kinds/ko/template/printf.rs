//! `printf`, for texts, whole numbers and truth values. What Go would print as a mistake (`%!d(string=x)`) is refused: nobody
//! wants that in a binary. Source: fmt/print.go, fmt/format.go.

use super::Fault;
use super::value::Value;

/// Above every column that is laid out by hand.
const LIMIT_WIDTH: usize = 1000;

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    letter: char,
}

pub(super) fn printf(format: &str, arguments: &[Value]) -> Result<String, Fault> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (verb, after) = verb(after)?;
        rest = after;
        if verb.letter == '%' {
            out.push('%');
            continue;
        }
        let value = arguments.next().ok_or_else(|| {
            Fault::unsupported(format!("printf with a %{} that has no argument", verb.letter))
        })?;
        verb.print(value, &mut out)?;
    }
    out.push_str(rest);
    if arguments.next().is_some() {
        return Err(Fault::unsupported("printf with more arguments than verbs"));
    }
    Ok(out)
}

/// What stands behind a percent sign, and what follows it.
fn verb(text: &str) -> Result<(Verb, &str), Fault> {
    let mut verb = Verb::default();
    let mut rest = text;
    loop {
        match rest.chars().next() {
            Some('-') => verb.minus = true,
            Some('+') => verb.plus = true,
            Some('#') => verb.sharp = true,
            Some(' ') => verb.space = true,
            Some('0') => verb.zero = true,
            _ => break,
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    (verb.width, rest) = digits(rest)?;
    if let Some(after) = rest.strip_prefix('.') {
        (verb.precision, rest) = digits(after)?;
        verb.precision = verb.precision.or(Some(0));
    }
    let letter = rest.chars().next().ok_or_else(|| Fault::unsupported("printf with a % at the end"))?;
    verb.letter = letter;
    Ok((verb, rest.get(letter.len_utf8()..).unwrap_or_default()))
}

fn digits(text: &str) -> Result<(Option<usize>, &str), Fault> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.is_empty() {
        return Ok((None, rest));
    }
    let value = number.parse().ok().filter(|value| *value <= LIMIT_WIDTH);
    match value {
        Some(value) => Ok((Some(value), rest)),
        None => Err(Fault::unsupported(format!("printf with a width of {number}"))),
    }
}

impl Verb {
    fn print(&self, value: &Value, out: &mut String) -> Result<(), Fault> {
        let refuse =
            || Fault::unsupported(format!("printf with %{} for a {}", self.letter, value.type_name()));
        let plain = !self.plus && !self.sharp && !self.space;
        match (self.letter, value) {
            ('v', Value::Int(number)) if !self.sharp => self.number(*number, 10, false, out),
            ('d', Value::Int(number)) if !self.sharp => self.number(*number, 10, false, out),
            ('x', Value::Int(number)) => self.number(*number, 16, false, out),
            ('X', Value::Int(number)) => self.number(*number, 16, true, out),
            ('o', Value::Int(number)) if !self.sharp => self.number(*number, 8, false, out),
            ('b', Value::Int(number)) if !self.sharp => self.number(*number, 2, false, out),
            ('c', Value::Int(number)) if plain && self.precision.is_none() => {
                let c = u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                self.pad(&c.to_string(), out);
            }
            ('s' | 'v', Value::Text(text)) if plain => self.pad(self.cut(text), out),
            ('q', Value::Text(text)) if plain => self.pad(&quoted(self.cut(text))?, out),
            ('x' | 'X', Value::Text(text)) if plain => {
                let cut = text.as_bytes().get(..self.precision.unwrap_or(text.len()).min(text.len()));
                let hex = hex::encode(cut.unwrap_or_default());
                self.pad(&if self.letter == 'X' { hex.to_uppercase() } else { hex }, out);
            }
            ('t' | 'v', Value::Bool(truth)) if plain => {
                self.pad(if *truth { "true" } else { "false" }, out);
            }
            ('v', Value::Texts(_) | Value::Map(_) | Value::Float(_) | Value::Nil)
                if plain && self.width.is_none() && self.precision.is_none() =>
            {
                value.print(out);
            }
            _ => return Err(refuse()),
        }
        Ok(())
    }

    /// A precision of a text counts its characters.
    fn cut<'a>(&self, text: &'a str) -> &'a str {
        let end = self.precision.and_then(|most| text.char_indices().nth(most)).map(|(at, _)| at);
        end.and_then(|end| text.get(..end)).unwrap_or(text)
    }

    fn pad(&self, text: &str, out: &mut String) {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let filler = if self.zero && !self.minus { "0" } else { " " };
        if self.minus {
            out.push_str(text);
            out.push_str(&" ".repeat(missing));
        } else {
            out.push_str(&filler.repeat(missing));
            out.push_str(text);
        }
    }

    fn number(&self, number: i64, radix: u32, upper: bool, out: &mut String) {
        let size = number.unsigned_abs();
        let mut digits = match radix {
            16 if upper => format!("{size:X}"),
            16 => format!("{size:x}"),
            8 => format!("{size:o}"),
            2 => format!("{size:b}"),
            _ => size.to_string(),
        };
        if self.precision == Some(0) && number == 0 {
            // nothing but the width
            self.pad_with(' ', "", out);
            return;
        }
        let sign = match (number < 0, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        };
        let prefix = match (self.sharp, radix, upper) {
            (true, 16, true) => "0X",
            (true, 16, false) => "0x",
            _ => "",
        };
        // a zero flag fills up to the width, the sign counted; a precision rules in its place
        let least = match (self.precision, self.zero && !self.minus, self.width) {
            (Some(precision), ..) => precision,
            (None, true, Some(width)) => width.saturating_sub(sign.len()),
            _ => 0,
        };
        digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
        self.pad_with(' ', &format!("{sign}{prefix}{digits}"), out);
    }

    fn pad_with(&self, filler: char, text: &str, out: &mut String) {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let fill: String = std::iter::repeat_n(filler, missing).collect();
        if self.minus {
            out.push_str(text);
            out.push_str(&fill);
        } else {
            out.push_str(&fill);
            out.push_str(text);
        }
    }
}

/// `strconv.Quote`
fn quoted(text: &str) -> Result<String, Fault> {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || c.is_alphanumeric() => out.push(c),
            c => return Err(Fault::unsupported(format!("printf with %q of {c:?}"))),
        }
    }
    out.push('"');
    Ok(out)
}
