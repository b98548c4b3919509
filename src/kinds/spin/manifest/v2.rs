//! Manifests of version 2.
//!
//! Source: Spin 4.0's manifest schema. Must not fill in what is left out; `normal` does.

use std::collections::BTreeMap;

use super::super::document::{Fields, Item};
use super::super::errors::SpinError;
use super::super::ids;
use super::component::{Variables, allowed_hosts, environment, exclusions, labels, mounts, own_variables};
use super::{
    Component, Dependency, DependsOn, Manifest, Profile, Reference, Trigger, build, commands,
    component_source, path_in_app, variables,
};

pub(super) fn read(mut fields: Fields<'_>) -> Result<Manifest, SpinError> {
    let application = fields.required("application")?;
    let variables = variables(fields.optional("variables"))?;
    let triggers = fields.required("trigger")?;
    let components = fields.optional("component");
    fields.finish()?;
    let mut manifest = details(&application)?;
    if let Some(components) = components {
        for (id, item) in components.table()?.rest() {
            ids::kebab(&id).map_err(|why| item.fail(why, "a component is called like shop-api"))?;
            manifest.components.push(Component { id, ..component(&item, &variables)? });
        }
    }
    for (kind, list) in triggers.table()?.rest() {
        for item in list.list()? {
            manifest.triggers.push(trigger(&kind, &item, &variables)?);
        }
    }
    manifest.variables = variables;
    Ok(manifest)
}

fn details(item: &Item<'_>) -> Result<Manifest, SpinError> {
    let mut fields = item.table()?;
    let name = fields.required("name")?.text()?;
    let app_version = fields.text_or_empty("version")?;
    let description = fields.text_or_empty("description")?;
    let authors = fields.texts_or_none("authors")?;
    let has_targets = targets(fields.optional("targets"))?;
    let mut trigger_settings = BTreeMap::new();
    if let Some(item) = fields.optional("trigger") {
        for (kind, item) in item.table()?.rest() {
            item.table()?;
            trigger_settings.insert(kind, item.json()?);
        }
    }
    tools(fields.optional("tool"))?;
    fields.finish()?;
    Ok(Manifest {
        version: 2,
        name,
        app_version,
        description,
        authors,
        trigger_settings,
        has_targets,
        variables: BTreeMap::new(),
        triggers: Vec::new(),
        components: Vec::new(),
    })
}

/// Environments, each a name, `{ url }` or `{ path }`; whether there are any.
fn targets(item: Option<Item<'_>>) -> Result<bool, SpinError> {
    let Some(item) = item else { return Ok(false) };
    let list = item.list()?;
    for item in list.iter().filter(|item| !item.is_text()) {
        let mut fields = item.table()?;
        let (url, path) = (fields.optional("url"), fields.optional("path"));
        fields.finish()?;
        url.or(path)
            .ok_or_else(|| {
                item.fail("no environment", "write its name, { url = \"…\" } or { path = \"…\" }")
            })?
            .text()?;
    }
    Ok(!list.is_empty())
}

/// Settings of other tools: tables, of whatever.
fn tools(item: Option<Item<'_>>) -> Result<(), SpinError> {
    let Some(item) = item else { return Ok(()) };
    item.table()?.rest().iter().try_for_each(|(_, item)| item.table().map(drop))
}

fn trigger(kind: &str, item: &Item<'_>, variables: &Variables) -> Result<Trigger, SpinError> {
    let mut fields = item.table()?;
    let id = fields.text_or_empty("id")?;
    let component = fields.optional("component").map(|item| reference(&item, variables)).transpose()?;
    let mut components = Vec::new();
    if let Some(item) = fields.optional("components") {
        for (role, item) in item.table()?.rest() {
            let items = if item.is_list() { item.list()? } else { vec![item] };
            let references = items.iter().map(|item| reference(item, variables)).collect::<Result<_, _>>()?;
            components.push((role, references));
        }
    }
    let dependencies = match fields.optional("dependencies") {
        Some(item) => item.table()?.rest().into_iter().map(|(role, item)| (role, item.at())).collect(),
        None => Vec::new(),
    };
    let mut config = BTreeMap::new();
    for (key, item) in fields.rest() {
        config.insert(key, item.json()?);
    }
    Ok(Trigger { at: item.at(), kind: kind.to_owned(), id, component, components, dependencies, config })
}

