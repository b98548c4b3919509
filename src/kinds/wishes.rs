//! What the app's settings and the tree's `build-config.yaml` ask for together.
//!
//! The app's settings, set by an operator, win over the file, which any pusher may write; each override is noted. Build
//! arguments are merged name by name. Must not look at the tree: whether a wish can be met is the kind's to say.

use std::collections::BTreeMap;

use super::PlanInput;
use super::build_config::BuildConfig;
use super::errors::{By, KindError};
use crate::model::tree::clean_path;
use crate::model::{AppSettings, Invalid, KindName, Platform};

/// Bounds of what a pusher may ask for.
const LIMIT_PLATFORMS: usize = 16;
const LIMIT_ARG_BYTES: usize = 32 * 1024;

/// A value and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    pub value: T,
    pub by: By,
}

/// The wishes, parsed. Paths are in `Tree`'s form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    pub kind: Option<Said<KindName>>,
    pub dockerfile_path: Option<Said<String>>,
    pub context_path: Option<Said<String>>,
    pub target: Option<Said<String>>,
    /// In the order asked for, without repeats; empty: none were asked for.
    pub platforms: Vec<Said<Platform>>,
    pub build_args: BTreeMap<String, String>,
    /// Templates, beside the app's own.
    pub additional_tags: Vec<Said<String>>,
    pub notes: Vec<String>,
}

impl Wishes {
    pub fn of(settings: &AppSettings, config: Option<&BuildConfig>) -> Result<Self, KindError> {
        let none = BuildConfig::default();
        let config = config.unwrap_or(&none);
        let mut notes = config.notes.clone();
        let mut choose = |key, setting: &Option<String>, said: &Option<Said<String>>| {
            choose(key, setting.as_deref(), said.as_ref(), &mut notes)
        };
        let dockerfile_path = choose("dockerfile_path", &settings.dockerfile_path, &config.dockerfile_path);
        let context_path = choose("context_path", &settings.context_path, &config.context_path);
        let target = choose("target", &settings.target, &config.target);
        if let Some(said) = &target {
            check_target(said)?;
        }
        let platforms = platforms(settings, config, &mut notes)?;
        let build_args = build_args(settings, config, &mut notes)?;
        Ok(Self {
            kind: config.kind.clone(),
            dockerfile_path: dockerfile_path.map(|said| in_tree("dockerfile_path", said)).transpose()?,
            context_path: context_path.map(|said| in_tree("context_path", said)).transpose()?,
            target,
            platforms,
            build_args,
            additional_tags: config.additional_tags.clone(),
            notes,
        })
    }
}

/// The build arguments: the wishes', and a try's own.
pub(super) fn arguments(
    input: &PlanInput<'_>,
    wishes: &Wishes,
) -> Result<BTreeMap<String, String>, KindError> {
    let mut args = wishes.build_args.clone();
    if !input.options.build_args.is_empty() && !input.options.dry_try {
        return Err(KindError::OnlyWithTry);
    }
    for (name, value) in &input.options.build_args {
        check_build_arg(By::Push, name, value)?;
        args.insert(name.clone(), value.clone());
    }
    Ok(args)
}

fn choose(
    key: &str,
    setting: Option<&str>,
    said: Option<&Said<String>>,
    notes: &mut Vec<String>,
) -> Option<Said<String>> {
    let Some(setting) = setting.filter(|s| !s.is_empty()) else { return said.cloned() };
    if let Some(said) = said.filter(|said| said.value != setting) {
        notes.push(format!(
            "{key} is {setting:?} by the app's settings; {} says {:?}, which is not used",
            said.by, said.value
        ));
    }
    Some(Said { value: setting.to_owned(), by: By::Settings })
}

/// A path of the tree that is also safe as a name that BuildKit follows: no wildcards.
fn in_tree(key: &'static str, said: Said<String>) -> Result<Said<String>, KindError> {
    let value = clean_path(&said.value).map_err(|cause| KindError::Path { by: said.by, key, cause })?;
    if value.contains(['*', '?', '[', ']']) || value.len() > 1024 || value.chars().any(char::is_control) {
        let problem = Invalid::new("path", &said.value, "at most 1024 bytes without '*', '?', '[' and ']'");
        return Err(KindError::Value { by: said.by, key, problem });
    }
    Ok(Said { value, by: said.by })
}

