//! One server a data directory: an advisory lock that ends with the process, however it ends.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Kind, Report};

/// Held as long as it lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the data directory where there is none, private to this user, and takes it for this process.
    pub fn take(data_dir: &Path) -> Result<Self, Report> {
        let failed = |e: std::io::Error| {
            Report::internal(format!("opening the data directory {}: {e}", data_dir.display()))
                .hint("choose a directory this user can write, with --data DIR")
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(data_dir.join("lemnos.lock"))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Report::new(Kind::Conflict, format!("another lemnos serves {}", data_dir.display()))
                    .hint("stop it, or choose another directory with --data DIR"))
            }
            Err(e) => Err(failed(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = DataLock::take(&data).unwrap();
        assert_eq!(DataLock::take(&data).unwrap_err().kind, Kind::Conflict);
        drop(first);
        DataLock::take(&data).unwrap();
    }
}
