//! A manifest in its normal form: every trigger has an id, every component a name, the profile is applied.
//!
//! Names are those that Spin would give, so that a locked application of ours says what Spin's own would. Must not look at
//! the tree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::errors::{At, SpinError};
use super::ids;
use super::manifest::{Component, Dependency, DependsOn, Manifest, Reference, Trigger};
use crate::model::closest::closest;
use crate::model::{SpinApp, SpinBuild, SpinComponent, SpinTrigger};

/// An application and what does not stand in its locked form.
#[derive(Debug)]
pub(super) struct Normal {
    pub app: SpinApp,
    /// For each component of `app`, in their order.
    pub facts: Vec<Facts>,
    /// What a trigger needs composed: its id, the role, the place.
    pub middleware: Vec<(String, String, At)>,
}

/// A component's manifest, but for what the locked application says.
#[derive(Debug)]
pub(super) struct Facts {
    pub source_at: At,
    pub dependencies: Vec<Dependency>,
}

/// `path` is the manifest's, for messages.
pub(super) fn normal(path: &str, mut manifest: Manifest, profile: Option<&str>) -> Result<Normal, SpinError> {
    name_triggers(path, &mut manifest.triggers)?;
    name_components(&mut manifest);
    if let Some(profile) = profile {
        apply(profile, &mut manifest.components)?;
    }
    check_references(path, &manifest)?;
    let mut middleware = Vec::new();
    let mut triggers = Vec::new();
    for trigger in manifest.triggers {
        let roles = trigger.dependencies.iter();
        middleware.extend(roles.map(|(role, at)| (trigger.id.clone(), role.clone(), *at)));
        triggers.push(locked_trigger(trigger));
    }
    let (components, facts) = manifest.components.into_iter().map(taken_apart).unzip();
    let app = SpinApp {
        name: manifest.name,
        version: manifest.app_version,
        description: manifest.description,
        authors: manifest.authors,
        profile: profile.map(str::to_owned),
        trigger_settings: manifest.trigger_settings,
        variables: manifest.variables,
        triggers,
        components,
    };
    Ok(Normal { app, facts, middleware })
}

/// `COMPONENT-TYPE-trigger`, or `TYPE-triggerN` where that is not to be had.
fn name_triggers(path: &str, triggers: &mut [Trigger]) -> Result<(), SpinError> {
    let mut taken = BTreeSet::new();
    for trigger in triggers.iter().filter(|trigger| !trigger.id.is_empty()) {
        if !taken.insert(trigger.id.clone()) {
            let problem = format!("a second trigger with the id {:?}", trigger.id);
            return Err(SpinError::at(
                path,
                trigger.at,
                problem,
                "give each trigger an id of its own, or none",
            ));
        }
    }
    let mut counters: BTreeMap<String, usize> = BTreeMap::new();
    for trigger in triggers.iter_mut().filter(|trigger| trigger.id.is_empty()) {
        let kind = trigger.kind.as_str();
        let natural = match &trigger.component {
            Some(Reference::Named(id, _)) => Some(format!("{id}-{kind}-trigger")),
            _ => None,
        };
        let counter = counters.entry(kind.to_owned()).or_insert(1);
        trigger.id = match natural.filter(|id| !taken.contains(id)) {
            Some(id) => id,
            None => free_name(|n| format!("{kind}-trigger{n}"), counter, |id| taken.contains(id)),
        };
        taken.insert(trigger.id.clone());
    }
    Ok(())
}

/// The first name that is not taken, counting on.
fn free_name(name: impl Fn(usize) -> String, counter: &mut usize, taken: impl Fn(&str) -> bool) -> String {
    loop {
        let candidate = name(*counter);
        if !taken(&candidate) {
            return candidate;
        }
        *counter += 1;
    }
}

/// Inline components become components like any other: `TRIGGER-component`, or `inline-componentN`.
fn name_components(manifest: &mut Manifest) {
    let components = &mut manifest.components;
    for trigger in &mut manifest.triggers {
        let natural = format!("{}-component", trigger.id);
        let mut references: Vec<&mut Reference> = trigger.component.iter_mut().collect();
        references.extend(trigger.components.iter_mut().flat_map(|(_, list)| list.iter_mut()));
        let several = references.len() > 1;
        let mut counter = 1;
        for reference in references {
            let Reference::Inline(component) = reference else { continue };
            let taken = |id: &str| components.iter().any(|known| known.id == id);
            let id = if several || ids::kebab(&natural).is_err() || taken(&natural) {
                free_name(|n| format!("inline-component{n}"), &mut counter, taken)
            } else {
                natural.clone()
            };
            components.push(Component { id: id.clone(), ..(**component).clone() });
            *reference = Reference::Named(id, trigger.at);
        }
    }
}

