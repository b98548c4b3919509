//! What templates may say of a build: handed in as data, so that equal inputs give equal plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::template::Value;

/// What is known of the commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// None for a tree that is no repository: then ko's empty values.
    pub git: Option<GitFacts>,
    /// `Date` and `Timestamp`, Unix seconds: the commit's, as a clock would make every build another one.
    pub date_s: i64,
}

/// As git says it: `rev-parse --abbrev-ref`, `describe --tags --abbrev=0`, `show --format=%h`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitFacts {
    /// `HEAD` where no branch is checked out.
    pub branch: String,
    /// The nearest tag; none: ko says `v0.0.0`.
    pub tag: Option<String>,
    pub short_commit: String,
    pub full_commit: String,
    pub committed_at_s: i64,
    pub dirty: bool,
}

/// Go's zero time, which ko shows where there is no repository.
const YEAR_1: i64 = -62_135_596_800;

fn date(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

impl Facts {
    /// The data of the templates for a build with this environment.
    pub(super) fn data(&self, env: &[(String, String)], go_env: BTreeMap<String, String>) -> Value {
        let mut variables = BTreeMap::from([("LDFLAGS".to_owned(), String::new())]);
        variables.extend(env.iter().cloned());
        let map = |pairs: Vec<(&str, Value)>| {
            Value::Map(Arc::new(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
        };
        let none = GitFacts { committed_at_s: YEAR_1, ..GitFacts::default() };
        let git = self.git.as_ref().unwrap_or(&none);
        let tag = match (&self.git, &git.tag) {
            (None, _) => "",
            (Some(_), Some(tag)) => tag,
            (Some(_), None) => "v0.0.0",
        };
        let git = map(vec![
            ("Branch", Value::text(&git.branch)),
            ("Tag", Value::text(tag)),
            ("ShortCommit", Value::text(&git.short_commit)),
            ("FullCommit", Value::text(&git.full_commit)),
            ("CommitDate", Value::Text(date(git.committed_at_s))),
            ("CommitTimestamp", Value::Int(git.committed_at_s)),
            ("IsDirty", Value::Bool(git.dirty)),
            ("IsClean", Value::Bool(!git.dirty)),
            ("TreeState", Value::text(if git.dirty { "dirty" } else { "clean" })),
        ]);
        map(vec![
            ("Env", Value::Texts(Arc::new(variables))),
            ("GoEnv", Value::Texts(Arc::new(go_env))),
            ("Git", git),
            ("Date", Value::Text(date(self.date_s))),
            ("Timestamp", Value::Int(self.date_s)),
        ])
    }
}
