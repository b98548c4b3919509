//! A root `build-config.yaml` in hephy-builder's format: what of it is taken, what is recognised and comes later, what
//! is an error.
//!
//! Nothing in it is silently without effect: a key that would change the result and is not supported is refused, one
//! that would not is noted. Must not look at the tree beyond this one file.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Spanned;

use super::errors::{By, KindError, shown};
use super::wishes::Said;
use crate::model::closest::closest;
use crate::model::{Invalid, KindName, Tree};

/// Where it stands in the tree.
pub const BUILD_CONFIG: &str = "build-config.yaml";

/// A configuration is written by hand; this is far above any of them.
const LIMIT_BYTES: u64 = 64 * 1024;
const LIMIT_ITEMS: usize = 256;

/// Every key of the format.
pub(crate) const KEYS: [&str; 18] = [
    "dockerfile_path",
    "context_path",
    "target",
    "platforms",
    "build_args",
    "additional_tags",
    "build_backend",
    "use_local_context",
    "upstream_repo",
    "upstream_ref",
    "ko_config",
    "spin_config",
    "kaniko_config",
    "buildkit_config",
    "manual_build",
    "manual_images",
    "targets",
    "depends_on",
];

/// What the file says, as text with lines; `Wishes` parses the values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildConfig {
    pub(super) dockerfile_path: Option<Said<String>>,
    pub(super) context_path: Option<Said<String>>,
    pub(super) target: Option<Said<String>>,
    pub(super) platforms: Option<Vec<Said<String>>>,
    pub(super) build_args: Vec<Said<String>>,
    pub(super) additional_tags: Vec<Said<String>>,
    pub(super) kind: Option<Said<KindName>>,
    /// The line of `spin_config`, which `kinds::spin` reads.
    pub(super) spin_config: Option<u64>,
    /// The line of `ko_config`, which `kinds::ko` reads.
    pub(super) ko_config: Option<u64>,
    pub(super) notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    dockerfile_path: Option<Spanned<String>>,
    context_path: Option<Spanned<String>>,
    target: Option<Spanned<String>>,
    platforms: Option<Vec<Spanned<String>>>,
    build_args: Option<Vec<Spanned<String>>>,
    additional_tags: Option<Vec<Spanned<String>>>,
    build_backend: Option<Spanned<String>>,
    use_local_context: Option<Spanned<bool>>,
    upstream_repo: Option<Spanned<IgnoredAny>>,
    upstream_ref: Option<Spanned<IgnoredAny>>,
    ko_config: Option<Spanned<IgnoredAny>>,
    spin_config: Option<Spanned<IgnoredAny>>,
    kaniko_config: Option<Spanned<IgnoredAny>>,
    buildkit_config: Option<Spanned<IgnoredAny>>,
    manual_build: Option<Spanned<bool>>,
    manual_images: Option<Spanned<IgnoredAny>>,
    targets: Option<Spanned<IgnoredAny>>,
    depends_on: Option<Spanned<IgnoredAny>>,
}

