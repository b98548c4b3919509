//! One repository: its refs as they stand, and every object that is there, in a form that git reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::manifest::{FileEntry, Manifest};
use super::{BackupError, copy};

/// How often a repository that changes meanwhile is begun anew.
const TRIES: u32 = 5;
/// How often objects are listed again because some went into a pack.
const PASSES: u32 = 20;
/// How often refs are read until two readings agree: several may just be moving together.
const READINGS: u32 = 10;

/// Where a copy may take a file from besides the repository.
pub(super) struct Earlier<'a> {
    pub dir: &'a Path,
    pub manifest: &'a Manifest,
}

/// Files by their path below the repository, and how many were the earlier backup's.
pub(super) struct Copied {
    pub files: BTreeMap<String, FileEntry>,
    pub reused: u64,
}

/// Copies the repository to `to`; none where there is none. `inside` is its path below the backup.
pub(super) fn copy(
    git: &Path,
    from: &Path,
    to: &Path,
    inside: &str,
    earlier: Option<&Earlier<'_>>,
) -> Result<Option<Copied>, BackupError> {
    let mut cause = String::new();
    for _ in 0..TRIES {
        if !from.is_dir() {
            return Ok(None);
        }
        remove(to)?;
        let tried = once(from, to, inside, earlier);
        match tried {
            Ok(copied) => match check(git, to) {
                Ok(()) => return Ok(Some(copied)),
                Err(said) => cause = said,
            },
            Err(_) if !from.is_dir() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    // one that is damaged at its source looks the same
    let id = inside.rsplit('/').next().unwrap_or(inside).to_owned();
    Err(BackupError::Unsteady { id, cause })
}

pub(super) fn remove(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(BackupError::io("removing", dir)(e)),
        _ => Ok(()),
    }
}

fn once(from: &Path, to: &Path, inside: &str, earlier: Option<&Earlier<'_>>) -> Result<Copied, BackupError> {
    for dir in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        copy::private_dir(&to.join(dir))?;
    }
    let mut files = BTreeMap::new();
    let mut put = |name: &str, content: &[u8]| -> Result<(), BackupError> {
        let path = to.join(name);
        copy::write(&path, content, 0o600)?;
        files.insert(name.to_owned(), copy::checksum(&path)?);
        Ok(())
    };
    put("packed-refs", refs(from)?.as_bytes())?;
    for name in ["HEAD", "config"] {
        let path = from.join(name);
        put(name, &fs::read(&path).map_err(BackupError::io("reading", &path))?)?;
    }
    let mut reused = 0;
    let mut have = BTreeSet::new();
    for _ in 0..PASSES {
        let mut vanished = false;
        for name in objects(from)? {
            if have.contains(&name) {
                continue;
            }
            match object(from, to, inside, &name, earlier)? {
                Some((entry, was_there)) => {
                    reused += u64::from(was_there);
                    files.insert(name.clone(), entry);
                    have.insert(name);
                }
                // it is in a pack now, which this listing may not have
                None => vanished = true,
            }
        }
        if !vanished {
            return Ok(Copied { files, reused });
        }
    }
    let id = inside.rsplit('/').next().unwrap_or(inside).to_owned();
    Err(BackupError::Unsteady { id, cause: "objects vanish again and again".to_owned() })
}

/// Takes one object file: from the earlier backup, by a second name, or as a copy.
fn object(
    from: &Path,
    to: &Path,
    inside: &str,
    name: &str,
    earlier: Option<&Earlier<'_>>,
) -> Result<Option<(FileEntry, bool)>, BackupError> {
    let (source, target) = (from.join(name), to.join(name));
    if let Some(dir) = target.parent() {
        copy::private_dir(dir)?;
    }
    let path = format!("{inside}/{name}");
    // the name says the content, but for what git derives from others
    if let Some(earlier) = earlier.filter(|_| is_named_by_content(name))
        && let Some(entry) = earlier.manifest.files.get(&path)
        && fs::metadata(&source).is_ok_and(|meta| meta.len() == entry.bytes)
        && copy::link(&earlier.dir.join(&path), &target)
    {
        return Ok(Some((entry.clone(), true)));
    }
    if is_named_by_content(name) && copy::link(&source, &target) {
        return Ok(Some((copy::checksum(&target)?, false)));
    }
    Ok(copy::copy(&source, &target, 0o400)?.map(|entry| (entry, false)))
}

