//! Ref commands as git hands them to hooks: `<old> <new> <ref>`, from bytes to `RefUpdate`, or a refusal.

use super::error::Refusal;
use crate::model::{Invalid, RefName, RefUpdate, Sha};

/// One command. Ids and names that git lets through and we do not are refused here.
pub(super) fn parse(line: &[u8]) -> Result<RefUpdate, Refusal> {
    let mut fields = line.splitn(3, |b| *b == b' ');
    let mut field = || fields.next().map(String::from_utf8_lossy).unwrap_or_default();
    let (old, new, name) = (field(), field(), field());
    let id = |text: &str| text.parse::<Sha>().map_err(Refusal::Name);
    Ok(RefUpdate { old: id(&old)?, new: id(&new)?, name: reference(&name)? })
}

/// `pre-receive`'s whole input: one command a line.
pub(super) fn parse_all(input: &[u8], max_updates: usize) -> Result<Vec<RefUpdate>, Refusal> {
    let mut updates: Vec<RefUpdate> = Vec::new();
    for line in input.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        if updates.len() >= max_updates {
            return Err(Refusal::TooManyUpdates(max_updates));
        }
        updates.push(parse(line)?);
    }
    let mut names: Vec<&RefName> = updates.iter().map(|u| &u.name).collect();
    names.sort();
    match names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()).flatten()) {
        Some(name) => Err(Refusal::Twice(name.to_string())),
        None => Ok(updates),
    }
}

fn reference(name: &str) -> Result<RefName, Refusal> {
    name.parse::<RefName>().map_err(|invalid: Invalid| Refusal::Name(invalid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str) -> Vec<u8> {
        format!("{} {} {name}", "0".repeat(40), "a".repeat(40)).into_bytes()
    }

    #[test]
    fn names_that_git_takes_and_others_must_not_are_refused() {
        for name in [
            "refs/heads/--upload-pack=x",
            "refs/heads/-x",
            "refs/heads/x;id",
            "refs/heads/$(id)",
            "refs/heads/a\"b",
            "refs/heads/HEAD",
            "refs/hooks/post-receive",
            "refs/pull/1/head",
            "refs/lemnos/builds/1",
            "HEAD",
            "",
            "refs/heads/a b",
            "refs/heads/a\u{202e}b",
        ] {
            assert!(matches!(parse(&command(name)), Err(Refusal::Name(_))), "{name}");
        }
        let mut invalid_utf8 = command("refs/heads/");
        invalid_utf8.push(0xff);
        assert!(matches!(parse(&invalid_utf8), Err(Refusal::Name(_))));
        assert_eq!(parse(&command("refs/heads/release/1.2")).unwrap().name.short(), "release/1.2");
    }

    #[test]
    fn one_ref_twice_and_too_many_are_refused() {
        let lines = |names: &[&str]| {
            names.iter().map(|n| [command(n), b"\n".to_vec()].concat()).collect::<Vec<_>>().concat()
        };
        assert_eq!(
            parse_all(&lines(&["refs/heads/a", "refs/heads/b", "refs/heads/a"]), 9),
            Err(Refusal::Twice("refs/heads/a".to_owned()))
        );
        assert_eq!(parse_all(&lines(&["refs/heads/a", "refs/heads/b"]), 1), Err(Refusal::TooManyUpdates(1)));
        assert_eq!(parse_all(&lines(&["refs/heads/a", "refs/heads/b"]), 2).unwrap().len(), 2);
    }
}