/// What components have otherwise in this profile. One that does not know it stays as it is.
fn apply(profile: &str, components: &mut [Component]) -> Result<(), SpinError> {
    let mut known = BTreeSet::new();
    let mut found = false;
    for component in components {
        known.extend(component.profiles.iter().map(|(name, _)| name.clone()));
        let Some((_, changes)) = component.profiles.iter().find(|(name, _)| name == profile).cloned() else {
            continue;
        };
        found = true;
        if let Some((source, at)) = changes.source {
            (component.source, component.source_at) = (source, at);
        }
        component.environment.extend(changes.environment);
        for dependency in changes.dependencies {
            component.dependencies.retain(|known| known.name != dependency.name);
            component.dependencies.push(dependency);
        }
        if let Some(command) = changes.command {
            component.build = Some(match component.build.take() {
                Some(build) => SpinBuild { command, ..build },
                None => SpinBuild { command, workdir: None, watch: Vec::new() },
            });
        }
    }
    if found {
        return Ok(());
    }
    let hint = match closest(profile, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "no component has a profile: leave it out".to_owned(),
        None => format!("there are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    Err(SpinError::app(format!("no component has the profile {profile:?}"), hint))
}

/// Whatever names a component names one that is there.
fn check_references(path: &str, manifest: &Manifest) -> Result<(), SpinError> {
    let known: Vec<&str> = manifest.components.iter().map(|component| component.id.as_str()).collect();
    let check = |id: &str, at, what: &str| {
        if known.contains(&id) {
            return Ok(());
        }
        let hint = match closest(id, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => format!("add [component.{id}]"),
            None => format!("add [component.{id}], or name one of: {}", known.join(", ")),
        };
        Err(SpinError::at(path, at, format!("{what} names the component {id:?}, which is not there"), hint))
    };
    for trigger in &manifest.triggers {
        let several = trigger.components.iter().flat_map(|(_, list)| list);
        for reference in trigger.component.iter().chain(several) {
            if let Reference::Named(id, at) = reference {
                check(id, *at, &format!("the {} trigger {:?}", trigger.kind, trigger.id))?;
            }
        }
    }
    for component in &manifest.components {
        for dependency in &component.dependencies {
            if let DependsOn::Component(id) = &dependency.on {
                check(
                    id,
                    dependency.at,
                    &format!("the dependency {:?} of {}", dependency.name, component.id),
                )?;
            }
        }
    }
    Ok(())
}

fn locked_trigger(trigger: Trigger) -> SpinTrigger {
    let name = |reference: &Reference| match reference {
        Reference::Named(id, _) => Json::from(id.as_str()),
        Reference::Inline(component) => Json::from(component.id.as_str()),
    };
    let mut config = trigger.config;
    if let Some(reference) = &trigger.component {
        config.insert("component".to_owned(), name(reference));
    }
    if !trigger.components.is_empty() {
        let roles = trigger.components.iter();
        let roles = roles.map(|(role, list)| (role.clone(), list.iter().map(name).collect::<Json>()));
        config.insert("components".to_owned(), Json::Object(roles.collect()));
    }
    SpinTrigger { id: trigger.id, kind: trigger.kind, config }
}

fn taken_apart(component: Component) -> (SpinComponent, Facts) {
    let facts = Facts { source_at: component.source_at, dependencies: component.dependencies };
    let component = SpinComponent {
        id: component.id,
        description: component.description,
        source: component.source,
        build: component.build,
        environment: component.environment,
        variables: component.variables,
        files: component.files,
        exclude_files: component.exclude_files,
        allowed_outbound_hosts: component.allowed_outbound_hosts,
        service_chaining: component.service_chaining,
        key_value_stores: component.key_value_stores,
        sqlite_databases: component.sqlite_databases,
        ai_models: component.ai_models,
    };
    (component, facts)
}
