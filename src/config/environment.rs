//! The environment as a value, so that tests pass a map and no one else reads the process's.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::layer::{Layer, Origin, Raw, split};
use super::settings::SETTINGS;
use crate::model::closest::closest;

/// Names that are no settings, but ours: the data directory and the file are found before any setting is read.
const OURS: [&str; 4] = ["LEMNOS_DATA", "LEMNOS_CONFIG", "LEMNOS_LOG", "LEMNOS_FAILPOINT"];

/// Environment variables. An empty value counts as not set, as compose files and unit files write it.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of ours whose value is no UTF-8.
    unreadable: Vec<String>,
    pub(super) is_root: bool,
}

impl Environment {
    /// What this process was started with.
    pub fn of_process() -> Self {
        let mut environment = Self { is_root: rustix::process::geteuid().is_root(), ..Self::default() };
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) if name.starts_with("LEMNOS_") => environment.unreadable.push(name),
                Err(_) => {}
            }
        }
        environment
    }

    /// Made-up variables of a user who is not root.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { variables: owned.collect(), ..Self::default() }
    }

    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.is_root = true;
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same, with an empty value for what it is: for variables that somebody else gives a meaning.
    pub fn lookup(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The settings among the LEMNOS_ names; one that means nothing is an error.
    pub(super) fn layer(&self) -> Result<Layer, ConfigError> {
        if let Some(name) = self.unreadable.first() {
            return Err(ConfigError::NotText { name: name.clone() });
        }
        let known: BTreeMap<String, &super::Setting> = SETTINGS.iter().map(|s| (s.variable(), s)).collect();
        let mut layer = Layer::default();
        for (name, value) in self.variables.iter().filter(|(name, _)| name.starts_with("LEMNOS_")) {
            match known.get(name.as_str()) {
                Some(setting) if !value.is_empty() => {
                    let texts = split(setting.shape, value);
                    layer.insert(setting.key, Raw::Texts(texts), Origin::Variable(name.clone()));
                }
                Some(_) => {}
                None if OURS.contains(&name.as_str()) || is_someone_elses(name) => {}
                None => {
                    let names = known.keys().map(String::as_str).chain(OURS);
                    return Err(ConfigError::UnknownVariable {
                        name: name.clone(),
                        suggestion: closest(name, names).map(str::to_owned),
                    });
                }
            }
        }
        Ok(layer)
    }

    /// What other tools' variables say where nothing of ours does.
    pub(super) fn of_other_tools(&self) -> Layer {
        let mut layer = Layer::default();
        if let Some(address) = self.get("BUILDKIT_HOST") {
            let origin = Origin::Variable("BUILDKIT_HOST".to_owned());
            layer.insert("builders", Raw::Texts(vec![address.to_owned()]), origin);
        }
        let docker = self.get("DOCKER_CONFIG").map(|dir| ("DOCKER_CONFIG", format!("{dir}/config.json")));
        let home = self.get("HOME").map(|home| ("HOME", format!("{home}/.docker/config.json")));
        if let Some((name, path)) = docker.or(home) {
            layer.insert("docker_config", Raw::Texts(vec![path]), Origin::Variable(name.to_owned()));
        }
        layer
    }
}

/// Kubernetes and old Docker links put LEMNOS_PORT…, LEMNOS_SERVICE_… into containers beside a service named
/// lemnos; the tests of lemnos find their tools by LEMNOS_TEST_… and LEMNOS_TOOLS.
fn is_someone_elses(name: &str) -> bool {
    name == "LEMNOS_PORT"
        || name == "LEMNOS_NAME"
        || name == "LEMNOS_TOOLS"
        || ["LEMNOS_PORT_", "LEMNOS_SERVICE_", "LEMNOS_ENV_", "LEMNOS_TEST_"]
            .iter()
            .any(|p| name.starts_with(p))
}