impl BuildConfig {
    /// The tree's root `build-config.yaml`; none where there is none.
    pub fn read(tree: &dyn Tree) -> Result<Option<Self>, KindError> {
        let Some(bytes) = tree.read(BUILD_CONFIG, LIMIT_BYTES)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|b| **b == b'\n').count() as u64;
            KindError::Yaml { line, problem: "not UTF-8".to_owned() }
        })?;
        Self::parse(&text).map(Some)
    }

    /// The file's text, taken apart.
    pub fn parse(text: &str) -> Result<Self, KindError> {
        let raw: Option<Raw> = serde_yaml::from_str(text).map_err(|e| yaml_error(&e, text))?;
        raw.map_or_else(|| Ok(Self::default()), |raw| Self::from_raw(raw, text))
    }

    fn from_raw(raw: Raw, text: &str) -> Result<Self, KindError> {
        refuse_later(&raw, text)?;
        let mut notes = Vec::new();
        if raw.manual_images.is_some() {
            let line = key_line(text, "manual_images").unwrap_or(1);
            notes.push(format!(
                "{BUILD_CONFIG}:{line}: manual_images comes later and has no effect on this build"
            ));
        }
        let one = |key, value: Option<Spanned<String>>| value.map(|v| said(text, key, v));
        Ok(Self {
            dockerfile_path: one("dockerfile_path", raw.dockerfile_path),
            context_path: one("context_path", raw.context_path),
            target: one("target", raw.target).filter(|t| !t.value.is_empty()),
            platforms: raw.platforms.map(|list| items("platforms", list)).transpose()?,
            build_args: items("build_args", raw.build_args.unwrap_or_default())?,
            additional_tags: items("additional_tags", raw.additional_tags.unwrap_or_default())?,
            kind: raw.build_backend.map(|v| backend(said(text, "build_backend", v))).transpose()?,
            spin_config: raw.spin_config.map(|_| key_line(text, "spin_config").unwrap_or(1)),
            ko_config: raw.ko_config.map(|_| key_line(text, "ko_config").unwrap_or(1)),
            notes,
        })
    }

    /// Notes for keys that only another kind than `kind` would have read.
    pub(crate) fn unread(&self, kind: KindName) -> Vec<String> {
        let keys =
            [("ko_config", self.ko_config, KindName::Ko), ("spin_config", self.spin_config, KindName::Spin)];
        let unread = keys.into_iter().filter(|(_, _, reader)| *reader != kind);
        let note = |(key, line, _): (&str, Option<u64>, KindName)| {
            line.map(|line| format!("{BUILD_CONFIG}:{line}: {key} has no effect: this is a {kind} build"))
        };
        unread.filter_map(note).collect()
    }
}

/// Keys whose effect is missing here would change the result: they are refused, never ignored.
fn refuse_later(raw: &Raw, text: &str) -> Result<(), KindError> {
    let remote = "building another repository's source comes later: the pushed tree is what is built";
    let local = raw.use_local_context.as_ref().is_none_or(|v| v.value);
    let nested = "its keys are read at the top level of the file only";
    let later = [
        ("use_local_context", !local, remote),
        ("upstream_repo", raw.upstream_repo.is_some(), remote),
        ("upstream_ref", raw.upstream_ref.is_some(), remote),
        ("kaniko_config", raw.kaniko_config.is_some(), nested),
        ("buildkit_config", raw.buildkit_config.is_some(), nested),
        (
            "manual_build",
            raw.manual_build.as_ref().is_some_and(|v| v.value),
            "publishing images made elsewhere comes later",
        ),
        ("targets", raw.targets.is_some(), "several images from one tree come later"),
        ("depends_on", raw.depends_on.is_some(), "builds that wait for another come later"),
    ];
    match later.into_iter().find(|(_, present, _)| *present) {
        Some((key, _, why)) => Err(KindError::KeyLater { line: key_line(text, key).unwrap_or(1), key, why }),
        None => Ok(()),
    }
}

/// hephy-builder's backends; all but ko and spin build the Dockerfile.
fn backend(said: Said<String>) -> Result<Said<KindName>, KindError> {
    let value = match said.value.as_str() {
        "kaniko" | "buildkit" | "dockerfile" => KindName::Dockerfile,
        "ko" => KindName::Ko,
        "spin" => KindName::Spin,
        "melange" => KindName::Melange,
        other => {
            let problem =
                Invalid::new("build backend", other, "dockerfile, kaniko, buildkit, ko, spin or melange");
            return Err(KindError::Value { by: said.by, key: "build_backend", problem });
        }
    };
    Ok(Said { value, by: said.by })
}

fn said(text: &str, key: &str, value: Spanned<String>) -> Said<String> {
    let line = key_line(text, key).unwrap_or_else(|| value.referenced.line());
    Said { value: value.value, by: By::Config { line } }
}

fn items(key: &'static str, list: Vec<Spanned<String>>) -> Result<Vec<Said<String>>, KindError> {
    if let Some(first) = list.get(LIMIT_ITEMS) {
        let problem = format!("{key} has {} entries; at most {LIMIT_ITEMS} are taken", list.len());
        return Err(KindError::Yaml { line: first.referenced.line(), problem });
    }
    let item = |v: Spanned<String>| Said { by: By::Config { line: v.referenced.line() }, value: v.value };
    Ok(list.into_iter().map(item).collect())
}

