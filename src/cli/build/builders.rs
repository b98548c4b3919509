//! Which daemons build: those that are named, else those of the configuration, else the one that runs here.
//!
//! Invariant: a platform is given to one builder.

mod instance;

use instance::Store;

use super::args::Args;
use super::docker::Docker;
use crate::buildkit::solve::Platform;
use crate::buildkit::{Address, Client, Endpoint};
use crate::cli::builder;
use crate::cli::serve::wiring;
use crate::config::{self, Config, Environment, Layer};
use crate::error::{Kind, Report};

/// How long a builder may take to let us in.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(20);

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Names it in messages and in `buildx.build.ref`.
    pub name: String,
    pub endpoint: Endpoint,
    /// What it is bound to; empty: what it says itself.
    pub platforms: Vec<Platform>,
}

impl Builder {
    /// Reads what every `--builder` takes.
    pub fn parse(given: &str) -> Result<Self, Report> {
        let read = given.parse::<config::BuilderConfig>();
        let read = read.map_err(|expected| Report::user(format!("--builder {given:?} is not {expected}")))?;
        // how many solves a server gives it at once means nothing to one build
        Ok(configured(wiring::builder(&read, 1)))
    }

    /// Named after its address.
    pub fn of(endpoint: Endpoint) -> Self {
        Self { name: endpoint.address.to_string(), endpoint, platforms: Vec::new() }
    }

    /// Whether this is the BuildKit inside dockerd, which has exporters of its own.
    pub fn is_docker(&self) -> bool {
        matches!(self.endpoint.address, Address::Docker(_))
    }

    pub async fn connect(&self) -> Result<Client, Report> {
        Ok(Client::connect(&self.endpoint, CONNECT).await?)
    }

    /// The name by which a build's record is found again.
    pub fn reference(&self, build: &str) -> String {
        let plain: String =
            self.name.chars().map(|c| if c == '/' || c.is_whitespace() { '-' } else { c }).collect();
        format!("{plain}/{plain}0/{build}")
    }
}

/// What `find` has to go by.
pub struct Sources<'a> {
    pub args: &'a Args,
    pub environment: &'a Environment,
    pub docker: &'a Docker,
}

/// The settings of a build, which need no builder to be known.
pub fn settings(args: &Args, environment: &Environment) -> Result<Config, Report> {
    let flags = Layer::default().flag("--plain-http", args.plain_http.clone());
    Ok(config::resolve(args.data.as_deref(), None, flags, environment)?)
}

impl Sources<'_> {
    fn store(&self) -> Store<'_> {
        Store::new(self.environment, self.docker)
    }

    /// An address, or an instance of buildx.
    fn named(&self, given: &str) -> Result<Vec<Builder>, Report> {
        match given.contains("://") {
            true => Ok(vec![Builder::parse(given)?]),
            false => self.store().builders(given),
        }
    }

    pub fn find(&self, config: &Config) -> Result<Vec<Builder>, Report> {
        if !self.args.builder.is_empty() {
            let all: Result<Vec<Vec<Builder>>, Report> =
                self.args.builder.iter().map(|given| self.named(given)).collect();
            return Ok(all?.into_iter().flatten().collect());
        }
        if let Some(named) = self.environment.get("BUILDX_BUILDER") {
            return self.named(named);
        }
        let found = builder::found(config)?;
        if !found.is_empty() {
            return Ok(found.into_iter().map(configured).collect());
        }
        if let Some(chosen) = self.store().chosen() {
            return self.named(&chosen);
        }
        match self.docker.endpoint()? {
            Some(endpoint) => Ok(vec![Builder::of(endpoint)]),
            None => Err(Report::new(
                Kind::NotFound,
                "no builder is named, and neither a lemnos server nor dockerd runs here",
            )
            .hint(builder::NO_BUILDER)),
        }
    }
}

fn configured(builder: crate::solve::BuilderConfig) -> Builder {
    let platforms = builder.bound.iter().filter_map(|p| p.to_string().parse().ok()).collect();
    Builder { name: builder.name, endpoint: builder.endpoint, platforms }
}

/// A builder with its connection and what it shall build.
pub struct Share {
    pub builder: Builder,
    pub client: Client,
    pub platforms: Vec<Platform>,
}

/// Connects to as many as are needed. Each platform goes to the builder that is bound to it, else to one whose workers
/// name it, else to the first, which knows best why it cannot.
pub async fn share(builders: Vec<Builder>, platforms: &[Platform]) -> Result<Vec<Share>, Report> {
    let alone = builders.len() == 1;
    let mut open: Vec<Platform> = Vec::new();
    let mut wanted: Vec<Vec<Platform>> = vec![Vec::new(); builders.len()];
    for platform in platforms {
        let bound = builders.iter().position(|builder| builder.platforms.contains(platform));
        match bound.and_then(|at| wanted.get_mut(at)) {
            Some(list) => list.push(platform.clone()),
            None => open.push(platform.clone()),
        }
    }
    let mut shares: Vec<Share> = Vec::new();
    for (builder, mut platforms_of_it) in builders.into_iter().zip(wanted) {
        let any = platforms.is_empty() && shares.is_empty();
        if platforms_of_it.is_empty() && open.is_empty() && !any {
            continue;
        }
        let client = builder.connect().await?;
        if !open.is_empty() && !alone && builder.platforms.is_empty() {
            let workers = client.workers().await?;
            let known: Vec<Platform> =
                workers.iter().flat_map(|w| &w.platforms).filter_map(|p| p.parse().ok()).collect();
            let (taken, left): (Vec<_>, Vec<_>) = open.into_iter().partition(|p| known.contains(p));
            platforms_of_it.extend(taken);
            open = left;
        }
        shares.push(Share { builder, client, platforms: platforms_of_it });
    }
    if let Some(first) = shares.first_mut() {
        first.platforms.append(&mut open);
    }
    shares.retain(|share| platforms.is_empty() || !share.platforms.is_empty());
    // in the order in which they were asked for
    for share in &mut shares {
        share.platforms.sort_by_key(|p| platforms.iter().position(|other| other == p));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_is_an_address_of_any_kind_and_its_parts() {
        let builder = Builder::parse("tcp://b:1,platform=linux/arm64,name=arm,ca=/ca.pem").unwrap();
        assert_eq!((builder.name.as_str(), builder.platforms.len()), ("arm", 1));
        assert_eq!(
            builder.endpoint.tls.as_ref().unwrap().ca.as_deref(),
            Some(std::path::Path::new("/ca.pem"))
        );
        assert_eq!(builder.reference("abc"), "arm/arm0/abc");
        for address in
            ["unix:///s", "docker-container://b", "podman-container://b", "kube-pod://b", "ssh://me@b"]
        {
            assert_eq!(Builder::parse(address).unwrap().name, address);
        }
        assert!(Builder::parse("docker://").unwrap().is_docker());
        assert_eq!(Builder::parse("unix:///run/b.sock").unwrap().reference("r").matches('/').count(), 2);
        for bad in [
            "",
            "b",
            "tcp://b:1,x=1",
            "tcp://b:1,platform",
            "tcp://b:1,platform=",
            "tcp://b:1,platform=x/y/z/w",
        ] {
            assert!(Builder::parse(bad).is_err(), "{bad}");
        }
    }
}
