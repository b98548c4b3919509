//! `buildpacks/ko/recipe.toml`: the kind's defaults as data, embedded when lemnos is compiled; and which Go a tree gets.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::modules::Versions;
use crate::model::Platform;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub toolchain: String,
    pub version: String,
    pub oldest: String,
    pub base: String,
    pub platforms: Vec<Platform>,
    pub architectures: Vec<String>,
    pub debugger: Debugger,
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Debugger {
    package: String,
    /// By the Go from which on it is taken.
    versions: BTreeMap<String, String>,
}

pub(super) static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../buildpacks/ko/recipe.toml"))
        .expect("the embedded recipe is read by a test of this file")
});

/// The Go that these files ask for: a `toolchain` line names it exactly, a `go` line at least.
pub(super) fn version(versions: &[&Versions]) -> String {
    let toolchain = versions.iter().find_map(|v| v.toolchain.as_deref()).filter(|name| *name != "default");
    let exact =
        toolchain.and_then(|name| name.strip_prefix("go")).map(|name| name.split('-').next().unwrap_or(name));
    let asked = exact.map(str::to_owned).or_else(|| {
        let go = versions.iter().find_map(|v| v.go.as_deref())?;
        let mut parts = go.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        // the newest patch of it is at least the one that is asked for
        Some(format!("{major}.{minor}"))
    });
    asked.filter(|asked| minor(asked) >= minor(&RECIPE.oldest)).unwrap_or_else(|| RECIPE.version.clone())
}

/// 26 of `1.26.3` and `1.26rc1`.
pub(super) fn minor(version: &str) -> u32 {
    let minor = version.split('.').nth(1).unwrap_or_default();
    minor.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The toolchain's image for a version of Go.
pub(super) fn toolchain(version: &str) -> String {
    RECIPE.toolchain.replace("{version}", version)
}

/// The debugger of programs that this image compiles, as `go install` takes it. Which Go it has, its tag says; what says
/// nothing of it is taken for the newest.
pub fn debugger(toolchain: &str) -> String {
    let tag = toolchain.rsplit_once(':').map_or("", |(_, tag)| tag);
    let told = Some(tag).filter(|tag| tag.starts_with("1.")).map_or(u32::MAX, minor);
    let Debugger { package, versions } = &RECIPE.debugger;
    let mut known: Vec<(u32, &String)> = versions.iter().map(|(go, version)| (minor(go), version)).collect();
    known.sort_unstable();
    let older = known.iter().rev().find(|(go, _)| *go <= told).or_else(|| known.first());
    let (_, version) = older.expect("a test of this file sees that there is one");
    format!("{package}@{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debugger_goes_by_the_tag_of_the_image_that_compiles() {
        for (tag, version) in [
            ("golang:1.20", "v1.24.2"),
            ("golang:1.21.13-alpine", "v1.24.2"),
            ("golang:1.22", "v1.25.2"),
            ("golang:1.23", "v1.25.2"),
            ("golang:1.24", "v1.26.0"),
            ("golang:1.25rc1", "v1.27.2"),
            ("golang:1.26", "v1.27.2"),
            ("golang:1.99", "v1.27.2"),
            ("golang:latest", "v1.27.2"),
            ("localhost:5000/golang", "v1.27.2"),
        ] {
            let debugger = debugger(&format!("docker.io/library/{tag}"));
            assert_eq!(debugger, format!("github.com/go-delve/delve/cmd/dlv@{version}"), "{tag}");
        }
        assert!(RECIPE.debugger.versions.contains_key(&RECIPE.oldest));
        assert!(RECIPE.debugger.package.ends_with(&format!("/{}", crate::model::DEBUGGER)));
    }

    #[test]
    fn the_embedded_recipe_is_whole() {
        assert!(RECIPE.toolchain.contains("{version}"));
        assert!(minor(&RECIPE.version) >= minor(&RECIPE.oldest));
        assert_eq!(super::super::reference::full(&RECIPE.base).unwrap(), RECIPE.base);
        assert_eq!(
            super::super::reference::full(&toolchain(&RECIPE.version)).unwrap(),
            toolchain(&RECIPE.version)
        );
        for platform in &RECIPE.platforms {
            assert!(platform.os == "linux" && RECIPE.architectures.contains(&platform.arch), "{platform}");
        }
        for name in ["GOCACHE", "GOMODCACHE", "HOME", "PATH", "GOTOOLCHAIN"] {
            assert!(RECIPE.environment.contains_key(name), "{name}");
        }
    }

    #[test]
    fn the_version_is_what_the_files_ask_for() {
        let of = |go: &str, toolchain: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            version(&[&Versions { go: some(go), toolchain: some(toolchain) }])
        };
        assert_eq!(of("1.24.3", ""), "1.24");
        assert_eq!(of("1.25rc1", ""), "1.25rc1");
        assert_eq!(of("1.24", "go1.25.1"), "1.25.1");
        assert_eq!(of("1.24", "go1.25.1-acme"), "1.25.1");
        assert_eq!(of("1.24", "default"), "1.24");
        assert_eq!(of("1.16", ""), RECIPE.version);
        assert_eq!(of("", ""), RECIPE.version);
        let (work, module) = (Versions::default(), Versions { go: Some("1.23".into()), toolchain: None });
        assert_eq!(version(&[&work, &module]), "1.23");
    }
}
