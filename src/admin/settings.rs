//! `apps set`: one table of keys, each parsed, checked and printed in one place.

use std::collections::BTreeMap;

use crate::error::Report;
use crate::model::closest::closest;
use crate::model::tree::clean_path;
use crate::model::{AppSettings, Platform, RefName};
use crate::plan::{By, check_build_arg, check_template};

/// The keys with what each takes, in the order they are printed.
pub const KEYS: [(&str, &str); 18] = [
    ("main-branch", "BRANCH"),
    ("branches", "BRANCH|PREFIX*,…"),
    ("build-tags", "true|false"),
    ("platforms", "OS/ARCH,…"),
    ("tags", "TEMPLATE,…"),
    ("build-args", "NAME=VALUE,…"),
    ("build-arg.NAME", "VALUE"),
    ("labels", "NAME=VALUE,…"),
    ("label.NAME", "VALUE"),
    ("image", "HOST/PATH"),
    ("compression", "gzip|zstd|uncompressed"),
    ("dockerfile", "PATH"),
    ("context", "PATH"),
    ("target", "STAGE"),
    ("build-timeout", "SECONDS"),
    ("silence-timeout", "SECONDS"),
    ("cache", "registry|inline|off"),
    ("attest", "provenance:min|max,sbom[:IMAGE]|off"),
];

const LIMIT_SECONDS: u32 = 7 * 86_400;
const LIMIT_ITEMS: usize = 100;
const LIMIT_VALUE_BYTES: usize = 64 << 10;

/// The settings after `changes`, one after the other. An empty value resets to the default.
pub fn apply(mut settings: AppSettings, changes: &[(String, String)]) -> Result<AppSettings, Report> {
    for (key, value) in changes {
        if value.len() > LIMIT_VALUE_BYTES {
            return Err(Report::user(format!("{key}: the value has more than {LIMIT_VALUE_BYTES} bytes")));
        }
        set(&mut settings, key, value)
            .map_err(|report| Report { message: format!("{key}: {}", report.message), ..report })?;
    }
    Ok(settings)
}

fn set(settings: &mut AppSettings, key: &str, value: &str) -> Result<(), Report> {
    if let Some(name) = key.strip_prefix("build-arg.") {
        return set_one(&mut settings.build_args, name, value, check_arg);
    }
    if let Some(name) = key.strip_prefix("label.") {
        return set_one(&mut settings.labels, name, value, check_label);
    }
    let given = (!value.is_empty()).then_some(value);
    match key {
        "main-branch" => settings.main_branch = given.map_or(Ok("main".to_owned()), branch)?,
        "branches" => settings.build_branches = items(value, branch_or_prefix)?,
        "build-tags" => settings.build_tags = given.map_or(Ok(false), boolean)?,
        "platforms" => settings.platforms = items(value, |text| Ok(text.parse::<Platform>()?))?,
        "tags" => settings.tags = items(value, template)?,
        "build-args" => settings.build_args = pairs(value, check_arg)?,
        "labels" => settings.labels = pairs(value, check_label)?,
        "image" => settings.image = given.map(str::parse).transpose()?,
        "compression" => settings.compression = given.map_or(Ok(Default::default()), str::parse)?,
        "dockerfile" => settings.dockerfile_path = given.map(path).transpose()?,
        "context" => settings.context_path = given.map(path).transpose()?,
        "target" => settings.target = given.map(stage).transpose()?,
        "build-timeout" => settings.build_timeout_s = given.map(seconds).transpose()?,
        "silence-timeout" => settings.silence_timeout_s = given.map(seconds).transpose()?,
        "cache" => settings.cache = given.map_or(Ok(Default::default()), str::parse)?,
        "attest" => settings.attest = given.map_or(Ok(Default::default()), str::parse)?,
        unknown => return Err(unknown_key(unknown)),
    }
    Ok(())
}

/// Every setting as `KEY=VALUE` would write it, empty where it is the default.
pub fn show(settings: &AppSettings) -> Vec<(&'static str, String)> {
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    let joined = |texts: &[String]| texts.join(",");
    let platforms: Vec<String> = settings.platforms.iter().map(ToString::to_string).collect();
    vec![
        ("main-branch", settings.main_branch.clone()),
        ("branches", joined(&settings.build_branches)),
        ("build-tags", settings.build_tags.to_string()),
        ("platforms", joined(&platforms)),
        ("tags", joined(&settings.tags)),
        ("build-args", pairs(&settings.build_args)),
        ("labels", pairs(&settings.labels)),
        ("compression", settings.compression.as_str().to_owned()),
        ("dockerfile", settings.dockerfile_path.clone().unwrap_or_default()),
        ("context", settings.context_path.clone().unwrap_or_default()),
        ("target", settings.target.clone().unwrap_or_default()),
        ("build-timeout", settings.build_timeout_s.map(|s| s.to_string()).unwrap_or_default()),
        ("silence-timeout", settings.silence_timeout_s.map(|s| s.to_string()).unwrap_or_default()),
        ("cache", settings.cache.as_str().to_owned()),
        ("attest", settings.attest.to_string()),
    ]
}