fn check_target(said: &Said<String>) -> Result<(), KindError> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if said.value.len() <= 128 && said.value.chars().all(word) {
        return Ok(());
    }
    let problem =
        Invalid::new("target", &said.value, "a stage's name or number: letters, digits, '_', '-' and '.'");
    Err(KindError::Value { by: said.by, key: "target", problem })
}

fn platforms(
    settings: &AppSettings,
    config: &BuildConfig,
    notes: &mut Vec<String>,
) -> Result<Vec<Said<Platform>>, KindError> {
    let mut asked = Vec::new();
    for said in config.platforms.iter().flatten() {
        let value = said.value.parse().map_err(|problem| KindError::Value {
            by: said.by,
            key: "platforms",
            problem,
        })?;
        asked.push(Said { value, by: said.by });
    }
    if !settings.platforms.is_empty() {
        let set: Vec<_> =
            settings.platforms.iter().map(|p| Said { value: p.clone(), by: By::Settings }).collect();
        let names =
            |list: &[Said<Platform>]| list.iter().map(|s| s.value.to_string()).collect::<Vec<_>>().join(", ");
        if let Some(first) = asked.first().filter(|_| names(&asked) != names(&set)) {
            notes.push(format!(
                "platforms are {} by the app's settings; {} says {}, which is not used",
                names(&set),
                first.by,
                names(&asked)
            ));
        }
        asked = set;
    }
    let mut distinct: Vec<Said<Platform>> = Vec::new();
    for said in asked {
        if !distinct.iter().any(|d| d.value == said.value) {
            distinct.push(said);
        }
    }
    if let Some(said) = distinct.get(LIMIT_PLATFORMS) {
        let problem = Invalid::new("list of platforms", &said.value.to_string(), "at most 16 platforms");
        return Err(KindError::Value { by: said.by, key: "platforms", problem });
    }
    Ok(distinct)
}

fn build_args(
    settings: &AppSettings,
    config: &BuildConfig,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, KindError> {
    let mut args = BTreeMap::new();
    for said in &config.build_args {
        let refuse = |allowed| KindError::Value {
            by: said.by,
            key: "build_args",
            problem: Invalid::new("build argument", &said.value, allowed),
        };
        let (name, value) = said.value.split_once('=').ok_or_else(|| refuse("NAME=VALUE"))?;
        if value.contains("${") {
            return Err(refuse(
                "a plain value: ${…} is not expanded here; use ARG defaults in the Dockerfile",
            ));
        }
        check_build_arg(said.by, name, value)?;
        if settings.build_args.get(name).is_some_and(|set| set != value) {
            notes
                .push(format!("build argument {name} is set by the app's settings; {} is not used", said.by));
        }
        args.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in &settings.build_args {
        check_build_arg(By::Settings, name, value)?;
        args.insert(name.clone(), value.clone());
    }
    Ok(args)
}

/// Whether a build argument may be given. `BUILDKIT_*` steers the frontend (another frontend image, another app's cache
/// mounts, attestations) and is refused from everyone, in any case of letters.
pub fn check_build_arg(by: By, name: &str, value: &str) -> Result<(), KindError> {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let shape = name.len() <= 128
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|b| letter(b) || b.is_ascii_digit());
    if !shape {
        let problem = Invalid::new(
            "build argument name",
            name,
            "letters, digits and '_', not beginning with a digit, at most 128",
        );
        return Err(KindError::Value { by, key: "build_args", problem });
    }
    if name.to_ascii_uppercase().starts_with("BUILDKIT_") {
        return Err(KindError::ReservedArg { by, name: name.to_owned() });
    }
    if value.len() > LIMIT_ARG_BYTES || value.contains('\0') {
        let problem = Invalid::new("value of a build argument", value, "at most 32 KiB without NUL");
        return Err(KindError::Value { by, key: "build_args", problem });
    }
    Ok(())
}
