//! Slash-separated paths and shell patterns as Go's `path/filepath` has them on Unix.
//!
//! Bytes, not text: git's names need not be UTF-8. Purely lexical; touches no file system.

/// The shortest equal path: no empty, `.` or needless `..` parts; the empty path is `.`.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// `parts`, the empty ones left out, joined and cleaned; empty when all are.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    let given: Vec<&[u8]> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if given.is_empty() { Vec::new() } else { clean(&given.join(&b'/')) }
}

/// All but the last part, cleaned: `.` where there is no other.
pub fn dir(path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => clean(path.get(..=slash).unwrap_or_default()),
        None => b".".to_vec(),
    }
}

/// The last part; slashes at the end do not count, and the empty path is `.`.
pub fn base(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
    let path = path.get(..end).unwrap_or_default();
    match path.rsplit(|b| *b == b'/').next() {
        Some(b"") | None => b".",
        Some(name) => name,
    }
}

/// The first character and its length. As in Go, a byte that begins none counts as U+FFFD, one byte long.
pub fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    for len in 2..=4 {
        if let Some(Ok(text)) = bytes.get(..len).map(std::str::from_utf8)
            && let Some(c) = text.chars().next()
        {
            return Some((c, len));
        }
    }
    Some((char::REPLACEMENT_CHARACTER, 1))
}

/// A shell pattern that has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether `name` matches the shell pattern: `*` and `?` stop at slashes, `[a-z]` and `[^a]` are sets, `\` takes the
/// next character literally. As in Go, what stands behind the place where matching failed is not checked.
pub fn shell_match(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let (mut pattern, mut name) = (pattern, name);
    while !pattern.is_empty() {
        let (star, chunk, rest) = next_chunk(pattern);
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        // the last chunk must take all that is left
        let fits = |left: &&[u8]| !rest.is_empty() || left.is_empty();
        let mut found = match_chunk(chunk, name)?.filter(fits);
        if found.is_none() && star {
            let reach = name.iter().position(|b| *b == b'/').unwrap_or(name.len());
            for skip in 1..=reach {
                found = match_chunk(chunk, name.get(skip..).unwrap_or_default())?.filter(fits);
                if found.is_some() {
                    break;
                }
            }
        }
        let Some(left) = found else { return Ok(false) };
        (pattern, name) = (rest, left);
    }
    Ok(name.is_empty())
}

/// Leading stars, then everything up to the next star outside a set.
fn next_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().position(|b| *b != b'*').unwrap_or(pattern.len());
    let body = pattern.get(stars..).unwrap_or_default();
    let mut in_set = false;
    let mut at = 0;
    while let Some(b) = body.get(at) {
        match b {
            b'\\' => at += 1,
            b'[' => in_set = true,
            b']' => in_set = false,
            b'*' if !in_set => break,
            _ => {}
        }
        at += 1;
    }
    let (chunk, rest) = body.split_at_checked(at).unwrap_or((body, b""));
    (stars > 0, chunk, rest)
}

/// What is left of `name` behind a match of a star-less `chunk`. Syntax is checked to the chunk's end in any case.
fn match_chunk<'n>(mut chunk: &[u8], mut name: &'n [u8]) -> Result<Option<&'n [u8]>, BadPattern> {
    let mut failed = false;
    while let Some((&op, rest)) = chunk.split_first() {
        failed = failed || name.is_empty();
        match op {
            b'[' => {
                let (c, len) = if failed { ('\0', 0) } else { first_char(name).unwrap_or(('\0', 0)) };
                name = name.get(len..).unwrap_or_default();
                let (member, rest) = match_set(rest, c)?;
                failed |= !member;
                chunk = rest;
            }
            b'?' => {
                if !failed {
                    failed = name.first() == Some(&b'/');
                    let len = first_char(name).map_or(0, |(_, len)| len);
                    name = name.get(len..).unwrap_or_default();
                }
                chunk = rest;
            }
            _ => {
                let (literal, rest) = match op {
                    b'\\' => rest.split_first().ok_or(BadPattern)?,
                    _ => (&op, rest),
                };
                if !failed {
                    failed = name.first() != Some(literal);
                    name = name.get(1..).unwrap_or_default();
                }
                chunk = rest;
            }
        }
    }
    Ok((!failed).then_some(name))
}

/// Whether `c` is in the set that begins behind `[`, and what follows the set.
fn match_set(set: &[u8], c: char) -> Result<(bool, &[u8]), BadPattern> {
    let (negated, mut rest) = match set.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, set),
    };
    let mut member = false;
    let mut ranges = 0;
    loop {
        if ranges > 0
            && let Some(behind) = rest.strip_prefix(b"]")
        {
            return Ok((member != negated, behind));
        }
        let (low, behind) = set_char(rest)?;
        let (high, behind) = match behind.strip_prefix(b"-") {
            Some(behind) => set_char(behind)?,
            None => (low, behind),
        };
        member |= (low..=high).contains(&c);
        ranges += 1;
        rest = behind;
    }
}

/// One character of a set, escaped or not. The set must go on behind it.
fn set_char(chunk: &[u8]) -> Result<(char, &[u8]), BadPattern> {
    let chunk = match chunk.first() {
        None | Some(b'-' | b']') => return Err(BadPattern),
        Some(b'\\') => chunk.get(1..).unwrap_or_default(),
        Some(_) => chunk,
    };
    let (c, len) = first_char(chunk).ok_or(BadPattern)?;
    if c == char::REPLACEMENT_CHARACTER && len == 1 {
        return Err(BadPattern);
    }
    match chunk.get(len..) {
        Some(rest) if !rest.is_empty() => Ok((c, rest)),
        _ => Err(BadPattern),
    }
}
