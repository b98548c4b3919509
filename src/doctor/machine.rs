//! The machine: room on its disks, and its clock.

use std::path::Path;

use super::{Finding, Subject};

const MIB: u64 = 1 << 20;
/// Below these a push or a build will soon find no room.
const LEAST_FREE_BYTES: u64 = 256 * MIB;
const FEW_FREE_BYTES: u64 = 2048 * MIB;
const LEAST_FREE_INODES: u64 = 1_000;
/// Registries and tokens stop believing a clock that is further off.
const CLOCK_OFF_FAILS_S: i64 = 300;
const CLOCK_OFF_WARNS_S: i64 = 30;

#[derive(Debug, Clone, Copy)]
struct Room {
    free_bytes: u64,
    /// None where the file system has no such number.
    free_inodes: Option<u64>,
}

pub(super) fn disks(subject: &Subject) -> Vec<Finding> {
    let places = [
        ("disk of the data directory", &subject.data_dir),
        ("disk of temporary files", &subject.temp_dir),
        ("disk of the build cache", &subject.data_dir.join("buildkit")),
    ];
    let mut found = Vec::new();
    for (check, path) in places {
        let shown = check != "disk of the build cache" || path.exists();
        if shown {
            found.push(judge_room(check, path, room(path)));
        }
    }
    found
}

fn room(path: &Path) -> Result<Room, String> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    let stat = rustix::fs::statvfs(existing).map_err(|e| e.to_string())?;
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    Ok(Room { free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize), free_inodes: inodes })
}

fn judge_room(check: &str, path: &Path, room: Result<Room, String>) -> Finding {
    let make_room = "make room, or move the data directory to a larger disk; keep_logs_bytes, keep_unreachable_days and build_cache_limit say what is kept";
    let room = match room {
        Ok(room) => room,
        Err(cause) => {
            return Finding::fail(
                check,
                format!("{}: {cause}", path.display()),
                "check the path and its mount",
            );
        }
    };
    let free = format!("{} has {} MiB free", path.display(), room.free_bytes / MIB);
    match room.free_inodes {
        Some(inodes) if inodes < LEAST_FREE_INODES => Finding::fail(
            check,
            format!("{} has {inodes} inodes left", path.display()),
            "remove small files, or move the data directory to a file system with more inodes",
        ),
        _ if room.free_bytes < LEAST_FREE_BYTES => Finding::fail(check, free, make_room),
        _ if room.free_bytes < FEW_FREE_BYTES => Finding::warn(check, free, make_room),
        _ => Finding::ok(check, free),
    }
}

/// Against the registry's clock, and against what was built last.
pub(super) fn clock(now_ms: i64, registry_ms: Option<i64>, last_build_ms: Option<i64>) -> Vec<Finding> {
    let remedy = "set the machine's clock by NTP (`timedatectl set-ntp true`)";
    let mut found = Vec::new();
    if let Some(theirs) = registry_ms {
        let off_s = (now_ms - theirs) / 1000;
        let says = format!("the clock is {off_s} s off the registry's");
        found.push(match off_s.abs() {
            off if off >= CLOCK_OFF_FAILS_S => Finding::fail("clock", says, remedy),
            off if off >= CLOCK_OFF_WARNS_S => Finding::warn("clock", says, remedy),
            _ => Finding::ok("clock", says),
        });
    }
    if let Some(ahead_ms) =
        last_build_ms.map(|last| last - now_ms).filter(|ahead| *ahead > CLOCK_OFF_WARNS_S * 1000)
    {
        let says = format!("the clock went back: the last build began {} s from now", ahead_ms / 1000);
        found.push(Finding::warn("clock", says, remedy));
    }
    if found.is_empty() {
        found.push(Finding::ok("clock", "not behind the last build; no registry was there to compare with"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn room_is_judged_by_bytes_and_inodes() {
        let level = |free_bytes, free_inodes| {
            judge_room("disk", Path::new("/d"), Ok(Room { free_bytes, free_inodes })).level
        };
        assert_eq!(level(100 * MIB, None), Level::Fail);
        assert_eq!(level(1024 * MIB, Some(1 << 20)), Level::Warn);
        assert_eq!(level(1 << 40, Some(10)), Level::Fail);
        assert_eq!(level(1 << 40, Some(1 << 20)), Level::Ok);
        assert_eq!(judge_room("disk", Path::new("/d"), Err("gone".into())).level, Level::Fail);
        assert!(
            room(Path::new("/nowhere/at/all")).unwrap().free_bytes > 0,
            "the nearest directory that is there"
        );
    }

    #[test]
    fn clocks_are_compared() {
        let levels = |registry, build| -> Vec<Level> {
            clock(1_000_000_000, registry, build).into_iter().map(|f| f.level).collect()
        };
        assert_eq!(levels(Some(1_000_000_000 + 400_000), None), [Level::Fail]);
        assert_eq!(levels(Some(1_000_000_000 - 60_000), None), [Level::Warn]);
        assert_eq!(levels(Some(1_000_000_000), Some(1_000_000_000 - 1)), [Level::Ok]);
        assert_eq!(levels(None, Some(1_000_000_000 + 3_600_000)), [Level::Warn]);
        assert_eq!(levels(None, None), [Level::Ok]);
    }
}
