//! `spin.toml`, read and checked, before it is brought into its normal form. Both versions become this.
//!
//! What each version says is read by `v1` and `v2`; here is what they share. Must not look at the tree.

mod component;
mod v1;
mod v2;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::document::{Fields, Item, Source};
use super::errors::{At, SpinError};
use super::ids;
use crate::model::{Digest, SpinBuild, SpinCommand, SpinMount, SpinSource, SpinVariable, tree::clean_path};

/// Bounds of one application.
const LIMIT_COMPONENTS: usize = 256;
const LIMIT_TRIGGERS: usize = 1024;
/// A manifest is written by hand.
pub(super) const LIMIT_BYTES: u64 = 512 * 1024;

/// A manifest of either version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// 1 or 2.
    pub version: u8,
    pub name: String,
    pub app_version: String,
    pub description: String,
    pub authors: Vec<String>,
    pub trigger_settings: BTreeMap<String, Json>,
    /// Environments that it is meant for; not checked here.
    pub has_targets: bool,
    pub variables: BTreeMap<String, SpinVariable>,
    /// Triggers of one type follow each other.
    pub triggers: Vec<Trigger>,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trigger {
    pub at: At,
    pub kind: String,
    /// Empty: it gets one.
    pub id: String,
    pub component: Option<Reference>,
    pub components: Vec<(String, Vec<Reference>)>,
    /// The roles of `dependencies`.
    pub dependencies: Vec<(String, At)>,
    pub config: BTreeMap<String, Json>,
}

/// Which component a trigger means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reference {
    Named(String, At),
    Inline(Box<Component>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Component {
    pub at: At,
    /// Empty for an inline one.
    pub id: String,
    pub source: SpinSource,
    pub source_at: At,
    pub description: String,
    pub variables: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
    pub files: Vec<SpinMount>,
    pub exclude_files: Vec<String>,
    pub allowed_outbound_hosts: Vec<String>,
    pub service_chaining: bool,
    pub key_value_stores: Vec<String>,
    pub sqlite_databases: Vec<String>,
    pub ai_models: Vec<String>,
    pub build: Option<SpinBuild>,
    pub dependencies: Vec<Dependency>,
    pub profiles: Vec<(String, Profile)>,
}

/// Something that a component imports.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dependency {
    pub at: At,
    pub name: String,
    pub on: DependsOn,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum DependsOn {
    /// A file of the application.
    Path(String),
    /// Another component's file.
    Component(String),
    /// What is fetched.
    Elsewhere,
}

/// What a component has otherwise when its profile is built.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Profile {
    pub source: Option<(SpinSource, At)>,
    pub environment: BTreeMap<String, String>,
    pub dependencies: Vec<Dependency>,
    pub command: Option<SpinCommand>,
}

impl Manifest {
    /// `text`, called `path` in messages.
    pub fn parse(path: &str, text: &str) -> Result<Self, SpinError> {
        let source = Source { path, text };
        let document = source.parse()?;
        let mut fields = Fields::of_document(source, &document);
        let (current, older) = (fields.optional("spin_manifest_version"), fields.optional("spin_version"));
        let version = match (current, older) {
            (Some(version), None) => version,
            (None, Some(version)) if version.is_text() => version,
            (newer, Some(older)) => {
                let problem = match newer {
                    Some(_) => "spin_manifest_version says the version already",
                    None => "only version \"1\" calls it so",
                };
                return Err(
                    older.fail(problem, "write spin_manifest_version = 2, or \"1\" for the older form")
                );
            }
            (None, None) => {
                return Err(source.error(
                    At { line: 1, column: 1 },
                    "spin_manifest_version is missing",
                    "begin with spin_manifest_version = 2",
                ));
            }
        };
        let manifest = if version.is_text() && version.text()? == "1" {
            v1::read(fields)?
        } else if version.integer() == Some("2") {
            v2::read(fields)?
        } else {
            return Err(version.fail(
                "no version of spin manifests that is known",
                "it is the number 2, or the string \"1\" for the older form",
            ));
        };
        manifest.check_bounds(source)
    }

    fn check_bounds(self, source: Source<'_>) -> Result<Self, SpinError> {
        if let Some(first) = self.components.get(LIMIT_COMPONENTS) {
            let problem = format!("more than {LIMIT_COMPONENTS} components");
            return Err(source.error(first.at, problem, "split the application"));
        }
        if let Some(first) = self.triggers.get(LIMIT_TRIGGERS) {
            let problem = format!("more than {LIMIT_TRIGGERS} triggers");
            return Err(source.error(first.at, problem, "split the application"));
        }
        Ok(self)
    }
}

