//! The check of a push's objects while they are in quarantine: what fsck lets through and a builder must not take.
//!
//! Reads objects only through libgit2 and never writes. What it refuses, git throws away with the quarantine.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid};

use super::command;
use super::error::Refusal;
use super::limits::Limits;
use super::measure::{Measure, Memo};
use super::repo::is_quarantine_name;
use super::tree::kind_of;
use crate::model::{AppSettings, EntryKind, RefUpdate, Sha};

/// Names that some kind of build reads its configuration from; none of them may be a link.
const CONFIG_NAMES: [&str; 7] =
    ["Dockerfile", "Containerfile", "build-config.yaml", "spin.toml", "melange.yaml", ".ko.yaml", "go.mod"];

/// How many trees are looked through for the path of an object that is refused.
const NAMING_TREES: usize = 20_000;

/// One push as `pre-receive` sees it.
pub(super) struct Inspection<'a> {
    pub repository: &'a Path,
    /// What git says its quarantine is; none when the push brings no objects.
    pub quarantine: Option<&'a Path>,
    pub settings: &'a AppSettings,
    /// The commits at which the client's clone is cut off.
    pub shallow: &'a [Sha],
    pub limits: &'a Limits,
    pub memo: &'a Memo,
}

/// A push that passed.
pub(super) struct Accepted {
    pub updates: Vec<RefUpdate>,
    /// Where its objects are now, verified to be git's own.
    pub quarantine: Option<PathBuf>,
}

impl Inspection<'_> {
    /// The push, acceptable as a whole; or why none of it is.
    pub(super) fn check(&self, input: &[u8]) -> Result<Accepted, Refusal> {
        let updates = command::parse_all(input, self.limits.max_updates)?;
        let tips: Vec<&RefUpdate> = updates.iter().filter(|u| !u.is_delete()).collect();
        if tips.is_empty() {
            return Ok(Accepted { updates, quarantine: None });
        }
        let quarantine = self.trusted_quarantine()?;
        let objects = self.repository.join("objects");
        let git = git2::Repository::from_odb(open(&[&quarantine, &objects])?).map_err(unreadable)?;
        let odb = git.odb().map_err(unreadable)?;
        self.check_history(&git)?;
        let roots = tips.iter().map(|tip| self.root_tree(&git, tip)).collect::<Result<Vec<_>, _>>()?;
        self.check_sizes(&quarantine).map_err(|problem| name_blob(&git, &roots, problem))?;
        for (tip, root) in tips.iter().zip(roots) {
            let Some(root) = root else { continue };
            let reference = tip.name.as_str();
            Measure { git: &git, odb: &odb, limits: self.limits, memo: self.memo, reference }.tree(root)?;
            self.check_links(&git, root, reference)?;
        }
        Ok(Accepted { updates, quarantine: Some(quarantine) })
    }

    /// The quarantine must be a directory that git made in this very repository.
    fn trusted_quarantine(&self) -> Result<PathBuf, Refusal> {
        let claimed = self.quarantine.ok_or(Refusal::Forged("new objects without a quarantine"))?;
        let real = claimed.canonicalize().map_err(|_| Refusal::Forged("its quarantine does not exist"))?;
        let objects = self.repository.join("objects").canonicalize();
        let objects = objects.map_err(|e| Refusal::Unreadable(e.to_string()))?;
        let name = real.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if real.parent() == Some(&objects) && is_quarantine_name(name) {
            Ok(real)
        } else {
            Err(Refusal::Forged("its quarantine is not in the app's repository"))
        }
    }

    /// Where the client's clone is cut off, the server must know what came before. git finds that out too, but keeps the
    /// objects.
    fn check_history(&self, git: &git2::Repository) -> Result<(), Refusal> {
        for cut in self.shallow {
            let Ok(commit) = Oid::from_str(cut.as_str()).and_then(|id| git.find_commit(id)) else { continue };
            if let Some(missing) = commit.parent_ids().find(|parent| git.find_commit(*parent).is_err()) {
                return Err(Refusal::Shallow(missing.to_string()));
            }
        }
        Ok(())
    }

    /// The tree that the tip shows; none for a tag of a file, of which nothing is ever checked out.
    fn root_tree(&self, git: &git2::Repository, tip: &RefUpdate) -> Result<Option<Oid>, Refusal> {
        let id = Oid::from_str(tip.new.as_str()).map_err(unreadable)?;
        let object = git.find_object(id, None).map_err(unreadable)?;
        let kind = object.kind().map_or("unknown object", |k| k.str());
        if tip.name.branch().is_some() && kind != "commit" {
            return Err(Refusal::NotACommit { reference: tip.name.to_string(), kind: kind.to_owned() });
        }
        Ok(object.peel(ObjectType::Tree).ok().map(|tree| tree.id()))
    }

    /// Number and inflated sizes of the new objects, from their headers.
    fn check_sizes(&self, quarantine: &Path) -> Result<(), Refusal> {
        let odb = open(&[quarantine])?;
        let (mut count, mut total) = (0_u64, 0_u64);
        let mut problem = None;
        let walked = odb.foreach(|id| {
            count += 1;
            match odb.read_header(*id) {
                Ok((size, _)) => {
                    let size_bytes = size as u64;
                    total = total.saturating_add(size_bytes);
                    if size_bytes > self.limits.max_blob_bytes {
                        let limit_bytes = self.limits.max_blob_bytes;
                        problem = Some(Refusal::Blob { what: id.to_string(), size_bytes, limit_bytes });
                    } else if total > self.limits.max_new_bytes {
                        problem = Some(Refusal::NewBytes { limit_bytes: self.limits.max_new_bytes });
                    } else if count > self.limits.max_new_objects {
                        problem = Some(Refusal::NewObjects(self.limits.max_new_objects));
                    }
                }
                Err(e) => problem = Some(unreadable(e)),
            }
            problem.is_none()
        });
        match problem {
            Some(problem) => Err(problem),
            None => walked.map_err(unreadable),
        }
    }

    /// Build configuration at the root and where the app's settings say is no link, and not behind one.
    fn check_links(&self, git: &git2::Repository, root: Oid, reference: &str) -> Result<(), Refusal> {
        let refuse = |path: String| Refusal::Symlink { reference: reference.to_owned(), path };
        let file = self.settings.dockerfile_path.as_deref().unwrap_or("Dockerfile");
        let (file_dir, file_name) = file.trim_matches('/').rsplit_once('/').unwrap_or(("", file));
        let mut seen = HashSet::new();
        for dir in ["", self.settings.context_path.as_deref().unwrap_or(""), file_dir] {
            let parts: Vec<&str> = dir.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
            if !seen.insert(parts.clone()) {
                continue;
            }
            let mut here = Some(root);
            let mut walked = String::new();
            for part in parts {
                let Some(id) = here else { break };
                walked.push_str(part);
                let tree = git.find_tree(id).map_err(unreadable)?;
                let entry = tree.get_name(part).map(|e| (kind_of(e.filemode()), e.id()));
                here = match entry {
                    Some((EntryKind::Dir, id)) => Some(id),
                    Some((EntryKind::Symlink, _)) => return Err(refuse(walked)),
                    _ => None,
                };
                walked.push('/');
            }
            let Some(id) = here else { continue };
            for entry in &git.find_tree(id).map_err(unreadable)? {
                let name = String::from_utf8_lossy(entry.name_bytes());
                let read =
                    CONFIG_NAMES.contains(&&*name) || name.ends_with(".dockerignore") || name == file_name;
                if read && kind_of(entry.filemode()) == EntryKind::Symlink {
                    return Err(refuse(format!("{walked}{name}")));
                }
            }
        }
        Ok(())
    }
}

