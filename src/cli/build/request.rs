//! Flags, files and outputs put together: one request for one builder.
//!
//! Invariant: what is sent is what buildx v0.36 sends for the same flags, but for the names of mirrors and stores.

use std::net::IpAddr;
use std::sync::Arc;

use super::docker::{Docker, Features};
use super::inputs::{Inputs, key_of};
use super::options::Options;
use super::outputs::Outputs;
use super::vcs;
use crate::buildkit::flags::{self, Context};
use crate::buildkit::join::{Flags, Joined};
use crate::buildkit::solve::{Dockerfile, MainContext, NamedContext, Platform, ResolveMode, SourcePolicy};
use crate::buildkit::{AuthProvider, Client, Session, SolveRequest};
use crate::config::Environment;
use crate::error::Report;

/// Where a worker says which address `host-gateway` is.
const HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";
/// The mirror of a Dockerfile that came as text.
const TEXT_KEY: &str = "text";

/// What one builder needs to know beyond the flags.
pub struct Builds<'a> {
    pub options: &'a Options,
    pub inputs: &'a mut Inputs,
    pub outputs: Outputs,
    pub docker: &'a Docker,
    pub environment: &'a Environment,
    pub auth: Arc<dyn AuthProvider>,
    /// What the dockerd can do that builds; none where another daemon builds.
    pub in_docker: Option<Features>,
    /// The builder's part of the platforms.
    pub platforms: Vec<Platform>,
    /// Whether others build the other platforms.
    pub one_of_several: bool,
    /// `host-gateway`, where it is asked for.
    pub gateway: Option<IpAddr>,
}

impl Builds<'_> {
    /// The request, and what is left to do after the build.
    pub fn request(self) -> Result<(SolveRequest, Joined), Report> {
        let Self { options, inputs, .. } = &self;
        let mut build = Dockerfile { platforms: self.platforms.clone(), ..options.dockerfile.clone() };
        build.multi_platform |= self.one_of_several;
        self.tell(&mut build, inputs)?;
        let mut request = SolveRequest {
            entitlements: options.entitlements.clone(),
            source_policy: source_policy(self.environment)?,
            reference: Some(uuid::Uuid::now_v7().simple().to_string()),
            internal: options.call.is_some(),
            ..SolveRequest::default()
        };
        let joined = self.join(&mut build, &mut request)?;
        build.apply(&mut request).map_err(|e| Report::user(format!("failed to build: {e}")))?;
        Ok((request, joined))
    }

    /// What the frontend is told of the files, and of where they come from.
    fn tell(&self, build: &mut Dockerfile, inputs: &Inputs) -> Result<(), Report> {
        build.context = inputs.context.clone();
        build.filename = Some(inputs.filename.clone());
        if inputs.own_dockerfile && build.context == MainContext::Session {
            build.extra.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        }
        build.extra.extend(vcs::attributes(&inputs.paths, &inputs.shown, self.environment));
        let known = |name: &str| build.build_args.keys().any(|known| known.eq_ignore_ascii_case(name));
        let proxies: Vec<_> = self.docker.proxies().into_iter().filter(|(name, _)| !known(name)).collect();
        build.build_args.extend(proxies.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        for given in &self.options.add_hosts {
            build.add_hosts.extend(add_host(given, self.gateway)?);
        }
        if let Some(features) = self.in_docker {
            if build.resolve == ResolveMode::Default {
                build.resolve = ResolveMode::PreferLocal;
            }
            if !features.containerd_store {
                build.extra.remove("attest:provenance");
            }
        }
        Ok(())
    }

    /// The session with everything that the daemon may ask it for.
    fn join(self, build: &mut Dockerfile, request: &mut SolveRequest) -> Result<Joined, Report> {
        let Self { options, inputs, outputs, auth, .. } = self;
        let text = key_of(TEXT_KEY.as_ref());
        let key = if inputs.shared_key.is_empty() { &text } else { &inputs.shared_key };
        let mut session = Session::builder(key).auth(auth);
        for (name, source) in &inputs.dirs {
            session = session.dir(name, source.clone());
        }
        if let Some((id, tar)) = inputs.upload()? {
            session = session.upload(&id, tar);
        }
        let Outputs { list, kinds, stdout, docker, .. } = outputs;
        let flags = Flags {
            outputs: list,
            secrets: options.secrets.clone(),
            ssh: options.ssh.clone(),
            cache_from: options.cache_from.clone(),
            cache_to: options.cache_to.clone(),
            contexts: options.contexts.clone(),
            stdout,
            docker,
            delete_anywhere: options.delete_anywhere,
        };
        let joined = flags.join(session, build, request)?;
        for (exporter, kind) in request.exporters.iter_mut().zip(kinds) {
            if let Some(kind) = kind {
                kind.clone_into(&mut exporter.kind);
            }
        }
        // a directory's last name is many directories'
        for (name, context) in &options.contexts {
            if let (Context::Directory(path), Some(NamedContext::Local { shared_key, .. })) =
                (context, build.contexts.get_mut(name))
            {
                let path = std::path::Path::new(path);
                *shared_key = Some(key_of(&path.canonicalize().unwrap_or_else(|_| path.to_owned())));
            }
        }
        Ok(joined)
    }
}

/// One entry, or several separated by commas: `a:10.0.0.1,b:10.0.0.2`.
fn add_host(given: &str, gateway: Option<IpAddr>) -> Result<Vec<crate::buildkit::solve::HostEntry>, Report> {
    let whole = flags::add_host(given, gateway);
    if whole.is_ok() || !given.contains(',') {
        return Ok(whole?);
    }
    let mut all = Vec::new();
    for one in given.split(',') {
        all.extend(flags::add_host(one, gateway)?);
    }
    Ok(all)
}

/// The address of `host-gateway`, asked for where a flag says so.
pub async fn host_gateway(options: &Options, client: &Client) -> Result<Option<IpAddr>, Report> {
    if !options.add_hosts.iter().any(|given| given.contains("host-gateway")) {
        return Ok(None);
    }
    let workers = client.workers().await?;
    Ok(workers.iter().filter_map(|worker| worker.labels.get(HOST_GATEWAY)?.parse().ok()).next())
}

/// The policy that every client of BuildKit reads, for the daemon to hold.
fn source_policy(environment: &Environment) -> Result<SourcePolicy, Report> {
    const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";
    let Some(path) = environment.get(VARIABLE) else { return Ok(SourcePolicy::default()) };
    let bad = |problem: String| Report::user(format!("{VARIABLE}={path}: {problem}"));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    SourcePolicy::from_json(&text).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests;