/// A path of the application.
fn path_in_app(item: &Item<'_>) -> Result<String, SpinError> {
    let path = clean_path(&item.text()?).map_err(|error| {
        item.fail(error, "paths are relative to the directory of spin.toml, and stay within it")
    })?;
    if path.is_empty() {
        return Err(item.fail("it is empty", "name a file of the application"));
    }
    Ok(path)
}

/// Where a component comes from.
fn component_source(item: &Item<'_>) -> Result<SpinSource, SpinError> {
    if item.is_text() {
        return Ok(SpinSource::Path(path_in_app(item)?));
    }
    let mut fields = item.table()?;
    let (url, digest) = (fields.optional("url"), fields.optional("digest"));
    let (registry, package, version) =
        (fields.optional("registry"), fields.optional("package"), fields.optional("version"));
    fields.finish()?;
    match (url, digest, package, version) {
        (Some(url), Some(digest), None, None) if registry.is_none() => {
            Ok(SpinSource::Url { url: web_address(&url)?, digest: sha256(&digest)? })
        }
        (None, None, Some(package), Some(version)) => Ok(SpinSource::Package {
            registry: registry.map(|registry| registry_name(&registry)).transpose()?,
            package: package_name(&package)?,
            version: exact_version(&version)?,
        }),
        (Some(url), None, None, None) => Err(url.fail(
            "there is no digest beside it",
            "add digest = \"sha256:…\" of the file, as `sha256sum` prints it",
        )),
        _ => Err(item.fail(
            "neither a file, nor url with digest, nor package with version",
            "write a path, { url, digest } or { registry, package, version }",
        )),
    }
}

fn web_address(item: &Item<'_>) -> Result<String, SpinError> {
    let url = item.text()?;
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fits = |c: char| c.is_ascii_graphic() && !"\"'\\<>`".contains(c);
    match host {
        Some(host) if url.chars().all(fits) && url.len() <= 2048 => {
            let host = host.split('/').next().unwrap_or_default();
            if host.is_empty() || host.contains('@') {
                return Err(
                    item.fail("no address without a user's name", "leave user and password out of it")
                );
            }
            Ok(url)
        }
        _ => Err(item.fail("no address of the web", "write https://HOST/PATH")),
    }
}

fn sha256(item: &Item<'_>) -> Result<Digest, SpinError> {
    let text = item.text()?;
    text.parse().map_err(|_| {
        item.fail(format!("{text:?} is no digest"), "write sha256: and 64 lower-case hexadecimal digits")
    })
}

fn registry_name(item: &Item<'_>) -> Result<String, SpinError> {
    let name = item.text()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(fits) {
        return Err(
            item.fail(format!("{name:?} is no registry"), "write its host, for example registry.example.com")
        );
    }
    Ok(name)
}

fn package_name(item: &Item<'_>) -> Result<String, SpinError> {
    let name = item.text()?;
    match name.split_once(':') {
        Some((space, package)) if ids::kebab(space).is_ok() && ids::kebab(package).is_ok() => Ok(name),
        _ => Err(item.fail(format!("{name:?} is no package"), "write NAMESPACE:NAME")),
    }
}

/// A version that names one release: three numbers, and what semantic versions may add.
fn exact_version(item: &Item<'_>) -> Result<String, SpinError> {
    let version = item.text()?;
    let (release, build) = version.split_once('+').map_or((version.as_str(), None), |(r, b)| (r, Some(b)));
    let (numbers, pre) = release.split_once('-').map_or((release, None), |(n, p)| (n, Some(p)));
    let number =
        |n: &str| n == "0" || !n.starts_with('0') && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let words = |text: Option<&str>| text.is_none_or(|text| text.split('.').all(word));
    let three = numbers.split('.').count() == 3 && numbers.split('.').all(number);
    if three && words(pre) && words(build) {
        return Ok(version);
    }
    Err(item.fail(
        format!("{version:?} is no exact version"),
        "write the version of one release, for example 1.2.3",
    ))
}

/// Build commands: one or several, none of them empty.
fn commands(item: &Item<'_>) -> Result<SpinCommand, SpinError> {
    let command = if item.is_list() {
        SpinCommand::Several(item.texts()?)
    } else if item.is_text() {
        SpinCommand::One(item.text()?)
    } else {
        return Err(
            item.fail("neither a command nor a list of commands", "write a string or an array of strings")
        );
    };
    if command.all().is_empty() || command.all().iter().any(|c| c.trim().is_empty() || c.contains('\0')) {
        return Err(item.fail("an empty command", "write what builds the component, or take build out"));
    }
    Ok(command)
}

