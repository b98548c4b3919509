//! Object ids, ref names and ref updates.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Invalid, text_newtype};

/// A git object id: 40 lower-case hexadecimal digits. All zeros stands for "no object", as in git's own protocols.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha(String);
text_newtype!(Sha);

impl FromStr for Sha {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 40 || !text.bytes().all(hex) {
            return Err(Invalid::new("object id", text, "40 lower-case hexadecimal digits"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Sha {
    pub fn zero() -> Self {
        Self("0".repeat(40))
    }
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
    /// The first `n` digits (the whole id when `n` exceeds it).
    pub fn short(&self, n: usize) -> &str {
        self.0.get(..n).unwrap_or(&self.0)
    }
}

/// A full ref name in `refs/heads/` or `refs/tags/`, of a charset that is safe in any log, path or argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);
text_newtype!(RefName);

const REF_RULE: &str = "branches and tags (refs/heads/…, refs/tags/…) made of letters, digits, '.', '_', '-', '+', '@', '#' and '/', at most 200 bytes; no part may begin with '-' or '.', or end with '.lock', and HEAD is reserved";

impl FromStr for RefName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("ref name", text, REF_RULE);
        let rest = text
            .strip_prefix("refs/heads/")
            .or_else(|| text.strip_prefix("refs/tags/"))
            .ok_or_else(refuse)?;
        let charset =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'@' | b'#' | b'/');
        let part = |p: &str| {
            !p.is_empty()
                && !p.starts_with(['-', '.'])
                && !p.ends_with('.')
                && !p.ends_with(".lock")
                && p != "@"
        };
        let ok = text.len() <= 200
            && rest.bytes().all(charset)
            && rest.split('/').all(part)
            && !rest.contains("..")
            && rest != "HEAD";
        if ok { Ok(Self(text.to_owned())) } else { Err(refuse()) }
    }
}

impl RefName {
    /// `main` for `refs/heads/main`; none for a tag.
    pub fn branch(&self) -> Option<&str> {
        self.0.strip_prefix("refs/heads/")
    }
    /// `v1.2.3` for `refs/tags/v1.2.3`; none for a branch.
    pub fn tag(&self) -> Option<&str> {
        self.0.strip_prefix("refs/tags/")
    }
    /// The name as people write it, without `refs/heads/` or `refs/tags/`.
    pub fn short(&self) -> &str {
        self.branch().or_else(|| self.tag()).unwrap_or(&self.0)
    }
}

/// One command of a push: move `name` from `old` to `new`; zero ids mean creation and deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    pub name: RefName,
    pub old: Sha,
    pub new: Sha,
}

impl RefUpdate {
    pub fn is_delete(&self) -> bool {
        self.new.is_zero()
    }
    pub fn is_create(&self) -> bool {
        self.old.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// git's own verdict on names that we take: it must be the looser one.
    fn git_takes(names: &[String]) {
        for name in names {
            let status = std::process::Command::new("git").args(["check-ref-format", name]).status().unwrap();
            assert!(status.success(), "git refuses {name:?}");
        }
    }

    #[test]
    fn fuzzed_ref_names_that_are_taken_are_harmless_and_git_takes_them_too() {
        let corpus: [&[u8]; 6] = [
            b"refs/heads/main",
            b"refs/heads/feature/login-form",
            b"refs/tags/v1.2.3+build.7",
            b"refs/heads/a@b#c",
            b"refs/heads/HEAD",
            b"refs/pull/1/head",
        ];
        let words: [&[u8]; 24] = [
            b"refs/heads/",
            b"refs/tags/",
            b"/",
            b"//",
            b"..",
            b".",
            b".lock",
            b"@",
            b"@{",
            b"HEAD",
            b"-",
            b"--upload-pack=x",
            b"$(id)",
            b";id",
            b"`id`",
            b"'",
            b"\"",
            b"\\",
            b"\0",
            b"\n",
            b" ",
            b"\x1b[31m",
            b"\xe2\x80\xae",
            b"\xff",
        ];
        let mut taken = std::collections::BTreeSet::new();
        crate::fuzz::run("ref names", 50_000, &corpus, &words, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let Ok(name) = text.parse::<RefName>() else { return false };
            assert_eq!(name.as_str(), text);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@#/".contains(&b)), "{text:?}");
            for part in text.split('/') {
                assert!(
                    !part.is_empty() && !part.starts_with(['-', '.']) && !part.ends_with(".lock"),
                    "{text:?}"
                );
            }
            assert!(!text.contains("..") && text.len() <= 200);
            taken.insert(text.to_owned());
            true
        });
        // one process a name: a sample
        let step = (taken.len() / 100).max(1);
        git_takes(&taken.into_iter().step_by(step).collect::<Vec<_>>());
    }
}
