//! Puts a push's loose objects on the disk while git goes on.
//!
//! git syncs packs by itself. Told to sync loose objects too it does so one after the other and lets the push wait; here
//! a few threads do it together, between the check and the handler, so that the ref never outlives what it points at.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

/// File systems join syncs that come at the same time into one write of their journal.
const THREADS: usize = 4;

/// Syncs on their way.
#[derive(Debug, Default)]
pub(super) struct Syncing(JoinSet<io::Result<()>>);

impl Syncing {
    /// Begins to sync the loose objects of `quarantine`, which git may move into `objects` at any moment.
    pub(super) fn begin(quarantine: &Path, objects: &Path) -> io::Result<Self> {
        let names = loose(quarantine)?;
        let mut tasks = JoinSet::new();
        for part in names.chunks(names.len().div_ceil(THREADS).max(1)) {
            let (part, places) = (part.to_vec(), [quarantine.to_owned(), objects.to_owned()]);
            tasks.spawn_blocking(move || part.iter().try_for_each(|name| sync(&places, name)));
        }
        Ok(Self(tasks))
    }

    /// Returns when all of it is on the disk.
    pub(super) async fn done(mut self) -> io::Result<()> {
        while let Some(synced) = self.0.join_next().await {
            synced.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

/// `ab/cdef…` for each loose object.
fn loose(quarantine: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for dir in fs::read_dir(quarantine)? {
        let dir = dir?;
        let fan_out = dir.file_name();
        let two_digits =
            fan_out.len() == 2 && fan_out.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_hexdigit()));
        if two_digits {
            for file in fs::read_dir(dir.path())? {
                names.push(Path::new(&fan_out).join(file?.file_name()));
            }
        }
    }
    Ok(names)
}

/// The object is at one of the places, or just on its way from the first to the second.
fn sync(places: &[PathBuf; 2], name: &Path) -> io::Result<()> {
    for place in places {
        match File::open(place.join(name)) {
            Ok(file) => return file.sync_all(),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(ErrorKind::NotFound, format!("object {} is gone", name.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_found_at_either_place_and_a_lost_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (quarantine, objects) = (dir.path().join("tmp_objdir-incoming-x"), dir.path().to_owned());
        for name in ["ab/11", "ab/22", "cd/33"] {
            let path = quarantine.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::create_dir_all(quarantine.join("pack")).unwrap();
        fs::write(quarantine.join("pack/p.pack"), "x").unwrap();
        let mut names = loose(&quarantine).unwrap();
        names.sort();
        assert_eq!(names, ["ab/11", "ab/22", "cd/33"].map(PathBuf::from));

        Syncing::begin(&quarantine, &objects).unwrap().done().await.unwrap();
        let places = [quarantine.clone(), objects.clone()];
        fs::create_dir(objects.join("cd")).unwrap();
        fs::rename(quarantine.join("cd/33"), objects.join("cd/33")).unwrap();
        sync(&places, Path::new("cd/33")).unwrap();
        assert_eq!(sync(&places, Path::new("ef/44")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
