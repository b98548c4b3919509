//! Programs: found, and new enough.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Finding;

/// The oldest git that this program works with, and the oldest without known holes that a pusher reaches.
const GIT_WORKS: Version = Version(2, 38, 0);
const GIT_SAFE: Version = Version(2, 56, 1);
/// Before it, a frontend could write outside of the daemon's state.
const BUILDKITD_SAFE: Version = Version(0, 28, 1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The first `1.2` or `1.2.3` of a text, with or without a `v` before it.
pub(super) fn version(text: &str) -> Option<Version> {
    text.split(|c: char| c.is_whitespace() || c == ',').find_map(|word| {
        let mut numbers = word.strip_prefix('v').unwrap_or(word).split(['.', '-', '+', '~']);
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Version(major, minor, numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0)))
    })
}

/// The first executable of this name on `path`.
pub(super) fn find(path: &OsStr, names: &[&str]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    names.iter().find_map(|name| std::env::split_paths(path).map(|dir| dir.join(name)).find(runs))
}

/// The first line that `program --version` prints.
pub(super) fn says_of_itself(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().chars().take(120).collect())
}

pub(super) fn git(path: &OsStr) -> Vec<Finding> {
    let said = find(path, &["git"]).map(|program| says_of_itself(&program).map(|said| (program, said)));
    vec![judge_git(said)]
}

fn judge_git(said: Option<Result<(PathBuf, String), String>>) -> Finding {
    let install = format!("install git {GIT_SAFE} or newer (it works from {GIT_WORKS} on)");
    match said {
        None => Finding::fail("git", "there is no git on PATH", install),
        Some(Err(cause)) => Finding::fail("git", cause, install),
        Some(Ok((program, text))) => match version(text.trim_start_matches("git version ")) {
            Some(found) if found >= GIT_SAFE => Finding::ok("git", format!("{} {found}", program.display())),
            Some(found) if found >= GIT_WORKS => Finding::warn(
                "git",
                format!(
                    "{} is {found}: older than {GIT_SAFE}, which mends holes that a pusher can reach",
                    program.display()
                ),
                format!(
                    "upgrade to git {GIT_SAFE}, unless your distribution says that it has taken the fixes over"
                ),
            ),
            _ => Finding::fail("git", format!("{} says {text:?}", program.display()), install),
        },
    }
}

/// A buildkitd's version, as its binary or the daemon itself says it.
pub(super) fn judge_buildkitd(check: &str, said: &str) -> Option<Finding> {
    let found = version(said)?;
    // a build of one's own says 0.0.0: nothing is known of it
    (found < BUILDKITD_SAFE && found != Version(0, 0, 0)).then(|| {
        Finding::warn(
            check,
            format!("buildkitd is {found}: older than {BUILDKITD_SAFE}, before which a frontend can write outside of its state"),
            format!("upgrade buildkitd to {BUILDKITD_SAFE} or newer"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let of = |text| version(text).map(|v| v.to_string());
        assert_eq!(of("2.39.5").as_deref(), Some("2.39.5"));
        assert_eq!(of("buildkitd github.com/moby/buildkit v0.32.2 abc").as_deref(), Some("0.32.2"));
        assert_eq!(of("v0.30.0-rc1").as_deref(), Some("0.30.0"));
        assert_eq!(of("2.100.windows.1").as_deref(), Some("2.100.0"));
        assert_eq!(of("nothing here"), None);
    }

    #[test]
    fn a_git_is_missing_too_old_unsafe_or_fine() {
        let git = |text: &str| judge_git(Some(Ok(("/usr/bin/git".into(), format!("git version {text}")))));
        assert_eq!(judge_git(None).level, Level::Fail);
        assert_eq!(git("2.30.1").level, Level::Fail);
        assert_eq!(git("what").level, Level::Fail);
        assert_eq!(git("2.39.5").level, Level::Warn);
        assert_eq!(git("2.56.1").level, Level::Ok);
        assert!(git("2.39.5").remedy.unwrap().contains("upgrade"));
        assert!(super::git(OsStr::new("/nowhere"))[0].says.contains("no git"));
    }

    #[test]
    fn an_old_buildkitd_is_warned_of() {
        assert_eq!(judge_buildkitd("builder", "v0.28.0").unwrap().level, Level::Warn);
        assert_eq!(judge_buildkitd("builder", "v0.28.1"), None);
        assert_eq!(judge_buildkitd("builder", "0.0.0+unknown"), None);
    }
}
