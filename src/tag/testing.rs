//! What the tests of `tag` share: a bare repository with commits.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Git, Tagger, TaggerConfig};
use crate::model::Sha;
use crate::registry::{Registry, RegistryConfig};
use crate::store::Store;

/// A tagger as a server makes it, in front of any registry.
pub fn tagger(store: &Store, git: &Git) -> Tagger {
    let registry = Registry::new(RegistryConfig::default()).unwrap();
    Tagger::new(store.clone(), registry, TaggerConfig::new(git.program.clone()))
}

/// A bare repository that goes with its value.
pub struct Repository {
    pub path: PathBuf,
    pub git: Git,
    _root: tempfile::TempDir,
}

impl Repository {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("shop.git");
        let program = ["/usr/bin/git", "/usr/local/bin/git", "/bin/git"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
            .expect("tests need git at /usr/bin, /usr/local/bin or /bin");
        let repository = Self { path, git: Git::new(program, Duration::from_secs(20)), _root: root };
        repository.run(&["init", "--quiet", "--bare"]);
        repository
    }

    /// Runs git on it; returns what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let output = Command::new(&self.git.program)
            .env_clear()
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .envs([
                ("GIT_AUTHOR_NAME", "a"),
                ("GIT_AUTHOR_EMAIL", "a"),
                ("GIT_AUTHOR_DATE", "1700000000 +0000"),
            ])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a")])
            .env("GIT_COMMITTER_DATE", "1700000000 +0000")
            .env("GIT_DIR", &self.path)
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A commit of the empty tree with this message.
    pub fn commit(&self, message: &str) -> Sha {
        let tree = self.run(&["hash-object", "-w", "-t", "tree", "/dev/null"]);
        self.run(&["commit-tree", "-m", message, &tree]).parse().unwrap()
    }

    pub fn set(&self, name: &str, to: &Sha) {
        self.run(&["update-ref", name, to.as_str()]);
    }

    /// Where the ref stands, zeros for nowhere.
    pub fn at(&self, name: &str) -> Sha {
        let found = self.run(&["for-each-ref", "--format=%(objectname)", name]);
        if found.is_empty() { Sha::zero() } else { found.parse().unwrap() }
    }
}
