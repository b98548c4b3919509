//! What ko's templates may say of the working tree and of the time, asked of git's own files.
//!
//! Nothing is run, and nothing is written.

use std::path::Path;
use std::time::SystemTime;

use git2::{DescribeFormatOptions, DescribeOptions, Repository, StatusOptions};

use crate::config::Environment;
use crate::error::Report;
use crate::kinds::ko::{Facts, GitFacts};

const SHORT: usize = 7;

/// The facts of the worktree at `source`; none of git where it is no repository.
pub fn facts(source: &Path, environment: &Environment) -> Result<Facts, Report> {
    let date_s = match environment.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|_| {
            Report::user(format!("SOURCE_DATE_EPOCH is {text:?}, which is no time in Unix seconds"))
        })?,
        None => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or_default()),
    };
    let git = match Repository::open(source) {
        Ok(repository) => git(&repository).ok(),
        Err(_) => None,
    };
    Ok(Facts { git, date_s })
}

fn git(repository: &Repository) -> Result<GitFacts, git2::Error> {
    let head = repository.head()?;
    let commit = head.peel_to_commit()?;
    let branch =
        if head.is_branch() { head.shorthand().unwrap_or("HEAD").to_owned() } else { "HEAD".to_owned() };
    let mut describe = DescribeOptions::new();
    let mut format = DescribeFormatOptions::new();
    format.abbreviated_size(0);
    let tag = commit
        .as_object()
        .describe(describe.describe_tags())
        .and_then(|found| found.format(Some(&format)))
        .ok();
    let mut options = StatusOptions::new();
    options.include_untracked(true).include_ignored(false);
    let dirty = !repository.statuses(Some(&mut options))?.is_empty();
    let full_commit = commit.id().to_string();
    let short = commit.as_object().short_id().ok().and_then(|id| id.as_str().map(str::to_owned).ok());
    Ok(GitFacts {
        branch,
        tag,
        short_commit: short.unwrap_or_else(|| full_commit.chars().take(SHORT).collect()),
        full_commit,
        committed_at_s: commit.time().seconds(),
        dirty,
    })
}
