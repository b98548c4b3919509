//! Instances of buildx's own store, as addresses of ours. Read, never written; what leads to no address is refused.
//!
//! Source: docker/buildx v0.36, store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Builder;
use crate::buildkit::{Endpoint, Tls};
use crate::cli::build::docker::Docker;
use crate::config::Environment;
use crate::error::{Kind, Report};

/// Largest file of the store.
const LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    driver: String,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    name: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    platforms: Option<Vec<Platform>>,
    #[serde(default)]
    driver_opts: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Where buildx keeps its instances.
pub struct Store<'a> {
    dir: PathBuf,
    docker: &'a Docker,
}

impl<'a> Store<'a> {
    pub fn new(environment: &Environment, docker: &'a Docker) -> Self {
        let own = environment.get("BUILDX_CONFIG").map(PathBuf::from);
        let dir = own.unwrap_or_else(|| docker.dir().unwrap_or(Path::new("")).join("buildx"));
        Self { dir, docker }
    }

    /// The builders of an instance, one for each node; or the dockerd of a context of that name.
    pub fn builders(&self, name: &str) -> Result<Vec<Builder>, Report> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if name.is_empty() || !plain || name.starts_with('.') {
            return Err(Report::user(format!(
                "--builder {name:?} is neither an address nor an instance's name"
            ))
            .hint(HINT));
        }
        let path = self.dir.join("instances").join(name);
        if !path.exists() {
            let docker = match self.docker.in_context(Some(name)) {
                Ok(docker) => docker.endpoint()?,
                Err(_) => None,
            };
            return match docker {
                Some(endpoint) => Ok(vec![Builder::of(endpoint)]),
                None => Err(Report::new(
                    Kind::NotFound,
                    format!("there is no instance {name:?} of buildx in {}", self.dir.display()),
                )
                .hint(HINT)),
            };
        }
        let instance: Instance = read(&path)?;
        let nodes = instance.nodes.unwrap_or_default();
        nodes.iter().map(|node| self.builder(name, &instance.driver, node)).collect()
    }

    /// The instance that `docker buildx use` chose.
    pub fn chosen(&self) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Current {
            #[serde(default)]
            name: String,
            /// The docker that it was chosen for: its address, or its context's name.
            #[serde(default)]
            key: String,
            #[serde(default)]
            global: bool,
        }
        let current: Current = read(&self.dir.join("current")).ok()?;
        let here = current.global || !current.key.contains("://") || self.docker.is_at(&current.key);
        Some(current.name)
            .filter(|name| here && !name.is_empty() && self.dir.join("instances").join(name).exists())
    }

    fn builder(&self, instance: &str, driver: &str, node: &Node) -> Result<Builder, Report> {
        let refused =
            |reason: &str| Report::user(format!("the instance {instance:?} of buildx: {reason}")).hint(HINT);
        let options = node.driver_opts.clone().unwrap_or_default();
        let file = |name: &str| options.get(name).map(PathBuf::from);
        let tls = Tls {
            ca: file("cacert"),
            cert: file("cert"),
            key: file("key"),
            server_name: options.get("servername").cloned(),
        };
        let address = match driver {
            "remote" => node.endpoint.clone(),
            "docker-container" => format!(
                "docker-container://buildx_buildkit_{}{}",
                node.name,
                self.context(node).map_err(|()| {
                    refused(&format!(
                        "its container runs in the docker at {}: set DOCKER_HOST to it",
                        node.endpoint
                    ))
                })?
            ),
            "docker" => return self.docker_itself(instance, node),
            other => return Err(refused(&format!("the driver {other:?} leads to no address"))),
        };
        let tls = Some(tls).filter(|tls| *tls != Tls::default());
        let platforms = node.platforms.iter().flatten();
        let platforms =
            platforms.map(|p| crate::buildkit::solve::Platform::new(&p.os, &p.architecture, &p.variant));
        Ok(Builder {
            name: instance.to_owned(),
            endpoint: Endpoint { address: address.parse()?, tls },
            platforms: platforms.collect(),
        })
    }

    /// A dockerd's own BuildKit: of the context that the node names, or of the address that is docker's own.
    fn docker_itself(&self, instance: &str, node: &Node) -> Result<Builder, Report> {
        let docker = match node.endpoint.as_str() {
            address if address.contains("://") => self.docker.clone(),
            context => self.docker.in_context(Some(context))?,
        };
        let gone = || {
            Report::new(
                Kind::Unavailable,
                format!("the instance {instance:?} of buildx: no dockerd is there"),
            )
            .hint(HINT)
        };
        let endpoint = docker.endpoint()?.ok_or_else(gone)?;
        Ok(Builder { name: instance.to_owned(), ..Builder::of(endpoint) })
    }

    /// How `docker` is told where a node's container is: a context's name, or nothing where it is its own.
    fn context(&self, node: &Node) -> Result<String, ()> {
        match node.endpoint.as_str() {
            "" | "default" => Ok(String::new()),
            address if address.contains("://") => {
                if self.docker.is_at(address) {
                    Ok(String::new())
                } else {
                    Err(())
                }
            }
            context => Ok(format!("?context={context}")),
        }
    }
}

