//! Names in a manifest: words of ASCII letters and digits with one mark between them.
//!
//! Source: the component model's `word`s, as Spin takes them. Must not correct a name; that is the manifest reader's to decide.

/// Words with `-` between them, each all lower or all upper case: a component's id.
pub(super) fn kebab(name: &str) -> Result<(), String> {
    words(name, '-', false)
}

/// Words with `_` between them, all lower case: a variable's name.
pub(super) fn lower_snake(name: &str) -> Result<(), String> {
    words(name, '_', true)
}

/// The label of a store or a database.
pub(super) fn label(name: &str) -> Result<(), String> {
    if kebab(name).is_ok() || words(name, '_', false).is_ok() {
        return Ok(());
    }
    Err("words of letters and digits, with '-' between them or with '_'".to_owned())
}

fn words(name: &str, mark: char, lower: bool) -> Result<(), String> {
    for word in name.split(mark) {
        let Some(first) = word.chars().next() else {
            return Err(format!("there must be a word before and after each {mark:?}"));
        };
        if !first.is_ascii_alphabetic() {
            return Err(format!("each word must begin with an ASCII letter, not with {first:?}"));
        }
        if let Some(odd) = word.chars().find(|c| !c.is_ascii_alphanumeric()) {
            return Err(format!("words of ASCII letters and digits stand between {mark:?}, not {odd:?}"));
        }
        let cases = |upper: bool| {
            word.chars().any(|c| if upper { c.is_ascii_uppercase() } else { c.is_ascii_lowercase() })
        };
        if cases(true) && cases(false) {
            return Err(format!("the word {word:?} must be all lower or all upper case"));
        }
        if lower && cases(true) {
            return Err(format!("the word {word:?} must be in lower case"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for good in ["a", "default", "api-v2", "A-b2", "ABC"] {
            assert_eq!(kebab(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "1a", "a-1", "aB", "a_b", "a b", "é", "a/b"] {
            assert!(kebab(bad).is_err(), "{bad}");
        }
        assert_eq!(lower_snake("db_url2"), Ok(()));
        for bad in ["DB_URL", "db-url", "_a", ""] {
            assert!(lower_snake(bad).is_err(), "{bad}");
        }
        for good in ["default", "a_b", "a-b", "mixed_CASE"] {
            assert_eq!(label(good), Ok(()), "{good}");
        }
        assert!(label("b@d").is_err() && label("a_b-c").is_err());
    }
}
