//! Which dockerd is meant: the one in `DOCKER_HOST`, or in a context of docker's own store; and the certificates that go
//! with it. Read as docker's own command reads them (docker/cli v29), never written.
//!
//! Invariant: where certificates are asked for, nothing is said to a dockerd that does not show the right one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::buildkit::{DockerHost, Tls};
use crate::config::Environment;
use crate::error::{Kind, Report};

/// Where dockerd listens unless told otherwise, and where if certificates are asked for.
const SOCKET: &str = "unix:///var/run/docker.sock";
const SECURED: &str = "tcp://localhost:2376";

/// Where a dockerd is, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// As in `unix:///var/run/docker.sock`.
    pub host: String,
    pub security: Security,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Plain,
    Tls(Tls),
    /// TLS with anybody: asked for by `DOCKER_TLS` or a context, and not done here.
    Unverified,
}

impl Place {
    /// What `default` means, which is no context of the store's: `DOCKER_HOST`, or docker's own socket.
    pub fn of_environment(environment: &Environment, dir: Option<&Path>) -> Self {
        let security = Security::of_environment(environment, dir);
        let own = if security == Security::Plain { SOCKET } else { SECURED };
        Self { host: environment.get("DOCKER_HOST").unwrap_or(own).to_owned(), security }
    }

    /// What a context's name means.
    pub fn of_context(context: &str, dir: Option<&Path>) -> Result<Self, Report> {
        #[derive(Deserialize)]
        struct Meta {
            #[serde(rename = "Endpoints", default)]
            endpoints: BTreeMap<String, MetaEndpoint>,
        }
        #[derive(Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        #[derive(Default)]
        struct MetaEndpoint {
            host: String,
            #[serde(rename = "SkipTLSVerify")]
            unverified: bool,
        }
        let id = crate::model::Digest::of(context.as_bytes());
        let id = id.as_str().trim_start_matches("sha256:").to_owned();
        let store = dir.unwrap_or(Path::new("")).join("contexts");
        let path = store.join("meta").join(&id).join("meta.json");
        let unknown = |problem: String| {
            Report::new(Kind::NotFound, format!("the docker context {context:?}: {problem}"))
        };
        let text = std::fs::read(&path).map_err(|e| unknown(format!("{}: {e}", path.display())))?;
        let mut meta: Meta = serde_json::from_slice(&text).map_err(|e| unknown(e.to_string()))?;
        let endpoint = meta.endpoints.remove("docker").unwrap_or_default();
        if endpoint.host.is_empty() {
            return Err(unknown("it names no docker host".to_owned()));
        }
        let security = match Security::files(&store.join("tls").join(id).join("docker")) {
            _ if endpoint.unverified => Security::Unverified,
            tls if tls == Tls::default() => Security::Plain,
            tls => Security::Tls(tls),
        };
        Ok(Self { host: endpoint.host, security })
    }

    /// What can be connected to.
    pub fn resolve(&self) -> io::Result<(DockerHost, Option<Tls>)> {
        let host = DockerHost::parse(&self.host, self.security != Security::Plain)
            .ok_or_else(|| io::Error::other("only unix://, tcp:// and ssh:// can be reached"))?;
        match (&self.security, &host) {
            (Security::Tls(tls), DockerHost::Tcp { .. }) => Ok((host, Some(tls.clone()))),
            (Security::Unverified, DockerHost::Tcp { .. }) => Err(io::Error::other(
                "TLS is asked for, and not that dockerd's certificate be verified, which it always is here: \
                 set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH",
            )),
            _ => Ok((host, None)),
        }
    }
}

impl Security {
    fn of_environment(environment: &Environment, dir: Option<&Path>) -> Self {
        let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        if !set("DOCKER_TLS_VERIFY") {
            return if set("DOCKER_TLS") { Self::Unverified } else { Self::Plain };
        }
        let own = environment.get("DOCKER_CERT_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let dir = own.or_else(|| dir.map(Path::to_owned)).unwrap_or_default();
        // without this file docker does not start either
        Self::Tls(Tls { ca: Some(dir.join("ca.pem")), ..Self::files(&dir) })
    }

    /// Those of docker's three files that are there.
    fn files(dir: &Path) -> Tls {
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        Tls { ca: there("ca.pem"), cert: there("cert.pem"), key: there("key.pem"), server_name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(dir: &Path, name: &str, endpoint: &str) -> PathBuf {
        let id = crate::model::Digest::of(name.as_bytes()).as_str().replace("sha256:", "");
        let meta = dir.join("contexts/meta").join(&id);
        std::fs::create_dir_all(&meta).unwrap();
        let text = format!(r#"{{"Name":"{name}","Endpoints":{{"docker":{endpoint}}}}}"#);
        std::fs::write(meta.join("meta.json"), text).unwrap();
        dir.join("contexts/tls").join(id).join("docker")
    }

    fn resolved(place: &Place) -> (String, Option<Tls>) {
        let (host, tls) = place.resolve().unwrap();
        (host.to_string(), tls)
    }

    #[test]
    fn a_context_names_its_host_and_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let at = Some(dir.path());
        let certificates = context(dir.path(), "far", r#"{"Host":"tcp://far"}"#);
        assert_eq!(
            resolved(&Place::of_context("far", at).unwrap()),
            ("tcp://far:2375".to_owned(), None),
            "no certificates, no TLS"
        );
        std::fs::create_dir_all(&certificates).unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(certificates.join(name), "").unwrap();
        }
        let (host, tls) = resolved(&Place::of_context("far", at).unwrap());
        assert_eq!(host, "tcp://far:2376");
        assert_eq!(tls.unwrap().key, Some(certificates.join("key.pem")));
        context(dir.path(), "careless", r#"{"Host":"tcp://far:1","SkipTLSVerify":true}"#);
        let careless = Place::of_context("careless", at).unwrap().resolve().unwrap_err();
        assert!(careless.to_string().contains("DOCKER_TLS_VERIFY"), "{careless}");
        assert!(Place::of_context("near", at).unwrap_err().message.contains("near"));
    }

    #[test]
    fn certificates_are_asked_for_by_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let read = |variables: &[(&'static str, &str)]| {
            Place::of_environment(&Environment::of(variables.iter().copied()), Some(dir.path()))
        };
        assert_eq!(resolved(&read(&[])), (SOCKET.to_owned(), None));
        assert_eq!(resolved(&read(&[("DOCKER_HOST", "tcp://d:1")])), ("tcp://d:1".to_owned(), None));
        let verified = [("DOCKER_HOST", "tcp://d"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")];
        let (host, tls) = resolved(&read(&verified));
        assert_eq!((host.as_str(), tls.unwrap().ca), ("tcp://d:2376", Some("/c/ca.pem".into())));
        let own = read(&[("DOCKER_TLS_VERIFY", "1")]);
        assert_eq!(resolved(&own).1.unwrap().ca, Some(dir.path().join("ca.pem")));
        assert_eq!(own.host, SECURED);
        assert!(read(&[("DOCKER_HOST", "tcp://d"), ("DOCKER_TLS", "1")]).resolve().is_err());
        // a socket needs none of it
        let socket = read(&[("DOCKER_HOST", "unix:///d.sock"), ("DOCKER_TLS", "1")]);
        assert_eq!(resolved(&socket), ("unix:///d.sock".to_owned(), None));
    }
}
