//! Which entries of a base image are built for: `all | os[/arch[/variant]][:osversion]`, in a list with commas.
//!
//! A part that is left out matches anything, entries that are no images (`unknown/unknown`) are passed over, and the order is
//! the base's: ko's rules. Another rule is ours: what was asked for and is not there is an error, where ko builds the rest.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::KoError;
use super::base::{BaseImage, BaseIndex, Descriptor};
use crate::model::Invalid;

/// The platform of an index's entry, as it stands there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BasePlatform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

impl BasePlatform {
    fn is_image(&self) -> bool {
        self.os != "unknown" && self.architecture != "unknown"
    }
    /// Whether the debugger exists for it. Images for other platforms are built without.
    pub fn debuggable(&self) -> bool {
        self.os == "linux" && matches!(self.architecture.as_str(), "amd64" | "arm64")
    }
}

impl std::fmt::Display for BasePlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write(f, [&self.os, &self.architecture, &self.variant], &self.os_version)
    }
}

fn write(f: &mut std::fmt::Formatter<'_>, parts: [&str; 3], os_version: &str) -> std::fmt::Result {
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    f.write_str(&parts.join("/"))?;
    if os_version.is_empty() { Ok(()) } else { write!(f, ":{os_version}") }
}

/// One platform that is wanted; empty parts match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    os: String,
    arch: String,
    variant: String,
    os_version: String,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write(f, [&self.os, &self.arch, &self.variant], &self.os_version)
    }
}

impl Wanted {
    fn matches(&self, base: &BasePlatform) -> bool {
        let part = |wanted: &str, there: &str| wanted.is_empty() || wanted == there;
        part(&self.os, &base.os)
            && part(&self.arch, &base.architecture)
            && part(&self.variant, &base.variant)
            && (part(&self.os_version, &base.os_version) || self.windows_release(&base.os_version))
    }

    /// Windows bases are rebuilt under a fourth number every month: three numbers match any fourth.
    fn windows_release(&self, there: &str) -> bool {
        let dots = |text: &str| text.bytes().filter(|&b| b == b'.').count();
        self.os == "windows"
            && dots(&self.os_version) == 2
            && dots(there) == 3
            && there.rsplit_once('.').is_some_and(|(release, _)| release == self.os_version)
    }
}

/// The platforms that an image is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// All that the base has.
    All,
    /// Those of the base that match one of these; never empty.
    These(Vec<Wanted>),
}

const RULE: &str = "all, or a list of OS[/ARCH[/VARIANT]][:OSVERSION], for example linux/amd64,linux/arm64";

impl FromStr for Platforms {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let refuse = || Invalid::new("platform list", text, RULE);
        let one = |item: &str| {
            let (place, os_version) = match item.trim().split_once(':') {
                Some((_, version)) if version.is_empty() || version.contains([':', '/']) => return None,
                Some((place, version)) => (place, version),
                None => (item.trim(), ""),
            };
            let parts: Vec<&str> = place.split('/').collect();
            let (os, arch, variant) = match parts.as_slice() {
                [os] => (*os, "", ""),
                [os, arch] => (*os, *arch, ""),
                [os, arch, variant] => (*os, *arch, *variant),
                _ => return None,
            };
            // ko takes an empty item for "any platform", and `all` among others for an operating system
            let bad = parts.iter().any(|part| part.is_empty()) || os == "all";
            let [os, arch, variant, os_version] = [os, arch, variant, os_version].map(str::to_owned);
            (!bad).then_some(Wanted { os, arch, variant, os_version })
        };
        let wanted: Option<Vec<Wanted>> = text.split(',').map(one).collect();
        Ok(Self::These(wanted.ok_or_else(refuse)?))
    }
}

impl Platforms {
    /// Whether an image is built over an entry of this platform; only `all` takes an entry without one.
    pub fn matches(&self, platform: Option<&BasePlatform>) -> bool {
        match (self, platform) {
            (_, Some(platform)) if !platform.is_image() => false,
            (Self::All, _) => true,
            (Self::These(_), None) => false,
            (Self::These(wanted), Some(platform)) => wanted.iter().any(|one| one.matches(platform)),
        }
    }

