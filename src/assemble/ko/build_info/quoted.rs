//! Go's string literals, in which build settings with blanks stand: `"…"` with escapes, or between backquotes without.

/// The literal that `text` begins with, and what follows it.
pub(super) fn prefix(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '`'))?;
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if letter == quote && !escaped {
            return Some(text.split_at(at + 1));
        }
        escaped = quote == '"' && letter == '\\' && !escaped;
    }
    None
}

/// What a whole literal stands for.
pub(super) fn unquoted(literal: &str) -> Option<String> {
    if let Some(raw) = literal.strip_prefix('`') {
        return raw.strip_suffix('`').filter(|raw| !raw.contains('`')).map(str::to_owned);
    }
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => escape(&mut letters, &mut bytes)?,
            plain => push(&mut bytes, plain),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn push(bytes: &mut Vec<u8>, letter: char) {
    bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What follows a backslash.
fn escape(letters: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let plain = match letters.next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(number(letters, None, 2, 16)?).ok()?,
        first @ '0'..='7' => u8::try_from(number(letters, Some(first), 3, 8)?).ok()?,
        wide @ ('u' | 'U') => {
            let digits = if wide == 'u' { 4 } else { 8 };
            push(bytes, char::from_u32(number(letters, None, digits, 16)?)?);
            return Some(());
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(())
}

/// A number of exactly `length` digits, of which `first` was read already.
fn number(letters: &mut std::str::Chars<'_>, first: Option<char>, length: usize, radix: u32) -> Option<u32> {
    let digits = first.into_iter().chain(letters.by_ref()).take(length);
    let values: Option<Vec<u32>> = digits.map(|digit| digit.to_digit(radix)).collect();
    let values = values.filter(|values| values.len() == length)?;
    Some(values.into_iter().fold(0, |sum: u32, digit| sum.wrapping_mul(radix).wrapping_add(digit)))
}
