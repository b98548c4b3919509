//! What components of both versions have in common: files, hosts, texts with variables in them.

use std::collections::BTreeMap;

use super::super::document::{Fields, Item};
use super::super::errors::SpinError;
use super::super::{glob, hosts, ids};
use super::path_in_app;
use crate::model::tree::clean_path;
use crate::model::{SpinMount, SpinVariable};

pub(super) type Variables = BTreeMap<String, SpinVariable>;

/// `files`.
pub(super) fn mounts(item: Option<Item<'_>>) -> Result<Vec<SpinMount>, SpinError> {
    let Some(item) = item else { return Ok(Vec::new()) };
    item.list()?.iter().map(mount).collect()
}

fn mount(item: &Item<'_>) -> Result<SpinMount, SpinError> {
    if !item.is_text() {
        let mut fields = item.table()?;
        let (source, destination) = (fields.required("source")?, fields.required("destination")?);
        fields.finish()?;
        return placed(&source, &destination);
    }
    let text = item.text()?;
    let last = text.rsplit('/').next().unwrap_or_default();
    if last == "." || last == ".." {
        return Err(item.fail(
            format!("{text:?} ends in a directory without a name"),
            "write { source, destination } to mount a directory, or a pattern that ends in **/*",
        ));
    }
    let path = path_in_app(item)?;
    glob::PathPattern::new(&path)
        .map_err(|error| item.fail(format!("{text:?}: {error}"), "correct the pattern"))?;
    // a pattern that ends in `/` describes directories, and those are not mounted by patterns
    Ok(SpinMount::Pattern(if text.ends_with('/') && glob::is_pattern(&text) {
        format!("{path}/")
    } else {
        path
    }))
}

fn placed(source: &Item<'_>, destination: &Item<'_>) -> Result<SpinMount, SpinError> {
    let from = clean_path(&source.text()?).map_err(|error| {
        source.fail(error, "it is relative to the directory of spin.toml, and stays within it")
    })?;
    let text = destination.text()?;
    let to = clean_path(text.trim_start_matches('/'))
        .map_err(|error| destination.fail(error, "it is a path that the component sees, without '..'"))?;
    Ok(SpinMount::Placed { source: from, destination: to })
}

/// `exclude_files`.
pub(super) fn exclusions(item: Option<Item<'_>>) -> Result<Vec<String>, SpinError> {
    let Some(item) = item else { return Ok(Vec::new()) };
    let mut patterns = Vec::new();
    for item in item.list()? {
        let pattern = item.text()?;
        glob::Pattern::new(&pattern)
            .map_err(|error| item.fail(format!("{pattern:?}: {error}"), "correct the pattern"))?;
        patterns.push(pattern);
    }
    Ok(patterns)
}

/// Whom a component may talk to, by both fields; whether other components are among them. `databases`: without
/// `allowed_outbound_hosts`, databases are open.
pub(super) fn allowed_hosts(
    fields: &mut Fields<'_>,
    variables: &Variables,
    databases: bool,
) -> Result<(Vec<String>, bool), SpinError> {
    let outbound = fields.optional("allowed_outbound_hosts");
    let databases = databases && outbound.is_none();
    let mut texts = Vec::new();
    for item in outbound.map(|item| item.list()).transpose()?.unwrap_or_default() {
        texts.push(outbound_host(&item, variables)?);
    }
    texts.extend(match fields.optional("allowed_http_hosts") {
        None => hosts::from_http(&[], databases).unwrap_or_default(),
        Some(item) => hosts::from_http(&item.texts()?, databases).map_err(|why| {
            item.fail(why, "write HOST or HOST:PORT; newer manifests have allowed_outbound_hosts")
        })?,
    });
    let chaining = texts.iter().any(|text| hosts::outbound(text).is_ok_and(|host| host.chaining));
    Ok((texts, chaining))
}

/// One entry, judged as far as its variables are known.
fn outbound_host(item: &Item<'_>, variables: &Variables) -> Result<String, SpinError> {
    const HINT: &str = "write SCHEME://HOST[:PORT], for example https://example.com; each part may be *";
    let text = item.text()?;
    if known_variables(item, &text, variables)?.is_empty() {
        hosts::outbound(&text).map_err(|why| item.fail(format!("{text:?}: {why}"), HINT))?;
    } else if let Some(filled) = hosts::filled_in(&text, |name| variables.get(name)?.default.clone()) {
        // an empty variable leaves the entry out
        if !matches!(filled.as_str(), "" | "http://" | "https://") {
            hosts::outbound(&filled).map_err(|why| {
                item.fail(format!("{text:?} is {filled:?} by the variables' defaults: {why}"), HINT)
            })?;
        }
    }
    Ok(text)
}

/// The variables that `text` names; an error for one that the application does not have.
fn known_variables(item: &Item<'_>, text: &str, variables: &Variables) -> Result<Vec<String>, SpinError> {
    let names = hosts::variables(text).map_err(|why| item.fail(why, "write {{ name }}"))?;
    if let Some(name) = names.iter().find(|name| !variables.contains_key(*name)) {
        let near = crate::model::closest::closest(name, variables.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean {{{{ {near} }}}}?"),
            None => "declare it in [variables] of the application".to_owned(),
        };
        return Err(item.fail(format!("the application has no variable {name:?}"), hint));
    }
    Ok(names)
}

/// A component's own variables: texts in which the application's have a place.
pub(super) fn own_variables(
    item: Option<Item<'_>>,
    variables: &Variables,
) -> Result<BTreeMap<String, String>, SpinError> {
    let mut own = BTreeMap::new();
    let Some(item) = item else { return Ok(own) };
    for (name, item) in item.text_map()? {
        ids::lower_snake(&name).map_err(|why| item.fail(why, "a variable is called like db_url"))?;
        let text = item.text()?;
        known_variables(&item, &text, variables)?;
        own.insert(name, text);
    }
    Ok(own)
}

/// `environment`.
pub(super) fn environment(item: Option<Item<'_>>) -> Result<BTreeMap<String, String>, SpinError> {
    let mut environment = BTreeMap::new();
    let Some(item) = item else { return Ok(environment) };
    for (name, item) in item.text_map()? {
        environment.insert(name, item.text()?);
    }
    Ok(environment)
}

/// Names of stores and databases.
pub(super) fn labels(fields: &mut Fields<'_>, key: &'static str) -> Result<Vec<String>, SpinError> {
    let Some(item) = fields.optional(key) else { return Ok(Vec::new()) };
    for item in item.list()? {
        let label = item.text()?;
        ids::label(&label)
            .map_err(|allowed| item.fail(format!("{label:?} is no label"), format!("allowed: {allowed}")))?;
    }
    item.texts()
}
