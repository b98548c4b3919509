//! What a killed buildkitd leaves on the machine: runc's records of its containers, and mounts below its root.
//!
//! Only ever touches what lies below the given root, and only while no buildkitd of ours works there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ends leftover containers and takes leftover mounts away. What cannot be done is logged: a new buildkitd works all the same.
pub(super) fn clear(root: &Path, runc: &Path, path: &OsStr) {
    for id in containers(root, runc, path) {
        tracing::info!(container = id, "ending a container that an earlier buildkitd left");
        let done = Command::new(runc).args(["delete", "--force", &id]).env_clear().env("PATH", path).output();
        if let Ok(out) = done
            && !out.status.success()
        {
            tracing::warn!(container = id, "runc delete: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in mounts_below(&table, root).into_iter().rev() {
        if let Err(error) = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH) {
            tracing::warn!(mount = %point.display(), %error, "cannot unmount what an earlier buildkitd left");
        }
    }
}

/// Ids of runc's containers whose bundle is below `root`: buildkitd keeps them all in runc's one place for everybody.
fn containers(root: &Path, runc: &Path, path: &OsStr) -> Vec<String> {
    let listed = Command::new(runc).args(["list", "--format", "json"]).env_clear().env("PATH", path).output();
    listed.map_or_else(|_| Vec::new(), |out| containers_below(&out.stdout, root))
}

fn containers_below(json: &[u8], root: &Path) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Container {
        id: String,
        bundle: PathBuf,
    }
    // `null` for none
    let all: Option<Vec<Container>> = serde_json::from_slice(json).unwrap_or_default();
    all.unwrap_or_default().into_iter().filter(|c| c.bundle.starts_with(root)).map(|c| c.id).collect()
}

/// Mount points below `root`, in the order of mounting.
fn mounts_below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(root) && point != root)
        .collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_root_is_ours() {
        let list = br#"[{"id":"a","bundle":"/d/buildkit/runc-overlayfs/executor/a","pid":1},{"id":"b","bundle":"/d/buildkit2/x"}]"#;
        assert_eq!(containers_below(list, Path::new("/d/buildkit")), ["a"]);
        assert_eq!(containers_below(b"null", Path::new("/d")), Vec::<String>::new());
        let table = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                     90 22 0:50 / /d\\040e/buildkit/rootfs rw - overlay overlay rw\n\
                     91 22 0:51 / /d\\040e/buildkit rw - tmpfs tmpfs rw\n\
                     92 22 0:52 / /d\\040e/buildkit-other rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(table, Path::new("/d e/buildkit")), [Path::new("/d e/buildkit/rootfs")]);
    }
}