/// An object database over these directories alone, without any repository's configuration.
fn open(directories: &[&Path]) -> Result<Odb<'static>, Refusal> {
    let odb = Odb::new().map_err(unreadable)?;
    for directory in directories {
        let text = directory
            .to_str()
            .ok_or_else(|| Refusal::Unreadable("the data directory's path is not UTF-8".to_owned()))?;
        odb.add_disk_alternate(text).map_err(unreadable)?;
    }
    Ok(odb)
}

fn unreadable(cause: git2::Error) -> Refusal {
    Refusal::Unreadable(cause.message().to_owned())
}

/// Puts the path of a refused object into its refusal, where a tip shows it; people know paths, not ids.
fn name_blob(git: &git2::Repository, roots: &[Option<Oid>], problem: Refusal) -> Refusal {
    let Refusal::Blob { what, size_bytes, limit_bytes } = problem else { return problem };
    let path = Oid::from_str(&what).ok().and_then(|id| find_path(git, roots, id));
    let what = path.unwrap_or_else(|| format!("object {what}"));
    Refusal::Blob { what, size_bytes, limit_bytes }
}

fn find_path(git: &git2::Repository, roots: &[Option<Oid>], wanted: Oid) -> Option<String> {
    let mut waiting: Vec<(Oid, String)> = roots.iter().flatten().map(|id| (*id, String::new())).collect();
    let mut seen = HashSet::new();
    while let Some((id, prefix)) = waiting.pop() {
        if seen.len() >= NAMING_TREES || !seen.insert(id) {
            continue;
        }
        for entry in &git.find_tree(id).ok()? {
            let path = format!("{prefix}{}", String::from_utf8_lossy(entry.name_bytes()));
            if entry.id() == wanted {
                return Some(path.chars().filter(|c| !c.is_control()).take(200).collect());
            }
            if kind_of(entry.filemode()) == EntryKind::Dir && prefix.len() < 4096 {
                waiting.push((entry.id(), format!("{path}/")));
            }
        }
    }
    None
}
