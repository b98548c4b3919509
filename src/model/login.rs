//! Registry logins: where a credential counts, and the secret itself, which nothing prints.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::image::{canonical_host, is_registry_host};
use super::{AppName, ImageName, Invalid, text_newtype};

/// Where a credential counts: a registry, or what lies below a path of it. `HOST[:PORT][/PATH]`, Docker Hub as `docker.io`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryPlace(String);
text_newtype!(RegistryPlace);

const PLACE_RULE: &str = "HOST[:PORT][/PATH] without a scheme and a tag, the path in lower case, for example registry.example.com or ghcr.io/team";

impl FromStr for RegistryPlace {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("registry", text, PLACE_RULE);
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        if !is_registry_host(host) || text.len() > 255 {
            return Err(refuse());
        }
        // another spelling of one place would be another row, and one of the two would be forgotten
        let host = match canonical_host(host).as_str() {
            "docker.io" => "docker.io".to_owned(),
            _ => host.to_ascii_lowercase(),
        };
        if !text.contains('/') {
            return Ok(Self(host));
        }
        format!("{host}/{path}").parse::<ImageName>().map_err(|_| refuse())?;
        Ok(Self(format!("{host}/{path}")))
    }
}

impl RegistryPlace {
    /// `registry.example.com:5000`
    pub fn host(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(host, _)| host)
    }
    /// The path below which it counts; none: everywhere in the registry.
    pub fn path(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, path)| path)
    }
    /// Whether it counts for `repository` of `host`.
    pub fn covers(&self, host: &str, repository: &str) -> bool {
        let below = |path: &str| {
            repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        canonical_host(self.host()) == canonical_host(host) && self.path().is_none_or(below)
    }
}

/// The longest secret: identity tokens of the large registries are a few kilobytes.
pub const SECRET_LIMIT_BYTES: usize = 16 << 10;

/// A password or token. It is written where a message carries it to the server, and nowhere else: `Debug` hides it, and
/// there is no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// One line, not empty, without control characters: what a header can carry.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("it is empty"),
            text if text.len() > SECRET_LIMIT_BYTES => Err("it is longer than any token"),
            text if text.chars().any(char::is_control) => {
                Err("it has more than one line, or a control character")
            }
            text => Ok(Self(text.to_owned())),
        }
    }

    /// The text itself, for whoever sends it to the registry or seals it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A login as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    pub place: RegistryPlace,
    /// None: for all apps.
    pub app: Option<AppName>,
    pub username: String,
    /// Unix milliseconds.
    pub added_at_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_whole_components() {
        let place = |text: &str| text.parse::<RegistryPlace>().map(|p| p.to_string()).map_err(|_| ());
        assert_eq!(place("Registry.Example.COM:5000"), Ok("registry.example.com:5000".into()));
        assert_eq!(place("index.docker.io"), Ok("docker.io".into()));
        assert_eq!(place("registry-1.docker.io/team"), Ok("docker.io/team".into()));
        for wrong in
            ["", "https://r.example.com", "r.example.com/", "r.example.com/A", "r.example.com/a:1", "r"]
        {
            assert_eq!(place(wrong), Err(()), "{wrong}");
        }
        let team: RegistryPlace = "ghcr.io/team".parse().unwrap();
        assert!(team.covers("ghcr.io", "team") && team.covers("GHCR.io", "team/a/b"));
        assert!(!team.covers("ghcr.io", "teams/a") && !team.covers("ghcr.io", "a/team"));
        assert!(!team.covers("ghcr.io.example.com", "team/a") && !team.covers("ghcr.io:444", "team/a"));
        let hub: RegistryPlace = "docker.io".parse().unwrap();
        assert!(hub.covers("registry-1.docker.io", "library/busybox"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::parse("hunter2").unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(Secret::parse("").is_err() && Secret::parse("a\nb").is_err());
        assert!(Secret::parse(&"x".repeat(SECRET_LIMIT_BYTES + 1)).is_err());
    }
}
