//! Files of Kubernetes YAML as `ko resolve -f` finds them: in the order of their names, of a directory those that end in
//! `.yaml` or `.json`, of what is named itself everything.
//!
//! Bounded in number, depth and size. Links are followed to files, never into directories.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Kind, Report};
use crate::kinds::ko::resolve::LIMIT_BYTES;

const LIMIT_FILES: usize = 10_000;
/// All files together.
const LIMIT_ALL_BYTES: usize = 256 << 20;
const LIMIT_DEPTH: usize = 64;

/// A file, called as it was found.
#[derive(Debug)]
pub struct Text {
    pub file: String,
    pub text: String,
}

/// Everything that `named` names; `-` is standard input.
pub fn read(named: &[String], recursive: bool) -> Result<Vec<Text>, Report> {
    let mut texts: Vec<Text> = Vec::new();
    let mut left = LIMIT_ALL_BYTES;
    let mut take = |text: Text| {
        left = left.checked_sub(text.text.len()).ok_or_else(too_many)?;
        texts.push(text);
        if texts.len() > LIMIT_FILES { Err(too_many()) } else { Ok(()) }
    };
    for name in named {
        if name == "-" {
            take(text("standard input", std::io::stdin().lock())?)?;
            continue;
        }
        let mut files = Vec::new();
        let path = Path::new(name);
        let found = std::fs::metadata(path).map_err(|cause| unreadable(path, &cause))?;
        if found.is_dir() {
            walk(path, recursive, 0, &mut files)?;
        } else {
            files.push(path.to_owned());
        }
        for path in files {
            let file = std::fs::File::open(&path).map_err(|cause| unreadable(&path, &cause))?;
            take(text(&path.display().to_string(), file)?)?;
        }
    }
    Ok(texts)
}

fn walk(dir: &Path, recursive: bool, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Report> {
    let failed = |cause: std::io::Error| unreadable(dir, &cause);
    if depth > LIMIT_DEPTH {
        return Err(Report::user(format!("{} lies more than {LIMIT_DEPTH} directories deep", dir.display()))
            .hint("name the directory itself"));
    }
    let entries = std::fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let path = dir.join(name);
        let found = std::fs::symlink_metadata(&path).map_err(|cause| unreadable(&path, &cause))?;
        let ends = path.extension().is_some_and(|end| end == "yaml" || end == "json");
        if found.is_dir() {
            if recursive {
                walk(&path, recursive, depth + 1, files)?;
            }
        } else if ends {
            files.push(path);
        }
        if files.len() > LIMIT_FILES {
            return Err(too_many());
        }
    }
    Ok(())
}

fn text(file: &str, from: impl std::io::Read) -> Result<Text, Report> {
    let failed = |cause: &dyn std::fmt::Display| Report::user(format!("reading {file}: {cause}"));
    let mut bytes = Vec::new();
    // one more than is taken, so that a larger one is seen
    from.take(LIMIT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|cause| failed(&cause))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    Ok(Text { file: file.to_owned(), text })
}

fn unreadable(path: &Path, cause: &std::io::Error) -> Report {
    let kind = match cause.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::User,
    };
    Report::new(kind, format!("reading {}: {cause}", path.display())).hint(
        "-f takes files and directories here, and - for standard input; nothing is fetched by its address",
    )
}

fn too_many() -> Report {
    let message = format!("more than {LIMIT_FILES} files of YAML, or {LIMIT_ALL_BYTES} bytes, are named");
    Report::user(message).hint("name fewer of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(named: &[&Path], recursive: bool) -> Vec<String> {
        let named: Vec<String> = named.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
        read(&named, recursive).unwrap().into_iter().map(|text| text.text).collect()
    }

    #[test]
    fn of_directories_yaml_and_json_are_taken_and_of_files_everything() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("d/c/deep")).unwrap();
        for path in
            ["d/b.yaml", "d/a.json", "d/c.yml", "d/c/x.yaml", "d/c/deep/y.yaml", "d/z.yaml", "d/n.txt"]
        {
            std::fs::write(at(path), path).unwrap();
        }
        std::os::unix::fs::symlink("../d", at("d/c/loop")).unwrap();
        std::os::unix::fs::symlink("n.txt", at("d/link.yaml")).unwrap();
        assert_eq!(found(&[&at("d")], false), ["d/a.json", "d/b.yaml", "d/n.txt", "d/z.yaml"]);
        assert_eq!(
            found(&[&at("d"), &at("d/n.txt")], true),
            ["d/a.json", "d/b.yaml", "d/c/deep/y.yaml", "d/c/x.yaml", "d/n.txt", "d/z.yaml", "d/n.txt"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path| read(&[path.to_str().unwrap().to_owned()], true).unwrap_err();
        let missing = of(&dir.path().join("missing"));
        assert!(missing.kind == Kind::NotFound && missing.message.contains("missing"), "{missing}");
        std::fs::write(dir.path().join("a.yaml"), b"a: \xff").unwrap();
        assert!(of(dir.path()).message.ends_with("a.yaml: it is not UTF-8"));
        let large = dir.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(LIMIT_BYTES as u64 + 10).unwrap();
        let text = read(&[large.to_str().unwrap().to_owned()], false).unwrap().remove(0).text;
        assert_eq!(text.len(), LIMIT_BYTES + 1, "no more is read than shows that it is too large");
    }
}
