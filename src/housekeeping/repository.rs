//! One repository: what is worth doing, and doing it in two steps.
//!
//! `pack` loses nothing: reachable objects go into one pack with a bitmap, all others into a cruft pack with their ages; pushes
//! and fetches go on meanwhile. `sweep` takes away what has been unreachable for long enough, holds the repository's lease for
//! it, and stops where a push comes. Killed anywhere, both leave a whole repository and at most half-written files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::Thresholds;
use super::git::{GitError, KeptGit};
use super::look::{Look, look};
use super::temporary;
use crate::receive::Leases;

/// Its time says when the repository was last packed.
const MARKER: &str = "lemnos-packed";

/// One repository with what it needs.
pub struct Upkeep<'a> {
    pub path: PathBuf,
    /// The app's.
    pub id: &'a str,
    pub leases: &'a Leases,
    pub git: &'a KeptGit,
    pub thresholds: &'a Thresholds,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub half_written_files: usize,
    pub packed: bool,
    pub swept: bool,
}

/// Why a repository is worth the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Too much is loose, or in small packs.
    Scattered,
    /// Something is loose or unreachable, and it has been so for long.
    Aged,
    /// Something has been unreachable for long enough.
    Expired,
}

impl Upkeep<'_> {
    pub(super) async fn worthwhile(&self, now: SystemTime) -> Result<Option<Reason>, GitError> {
        let seen = self.look().await?;
        let packed = fs::metadata(self.path.join(MARKER)).and_then(|meta| meta.modified()).ok();
        let age = packed.map(|at| now.duration_since(at).unwrap_or_default());
        Ok(reason(&seen, age, self.thresholds, now))
    }

    async fn look(&self) -> Result<Look, GitError> {
        let (objects, most) = (self.path.join("objects"), self.thresholds.loose_objects);
        let failed = GitError::io(&objects);
        let looking = tokio::task::spawn_blocking(move || look(&objects, most.max(1)));
        looking.await.map_err(std::io::Error::other).and_then(|seen| seen).map_err(failed)
    }

    /// Packs, and takes away what has expired where `may_sweep` and no push is under way.
    pub(super) async fn run(&self, may_sweep: bool, stop: &CancellationToken) -> Result<Collected, GitError> {
        let mut done = Collected::default();
        let (path, older_than) = (self.path.clone(), self.thresholds.keep_temporary);
        let clearing =
            tokio::task::spawn_blocking(move || temporary::clear(&path, older_than, SystemTime::now()));
        done.half_written_files = clearing.await.unwrap_or_default();
        self.pack(stop).await?;
        done.packed = true;
        if may_sweep {
            match self.sweep(stop).await {
                Ok(swept) => done.swept = swept,
                Err(GitError::Stopped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.git(&["commit-graph", "write", "--reachable", "--no-progress"], &[stop]).await?;
        self.mark().map_err(GitError::io(&self.path))?;
        Ok(done)
    }

    /// A new file each time: git's user may write to the directory, and a link in the old one's place leads elsewhere.
    fn mark(&self) -> std::io::Result<()> {
        let marker = self.path.join(MARKER);
        match fs::remove_file(&marker) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        fs::File::create_new(&marker)?;
        crate::owner::give(&marker, &self.path)
    }

    async fn pack(&self, stop: &CancellationToken) -> Result<(), GitError> {
        self.git(&["pack-refs", "--all", "--prune"], &[stop]).await?;
        self.git(&["repack", "-d", "-l", "-q", "-b", "--cruft"], &[stop]).await
    }

    /// Packs refs, and what is loose into a pack beside the larger ones: a fraction of `pack`'s work, and as safe.
    pub(super) async fn gather(&self, stop: &CancellationToken) -> Result<(), GitError> {
        if !self.path.is_dir() {
            return Ok(());
        }
        self.git(&["pack-refs", "--all", "--prune"], &[stop]).await?;
        self.git(&["repack", "-d", "-l", "-q", "-n", "--geometric=2"], &[stop]).await
    }

    /// False where nothing has expired, or somebody is at work here.
    async fn sweep(&self, stop: &CancellationToken) -> Result<bool, GitError> {
        let keep = self.thresholds.keep_unreachable;
        let expired = |seen: &Look| is_expired(seen, keep, SystemTime::now());
        if !expired(&self.look().await?) {
            return Ok(false);
        }
        let Some(lease) = self.leases.sweep(self.id) else { return Ok(false) };
        // it may name commits that go now, and git believes it
        remove_commit_graph(&self.path)?;
        let expire = expiry(keep);
        let cruft = format!("--cruft-expiration={expire}");
        let stops = [stop, lease.unwanted()];
        self.git(&["repack", "-d", "-l", "-q", "-b", "--cruft", &cruft], &stops).await?;
        self.git(&["prune", &format!("--expire={expire}")], &stops).await?;
        Ok(true)
    }

    async fn git(&self, args: &[&str], stop: &[&CancellationToken]) -> Result<(), GitError> {
        self.git.run(&self.path, args, stop).await
    }
}

fn reason(seen: &Look, age: Option<Duration>, thresholds: &Thresholds, now: SystemTime) -> Option<Reason> {
    if seen.loose >= thresholds.loose_objects.max(1) || seen.packs >= thresholds.packs.max(2) {
        return Some(Reason::Scattered);
    }
    if is_expired(seen, thresholds.keep_unreachable, now) {
        return Some(Reason::Expired);
    }
    let something = seen.loose > 0 || seen.packs > 1;
    let long = age.is_none_or(|age| age >= thresholds.at_least_every);
    (something && long).then_some(Reason::Aged)
}

fn is_expired(seen: &Look, keep: Duration, now: SystemTime) -> bool {
    seen.oldest_cruft.is_some_and(|at| now.duration_since(at).unwrap_or_default() >= keep)
}

/// As git reads it.
fn expiry(keep: Duration) -> String {
    match keep.as_secs() {
        0 => "now".to_owned(),
        seconds => format!("{seconds}.seconds.ago"),
    }
}

fn remove_commit_graph(repository: &Path) -> Result<(), GitError> {
    let info = repository.join("objects/info");
    let gone = |path: &Path, removed: std::io::Result<()>| match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(GitError::io(path)(e)),
        _ => Ok(()),
    };
    let (one, chain) = (info.join("commit-graph"), info.join("commit-graphs"));
    gone(&one, fs::remove_file(&one))?;
    gone(&chain, fs::remove_dir_all(&chain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_worth_it_by_count_by_age_or_by_what_has_expired() {
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        let thresholds = Thresholds::default();
        let of = |loose, packs, cruft: Option<Duration>, age| {
            let seen = Look { loose, packs, oldest_cruft: cruft.map(|age| now - age) };
            reason(&seen, age, &thresholds, now)
        };
        assert_eq!(of(0, 1, None, None), None, "one pack is as good as it gets");
        assert_eq!(of(2_000, 1, None, Some(hour)), Some(Reason::Scattered));
        assert_eq!(of(0, 20, None, Some(hour)), Some(Reason::Scattered));
        assert_eq!(of(5, 1, None, Some(hour)), None);
        assert_eq!(of(5, 1, None, Some(25 * hour)), Some(Reason::Aged));
        assert_eq!(of(5, 1, None, None), Some(Reason::Aged), "never packed");
        assert_eq!(of(0, 1, Some(13 * 24 * hour), Some(hour)), None);
        assert_eq!(of(0, 1, Some(15 * 24 * hour), Some(hour)), Some(Reason::Expired));
    }
}