/// At most a week.
fn seconds(text: &str) -> Result<u32, Report> {
    let parsed = text.parse().ok().filter(|seconds| (1..=LIMIT_SECONDS).contains(seconds));
    parsed
        .ok_or_else(|| Report::user(format!("{text:?} is not a number of seconds from 1 to {LIMIT_SECONDS}")))
}

fn unknown_key(key: &str) -> Report {
    let names = KEYS.map(|(name, _)| name);
    let meant = closest(key, names).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    Report::user("unknown setting").hint(format!("{meant}known settings: {}", names.join(", ")))
}

fn set_one(
    map: &mut BTreeMap<String, String>,
    name: &str,
    value: &str,
    check: impl Fn(&str, &str) -> Result<(), Report>,
) -> Result<(), Report> {
    if value.is_empty() {
        map.remove(name);
        return Ok(());
    }
    check(name, value)?;
    map.insert(name.to_owned(), value.to_owned());
    if map.len() > LIMIT_ITEMS { Err(too_many()) } else { Ok(()) }
}

/// A comma-separated list, each item once.
fn items<T: PartialEq>(value: &str, parse: impl Fn(&str) -> Result<T, Report>) -> Result<Vec<T>, Report> {
    let mut parsed = Vec::new();
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let item = parse(text)?;
        if !parsed.contains(&item) {
            parsed.push(item);
        }
    }
    if parsed.len() > LIMIT_ITEMS { Err(too_many()) } else { Ok(parsed) }
}

fn pairs(
    value: &str,
    check: impl Fn(&str, &str) -> Result<(), Report>,
) -> Result<BTreeMap<String, String>, Report> {
    let parsed = items(value, |text| {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Report::user(format!("{text:?} is not NAME=VALUE"))
                .hint("a value with a comma is set alone: build-arg.NAME=VALUE, label.NAME=VALUE")
        })?;
        check(name, value)?;
        Ok((name.to_owned(), value.to_owned()))
    })?;
    Ok(parsed.into_iter().collect())
}

fn too_many() -> Report {
    Report::user(format!("there are more than {LIMIT_ITEMS}"))
}

fn branch(text: &str) -> Result<String, Report> {
    let short = text.strip_prefix("refs/heads/").unwrap_or(text);
    format!("refs/heads/{short}").parse::<RefName>()?;
    Ok(short.to_owned())
}

/// A branch, or a prefix of branches ending in `*`.
fn branch_or_prefix(text: &str) -> Result<String, Report> {
    let Some(prefix) = text.strip_suffix('*') else { return branch(text) };
    let prefix = prefix.strip_prefix("refs/heads/").unwrap_or(prefix);
    // any letter that completes the prefix must make a branch
    branch(&format!("{prefix}x"))?;
    Ok(format!("{prefix}*"))
}

fn boolean(text: &str) -> Result<bool, Report> {
    match text {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(Report::user(format!("{text:?} is neither true nor false"))),
    }
}

fn template(text: &str) -> Result<String, Report> {
    check_template(text)?;
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<String, Report> {
    clean_path(text).map_err(|cause| Report::user(cause.to_string()))
}

fn stage(text: &str) -> Result<String, Report> {
    let ok = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if ok {
        Ok(text.to_owned())
    } else {
        Err(Report::user(format!("{text:?} is not the name of a build stage"))
            .hint("letters, digits, '-', '_' and '.', as after AS in the Dockerfile"))
    }
}

fn check_arg(name: &str, value: &str) -> Result<(), Report> {
    Ok(check_build_arg(By::Settings, name, value)?)
}

fn check_label(name: &str, value: &str) -> Result<(), Report> {
    let ok = !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
        && !value.contains(['\0', '\n', '\r']);
    if ok {
        Ok(())
    } else {
        Err(Report::user(format!("{name:?} cannot be a label with that value"))
            .hint("a name of visible ASCII without '=', for example org.opencontainers.image.vendor, and a value of one line"))
    }
}

#[cfg(test)]
mod tests;
