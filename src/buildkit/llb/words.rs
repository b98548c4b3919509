//! A command line, split into words as Go's google/shlex does: quotes, backslashes and comments, no expansion.

use super::LlbError;

const QUOTE: &str = "a quoted text";
const ESCAPE: &str = "an escape";

enum In {
    Space,
    Word,
    Single,
    Double,
    Comment,
}

pub(super) fn split(line: &str) -> Result<Vec<String>, LlbError> {
    let unfinished = |within| LlbError::Words { line: line.into(), within };
    let mut words = Vec::new();
    let mut word = String::new();
    let mut state = In::Space;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (&state, c) {
            (In::Comment, '\n') => state = In::Space,
            (In::Comment, _) | (In::Space, ' ' | '\t' | '\r' | '\n') => {}
            (In::Space, '#') => state = In::Comment,
            (In::Word, ' ' | '\t' | '\r' | '\n') => {
                words.push(std::mem::take(&mut word));
                state = In::Space;
            }
            (In::Space | In::Word, '\'') => state = In::Single,
            (In::Space | In::Word, '"') => state = In::Double,
            (In::Single, '\'') | (In::Double, '"') => state = In::Word,
            (In::Space | In::Word | In::Double, '\\') => {
                word.push(chars.next().ok_or_else(|| unfinished(ESCAPE))?);
                if !matches!(state, In::Double) {
                    state = In::Word;
                }
            }
            (In::Space, c) => {
                word.push(c);
                state = In::Word;
            }
            (In::Word | In::Single | In::Double, c) => word.push(c),
        }
    }
    match state {
        In::Single | In::Double => return Err(unfinished(QUOTE)),
        In::Word => words.push(word),
        In::Space | In::Comment => {}
    }
    Ok(words)
}
