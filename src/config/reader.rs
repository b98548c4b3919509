//! Reads each setting once, into its type, and remembers what was read for `lemnos config`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::builder::{self, BuilderConfig};
use super::error::ConfigError;
use super::layer::{Entry, Layer, Origin, Raw};
use super::settings::{SETTINGS, Setting, Shape};
use crate::model::image::is_registry_host;
use crate::model::{Generator, ImagePrefix, Invalid, RegistryPlace};

type Result<T> = std::result::Result<T, ConfigError>;

/// One setting as `lemnos config` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    pub key: &'static str,
    pub value: serde_json::Value,
    pub origin: Origin,
}

/// What RUN steps of our own buildkitd reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The outside, but no service of this machine and no metadata address.
    #[default]
    Isolated,
    /// This machine's network, its loopback included: for those who push to themselves only.
    Host,
}

/// How the server's log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Network {
    fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Host => "host",
        }
    }
}

pub(super) struct Reader {
    merged: Layer,
    shown: BTreeMap<&'static str, Shown>,
}

impl Reader {
    pub(super) fn new(merged: Layer) -> Self {
        Self { merged, shown: BTreeMap::new() }
    }

    /// Everything that was read, in the table's order. A setting that nobody read is a bug of ours.
    pub(super) fn finish(mut self) -> Result<Vec<Shown>> {
        let unread = |setting: &Setting| ConfigError::Unread(setting.key);
        SETTINGS.iter().map(|setting| self.shown.remove(setting.key).ok_or_else(|| unread(setting))).collect()
    }

    fn entry(&self, key: &'static str) -> Result<Entry> {
        self.merged.entries.get(key).cloned().ok_or(ConfigError::Unread(key))
    }

    fn show(&mut self, key: &'static str, origin: Origin, value: serde_json::Value) {
        self.shown.insert(key, Shown { key, value, origin });
    }

    /// The value's texts.
    fn texts(&self, key: &'static str) -> Result<(Vec<String>, Origin)> {
        match self.entry(key)? {
            Entry { raw: Raw::Texts(texts), origin } => Ok((texts, origin)),
            Entry { raw: Raw::Builders(_), .. } => Err(ConfigError::Unread(key)),
        }
    }

