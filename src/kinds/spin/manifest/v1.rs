//! Manifests of version 1, as the version 2 that they mean.
//!
//! Source: Spin 4.0's own conversion: one trigger type, a trigger for each component, names corrected where it is plain
//! how, and databases open to components that say nothing of outbound hosts.

use std::collections::BTreeMap;

use super::super::document::{Fields, Item};
use super::super::errors::SpinError;
use super::super::ids;
use super::component::{Variables, allowed_hosts, environment, exclusions, mounts, own_variables};
use super::{Component, Manifest, Reference, Trigger, build, component_source, variables};

pub(super) fn read(mut fields: Fields<'_>) -> Result<Manifest, SpinError> {
    let name = fields.required("name")?.text()?;
    let app_version = fields.text_or_empty("version")?;
    let description = fields.text_or_empty("description")?;
    let authors = fields.texts_or_none("authors")?;
    let trigger = fields.required("trigger")?;
    let variables = variables(fields.optional("variables"))?;
    let components = fields.optional("component");
    fields.finish()?;
    let mut settings = trigger.table()?;
    let kind = settings.required("type")?.text()?;
    let config = object(settings)?.into_iter().collect();
    let mut manifest = Manifest {
        version: 1,
        name,
        app_version,
        description,
        authors,
        trigger_settings: BTreeMap::from([(kind.clone(), serde_json::Value::Object(config))]),
        has_targets: false,
        variables: BTreeMap::new(),
        triggers: Vec::new(),
        components: Vec::new(),
    };
    for item in components.map(|item| item.list()).transpose()?.unwrap_or_default() {
        let (component, config) = component(&item, &variables)?;
        if let Some(first) = manifest.components.iter().find(|known| known.id == component.id) {
            return Err(item.fail(
                format!("a second component {:?}; the first is at {}", component.id, first.at),
                "give each component an id of its own",
            ));
        }
        manifest.triggers.push(Trigger {
            at: item.at(),
            kind: kind.clone(),
            id: format!("trigger-{}", component.id),
            component: Some(Reference::Named(component.id.clone(), component.at)),
            components: Vec::new(),
            dependencies: Vec::new(),
            config,
        });
        manifest.components.push(component);
    }
    manifest.variables = variables;
    Ok(manifest)
}

fn object(fields: Fields<'_>) -> Result<BTreeMap<String, serde_json::Value>, SpinError> {
    fields.rest().into_iter().map(|(key, item)| Ok((key, item.json()?))).collect()
}

/// A component and what its trigger is told.
fn component(
    item: &Item<'_>,
    variables: &Variables,
) -> Result<(Component, BTreeMap<String, serde_json::Value>), SpinError> {
    let mut fields = item.table()?;
    let id = id(&fields.required("id")?)?;
    let source = fields.required("source")?;
    let config = object(fields.required("trigger")?.table()?)?;
    let (allowed_outbound_hosts, service_chaining) = allowed_hosts(&mut fields, variables, true)?;
    let own = fields.optional("config");
    let component = Component {
        at: item.at(),
        id,
        source_at: source.at(),
        source: component_source(&source)?,
        description: fields.text_or_empty("description")?,
        variables: own_variables(own, variables)?,
        environment: environment(fields.optional("environment"))?,
        files: mounts(fields.optional("files"))?,
        exclude_files: exclusions(fields.optional("exclude_files"))?,
        allowed_outbound_hosts,
        service_chaining,
        key_value_stores: fields.texts_or_none("key_value_stores")?,
        sqlite_databases: fields.texts_or_none("sqlite_databases")?,
        ai_models: fields.texts_or_none("ai_models")?,
        build: fields.optional("build").map(|item| build(&item)).transpose()?,
        dependencies: Vec::new(),
        profiles: Vec::new(),
    };
    fields.finish()?;
    Ok((component, config))
}

/// Version 1 had no rule for ids; version 2's is met by another mark and lower case, or not at all.
fn id(item: &Item<'_>) -> Result<String, SpinError> {
    let id = item.text()?;
    if ids::kebab(&id).is_ok() {
        return Ok(id);
    }
    let corrected = id.replace('_', "-").to_lowercase();
    ids::kebab(&corrected).map_err(|why| item.fail(why, "a component is called like shop-api"))?;
    Ok(corrected)
}
