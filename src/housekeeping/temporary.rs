//! What killed children leave half-written in a repository: taken away when it is old.
//!
//! Only names that git gives to temporary files and locks, only outside of quarantines, and nothing young: its writer may live.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Removes them; returns how many. What cannot be removed is logged.
pub(super) fn clear(repository: &Path, older_than: Duration, now: SystemTime) -> usize {
    let objects = repository.join("objects");
    let mut found = Vec::new();
    let is_object_temp = |name: &str| name.starts_with("tmp_obj_");
    list(&objects, &mut found, is_object_temp);
    for n in 0..=u8::MAX {
        list(&objects.join(format!("{n:02x}")), &mut found, is_object_temp);
    }
    list(&objects.join("pack"), &mut found, |name| name.starts_with("tmp_") || name.starts_with(".tmp-"));
    for info in [objects.join("info"), objects.join("info/commit-graphs")] {
        list(&info, &mut found, |name| name.ends_with(".lock") || name.starts_with("tmp_"));
    }
    found.retain(|path| is_old(path, older_than, now));
    let mut cleared = 0;
    for path in found {
        match fs::remove_file(&path) {
            Ok(()) => cleared += 1,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "housekeeping: a half-written file stays")
            }
        }
    }
    cleared
}

fn list(dir: &Path, found: &mut Vec<PathBuf>, wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
}

fn is_old(path: &Path, older_than: Duration, now: SystemTime) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| now.duration_since(at).unwrap_or_default() >= older_than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_half_written_files_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("objects");
        for path in ["pack", "info", "0a", "tmp_objdir-incoming-x"] {
            fs::create_dir_all(objects.join(path)).unwrap();
        }
        let gone = [
            "pack/tmp_pack_a",
            "pack/tmp_idx_b",
            "pack/.tmp-12-pack-ab.pack",
            "0a/tmp_obj_c",
            "info/commit-graph.lock",
        ];
        let stay = ["pack/pack-ab.pack", "0a/bcd", "info/commit-graph", "tmp_objdir-incoming-x/tmp_obj_d"];
        for path in gone.iter().chain(&stay) {
            fs::write(objects.join(path), "x").unwrap();
        }
        let hour = Duration::from_secs(3600);
        assert_eq!(clear(dir.path(), hour, SystemTime::now()), 0, "all of them are young");
        assert_eq!(clear(dir.path(), hour, SystemTime::now() + 2 * hour), gone.len());
        assert!(gone.iter().all(|path| !objects.join(path).exists()));
        assert!(stay.iter().all(|path| objects.join(path).exists()));
    }
}