    /// The last of the texts, parsed; none where there is none.
    fn one<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
        json: impl Fn(&T) -> serde_json::Value,
    ) -> Result<Option<T>> {
        let (texts, origin) = self.texts(key)?;
        let Some(text) = texts.last() else {
            self.show(key, origin, serde_json::Value::Null);
            return Ok(None);
        };
        let value = parse(text).ok_or_else(|| bad(key, &origin, text, expected))?;
        self.show(key, origin, json(&value));
        Ok(Some(value))
    }

    /// `one` of a setting that has a default.
    fn required<T>(&mut self, key: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or(ConfigError::Unread(key))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<u64> {
        let (least, most) = match Setting::find(key).map(|setting| setting.shape) {
            Some(Shape::Number { least, most }) => (least, most),
            _ => return Err(ConfigError::Unread(key)),
        };
        let parse = |text: &str| text.parse().ok().filter(|n| (least..=most).contains(n));
        let expected = format!("a whole number from {least} to {most}");
        let value = self.one(key, &expected, parse, |n: &u64| (*n).into())?;
        self.required(key, value)
    }

    pub(super) fn count(&mut self, key: &'static str) -> Result<u32> {
        let number = self.number(key)?;
        u32::try_from(number).map_err(|_| ConfigError::Unread(key))
    }

    pub(super) fn seconds(&mut self, key: &'static str) -> Result<Duration> {
        self.number(key).map(Duration::from_secs)
    }

    pub(super) fn days(&mut self, key: &'static str) -> Result<Duration> {
        self.number(key).map(|days| Duration::from_secs(days.saturating_mul(86_400)))
    }

    pub(super) fn listen(&mut self, key: &'static str) -> Result<SocketAddr> {
        let parse = |text: &str| match text.strip_prefix("localhost:") {
            Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
            None => text.parse().ok(),
        };
        let expected =
            "an address to listen on: ADDR:PORT, for example 127.0.0.1:2222, 0.0.0.0:2222 or [::]:2222";
        let value = self.one(key, expected, parse, |address| address.to_string().into())?;
        self.required(key, value)
    }

    pub(super) fn registry(&mut self, key: &'static str) -> Result<Option<ImagePrefix>> {
        let expected =
            "a registry: HOST[:PORT][/PREFIX] without a scheme, for example registry.example.com/team";
        self.one(key, expected, |text| text.parse().ok(), |prefix: &ImagePrefix| prefix.to_string().into())
    }

    pub(super) fn generator(&mut self, key: &'static str) -> Result<Option<Generator>> {
        let expected = "an image by digest: HOST/PATH[:TAG]@sha256:DIGEST";
        self.one(key, expected, |text| text.parse().ok(), |image: &Generator| image.to_string().into())
    }

    pub(super) fn path(&mut self, key: &'static str) -> Result<Option<PathBuf>> {
        let parse = |text: &str| std::path::absolute(text).ok();
        self.one(key, "a path", parse, |path: &PathBuf| path.display().to_string().into())
    }

    pub(super) fn network(&mut self, key: &'static str) -> Result<Network> {
        let parse = |text: &str| match text {
            "isolated" => Some(Network::Isolated),
            "host" => Some(Network::Host),
            _ => None,
        };
        let value = self.one(key, "isolated or host", parse, |network| network.as_str().into())?;
        self.required(key, value)
    }

    pub(super) fn log_format(&mut self, key: &'static str) -> Result<LogFormat> {
        let parse = |text: &str| [LogFormat::Text, LogFormat::Json].into_iter().find(|f| f.as_str() == text);
        let value = self.one(key, "text or json", parse, |format| format.as_str().into())?;
        self.required(key, value)
    }

    pub(super) fn disk_share(&mut self, key: &'static str) -> Result<String> {
        let parse = |text: &str| {
            let unit =
                ["%", "KB", "MB", "GB", "TB"].iter().find_map(|unit| Some((unit, text.strip_suffix(unit)?)));
            let (unit, number) = unit?;
            let most = if *unit == "%" { 100 } else { 1_000_000 };
            number.parse::<u32>().ok().filter(|n| (1..=most).contains(n)).map(|_| text.to_owned())
        };
        let value =
            self.one(key, "an amount of disk, for example 40GB or 60%", parse, |t| t.clone().into())?;
        self.required(key, value)
    }

    pub(super) fn mirrors(&mut self, key: &'static str) -> Result<BTreeMap<String, Vec<String>>> {
        let pairs = self.list(key)?;
        let origin = self.entry(key)?.origin;
        let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in &pairs {
            let parsed = pair
                .split_once('=')
                .filter(|(host, mirror)| is_registry_host(host) && mirror.parse::<ImagePrefix>().is_ok());
            let expected = "a registry's mirror: HOST[:PORT]=MIRROR[:PORT][/PREFIX], for example docker.io=127.0.0.1:5000/hub";
            let (host, mirror) = parsed.ok_or_else(|| bad(key, &origin, pair, expected))?;
            mirrors.entry(host.to_owned()).or_default().push(mirror.to_owned());
        }
        Ok(mirrors)
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<String>> {
        let (texts, origin) = self.texts(key)?;
        self.show(key, origin, texts.clone().into());
        Ok(texts)
    }

    /// A list whose every entry is a pattern.
    pub(super) fn patterns(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let patterns = self.list(key)?;
        let origin = self.entry(key)?.origin;
        match patterns.iter().find(|pattern| !fits(pattern)) {
            Some(pattern) => Err(bad(key, &origin, pattern, expected)),
            None => Ok(patterns),
        }
    }

    pub(super) fn places(&mut self, key: &'static str) -> Result<Vec<RegistryPlace>> {
        let listed = self.list(key)?;
        let origin = self.entry(key)?.origin;
        let place =
            |text: &String| text.parse().map_err(|invalid: Invalid| bad(key, &origin, text, invalid.allowed));
        listed.iter().map(place).collect()
    }

    /// `require` or `off`.
    pub(super) fn required_or_off(&mut self, key: &'static str) -> Result<bool> {
        let parse = |text: &str| match text {
            "require" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        let shown = |required: &bool| if *required { "require".into() } else { "off".into() };
        let value = self.one(key, "require or off", parse, shown)?;
        self.required(key, value)
    }

    pub(super) fn hosts(&mut self, key: &'static str) -> Result<Vec<String>> {
        let hosts = self.list(key)?;
        let origin = self.entry(key)?.origin;
        let expected = "a registry's HOST[:PORT] without scheme and path";
        match hosts.iter().find(|host| !is_registry_host(host)) {
            Some(host) => Err(bad(key, &origin, host, expected)),
            None => Ok(hosts),
        }
    }

    pub(super) fn builders(&mut self, key: &'static str) -> Result<Vec<BuilderConfig>> {
        let Entry { raw, origin } = self.entry(key)?;
        let specs: Vec<_> = match raw {
            Raw::Texts(texts) => texts.iter().map(|text| builder::parts(text)).collect(),
            Raw::Builders(builders) => builders,
        };
        let mut builders: Vec<BuilderConfig> = Vec::new();
        for parts in specs {
            let given =
                || parts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
            let given = || given().trim_start_matches("address=").to_owned();
            let builder =
                builder::from_parts(&parts).map_err(|expected| bad(key, &origin, &given(), &expected))?;
            if builders.iter().any(|other| other.name == builder.name) {
                let expected = "a builder of its own: another one has the same name; give name=…";
                return Err(bad(key, &origin, &given(), expected));
            }
            builders.push(builder);
        }
        let shown: Vec<String> = builders.iter().map(ToString::to_string).collect();
        self.show(key, origin, shown.into());
        Ok(builders)
    }
}

fn bad(key: &'static str, origin: &Origin, given: &str, expected: &str) -> ConfigError {
    ConfigError::BadValue {
        place: origin.clone(),
        key,
        given: given.chars().take(120).collect(),
        expected: expected.to_owned(),
    }
}
