//! What a commit's history says of its version: which tags lie in it, and which is nearest. Reads only.

use std::collections::BTreeMap;

use git2::{DescribeFormatOptions, DescribeOptions, ErrorCode, ObjectType, Oid, Repository};

use super::{GitDirError, GitView, unreadable};
use crate::kinds::ko::GitFacts;
use crate::model::Sha;

/// Older commits are not looked at for tags.
const MAX_COMMITS: usize = 200_000;
/// The tags of versions that a build is told of, newest commits first.
const MAX_VERSIONS: usize = 4096;
const TAGS: &str = "refs/tags/";

/// A tag of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// Without `refs/tags/`.
    pub(super) name: String,
    /// What the ref holds: the commit, or a tag of it.
    pub(super) target: Oid,
    pub(super) commit: Oid,
}

/// A commit with the tags in its history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) commit: Oid,
    pub(super) tree: Oid,
    pub(super) has_parents: bool,
    /// Newest commits first, then by name.
    merged: Vec<Tag>,
    pub(super) cut: bool,
}

impl History {
    pub(super) fn of(git: &Repository, view: &GitView<'_>) -> Result<Self, GitDirError> {
        let failed = || unreadable(view.tip);
        let tip = oid(view.tip)?;
        let object = git.find_object(tip, None).map_err(failed())?;
        let commit = object.peel_to_commit().map_err(failed())?;
        let tags = tags(git, view)?;
        let (merged, cut) = merged(git, commit.id(), tags).map_err(failed())?;
        Ok(Self {
            commit: commit.id(),
            tree: commit.tree_id(),
            has_parents: commit.parent_count() > 0,
            merged,
            cut,
        })
    }

    /// Tags that Go may take for a module's version: `v1.2.3`, `sub/v1.2.3-rc.1`.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Tag> {
        self.merged.iter().filter(|tag| is_version(&tag.name)).take(MAX_VERSIONS)
    }

    pub(super) fn facts(&self, git: &Repository, view: &GitView<'_>) -> Result<GitFacts, GitDirError> {
        let failed = || unreadable(self.commit);
        let commit = git.find_commit(self.commit).map_err(failed())?;
        let short = commit.as_object().short_id().map_err(failed())?;
        let branch = view.reference.strip_prefix("refs/heads/").unwrap_or("HEAD");
        Ok(GitFacts {
            branch: branch.to_owned(),
            tag: self.nearest(git, &commit)?,
            short_commit: String::from_utf8_lossy(&short).into_owned(),
            full_commit: self.commit.to_string(),
            committed_at_s: commit.time().seconds(),
            dirty: false,
        })
    }

    /// As `git describe --tags --abbrev=0` says it.
    fn nearest(&self, git: &Repository, commit: &git2::Commit<'_>) -> Result<Option<String>, GitDirError> {
        if let Some(name) = self.best_here(git) {
            return Ok(Some(name));
        }
        if self.merged.is_empty() {
            return Ok(None);
        }
        let mut options = DescribeOptions::new();
        options.describe_tags();
        let mut format = DescribeFormatOptions::new();
        format.abbreviated_size(0);
        match commit.as_object().describe(&options).and_then(|found| found.format(Some(&format))) {
            Ok(name) => Ok(Some(name)),
            // a tag of this very push lies in the history, and git does not know it yet
            Err(cause) if cause.code() == ErrorCode::NotFound => {
                Ok(self.merged.first().map(|tag| tag.name.clone()))
            }
            Err(cause) => Err(unreadable(format!("the tags before {}", self.commit))(cause)),
        }
    }

    /// Of the commit's own tags: an annotated one, the newest of them, else the first by name.
    fn best_here(&self, git: &Repository) -> Option<String> {
        let here: Vec<&Tag> = self.merged.iter().filter(|tag| tag.commit == self.commit).collect();
        let mut best: Option<(i64, &Tag)> = None;
        for tag in &here {
            let Ok(annotated) = git.find_tag(tag.target) else { continue };
            let when = annotated.tagger().map_or(0, |tagger| tagger.when().seconds());
            if best.is_none_or(|(newest, _)| when > newest) {
                best = Some((when, tag));
            }
        }
        best.map(|(_, tag)| tag).or_else(|| here.first().copied()).map(|tag| tag.name.clone())
    }
}

fn oid(sha: &Sha) -> Result<Oid, GitDirError> {
    Oid::from_str(sha.as_str()).map_err(unreadable(sha))
}

/// Every tag of a commit, those of the push included.
fn tags(git: &Repository, view: &GitView<'_>) -> Result<Vec<Tag>, GitDirError> {
    let failed = || unreadable("the tags");
    let mut targets: BTreeMap<String, Oid> = BTreeMap::new();
    for reference in git.references_glob("refs/tags/*").map_err(failed())? {
        let reference = reference.map_err(failed())?;
        // a name that is no text is none that Go would read
        if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
            targets.insert(name.to_owned(), target);
        }
    }
    let own = (view.reference.to_owned(), view.tip.clone());
    for (name, sha) in view.pushed.iter().chain([&own]).filter(|(name, _)| name.starts_with(TAGS)) {
        targets.insert(name.clone(), oid(sha)?);
    }
    let mut tags = Vec::new();
    for (name, target) in targets {
        let commit = git.find_object(target, None).and_then(|object| object.peel(ObjectType::Commit));
        // a tag of a tree or a file is no version
        if let (Ok(commit), Some(name)) = (commit, name.strip_prefix(TAGS)) {
            tags.push(Tag { name: name.to_owned(), target, commit: commit.id() });
        }
    }
    Ok(tags)
}

/// The tags that `commit` descends from, and whether older commits were left unseen.
fn merged(git: &Repository, commit: Oid, tags: Vec<Tag>) -> Result<(Vec<Tag>, bool), git2::Error> {
    let mut of: BTreeMap<Oid, Vec<Tag>> = BTreeMap::new();
    for tag in tags {
        of.entry(tag.commit).or_default().push(tag);
    }
    let mut found = Vec::new();
    let mut walk = git.revwalk()?;
    walk.push(commit)?;
    for (number, next) in walk.enumerate() {
        if of.is_empty() {
            break;
        }
        if number >= MAX_COMMITS {
            return Ok((found, true));
        }
        found.extend(of.remove(&next?).unwrap_or_default());
    }
    Ok((found, false))
}

/// Whether a name ends like a version that Go knows: `v`, three numbers, and whatever follows them.
fn is_version(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let Some(numbers) = last.strip_prefix('v') else { return false };
    let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
    let mut parts = numbers.split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.by_ref().take(3).filter(|part| number(part)).count() == 3 && parts.next().is_none()
}