    /// The entries of `base` that are built over, in the base's order: each wanted platform is among them.
    /// One alone makes a plain image, several an index.
    pub fn choose<'a>(&self, base: &'a BaseIndex) -> Result<Vec<&'a Descriptor>, KoError> {
        let chosen: Vec<&Descriptor> =
            base.manifests.iter().filter(|entry| self.matches(entry.platform.as_ref())).collect();
        let platforms: Vec<&BasePlatform> =
            base.manifests.iter().filter_map(|entry| entry.platform.as_ref()).collect();
        self.all_there(&platforms)?;
        if chosen.is_empty() {
            return Err(KoError::PlatformMissing {
                missing: "any platform".to_owned(),
                there: list(&platforms),
            });
        }
        chosen.iter().filter_map(|entry| entry.platform.as_ref()).try_for_each(not_windows)?;
        Ok(chosen)
    }

    /// The platform of a base without an index, where it is the one that is wanted.
    pub fn of_image(&self, base: &BaseImage) -> Result<BasePlatform, KoError> {
        let platform = base.platform();
        self.all_there(&[&platform])?;
        not_windows(&platform)?;
        Ok(platform)
    }

    fn all_there(&self, platforms: &[&BasePlatform]) -> Result<(), KoError> {
        let Self::These(wanted) = self else { return Ok(()) };
        let there = |one: &&Wanted| platforms.iter().any(|base| base.is_image() && one.matches(base));
        let missing: Vec<String> = wanted.iter().filter(|one| !there(one)).map(ToString::to_string).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(KoError::PlatformMissing { missing: missing.join(", "), there: list(platforms) })
    }
}

fn list(platforms: &[&BasePlatform]) -> String {
    let names: Vec<String> =
        platforms.iter().filter(|platform| platform.is_image()).map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn not_windows(platform: &BasePlatform) -> Result<(), KoError> {
    if platform.os == "windows" {
        return Err(KoError::Windows { platform: platform.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> BasePlatform {
        let (place, version) = text.split_once(':').unwrap_or((text, ""));
        let mut parts = place.split('/').map(str::to_owned);
        BasePlatform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next().unwrap_or_default(),
            os_version: version.to_owned(),
            ..BasePlatform::default()
        }
    }

    fn matched(wanted: &str, base: &[&str]) -> Vec<String> {
        let wanted: Platforms = wanted.parse().unwrap();
        let base = base.iter().map(|text| platform(text));
        base.filter(|one| wanted.matches(Some(one))).map(|one| one.to_string()).collect()
    }

    const BASE: [&str; 8] = [
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/arm64/v8",
        "windows/amd64:10.0.17763.1234",
        "windows/amd64:10.0.14393.1",
        "unknown/unknown",
        "darwin/arm64",
    ];

    #[test]
    fn parts_that_are_left_out_match_anything() {
        let all: Vec<&str> = BASE.into_iter().filter(|name| *name != "unknown/unknown").collect();
        assert_eq!(matched("all", &BASE), all);
        for (wanted, found) in [
            ("linux", &["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"][..]),
            ("linux/arm", &["linux/arm/v6", "linux/arm/v7"]),
            ("linux/arm/v7, linux/amd64", &["linux/amd64", "linux/arm/v7"]),
            ("linux/arm64", &["linux/arm64/v8"]),
            ("linux/arm64/v9", &[]),
            ("windows/amd64:10.0.17763", &["windows/amd64:10.0.17763.1234"]),
            ("windows/amd64:10.0.14393.1", &["windows/amd64:10.0.14393.1"]),
            ("windows/amd64:10.0.14393.2", &[]),
            ("windows:10.0", &[]),
            ("linux/amd64:1.2.3", &[]),
        ] {
            assert_eq!(matched(wanted, &BASE), found, "{wanted}");
        }
        assert!(Platforms::All.matches(None));
        assert!(!"linux".parse::<Platforms>().unwrap().matches(None));
        for bad in [
            "",
            "linux/amd64,",
            "all,linux",
            "linux,all",
            "a/b/c/d",
            "/amd64",
            "linux:",
            "linux:1:2",
            "linux//v7",
        ] {
            assert!(bad.parse::<Platforms>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_two_platforms_are_debugged() {
        for (text, there) in [
            ("linux/amd64", true),
            ("linux/arm64/v8", true),
            ("linux/arm/v7", false),
            ("darwin/arm64", false),
        ] {
            assert_eq!(platform(text).debuggable(), there, "{text}");
        }
    }
}
