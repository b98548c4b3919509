//! Where an image goes and how it is called afterwards: ko's repository names and the references that it prints.

use super::KoError;
use crate::model::{Digest, ImageName, Tag};

/// How an import path becomes a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// `<prefix>/<last part>-<MD5 of the import path>`
    #[default]
    Md5,
    /// `--base-import-paths`: `<prefix>/<last part>`
    Base,
    /// `--preserve-import-paths`: `<prefix>/<import path>`
    Path,
    /// `--bare`: `<prefix>`
    Bare,
}

impl Naming {
    /// The repository of the program at `import_path` (with or without `ko://`), which is taken in lower case.
    pub fn repository(self, prefix: &str, import_path: &str) -> Result<ImageName, KoError> {
        let name = self.name(prefix, import_path);
        name.parse().map_err(|source| KoError::Repository { import_path: import_path.to_owned(), source })
    }

    /// The same where it need not be in a registry; it may be empty where there is no prefix.
    pub fn name(self, prefix: &str, import_path: &str) -> String {
        let path = import_path.strip_prefix("ko://").unwrap_or(import_path).to_lowercase();
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = match self {
            Self::Md5 => format!("{last}-{:x}", md5::compute(&path)),
            Self::Base => last.to_owned(),
            Self::Path => path.clone(),
            Self::Bare => String::new(),
        };
        let parts: Vec<&str> =
            prefix.split('/').chain(name.split('/')).filter(|part| !matches!(*part, "" | ".")).collect();
        parts.join("/")
    }
}

/// What `ko build` prints: the digest, and the tag before it where there is exactly one that is not `latest`.
/// `tag_only`: the tag alone, which must be the only one and not `latest`.
pub fn printed(
    repository: &impl std::fmt::Display,
    tags: &[Tag],
    digest: &Digest,
    tag_only: bool,
) -> Result<String, KoError> {
    let mut unique: Vec<&Tag> = Vec::new();
    for tag in tags {
        if !unique.contains(&tag) {
            unique.push(tag);
        }
    }
    let release = match unique.as_slice() {
        [tag] if tag.as_str() != "latest" => Some(tag),
        _ => None,
    };
    match (release, tag_only) {
        (Some(tag), true) => Ok(format!("{repository}:{tag}")),
        (None, true) => Err(KoError::TagOnly),
        (Some(tag), false) => Ok(format!("{repository}:{tag}@{digest}")),
        (None, false) => Ok(format!("{repository}@{digest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_as_ko_names_them() {
        let name = |naming: Naming, prefix: &str, path: &str| {
            naming.repository(prefix, path).map(|name| name.to_string()).map_err(|error| error.to_string())
        };
        let path = "ko://Example.com/Shop/cmd/Web";
        assert_eq!(
            name(Naming::Md5, "localhost:5000/team", path).unwrap(),
            format!("localhost:5000/team/web-{:x}", md5::compute("example.com/shop/cmd/web"))
        );
        assert_eq!(name(Naming::Base, "ghcr.io/team/", path).unwrap(), "ghcr.io/team/web");
        assert_eq!(
            name(Naming::Path, "ghcr.io/team", path).unwrap(),
            "ghcr.io/team/example.com/shop/cmd/web"
        );
        assert_eq!(name(Naming::Bare, "ghcr.io/team", path).unwrap(), "ghcr.io/team");
        for bad in [name(Naming::Bare, "ghcr.io", path), name(Naming::Base, "ghcr.io", "example.com/~me/x y")]
        {
            assert!(bad.unwrap_err().contains("has no image name"));
        }
    }

    #[test]
    fn references_are_printed_as_ko_prints_them() {
        let repository: ImageName = "ghcr.io/team/web".parse().unwrap();
        let digest = Digest::of(b"");
        let print = |tags: &[&str], tag_only: bool| {
            let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            printed(&repository, &tags, &digest, tag_only)
        };
        for tags in [&["latest"][..], &["v1", "v2"], &["v1", "latest"], &[]] {
            assert_eq!(print(tags, false).unwrap(), format!("ghcr.io/team/web@{digest}"));
            assert!(print(tags, true).is_err());
        }
        assert_eq!(print(&["v1", "v1"], false).unwrap(), format!("ghcr.io/team/web:v1@{digest}"));
        assert_eq!(print(&["v1"], true).unwrap(), "ghcr.io/team/web:v1");
    }
}
