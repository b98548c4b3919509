//! An image's config: the base's with ko's changes.
//!
//! The fields are those that go-containerregistry knows, in its order; others of a base are dropped, as ko drops them, and
//! empty ones are left out. What lemnos adds (ports, directory, arguments, environment) comes on top and changes nothing
//! where it is not asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::base::parse;
use super::image::ImageOptions;
use super::kodata::KODATA_ROOT;
use super::layer::{APP_DIRECTORY, Layer, app_name};
use super::time::{Epoch, UNSET, rewritten};
use super::{KoError, Layers};
use crate::model::{DEBUGGER, Digest};

const AUTHOR: &str = "github.com/ko-build/ko";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    pub(super) created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    docker_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<History>,
    pub(super) os: String,
    pub(super) rootfs: RootFs,
    config: Run,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub(super) os_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) variant: String,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    os_features: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            architecture: String::new(),
            author: String::new(),
            container: String::new(),
            created: UNSET.to_owned(),
            docker_version: String::new(),
            history: Vec::new(),
            os: String::new(),
            rootfs: RootFs::default(),
            config: Run::default(),
            os_version: String::new(),
            variant: String::new(),
            os_features: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct History {
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "is_false")]
    empty_layer: bool,
}

impl Default for History {
    fn default() -> Self {
        let [author, created_by, comment] = [const { String::new() }; 3];
        Self { author, created: UNSET.to_owned(), created_by, comment, empty_layer: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RootFs {
    pub(super) r#type: String,
    pub(super) diff_ids: Vec<Digest>,
}

/// What a runtime starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Run {
    #[serde(skip_serializing_if = "is_false")]
    attach_stderr: bool,
    #[serde(skip_serializing_if = "is_false")]
    attach_stdin: bool,
    #[serde(skip_serializing_if = "is_false")]
    attach_stdout: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "String::is_empty")]
    domainname: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    on_build: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    open_stdin: bool,
    #[serde(skip_serializing_if = "is_false")]
    stdin_once: bool,
    #[serde(skip_serializing_if = "is_false")]
    tty: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Present>,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Present>,
    #[serde(skip_serializing_if = "is_false")]
    args_escaped: bool,
    #[serde(skip_serializing_if = "is_false")]
    network_disabled: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    mac_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shell: Vec<String>,
}

/// Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

/// The empty object that stands for "in the set".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Present {}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Config {
    pub(super) fn read(digest: &Digest, bytes: &[u8]) -> Result<Self, KoError> {
        let refuse = |problem: String| KoError::Base { digest: digest.clone(), problem };
        let mut config: Self = parse(digest, bytes)?;
        let times = std::iter::once(&mut config.created)
            .chain(config.history.iter_mut().map(|entry| &mut entry.created));
        for time in times {
            *time = rewritten(time).ok_or_else(|| refuse(format!("{time:?} is no time")))?;
        }
        Ok(config)
    }

    /// This config, as that of the image that `layers` make of the base.
    pub(super) fn with(mut self, layers: &Layers, options: &ImageOptions) -> Result<Self, KoError> {
        let name = app_name(&options.import_path);
        let app = format!("{APP_DIRECTORY}/{name}");
        let debugger = format!("{APP_DIRECTORY}/{DEBUGGER}");
        self.add(
            &layers.kodata,
            options,
            options.kodata_created,
            "kodata contents, at $KO_DATA_PATH".to_owned(),
        );
        self.add(&layers.binary, options, options.created, format!("go build output, at {app}"));
        let mut entrypoint = vec![app];
        if let Some(layer) = &layers.debugger {
            self.add(layer, options, options.created, format!("Delve debugger, at {debugger}"));
            entrypoint = debugged(debugger, entrypoint);
        }
        entrypoint.extend(options.args.iter().cloned());
        let run = &mut self.config;
        run.entrypoint = entrypoint;
        run.cmd.clone_from(&options.cmd);
        append_path(&mut run.env);
        run.env.push(format!("KO_DATA_PATH={KODATA_ROOT}"));
        for (name, value) in &options.env {
            set(&mut run.env, name, value)?;
        }
        run.labels.extend(options.labels.clone());
        if let Some(user) = &options.user {
            run.user.clone_from(user);
        }
        if let Some(directory) = &options.working_dir {
            if !directory.starts_with('/') {
                return Err(KoError::Option {
                    what: "working directory",
                    given: directory.clone(),
                    rule: "an absolute path",
                });
            }
            run.working_dir.clone_from(directory);
        }
        for given in &options.expose {
            run.exposed_ports.insert(port(given)?, Present {});
        }
        AUTHOR.clone_into(&mut self.author);
        if let Some(time) = options.created {
            self.created = time.rfc3339();
        }
        Ok(self)
    }

    fn add(&mut self, layer: &Layer, options: &ImageOptions, created: Option<Epoch>, comment: String) {
        self.rootfs.diff_ids.push(layer.diff_id.clone());
        self.history.push(History {
            author: "ko".to_owned(),
            created: created.map_or_else(|| UNSET.to_owned(), Epoch::rfc3339),
            created_by: format!("ko build ko://{}", options.import_path),
            comment,
            empty_layer: false,
        });
    }
}

fn debugged(debugger: String, app: Vec<String>) -> Vec<String> {
    let flags =
        ["exec", "--listen=:40000", "--headless", "--log", "--accept-multiclient", "--api-version=2", "--"];
    std::iter::once(debugger).chain(flags.map(str::to_owned)).chain(app).collect()
}

fn append_path(env: &mut Vec<String>) {
    match env.iter_mut().find(|variable| variable.starts_with("PATH=")) {
        Some(path) => *path = format!("{path}:{APP_DIRECTORY}"),
        None => env.push(format!("PATH={APP_DIRECTORY}")),
    }
}

fn set(env: &mut Vec<String>, name: &str, value: &str) -> Result<(), KoError> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(KoError::Option {
            what: "environment variable",
            given: name.to_owned(),
            rule: "a name without '='",
        });
    }
    let variable = format!("{name}={value}");
    let prefix = format!("{name}=");
    match env.iter_mut().find(|known| known.starts_with(&prefix)) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
    Ok(())
}

/// `8080` and `8080/udp`, always written with the protocol.
fn port(given: &str) -> Result<String, KoError> {
    let (number, protocol) = given.split_once('/').unwrap_or((given, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    match number.parse::<u16>() {
        Ok(number) if known && number > 0 => Ok(format!("{number}/{protocol}")),
        _ => Err(KoError::Option {
            what: "port",
            given: given.to_owned(),
            rule: "a number from 1 to 65535, with /tcp, /udp or /sctp",
        }),
    }
}
