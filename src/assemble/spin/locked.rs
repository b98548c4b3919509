//! The locked application: what a runtime reads to run it, as compact JSON.
//!
//! Fields stand in the order in which Spin writes them, and maps are sorted, so that the bytes are those that Spin would write of
//! the same application. Source: Spin 4.0's locked-app schema. Must not hold a path of the machine that made it.

use std::collections::BTreeMap;

use base64::Engine;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value as Json;

use super::{Content, Contents, SpinAssembleError, of_component};
use crate::model::{Digest, SpinApp, SpinBuild, SpinComponent, SpinTrigger, SpinVariable};

#[derive(Serialize)]
pub(super) struct Locked<'a> {
    /// 0 is read by every Spin; 1 says that something in it must be understood.
    spin_lock_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    must_understand: Option<[&'static str; 1]>,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    variables: &'a BTreeMap<String, SpinVariable>,
    triggers: Vec<Trigger<'a>>,
    components: Vec<Component<'a>>,
}

/// Sorted by name.
#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    authors: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    /// An older form: the settings of the one trigger type, where there is one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<BTreeMap<&'a str, Setting<'a>>>,
    triggers: SortedMap<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
}

#[derive(Serialize)]
struct Trigger<'a> {
    id: &'a str,
    trigger_type: &'a str,
    trigger_config: SortedMap<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "ComponentMetadata::is_empty")]
    metadata: ComponentMetadata<'a>,
    source: Source<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    config: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_requirements: Option<HostRequirements>,
}

/// Sorted by name.
#[derive(Serialize)]
struct ComponentMetadata<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ai_models: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed_outbound_hosts: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'a SpinBuild>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    databases: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    key_value_stores: &'a [String],
}

impl ComponentMetadata<'_> {
    fn is_empty(&self) -> bool {
        self.description.is_empty()
            && self.build.is_none()
            && [self.ai_models, self.allowed_outbound_hosts, self.databases, self.key_value_stores]
                .iter()
                .all(|list| list.is_empty())
    }
}

#[derive(Serialize)]
struct Source<'a> {
    content_type: &'static str,
    #[serde(flatten)]
    content: Reference<'a>,
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    content: Reference<'a>,
    path: &'a str,
}

#[derive(Serialize)]
struct Reference<'a> {
    /// Base64 without padding: Spin takes no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    inline: Option<String>,
    digest: &'a Digest,
}

#[derive(Serialize)]
struct HostRequirements {
    local_service_chaining: &'static str,
}

/// JSON whose tables are sorted by name, whatever order they are kept in.
struct Sorted<'a>(&'a Json);

#[derive(Serialize)]
#[serde(untagged)]
enum Setting<'a> {
    Name(&'a str),
    Value(Sorted<'a>),
}

type SortedMap<'a> = BTreeMap<&'a str, Sorted<'a>>;

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Object(map) => {
                let sorted: SortedMap<'_> =
                    map.iter().map(|(key, value)| (key.as_str(), Sorted(value))).collect();
                sorted.serialize(serializer)
            }
            Json::Array(list) => serializer.collect_seq(list.iter().map(Sorted)),
            plain => plain.serialize(serializer),
        }
    }
}

fn sorted(map: &BTreeMap<String, Json>) -> SortedMap<'_> {
    map.iter().map(|(key, value)| (key.as_str(), Sorted(value))).collect()
}

/// The application with its contents.
pub(super) fn locked<'a>(app: &'a SpinApp, contents: &'a Contents) -> Result<Locked<'a>, SpinAssembleError> {
    let components = app.components.iter().map(|component| locked_component(component, contents));
    let needs_chaining = app.components.iter().any(|component| component.service_chaining);
    Ok(Locked {
        spin_lock_version: u32::from(needs_chaining),
        must_understand: needs_chaining.then_some(["component_host_requirements"]),
        metadata: metadata(app),
        variables: &app.variables,
        triggers: app.triggers.iter().map(locked_trigger).collect(),
        components: components.collect::<Result<_, _>>()?,
    })
}

fn metadata(app: &SpinApp) -> Metadata<'_> {
    Metadata {
        authors: &app.authors,
        description: &app.description,
        name: &app.name,
        profile: app.profile.as_deref(),
        trigger: only_trigger(app),
        triggers: sorted(&app.trigger_settings),
        version: &app.version,
    }
}

/// The settings of the application's one trigger type, with its name as `type`.
fn only_trigger(app: &SpinApp) -> Option<BTreeMap<&str, Setting<'_>>> {
    let first = app.triggers.first()?;
    if app.triggers.iter().any(|trigger| trigger.kind != first.kind) {
        return None;
    }
    let settings = app.trigger_settings.get(&first.kind).and_then(Json::as_object).into_iter().flatten();
    let settings = settings.map(|(key, value)| (key.as_str(), Setting::Value(Sorted(value))));
    Some(settings.chain([("type", Setting::Name(&first.kind))]).collect())
}

fn locked_trigger(trigger: &SpinTrigger) -> Trigger<'_> {
    Trigger { id: &trigger.id, trigger_type: &trigger.kind, trigger_config: sorted(&trigger.config) }
}

fn locked_component<'a>(
    component: &'a SpinComponent,
    contents: &'a Contents,
) -> Result<Component<'a>, SpinAssembleError> {
    let content = of_component(contents, &component.id)?;
    let files = content.files.iter().map(|(path, content)| {
        Ok::<_, SpinAssembleError>(File { content: reference(component, content)?, path })
    });
    Ok(Component {
        id: &component.id,
        metadata: ComponentMetadata {
            ai_models: &component.ai_models,
            allowed_outbound_hosts: &component.allowed_outbound_hosts,
            build: component.build.as_ref(),
            databases: &component.sqlite_databases,
            description: &component.description,
            key_value_stores: &component.key_value_stores,
        },
        source: Source { content_type: "application/wasm", content: reference(component, &content.wasm)? },
        env: &component.environment,
        files: files.collect::<Result<_, _>>()?,
        config: &component.variables,
        host_requirements: component
            .service_chaining
            .then_some(HostRequirements { local_service_chaining: "required" }),
    })
}

fn reference<'a>(
    component: &SpinComponent,
    content: &'a Content,
) -> Result<Reference<'a>, SpinAssembleError> {
    let inline = match (&content.small, content.is_inline()) {
        (_, false) => None,
        (Some(bytes), true) => Some(base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)),
        (None, true) => {
            let (component, digest) = (component.id.clone(), content.digest.clone());
            return Err(SpinAssembleError::NoBytes { component, digest });
        }
    };
    Ok(Reference { inline, digest: &content.digest })
}