const HINT: &str = "give an address: docker-container://NAME, unix:///PATH, tcp://HOST:PORT, kube-pod://POD";

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Report> {
    let bad = |problem: String| Report::user(format!("buildx's {}: {problem}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
    if size > LIMIT {
        return Err(bad(format!("it has {size} bytes")));
    }
    let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(instance: &str) -> Result<Vec<String>, Report> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("instances")).unwrap();
        std::fs::write(dir.path().join("instances/mine"), instance).unwrap();
        std::fs::write(dir.path().join("current"), r#"{"Key":"unix:///d.sock","Name":"mine"}"#).unwrap();
        let home = dir.path().display().to_string();
        let environment =
            Environment::of([("BUILDX_CONFIG", home.as_str()), ("DOCKER_HOST", "unix:///d.sock")]);
        let docker = Docker::read(&environment).unwrap();
        let store = Store::new(&environment, &docker);
        assert_eq!(store.chosen().as_deref(), Some("mine"));
        assert!(store.builders("other").unwrap_err().message.contains("no instance \"other\""));
        assert!(store.builders("../mine").is_err());
        let shown = |b: Builder| {
            format!(
                "{} {:?} {}",
                b.endpoint.address,
                b.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
                b.endpoint.tls.is_some()
            )
        };
        Ok(store.builders("mine")?.into_iter().map(shown).collect())
    }

    #[test]
    fn an_instance_is_its_nodes_addresses() {
        let container = r#"{"Name":"mine","Driver":"docker-container","Nodes":[
            {"Name":"mine0","Endpoint":"unix:///d.sock","Platforms":null},
            {"Name":"mine1","Endpoint":"far","Platforms":[{"architecture":"arm64","os":"linux"}],"DriverOpts":null}]}"#;
        assert_eq!(
            addresses(container).unwrap(),
            [
                "docker-container://buildx_buildkit_mine0 [] false",
                r#"docker-container://buildx_buildkit_mine1?context=far ["linux/arm64"] false"#
            ]
        );
        let remote = r#"{"Driver":"remote","Nodes":[{"Name":"a","Endpoint":"tcp://b:1","DriverOpts":{"cacert":"/ca.pem"}}]}"#;
        assert_eq!(addresses(remote).unwrap(), ["tcp://b:1 [] true"]);
    }

    #[test]
    fn what_leads_to_no_address_is_refused() {
        for (instance, word) in [
            (r#"{"Driver":"kubernetes","Nodes":[{"Name":"a"}]}"#, "kubernetes"),
            (
                r#"{"Driver":"docker-container","Nodes":[{"Name":"a","Endpoint":"tcp://far:1"}]}"#,
                "DOCKER_HOST",
            ),
            ("{", "instances/mine"),
        ] {
            let error = addresses(instance).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