fn build(item: &Item<'_>) -> Result<SpinBuild, SpinError> {
    let mut fields = item.table()?;
    let command = commands(&fields.required("command")?)?;
    let workdir = fields.optional("workdir");
    let workdir = workdir
        .map(|workdir| {
            let text = workdir.text()?;
            clean_path(&text).map_err(|error| {
                workdir.fail(error, "it is relative to the directory of spin.toml, and stays within it")
            })?;
            Ok::<_, SpinError>(text)
        })
        .transpose()?;
    let watch = fields.texts_or_none("watch")?;
    fields.finish()?;
    Ok(SpinBuild { command, workdir, watch })
}

fn variable(item: &Item<'_>) -> Result<SpinVariable, SpinError> {
    let mut fields = item.table()?;
    let description = fields.optional("description").map(|item| item.text()).transpose()?;
    let required = fields.optional("required").map(|item| item.flag()).transpose()?.unwrap_or(false);
    let default = fields.optional("default").map(|item| item.text()).transpose()?;
    let secret = fields.optional("secret").map(|item| item.flag()).transpose()?.unwrap_or(false);
    fields.finish()?;
    if required == default.is_some() {
        let problem =
            if required { "both required and with a default" } else { "neither required nor with a default" };
        return Err(item.fail(problem, "write either required = true or default = \"…\""));
    }
    Ok(SpinVariable { description, default, secret })
}

/// The application's variables.
fn variables(item: Option<Item<'_>>) -> Result<BTreeMap<String, SpinVariable>, SpinError> {
    let mut variables = BTreeMap::new();
    let Some(item) = item else { return Ok(variables) };
    for (name, item) in item.table()?.rest() {
        ids::lower_snake(&name).map_err(|why| item.fail(why, "a variable is called like db_url"))?;
        variables.insert(name, variable(&item)?);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::super::errors::SpinError;
    use super::super::normal::normal;
    use super::*;

    /// Short, so that a mutation is likely to hit something.
    const CORPUS: [&[u8]; 3] = [
        b"spin_manifest_version=2\n[application]\nname='x'\n[[trigger.http]]\nroute='/'\ncomponent='a'\n[component.a]\nsource='a.wasm'\nfiles=['s/**/*']\nbuild.command='b'\n",
        b"spin_manifest_version=2\napplication.name='x'\nvariables.v.default='d'\ntrigger.t=[{component={source='b'}}]\n[component.a]\nsource={url='https://h/p',digest='sha256:00'}\nallowed_outbound_hosts=['http://{{v}}:*']\nprofile.p.source='c'\n",
        b"spin_version='1'\nname='x'\ntrigger={type='http'}\n[[component]]\nid='A_b'\nsource='a'\nallowed_http_hosts=['h:1']\n[component.trigger]\nroute='/'\n",
    ];

    const WORDS: [&[u8]; 16] = [
        b"[component.",
        b"[[",
        b"{",
        b"}",
        b"'",
        b"\"",
        b"=",
        b"\n",
        b"..",
        b"**",
        b"{{",
        b"}}",
        b"0x",
        b"1e999",
        b"\xc3\xa9",
        b"dependencies",
    ];

    #[test]
    fn fuzzed_manifests_are_read_or_refused_with_a_place_and_a_remedy() {
        crate::fuzz::run("spin manifests", 5_000, &CORPUS, &WORDS, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let lines = text.split('\n').count();
            let read =
                Manifest::parse("spin.toml", text).and_then(|manifest| normal("spin.toml", manifest, None));
            match read {
                Ok(normal) => {
                    let ids = |id: &String| normal.app.components.iter().filter(|c| c.id == *id).count();
                    assert!(normal.app.components.iter().all(|component| ids(&component.id) == 1));
                    assert!(normal.app.triggers.iter().all(|trigger| !trigger.id.is_empty()));
                    true
                }
                Err(SpinError::Manifest { at, problem, hint, .. }) => {
                    assert!((1..=lines).contains(&at.line) && at.column > 0, "{at}");
                    assert!(!problem.is_empty() && !hint.is_empty(), "{problem}");
                    false
                }
                Err(other) => panic!("{other}"),
            }
        });
    }
}
