//! Apps and users: names, and what an app's owner can set.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attest::Attest;
use super::image::{ImageName, ImagePrefix, Platform};
use super::{Invalid, text_newtype};

/// An app's name: also the last part of its image name, so the rules of a registry's path component hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);
text_newtype!(AppName);

const APP_RULE: &str = "use 1 to 63 lower-case letters, digits and single '-', '.' or '_' between them, beginning and ending with a letter or digit";

/// `[a-z0-9]+([._-][a-z0-9]+)*`, with `--` refused too, so that no name is an option or a path.
fn is_path_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut after_separator = true;
    for b in text.bytes() {
        match b {
            b if alnum(b) => after_separator = false,
            b'.' | b'_' | b'-' if !after_separator => after_separator = true,
            _ => return false,
        }
    }
    !after_separator
}

impl FromStr for AppName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() > 63 || !is_path_component(text) || text.ends_with(".git") {
            return Err(Invalid::new("app name", text, APP_RULE));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A user's name in lemnos; unrelated to the name in the SSH URL, which counts only where a certificate names several users.
///
/// `deploy:APP` stands for an app's deploy keys where the name of who pushed is recorded. No person can have such a
/// name: `UserName::is_person` is asked wherever a user is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);
text_newtype!(UserName);

const DEPLOY: &str = "deploy:";

impl UserName {
    /// The name under which an app's deploy keys act.
    pub fn of_deploy_key(app: &AppName) -> Self {
        Self(format!("{DEPLOY}{app}"))
    }

    /// The app whose deploy keys this names; none for a person.
    pub fn deploys(&self) -> Option<AppName> {
        self.0.strip_prefix(DEPLOY)?.parse().ok()
    }

    /// Whether this names a user, not an app's deploy keys.
    pub fn is_person(&self) -> bool {
        !self.0.contains(':')
    }
}

impl FromStr for UserName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(app) = text.strip_prefix(DEPLOY) {
            return app.parse().map(|app| Self::of_deploy_key(&app));
        }
        let ok = !text.is_empty()
            && text.len() <= 63
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@'));
        if !ok {
            return Err(Invalid::new(
                "user name",
                text,
                "use 1 to 63 letters, digits, '.', '_', '-' or '@', beginning with a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How layers are compressed in the registry. `estargz` is left out: it can crash a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Gzip,
    Zstd,
    Uncompressed,
}

impl Compression {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Uncompressed => "uncompressed",
        }
    }
}

impl FromStr for Compression {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "uncompressed" => Ok(Self::Uncompressed),
            _ => Err(Invalid::new("compression", text, "use gzip, zstd or uncompressed")),
        }
    }
}

/// Where built layers are kept for later builds, besides the builder's own cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerCache {
    /// Nowhere.
    #[default]
    Off,
    /// In the registry, beside the app's image: layers of all stages.
    Registry,
    /// In the image itself: layers of its last stage.
    Inline,
}

impl LayerCache {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Registry => "registry",
            Self::Inline => "inline",
        }
    }
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl FromStr for LayerCache {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(Self::Off),
            "registry" => Ok(Self::Registry),
            "inline" => Ok(Self::Inline),
            _ => Err(Invalid::new("cache", text, "use registry, inline or off")),
        }
    }
}

/// What `lemnos apps set` changes. Every field has a default, so an empty object is a valid record of any age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppSettings {
    /// The branch whose pushes build and move `latest`.
    pub main_branch: String,
    /// Further branches that build: exact names, or a prefix ending in `*` (`release/*`).
    pub build_branches: Vec<String>,
    /// Whether `refs/tags/*` build.
    pub build_tags: bool,
    /// Empty: linux/amd64 and linux/arm64.
    pub platforms: Vec<Platform>,
    /// Templates over `{branch}`, `{sha}`, `{sha12}`, `{version}`; empty: the default tags.
    pub tags: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The whole image name (`host/path`), when it is not `REGISTRY/PREFIX/APP`.
    pub image: Option<ImageName>,
    pub compression: Compression,
    pub dockerfile_path: Option<String>,
    pub context_path: Option<String>,
    pub target: Option<String>,
    /// Seconds that a build may take; none: what the server says.
    pub build_timeout_s: Option<u32>,
    /// Seconds in which nothing may come of a build.
    pub silence_timeout_s: Option<u32>,
    pub cache: LayerCache,
    pub attest: Attest,
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            main_branch: "main".to_owned(),
            build_branches: Vec::new(),
            build_tags: false,
            platforms: Vec::new(),
            tags: Vec::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            image: None,
            compression: Compression::default(),
            dockerfile_path: None,
            context_path: None,
            target: None,
            build_timeout_s: None,
            silence_timeout_s: None,
            cache: LayerCache::default(),
            attest: Attest::default(),
        }
    }
}

/// An app: a repository, an image name, and who may push to it (grants live in the store).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Server-chosen, names the directory on disk; never reused.
    pub id: String,
    pub name: AppName,
    pub settings: AppSettings,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

impl App {
    /// The image name in effect: the one that was set, else the app's name under `prefix`.
    pub fn image(&self, prefix: Option<&ImagePrefix>) -> Option<ImageName> {
        self.settings.image.clone().or_else(|| prefix.map(|prefix| prefix.image(&self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&[u8]; 22] = [
        b"-",
        b"--",
        b".",
        b"..",
        b"_",
        b"__",
        b"/",
        b"../",
        b".git",
        b"~",
        b"%2f",
        b"\\",
        b"'",
        b"$(id)",
        b"\0",
        b"\n",
        b" ",
        b"A",
        b"\xd0\xb0",
        b"\xe2\x80\xae",
        b"\x1b[0m",
        b"\xff",
    ];

    #[test]
    fn fuzzed_app_names_that_are_taken_are_path_components_and_nothing_else() {
        let corpus: [&[u8]; 5] = [b"shop", b"shop-2.api_v1", b"a", b"0", b"shop.git"];
        crate::fuzz::run("app names", 50_000, &corpus, &WORDS, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let Ok(name) = text.parse::<AppName>() else { return false };
            assert_eq!(name.as_str(), text);
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            );
            let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            assert!(end(text.chars().next()) && end(text.chars().last()), "{text:?}");
            for bad in ["..", "--", "__", "./", ".git/"] {
                assert!(!text.contains(bad), "{text:?}");
            }
            assert!(text.len() <= 63 && !text.ends_with(".git"));
            true
        });
    }

    #[test]
    fn fuzzed_user_names_that_are_taken_are_harmless() {
        let corpus: [&[u8]; 4] = [b"ada", b"ada.lovelace@example.com", b"A-1_b", b"7"];
        crate::fuzz::run("user names", 50_000, &corpus, &WORDS, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let Ok(name) = text.parse::<UserName>() else { return false };
            assert_eq!(name.as_str(), text);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b)));
            assert!(text.len() <= 63 && !text.starts_with(['-', '.', '_', '@']), "{text:?}");
            true
        });
    }
}
