//! One `go build` as ko would call it: environment in its order, flags, ldflags, templates filled in.
//!
//! Source: ko 0.19, pkg/build/gobuild.go (buildEnv, createBuildArgs, configForImportPath); `tests/oracle/ko` holds it with
//! a `go` that writes down how it was called. Other than there, nothing of a machine's own environment gets in: the app's build
//! arguments stand in its place.

use std::collections::BTreeMap;

use super::config::{BuildEntry, KoConfig};
use super::errors::KoError;
use super::facts::Facts;
use super::recipe::RECIPE;
use super::template::render;
use super::yaml::At;
use crate::kinds::errors::shown;
use crate::model::{GoTarget, Platform};

/// What decides a command beside its platform.
pub(super) struct Command<'a> {
    pub config: &'a KoConfig,
    /// The entry of `builds` for the program.
    pub entry: Option<&'a BuildEntry>,
    /// The app's build arguments.
    pub arguments: &'a BTreeMap<String, String>,
    pub facts: &'a Facts,
}

impl Command<'_> {
    /// A list of the entry, or where that is empty the default one.
    fn or_default<'b>(
        &'b self,
        own: fn(&BuildEntry) -> &Vec<At<String>>,
        default: &'b [At<String>],
    ) -> &'b [At<String>] {
        self.entry.map(own).filter(|list| !list.is_empty()).map_or(default, Vec::as_slice)
    }

    fn place(&self, at: &At<String>) -> String {
        format!("{}:{}", self.config.file, at.line)
    }

    /// The environment: later values win, and keep the place of the first.
    pub(super) fn env(&self, platform: &Platform) -> Result<Vec<(String, String)>, KoError> {
        let mut env: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => env.push((name.to_owned(), value.to_owned())),
        };
        set("CGO_ENABLED", "0");
        set("GOOS", &platform.os);
        set("GOARCH", &platform.arch);
        if let Some((name, value)) = variant(platform)? {
            set(name, &value);
        }
        for (name, value) in &RECIPE.environment {
            set(name, value);
        }
        for (name, value) in self.arguments {
            refuse_toolexec_in_goflags("the app's build arguments", name, value)?;
            set(name, value);
        }
        for entry in self.or_default(|entry| &entry.env, &self.config.default_env) {
            let (name, value) = entry.value.split_once('=').unwrap_or((&entry.value, ""));
            refuse_toolexec_in_goflags(&self.place(entry), name, value)?;
            set(name, value);
        }
        Ok(env)
    }

    /// `build`, the flags, `-trimpath`, the ldflags.
    pub(super) fn target(&self, platform: &Platform, toolchain_version: &str) -> Result<GoTarget, KoError> {
        let env = self.env(platform)?;
        let data = self.facts.data(&env, go_env(platform, &env, toolchain_version));
        let fill = |list: &[At<String>]| -> Result<Vec<String>, KoError> {
            let mut filled = Vec::new();
            for item in list {
                let place = self.place(item);
                let text = render(&item.value, &data)
                    .map_err(|cause| KoError::Template { place: place.clone(), cause })?;
                if text.contains('\0') {
                    return Err(KoError::Config {
                        file: self.config.file.clone(),
                        line: item.line,
                        column: item.column,
                        problem: "it makes a text with a NUL character".to_owned(),
                    });
                }
                filled.push(text);
            }
            Ok(filled)
        };
        let flags = self.or_default(|entry| &entry.flags, &self.config.default_flags);
        let filled = fill(flags)?;
        if let Some((flag, at)) = filled.iter().zip(flags).find(|(flag, _)| is_toolexec(flag)) {
            return Err(KoError::ToolExec { place: self.place(at), flag: shown(flag) });
        }
        let mut args = vec!["build".to_owned()];
        args.extend(filled);
        args.push("-trimpath".to_owned());
        let ldflags = self.or_default(|entry| &entry.ldflags, &self.config.default_ldflags);
        if !ldflags.is_empty() {
            args.push(format!("-ldflags={}", fill(ldflags)?.join(" ")));
        }
        Ok(GoTarget { platform: platform.clone(), env, args, debugger: None })
    }

    /// What `-tags` of the flags says, for finding out which files are built.
    pub(super) fn tags(&self) -> Vec<String> {
        let flags = self.or_default(|entry| &entry.flags, &self.config.default_flags);
        let mut tags = Vec::new();
        let mut flags = flags.iter().map(|flag| flag.value.as_str());
        while let Some(flag) = flags.next() {
            let flag = flag.strip_prefix('-').map_or(flag, |rest| rest.strip_prefix('-').unwrap_or(rest));
            let list =
                flag.strip_prefix("tags=").or_else(|| if flag == "tags" { flags.next() } else { None });
            tags.extend(
                list.unwrap_or_default().split([',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned),
            );
        }
        tags
    }
}

/// GOARM and GOAMD64, where the platform has a variant.
fn variant(platform: &Platform) -> Result<Option<(&'static str, String)>, KoError> {
    let Some(variant) = &platform.variant else { return Ok(None) };
    let strange = |why| KoError::Platform { place: "platforms".to_owned(), platform: platform.clone(), why };
    match platform.arch.as_str() {
        "arm" => {
            let level = variant.strip_prefix('v').and_then(|level| level.parse::<u32>().ok());
            let level = level.ok_or_else(|| strange("a variant of arm is v5, v6 or v7"))?;
            Ok((level >= 5).then(|| ("GOARM", level.min(7).to_string())))
        }
        "amd64" => Ok(Some(("GOAMD64", variant.clone()))),
        _ => Ok(None),
    }
}

/// What `go env` would say, as far as it is known before anything runs; the build's own variables win, as in ko.
fn go_env(platform: &Platform, env: &[(String, String)], version: &str) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> = [
        ("CGO_ENABLED", "0"),
        ("GO111MODULE", ""),
        ("GOEXE", if platform.os == "windows" { ".exe" } else { "" }),
        ("GOFLAGS", ""),
        ("GOHOSTOS", "linux"),
        ("GOINSECURE", ""),
        ("GONOPROXY", ""),
        ("GONOSUMDB", ""),
        ("GOOS", ""),
        ("GOARCH", ""),
        ("GOPRIVATE", ""),
        ("GOPROXY", "https://proxy.golang.org,direct"),
        ("GOROOT", "/usr/local/go"),
        ("GOSUMDB", "sum.golang.org"),
        ("GOCACHE", ""),
        ("GOMODCACHE", ""),
        ("GOPATH", ""),
        ("GOTOOLCHAIN", ""),
        ("GOARM", ""),
        ("GOAMD64", "v1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    match platform.arch.as_str() {
        "arm" => known.remove("GOAMD64"),
        "amd64" => known.remove("GOARM"),
        _ => {
            known.remove("GOARM");
            known.remove("GOAMD64")
        }
    };
    // a version without its patch is some version
    if version.matches('.').count() == 2 || version.contains("rc") {
        known.insert("GOVERSION".to_owned(), format!("go{version}"));
    }
    for (name, value) in env {
        if let Some(known) = known.get_mut(name) {
            known.clone_from(value);
        }
    }
    known
}

/// `-toolexec` runs a program of the flag's choice for every tool of the build.
fn is_toolexec(flag: &str) -> bool {
    let name = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-'));
    name.is_some_and(|name| name == "toolexec" || name.starts_with("toolexec="))
}

fn refuse_toolexec_in_goflags(place: &str, name: &str, value: &str) -> Result<(), KoError> {
    match value.split_whitespace().find(|flag| name == "GOFLAGS" && is_toolexec(flag)) {
        Some(flag) => Err(KoError::ToolExec { place: format!("{place}: GOFLAGS"), flag: shown(flag) }),
        None => Ok(()),
    }
}