fn reference(item: &Item<'_>, variables: &Variables) -> Result<Reference, SpinError> {
    if !item.is_text() {
        return Ok(Reference::Inline(Box::new(component(item, variables)?)));
    }
    let id = item.text()?;
    ids::kebab(&id).map_err(|why| item.fail(why, "name a component of the application"))?;
    Ok(Reference::Named(id, item.at()))
}

fn component(item: &Item<'_>, variables: &Variables) -> Result<Component, SpinError> {
    let mut fields = item.table()?;
    let source = fields.required("source")?;
    let (allowed_outbound_hosts, service_chaining) = allowed_hosts(&mut fields, variables, false)?;
    let own = fields.optional("variables");
    let component = Component {
        at: item.at(),
        id: String::new(),
        source_at: source.at(),
        source: component_source(&source)?,
        description: fields.text_or_empty("description")?,
        variables: own_variables(own, variables)?,
        environment: environment(fields.optional("environment"))?,
        files: mounts(fields.optional("files"))?,
        exclude_files: exclusions(fields.optional("exclude_files"))?,
        allowed_outbound_hosts,
        service_chaining,
        key_value_stores: labels(&mut fields, "key_value_stores")?,
        sqlite_databases: labels(&mut fields, "sqlite_databases")?,
        ai_models: fields.texts_or_none("ai_models")?,
        build: fields.optional("build").map(|item| build(&item)).transpose()?,
        dependencies: dependencies(fields.optional("dependencies"))?,
        profiles: profiles(fields.optional("profile"))?,
    };
    targets(fields.optional("targets"))?;
    tools(fields.optional("tool"))?;
    fields.optional("dependencies_inherit_configuration").map(|item| item.flag()).transpose()?;
    fields.finish()?;
    Ok(component)
}

fn profiles(item: Option<Item<'_>>) -> Result<Vec<(String, Profile)>, SpinError> {
    let Some(item) = item else { return Ok(Vec::new()) };
    item.table()?.rest().into_iter().map(|(name, item)| Ok((name, profile(&item)?))).collect()
}

fn profile(item: &Item<'_>) -> Result<Profile, SpinError> {
    let mut fields = item.table()?;
    let source =
        fields.optional("source").map(|item| Ok::<_, SpinError>((component_source(&item)?, item.at())));
    let profile = Profile {
        source: source.transpose()?,
        environment: environment(fields.optional("environment"))?,
        dependencies: dependencies(fields.optional("dependencies"))?,
        command: match fields.optional("build") {
            Some(item) => {
                let mut fields = item.table()?;
                let command = commands(&fields.required("command")?)?;
                fields.finish()?;
                Some(command)
            }
            None => None,
        },
    };
    fields.finish()?;
    Ok(profile)
}

fn dependencies(item: Option<Item<'_>>) -> Result<Vec<Dependency>, SpinError> {
    let Some(item) = item else { return Ok(Vec::new()) };
    let dependency =
        |(name, item): (String, Item<'_>)| Ok(Dependency { at: item.at(), name, on: depends_on(&item)? });
    item.table()?.rest().into_iter().map(dependency).collect()
}

fn depends_on(item: &Item<'_>) -> Result<DependsOn, SpinError> {
    if item.is_text() {
        return Ok(DependsOn::Elsewhere);
    }
    let mut fields = item.table()?;
    let (path, component) = (fields.optional("path"), fields.optional("component"));
    let others = ["version", "registry", "package", "url", "digest"].map(|key| fields.optional(key));
    for key in ["export", "inherit_configuration"] {
        fields.optional(key);
    }
    fields.finish()?;
    let elsewhere = others.iter().any(Option::is_some);
    match (path, component) {
        (Some(path), None) if !elsewhere => Ok(DependsOn::Path(path_in_app(&path)?)),
        (None, Some(component)) if !elsewhere => Ok(DependsOn::Component(component.text()?)),
        (None, None) if elsewhere => Ok(DependsOn::Elsewhere),
        _ => Err(item.fail(
            "it is not clear where the dependency comes from",
            "write a version, { path }, { component }, { url, digest } or { registry, package, version }",
        )),
    }
}
