//! Where a local context comes from in git: what provenance, and on demand labels, tell of it.
//!
//! Reads refs, configuration and, where asked, the state of the files; runs nothing. A directory outside of a repository
//! has nothing to tell. Rules: buildx v0.36, build/git.go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{Repository, RepositoryOpenFlags, StatusOptions};

use super::options::yes;
use crate::config::Environment;

/// Longest that is looked at of an address.
const ADDRESS_LIMIT: usize = 4096;

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    labels: bool,
    info: bool,
    dirty: bool,
}

impl Wanted {
    fn of(environment: &Environment) -> Self {
        let set = |name: &str| environment.get(name);
        let no = |text: &str| matches!(text, "0" | "f" | "F" | "false" | "FALSE" | "False");
        Self {
            labels: set("BUILDX_GIT_LABELS").is_some_and(|v| v == "full" || yes(v)),
            info: !set("BUILDX_GIT_INFO").is_some_and(no),
            dirty: set("BUILDX_GIT_CHECK_DIRTY").is_some_and(yes),
        }
    }
}

/// The frontend's attributes for a context at `paths`, by the names under which the session offers them. `dockerfile` is
/// the file as it was named.
pub fn attributes(
    paths: &BTreeMap<&'static str, PathBuf>,
    dockerfile: &str,
    environment: &Environment,
) -> BTreeMap<String, String> {
    let wanted = Wanted::of(environment);
    let mut attrs = BTreeMap::new();
    let Some(context) = paths.get("context").filter(|_| wanted.labels || wanted.info) else { return attrs };
    let Ok(repository) =
        Repository::open_ext(context, RepositoryOpenFlags::empty(), std::iter::empty::<&Path>())
    else {
        return attrs;
    };
    let Some(root) = repository.workdir().and_then(|root| root.canonicalize().ok()) else { return attrs };
    let mut tell = |label: &str, info: &str, value: String| {
        if wanted.labels {
            attrs.insert(format!("label:org.opencontainers.image.{label}"), value.clone());
        }
        if wanted.info {
            attrs.insert(format!("vcs:{info}"), value);
        }
    };
    if let Some(commit) = repository.head().ok().and_then(|head| head.peel_to_commit().ok()) {
        let dirty = if wanted.dirty && is_dirty(&repository) { "-dirty" } else { "" };
        tell("revision", "revision", format!("{}{dirty}", commit.id()));
    }
    if let Some(address) = remote(&repository) {
        tell("source", "source", without_credentials(&address));
    }
    if wanted.labels
        && let Ok(file) = Path::new(dockerfile).canonicalize()
        && let Ok(inside) = file.strip_prefix(&root)
    {
        attrs.insert("label:com.docker.image.source.entrypoint".to_owned(), inside.display().to_string());
    }
    if wanted.info {
        for (name, path) in paths {
            if let Ok(inside) = path.strip_prefix(&root) {
                let inside = inside.display().to_string();
                let inside = if inside.is_empty() { ".".to_owned() } else { inside };
                attrs.insert(format!("vcs:localdir:{name}"), inside);
            }
        }
    }
    attrs
}

/// Whether a file differs from the commit, or is not in it, ignored ones included.
fn is_dirty(repository: &Repository) -> bool {
    let mut options = StatusOptions::new();
    options.include_untracked(true).include_ignored(true);
    repository.statuses(Some(&mut options)).map_or(true, |found| !found.is_empty())
}

/// The address of the remote that the branch follows, else of `origin`, else of `upstream`.
fn remote(repository: &Repository) -> Option<String> {
    let head = repository.head().ok();
    let branch = head.as_ref().and_then(|head| head.name().ok());
    let followed = branch.and_then(|name| repository.branch_upstream_remote(name).ok());
    let followed = followed.as_ref().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let names = followed.into_iter().chain(["origin".to_owned(), "upstream".to_owned()]);
    let address = |name: String| Some(repository.find_remote(&name).ok()?.url().ok()?.to_owned());
    names.filter_map(address).find(|address| !address.is_empty() && address.len() <= ADDRESS_LIMIT)
}

/// An address without the user and the password in it, which are told by nobody.
fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let hidden = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
            format!("{scheme}://{hidden}@{host}{path}")
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("app/Dockerfile"), "FROM scratch\n").unwrap();
        let mut index = repository.index().unwrap();
        index.add_path(Path::new("app/Dockerfile")).unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        index.write().unwrap();
        let who = git2::Signature::now("a", "a@example.com").unwrap();
        let id = repository.commit(Some("HEAD"), &who, &who, "x", &tree, &[]).unwrap();
        repository.remote("origin", "https://me:secret@git.example.com/shop.git").unwrap();
        (dir, id.to_string())
    }

    fn told(dir: &Path, variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let context = dir.join("app").canonicalize().unwrap();
        let file = context.join("Dockerfile").display().to_string();
        let paths = BTreeMap::from([("context", context.clone()), ("dockerfile", context)]);
        attributes(&paths, &file, &Environment::of(variables.iter().copied())).into_iter().collect()
    }

    #[test]
    fn provenance_names_commit_and_address_and_no_password() {
        let (dir, id) = committed();
        let text = |pairs: Vec<(String, String)>| {
            pairs.iter().map(|(k, v)| format!("{k}={v}\n")).collect::<String>()
        };
        let source = "https://xxxxx:xxxxx@git.example.com/shop.git";
        let info = format!(
            "vcs:localdir:context=app\nvcs:localdir:dockerfile=app\nvcs:revision={id}\nvcs:source={source}\n"
        );
        assert_eq!(text(told(dir.path(), &[])), info);
        let labels = format!(
            "label:com.docker.image.source.entrypoint=app/Dockerfile\nlabel:org.opencontainers.image.revision={id}\nlabel:org.opencontainers.image.source={source}\n"
        );
        assert_eq!(text(told(dir.path(), &[("BUILDX_GIT_LABELS", "1")])), format!("{labels}{info}"));
        assert_eq!(
            text(told(dir.path(), &[("BUILDX_GIT_LABELS", "full"), ("BUILDX_GIT_INFO", "0")])),
            labels
        );
        assert_eq!(told(dir.path(), &[("BUILDX_GIT_INFO", "false")]), []);
        std::fs::write(dir.path().join("new"), "x").unwrap();
        let dirty = told(dir.path(), &[("BUILDX_GIT_CHECK_DIRTY", "true")]);
        assert!(dirty.contains(&("vcs:revision".to_owned(), format!("{id}-dirty"))), "{dirty:?}");
    }

    #[test]
    fn a_directory_outside_of_a_repository_has_nothing_to_tell() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        assert_eq!(told(dir.path(), &[]), []);
    }
}
