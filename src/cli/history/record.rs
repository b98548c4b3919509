//! The record that a word means: a reference or its beginning, also behind `BUILDER/…/` as buildx writes it, `^N` for the
//! Nth before the newest, nothing for the newest.

use std::str::FromStr;

use crate::buildkit::{HistoryQuery, Record};
use crate::cli::builder::{BuilderArgs, Chosen};
use crate::error::{Kind, Report};
use crate::event::plain_line;

/// Most records that a message names.
const NAMED: usize = 3;

/// Which record is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// How many newer ones there are.
    Nth(usize),
    /// The reference or its beginning, and the builder's name where one is given.
    Named { builder: Option<String>, start: String },
}

impl Default for Word {
    fn default() -> Self {
        Self::Nth(0)
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix('^') {
            let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
            return number
                .map(Self::Nth)
                .ok_or_else(|| "write ^ and a number: ^0 is the newest build".into());
        }
        let (builder, start) = match text.rsplit_once('/') {
            Some((builder, start)) => (Some(builder.to_owned()), start),
            None => (None, text),
        };
        if start.is_empty() || start.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(
                "write a build's reference or its beginning, or ^N; `lemnos buildkit history ls` lists them"
                    .into(),
            );
        }
        Ok(Self::Named { builder, start: start.to_owned() })
    }
}

/// A record, and the builder that keeps it.
pub struct Kept<'a> {
    pub builder: &'a Chosen,
    pub record: Record,
}

/// All records of all builders, newest first.
pub struct Shelf<'a>(Vec<Kept<'a>>);

impl<'a> Shelf<'a> {
    pub async fn of(builders: &'a [Chosen]) -> Result<Self, Report> {
        let mut kept = Vec::new();
        for builder in builders {
            let records = builder.client.history(&HistoryQuery::default()).await?;
            kept.extend(records.into_iter().map(|record| Kept { builder, record }));
        }
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.record.created_at));
        Ok(Self(kept))
    }

    /// Without the builds that have not ended.
    pub fn ended(mut self) -> Self {
        self.0.retain(|kept| kept.record.completed_at.is_some());
        self
    }

    pub fn all(&self) -> &[Kept<'a>] {
        &self.0
    }

    pub fn find(&self, word: &Word) -> Result<&Kept<'a>, Report> {
        match word {
            Word::Nth(number) => self.0.get(*number).ok_or_else(|| self.too_few(*number)),
            Word::Named { builder, start } => self.named(builder.as_deref(), start),
        }
    }

    /// What stands before the reference is a name of buildx's, mostly; one of ours chooses among builders.
    fn named(&self, builder: Option<&str>, start: &str) -> Result<&Kept<'a>, Report> {
        let ours = builder.filter(|name| self.0.iter().any(|kept| kept.builder.name == *name));
        let begins = |kept: &&Kept<'a>| {
            kept.record.reference.starts_with(start) && ours.is_none_or(|name| kept.builder.name == name)
        };
        let found: Vec<&Kept<'a>> = self.0.iter().filter(begins).collect();
        if let Some(whole) = found.iter().find(|kept| kept.record.reference == start) {
            return Ok(whole);
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(Report::new(Kind::NotFound, format!("no build {start:?} in the history"))
                .hint("`lemnos buildkit history ls` lists the builds; builders forget old ones")),
            several => {
                let some = several.iter().take(NAMED).map(|kept| plain_line(&kept.record.reference));
                let some = some.collect::<Vec<_>>().join(", ");
                let more = if several.len() > NAMED { ", …" } else { "" };
                Err(Report::user(format!(
                    "{start:?} begins the references of {} builds: {some}{more}",
                    several.len()
                ))
                .hint("give more of the reference"))
            }
        }
    }

    fn too_few(&self, number: usize) -> Report {
        let message = match self.0.len() {
            0 => "the history holds no such build: it is empty".to_owned(),
            count => format!("there is no build ^{number}: the history holds {count}, ^0 to ^{}", count - 1),
        };
        Report::new(Kind::NotFound, message).hint("build something first, or give another --builder")
    }
}

/// The builders, and what one word means on them.
pub async fn one<T>(
    builder: &BuilderArgs,
    word: Option<&Word>,
    tell: impl AsyncFnOnce(&Kept<'_>) -> Result<T, Report>,
) -> Result<T, Report> {
    let builders = builder.connect().await?;
    let shelf = Shelf::of(&builders).await?;
    tell(shelf.find(word.unwrap_or(&Word::default()))?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_references_beginnings_and_counts() {
        let named = |builder: Option<&str>, start: &str| Word::Named {
            builder: builder.map(str::to_owned),
            start: start.to_owned(),
        };
        for (text, word) in [
            ("^0", Word::Nth(0)),
            ("^12", Word::Nth(12)),
            ("zu7", named(None, "zu7")),
            ("default/default0/zu7", named(Some("default/default0"), "zu7")),
            ("unix:///run/b.sock/zu7", named(Some("unix:///run/b.sock"), "zu7")),
        ] {
            assert_eq!(text.parse::<Word>().unwrap(), word);
        }
        for text in ["^", "^-1", "^+1", "^x", "", "a/", "a b", "a\u{1b}[2J"] {
            assert!(text.parse::<Word>().is_err(), "{text:?}");
        }
    }
}
