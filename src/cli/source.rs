//! Where a command's source tree comes from: a directory, or a commit of a repository.
//!
//! Must not read anything of the repository but refs, the commit and its tree: its configuration and hooks are not run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Kind, Report};
use crate::model::{AppName, RefName, Sha, Tree};
use crate::plan::CommitFacts;
use crate::receive::tree::{CommitTree, DirTree};
use crate::solve::git_dir::{GitView, git_facts};

const WHAT_TO_GIVE: &str = "give a directory, or GITDIR@COMMIT with a branch, tag or commit id";

/// A source tree as a command was given it.
pub struct Source {
    pub tree: Box<dyn Tree>,
    pub commit: CommitFacts,
    /// The branch or tag that the commit was named by.
    pub reference: Option<RefName>,
    /// The directory or the repository.
    pub path: PathBuf,
}

impl Source {
    /// `PATH`, or `GITDIR@COMMIT` with a branch, tag or commit id. What exists as a path is a path, `@` or not.
    pub fn open(text: &str) -> Result<Self, Report> {
        match text.rsplit_once('@') {
            Some((gitdir, name)) if !Path::new(text).exists() => {
                let gitdir = Path::new(if gitdir.is_empty() { "." } else { gitdir });
                let (id, reference) = resolve(gitdir, name)?;
                let tree = CommitTree::open_ref_target(gitdir, &id)?;
                let info = tree.commit_info();
                let named = reference.as_ref().map_or("HEAD", RefName::as_str);
                let view = GitView { repository: gitdir, tip: &id, reference: named, pushed: &[] };
                let git = Some(git_facts(&view)?);
                let commit =
                    CommitFacts { sha: info.sha.clone(), committed_at_s: info.committer_time_s, git };
                Ok(Self { tree: Box::new(tree), commit, reference, path: gitdir.to_owned() })
            }
            _ if Path::new(text).is_dir() => {
                let path = PathBuf::from(text);
                let tree = Box::new(DirTree::new(&path));
                Ok(Self { tree, commit: CommitFacts::none(), reference: None, path })
            }
            _ => Err(Report::new(Kind::NotFound, format!("{text} is not a directory")).hint(WHAT_TO_GIVE)),
        }
    }

    /// A name for the app after the directory, where it can be one.
    pub fn app_name(&self) -> Option<AppName> {
        let path = self.path.canonicalize().ok()?;
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        if name == ".git" {
            return path.parent()?.file_name()?.to_str()?.to_ascii_lowercase().parse().ok();
        }
        name.strip_suffix(".git").unwrap_or(&name).parse().ok()
    }
}

/// The object that a branch, a tag, `HEAD` or an id (7 digits or more) names, and the ref where it was one. Nothing of
/// git's wider language of revisions.
fn resolve(gitdir: &Path, name: &str) -> Result<(Sha, Option<RefName>), Report> {
    let shown = gitdir.display();
    let not_found = |message: String, hint: &str| Report::new(Kind::NotFound, message).hint(hint);
    let repository = git2::Repository::open_ext(
        gitdir,
        git2::RepositoryOpenFlags::NO_SEARCH,
        std::iter::empty::<&OsStr>(),
    )
    .map_err(|e| not_found(format!("{shown} is not a git repository: {}", e.message()), WHAT_TO_GIVE))?;
    let full_names = match name {
        "HEAD" => vec![name.to_owned()],
        full if full.starts_with("refs/") => vec![full.to_owned()],
        short => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
    };
    for full in full_names {
        let Ok(reference) = repository.find_reference(&full) else { continue };
        let resolved = reference.resolve().ok().and_then(|r| Some((r.target()?, r.name().ok()?.to_owned())));
        if let Some((oid, name)) = resolved {
            return Ok((oid.to_string().parse::<Sha>()?, name.parse().ok()));
        }
    }
    let hex = (7..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
    let unknown = || {
        not_found(
            format!("{shown} has no branch, tag or commit {name:?}"),
            "`git branch` and `git tag` list the names; an id needs 7 digits or more",
        )
    };
    if !hex {
        return Err(unknown());
    }
    match repository.find_commit_by_prefix(name) {
        Ok(commit) => Ok((commit.id().to_string().parse::<Sha>()?, None)),
        Err(e) if e.code() == git2::ErrorCode::Ambiguous => {
            Err(Report::user(format!("{name:?} fits more than one object of {shown}"))
                .hint("give more digits of the id"))
        }
        Err(_) => Err(unknown()),
    }
}
