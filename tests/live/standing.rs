//! The standing assertion of docs/SECURITY.md around attacks on a whole server: the process lives and stays within its memory,
//! nothing of what was refused is left, and each refusal is on record, once, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::attacks::{leaves_nothing, objects, peak_memory_kib};
use crate::house::House;

/// What the server may have used at its peak, whatever was tried.
const MEMORY_KIB: u64 = 200 << 10;

/// How a house stood before the attack.
pub struct Standing {
    server: u32,
    /// The last entry of the audit record.
    seq: i64,
    objects: usize,
    refs: BTreeMap<PathBuf, String>,
    places: BTreeSet<PathBuf>,
}

impl Standing {
    pub fn of(house: &House) -> Self {
        Self {
            server: house.server_pid(),
            seq: house.audit().last().map_or(0, |one| one["seq"].as_i64().unwrap()),
            objects: objects(house),
            refs: refs(house),
            places: places(house),
        }
    }

    /// All of it: nothing was kept, not even an object. `refused` is each refusal since then, in order: the event's name and
    /// a part of its reason.
    #[track_caller]
    pub fn holds(&self, house: &House, refused: &[(&str, &str)]) {
        self.holds_beside_builds(house, refused);
        assert_eq!(refs(house), self.refs, "refs, hidden ones too");
        assert_eq!(objects(house), self.objects, "objects of refused pushes");
    }

    /// The same where builds were begun: one that failed keeps its commit, to be done again.
    #[track_caller]
    pub fn holds_beside_builds(&self, house: &House, refused: &[(&str, &str)]) {
        self.refused(house, refused);
        let shown = |refs: &BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
            let hidden = |name: &PathBuf| name.to_string_lossy().contains("/refs/lemnos/builds/");
            refs.iter().filter(|(name, _)| !hidden(name)).map(|(n, id)| (n.clone(), id.clone())).collect()
        };
        assert_eq!(shown(&refs(house)), shown(&self.refs));
        let new: Vec<_> = places(house).difference(&self.places).cloned().collect();
        assert!(new.is_empty(), "files outside of the repositories' own directories: {new:?}");
    }

    /// The part that holds where other pushes were accepted in between.
    #[track_caller]
    pub fn refused(&self, house: &House, refused: &[(&str, &str)]) {
        assert_eq!(house.server_pid(), self.server);
        assert!(peak_memory_kib(house) < MEMORY_KIB, "{} KiB", peak_memory_kib(house));
        leaves_nothing(house);
        let found = refusals(house, self.seq);
        let fits = |(found, wanted): (&(String, String), &(&str, &str))| {
            found.0 == wanted.0 && found.1.contains(wanted.1)
        };
        let all = found.len() == refused.len() && found.iter().zip(refused).all(fits);
        assert!(all, "wanted {refused:#?}, on record is {found:#?}");
        for (_, why) in &found {
            assert!(why.chars().any(char::is_alphabetic) && why.chars().count() <= 400, "{why:?}");
            assert!(!why.chars().any(char::is_control) && !why.contains("panicked"), "{why:?}");
        }
    }
}

/// Of the entries after `seq` those that refuse something: the event's name and the reason.
fn refusals(house: &House, seq: i64) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for one in house.audit().iter().filter(|one| one["seq"].as_i64().unwrap() > seq) {
        let event = &one["entry"]["event"];
        let why = ["reason", "refused", "what"].iter().find_map(|field| event[*field].as_str());
        let times = one["entry"]["times"].as_u64().unwrap_or(1);
        for _ in 0..times {
            found.extend(why.map(|why| (event["type"].as_str().unwrap().to_owned(), why.to_owned())));
        }
    }
    found
}

/// Every ref of every repository, as it stands in files of git's.
fn refs(house: &House) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for repository in std::fs::read_dir(house.data().join("repositories")).unwrap().map(Result::unwrap) {
        let packed = std::fs::read_to_string(repository.path().join("packed-refs")).unwrap_or_default();
        for (id, name) in packed.lines().filter_map(|line| line.split_once(' ')).filter(|(id, _)| *id != "#")
        {
            found.insert(repository.path().join(name), id.to_owned());
        }
        for path in below(&repository.path().join("refs"), &|_| true) {
            let id = std::fs::read_to_string(&path).unwrap().trim().to_owned();
            found.insert(path, id);
        }
    }
    found
}

/// Every file of the data directory but what git keeps objects and refs in, and the database's own companions.
fn places(house: &House) -> BTreeSet<PathBuf> {
    let gits = ["odb", "refs", "logs"];
    let enter = |dir: &Path| !gits.iter().any(|name| dir.ends_with(name));
    let companion = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        ["-wal", "-shm", "packed-refs"].iter().any(|end| name.ends_with(end))
    };
    below(&house.data(), &enter).into_iter().filter(|path| !companion(path)).collect()
}

fn below(dir: &Path, enter: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true if enter(&entry.path()) => waiting.push(entry.path()),
                true => {}
                false => found.push(entry.path()),
            }
        }
    }
    found
}