/// Loose objects and packs; an index or bitmap may be written anew under the name that its pack has.
fn is_named_by_content(name: &str) -> bool {
    !name.starts_with("objects/pack/") || name.ends_with(".pack")
}

/// `objects/ab/cdef…` and `objects/pack/pack-…`: each pack before its index, so that an index is never alone.
fn objects(repository: &Path) -> Result<Vec<String>, BackupError> {
    let root = repository.join("objects");
    let mut found = Vec::new();
    let failed = |dir: &Path| BackupError::io("reading", dir);
    for entry in fs::read_dir(&root).map_err(failed(&root))? {
        let name = entry.map_err(failed(&root))?.file_name().to_string_lossy().into_owned();
        let loose = name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !loose && name != "pack" {
            continue;
        }
        let dir = root.join(&name);
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let file = entry.map_err(failed(&dir))?.file_name().to_string_lossy().into_owned();
            let half_written = file.starts_with("tmp_") || file.starts_with('.') || file.ends_with(".lock");
            // what git can compute again is left out
            let derived = [".bitmap", ".rev", ".keep"].iter().any(|end| file.ends_with(end));
            if !half_written && !derived {
                found.push(format!("objects/{name}/{file}"));
            }
        }
    }
    found.sort_by_key(|name| (name.ends_with(".idx"), name.clone()));
    Ok(found)
}

/// All refs in the format of packed-refs, the hidden ones too.
fn refs(repository: &Path) -> Result<String, BackupError> {
    let mut last = read_refs(repository)?;
    for _ in 1..READINGS {
        let again = read_refs(repository)?;
        if again == last {
            break;
        }
        last = again;
    }
    let lines = last.iter().map(|(name, id)| format!("{id} {name}\n"));
    Ok(std::iter::once("# pack-refs with: sorted \n".to_owned()).chain(lines).collect())
}

fn read_refs(repository: &Path) -> Result<BTreeMap<String, String>, BackupError> {
    let failed = |cause: git2::Error| BackupError::Io {
        doing: "reading the refs of",
        path: repository.to_owned(),
        cause: std::io::Error::other(cause.message().to_owned()),
    };
    let git = git2::Repository::open_bare(repository).map_err(failed)?;
    let mut found = BTreeMap::new();
    for reference in git.references().map_err(failed)? {
        let reference = match reference {
            Ok(reference) => reference,
            // deleted between listing and reading
            Err(e) if e.code() == git2::ErrorCode::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        if let (Ok(name), Some(id)) = (reference.name(), reference.target()) {
            found.insert(name.to_owned(), id.to_string());
        }
    }
    Ok(found)
}

/// Whether every ref's history is there; else what git says.
pub(super) fn check(git: &Path, repository: &Path) -> Result<(), String> {
    let mut command = Command::new(git);
    command.arg("--git-dir").arg(repository).args([
        "-c",
        "safe.bareRepository=explicit",
        "-c",
        "core.commitGraph=false",
    ]);
    command.args(["rev-list", "--objects", "--all", "--quiet"]).env_clear();
    // the copy has the repository's own settings: none of them may name a place that missing objects come from
    command.envs([
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ALLOW_PROTOCOL", "none"),
        ("GIT_NO_LAZY_FETCH", "1"),
    ]);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join("; "))
        }
        Err(cause) => Err(format!("{}: {cause}", git.display())),
    }
}

/// The apps whose repositories a backup holds.
pub(super) fn ids(files: &BTreeMap<String, FileEntry>) -> BTreeSet<String> {
    let id = |path: &String| Some(path.strip_prefix("repositories/")?.split_once(".git/")?.0.to_owned());
    files.keys().filter_map(id).collect()
}

/// Where the repository of an app is below `root`.
pub(super) fn path(root: &Path, id: &str) -> PathBuf {
    root.join(super::REPOSITORIES).join(format!("{id}.git"))
}
