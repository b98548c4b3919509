//! What a user says of a spin build beside the manifest: `spin_config` in `build-config.yaml`.
//!
//! Must not choose an image for anybody; it only says which one was named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::errors::{At, SpinError};
use crate::kinds::BUILD_CONFIG;
use crate::kinds::errors::shown;
use crate::model::Tree;
use crate::model::closest::closest;

const KEYS: [&str; 3] = ["profile", "image", "images"];
/// As `build-config.yaml` is bounded wherever it is read.
const LIMIT_BYTES: u64 = 64 * 1024;
const LIMIT_PROBLEM_CHARS: usize = 200;

/// `spin_config`. Each key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpinConfig {
    /// `profile.NAME` of components.
    pub profile: Option<String>,
    /// The image in which every component is built that `images` does not name.
    pub image: Option<String>,
    /// Images by component.
    pub images: BTreeMap<String, String>,
}

/// The one key of the file that is read here; the others have readers of their own.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    spin_config: Option<SpinConfig>,
}

impl SpinConfig {
    /// What the tree's `build-config.yaml` says; nothing where there is none.
    pub fn read(tree: &dyn Tree) -> Result<Self, SpinError> {
        let Some(bytes) = tree.read(BUILD_CONFIG, LIMIT_BYTES)? else { return Ok(Self::default()) };
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// The file's text.
    pub fn parse(text: &str) -> Result<Self, SpinError> {
        let file: Option<File> = serde_yaml::from_str(text).map_err(|error| yaml_error(&error))?;
        Ok(file.and_then(|file| file.spin_config).unwrap_or_default())
    }

    /// The image named for a component.
    pub(super) fn image_of(&self, component: &str) -> Option<&str> {
        self.images
            .get(component)
            .or(self.image.as_ref())
            .map(String::as_str)
            .filter(|image| !image.is_empty())
    }

    pub(super) fn profile(&self) -> Option<&str> {
        self.profile.as_deref().filter(|profile| !profile.is_empty())
    }
}

fn yaml_error(error: &serde_yaml::Error) -> SpinError {
    let at = error.location().map_or(At { line: 1, column: 1 }, |at| At {
        line: usize::try_from(at.line()).unwrap_or(1).max(1),
        column: usize::try_from(at.column()).unwrap_or(1).max(1),
    });
    let (problem, hint) = match error.without_snippet() {
        serde_yaml::Error::SerdeUnknownField { field, .. } => {
            let hint = match closest(field, KEYS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("spin_config has {}", KEYS.join(", ")),
            };
            (format!("spin_config: unknown key {field:?}"), hint)
        }
        other => {
            let full = other.render_with_formatter(&serde_yaml::UserMessageFormatter);
            let first = full.lines().next().unwrap_or("not YAML");
            let problem = first.rsplit_once(" at line ").map_or(first, |(problem, _)| problem);
            let problem: String = shown(problem).chars().take(LIMIT_PROBLEM_CHARS).collect();
            (
                format!("spin_config: {problem}"),
                "write spin_config: { image: IMAGE, images: { COMPONENT: IMAGE }, profile: NAME }".to_owned(),
            )
        }
    };
    SpinError::at(BUILD_CONFIG, at, problem, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::MemoryTree;

    #[test]
    fn it_is_read_out_of_the_one_file() {
        let text = "context_path: app\nspin_config:\n  profile: debug\n  images:\n    api: node:22\n";
        let read = SpinConfig::read(&MemoryTree::default().with(BUILD_CONFIG, text)).unwrap();
        assert_eq!(
            (read.profile(), read.image_of("api"), read.image_of("web")),
            (Some("debug"), Some("node:22"), None)
        );
        for nothing in ["", "# a comment\n", "context_path: app\n", "spin_config:\n"] {
            assert_eq!(SpinConfig::parse(nothing).unwrap(), SpinConfig::default(), "{nothing:?}");
        }
        assert_eq!(SpinConfig::read(&MemoryTree::default()).unwrap(), SpinConfig::default());
    }

    #[test]
    fn what_is_wrong_has_a_line_a_column_and_a_remedy() {
        let said = |text: &str| {
            let error = SpinConfig::parse(text).unwrap_err();
            format!("{error}\n  {}", error.hint().unwrap_or("(no hint)"))
        };
        insta::assert_snapshot!(
            [
                "target: a\nspin_config:\n  imgae: x\n",
                "spin_config:\n  zzz: x\n",
                "spin_config:\n  image: [a]\n",
                "spin_config:\n  images:\n    - a\n",
                "spin_config: text\n",
                "spin_config:\n  image: a\n  image: b\n",
                "spin_config: {\n",
            ]
            .map(said)
            .join("\n")
        );
    }
}