/// The line of a top-level key, from 1; none where the file is not written in block style.
fn key_line(text: &str, key: &str) -> Option<u64> {
    let is_key = |line: &str| {
        let line = line.trim_start_matches(['"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map(|at| at as u64 + 1)
}

fn yaml_error(error: &serde_yaml::Error, text: &str) -> KindError {
    let line = error.location().map_or(1, |at| at.line().max(1));
    match error.without_snippet() {
        serde_yaml::Error::SerdeUnknownField { field, .. } => {
            let line = key_line(text, field).unwrap_or(line);
            KindError::UnknownKey { line, key: field.clone(), close: closest(field, KEYS) }
        }
        other => {
            let full = other.render_with_formatter(&serde_yaml::UserMessageFormatter);
            let first = full.lines().next().unwrap_or("not YAML");
            let problem = first.rsplit_once(" at line ").map_or(first, |(problem, _)| problem);
            let problem = shown(problem).chars().take(200).collect();
            KindError::Yaml { line, problem }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        BuildConfig::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_taken_with_its_line() {
        let text = "# ours\ndockerfile_path: deploy/Dockerfile\ncontext_path: .\ntarget: run\nplatforms:\n  - linux/amd64\n  - linux/arm64\nbuild_args:\n  - A=1\nadditional_tags: [stable]\nbuild_backend: kaniko\nuse_local_context: true\nmanual_build: false\nko_config:\n  import_path: ./cmd\n";
        let config = BuildConfig::parse(text).unwrap();
        assert_eq!(
            config.unread(KindName::Dockerfile),
            ["build-config.yaml:14: ko_config has no effect: this is a dockerfile build"]
        );
        assert!(config.unread(KindName::Ko).is_empty() && config.notes.is_empty());
        assert_eq!(config.dockerfile_path.unwrap().by, By::Config { line: 2 });
        assert_eq!(config.target.unwrap().value, "run");
        let platforms = config.platforms.unwrap();
        assert_eq!(platforms[1], Said { value: "linux/arm64".to_owned(), by: By::Config { line: 7 } });
        assert_eq!(config.build_args[0].by, By::Config { line: 9 });
        assert_eq!(config.additional_tags[0].value, "stable");
        assert_eq!(config.kind.unwrap().value, KindName::Dockerfile);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "\n", "# only a comment\n", "---\n", "build_args:\n", "target: \"\"\n"] {
            assert_eq!(BuildConfig::parse(text).unwrap(), BuildConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_line() {
        insta::assert_snapshot!([
            "target: a\nplatfroms: []\n",
            "{target: a, zzz: 1}",
            "use_local_context: false\n",
            "x: &a [1]\n",
            "upstream_repo: https://example.org/x\n",
            "target: a\n\ntargets:\n  - name: b\n",
            "depends_on: [base]\n",
            "manual_build: true\n",
            "kaniko_config: {}\n",
            "build_backend: kanico\n",
            "platforms: linux/amd64\n",
            "build_args: {A: 1}\n",
            "target: a\ntarget: b\n",
            "target: [\n",
            "- a\n",
            "a: b: c\n",
            "target: a\n---\ntarget: b\n",
            "manual_build: perhaps\n",
        ].map(error).join("\n"), @r#"
        build-config.yaml:2: unknown key "platfroms"
        build-config.yaml:1: unknown key "zzz"
        build-config.yaml:1: use_local_context is recognised, but building another repository's source comes later: the pushed tree is what is built
        build-config.yaml:1: unknown key "x"
        build-config.yaml:1: upstream_repo is recognised, but building another repository's source comes later: the pushed tree is what is built
        build-config.yaml:3: targets is recognised, but several images from one tree come later
        build-config.yaml:1: depends_on is recognised, but builds that wait for another come later
        build-config.yaml:1: manual_build is recognised, but publishing images made elsewhere comes later
        build-config.yaml:1: kaniko_config is recognised, but its keys are read at the top level of the file only
        build-config.yaml:1: build_backend: "kanico" is not a valid build backend
        build-config.yaml:1: expected sequence start
        build-config.yaml:1: expected sequence start
        build-config.yaml:2: duplicate mapping key: target not allowed here
        build-config.yaml:1: expected string scalar
        build-config.yaml:1: expected mapping start
        build-config.yaml:1: unknown key "a"
        build-config.yaml:3: only single YAML document expected but multiple found
        build-config.yaml:1: invalid boolean
        "#);
    }
}
