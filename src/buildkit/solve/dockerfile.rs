//! A Dockerfile frontend's options in types, and as its attributes.
//!
//! Names: buildkit v0.32 frontend/dockerui/config.go and attr.go. What has no field goes through `extra`, which wins.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lemnos_proto::pb;

use super::attest::{self, Attestation};
use super::contexts::{self, NamedContext};
use super::{Platform, SolveError, SolveRequest};

/// What a build of a Dockerfile asks for. The session offers `context` and `dockerfile` unless told otherwise.
#[derive(Debug, Clone, Default)]
pub struct Dockerfile {
    /// Within the directory `dockerfile`; `Dockerfile` when absent.
    pub filename: Option<String>,
    /// A stage's name or number.
    pub target: Option<String>,
    pub platforms: Vec<Platform>,
    /// Makes an index of a single platform too.
    pub multi_platform: bool,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 that the image's times are clamped to; layers need `rewrite_timestamp` of their exporter besides.
    pub source_date_epoch: Option<u64>,
    pub no_cache: NoCache,
    pub resolve: ResolveMode,
    pub network: NetworkMode,
    pub add_hosts: Vec<HostEntry>,
    pub hostname: Option<String>,
    /// Bytes of `/dev/shm`; the daemon's own choice when absent.
    pub shm_size: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub resources: Resources,
    pub cgroup_parent: Option<String>,
    /// Separates this build's cache mounts from others'.
    pub cache_mount_namespace: Option<String>,
    pub context: MainContext,
    /// A directory within the context that is taken for it.
    pub context_subdir: Option<String>,
    /// Whether `.git` of a remote context stays in it.
    pub keep_git_dir: bool,
    pub contexts: BTreeMap<String, NamedContext>,
    pub attestations: Vec<Attestation>,
    /// An image of a frontend that reads the file in place of the built-in one, whatever `# syntax=` says.
    pub syntax: Option<String>,
    /// Any other attribute.
    pub extra: BTreeMap<String, String>,
}

/// The files of a build.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum MainContext {
    /// The session's directory `context`.
    #[default]
    Session,
    /// A git or HTTP address; the file is looked for there too unless `own_dockerfile`.
    Remote { address: String, own_dockerfile: bool },
    /// A build graph, which holds the file too.
    Input(pb::Definition),
}

/// Which steps are done anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    #[default]
    None,
    All,
    Stages(Vec<String>),
}

/// Where image names are resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    #[default]
    Default,
    /// In the registry, always.
    Pull,
    /// In the daemon's own store first.
    PreferLocal,
}

/// The network of a build's steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    #[default]
    Sandbox,
    /// Needs the entitlement `network.host`, which `Dockerfile::apply` asks for.
    Host,
    None,
}

/// A line of `/etc/hosts` while steps run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    pub name: String,
    pub address: IpAddr,
}

/// A limit of a step's processes; -1 is without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Limits of one step's control group; 0 and empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory: u64,
    /// Bytes of memory and swap together; -1 is without a limit.
    pub memory_swap: i64,
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    pub cpu_quota: i64,
    /// As in `0-2,4`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
}

impl Dockerfile {
    /// Makes `request` a build of this file. Frontend, attributes and inputs are set; exporters, caches and the session
    /// are left alone.
    pub fn apply(&self, request: &mut SolveRequest) -> Result<(), SolveError> {
        if self.syntax.as_deref().is_some_and(|image| image.trim().is_empty()) {
            return Err(SolveError::invalid("the frontend's image is empty: name one, or none at all"));
        }
        request.frontend = if self.syntax.is_some() { "gateway.v0" } else { "dockerfile.v0" }.to_owned();
        let attrs = &mut request.frontend_attrs;
        self.file(attrs);
        self.steps(attrs);
        attrs.extend(attest::attrs(&self.attestations));
        for (name, context) in &self.contexts {
            contexts::apply(name, context, request);
        }
        self.main_context(request);
        if self.network == NetworkMode::Host && !request.entitlements.iter().any(|e| e == "network.host") {
            request.entitlements.push("network.host".to_owned());
        }
        request.frontend_attrs.extend(self.extra.clone());
        Ok(())
    }

    fn file(&self, attrs: &mut BTreeMap<String, String>) {
        let mut set = |name: &str, value: String| attrs.insert(name.to_owned(), value);
        set("filename", self.filename.clone().unwrap_or_else(|| "Dockerfile".to_owned()));
        if let Some(target) = &self.target {
            set("target", target.clone());
        }
        if !self.platforms.is_empty() {
            set("platform", joined(&self.platforms));
        }
        if self.multi_platform {
            set("multi-platform", "true".to_owned());
        }
        for (name, value) in &self.build_args {
            set(&format!("build-arg:{name}"), value.clone());
        }
        for (name, value) in &self.labels {
            set(&format!("label:{name}"), value.clone());
        }
        if let Some(epoch) = self.source_date_epoch {
            set("build-arg:SOURCE_DATE_EPOCH", epoch.to_string());
        }
        if let Some(namespace) = &self.cache_mount_namespace {
            set("build-arg:BUILDKIT_CACHE_MOUNT_NS", namespace.clone());
        }
        if self.keep_git_dir {
            set("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1".to_owned());
        }
        if let Some(image) = &self.syntax {
            // what follows the image's name is its command line
            set("source", image.split(' ').next().unwrap_or_default().to_owned());
            set("cmdline", image.clone());
        }
    }

    fn steps(&self, attrs: &mut BTreeMap<String, String>) {
        let mut set = |name: &str, value: String| attrs.insert(name.to_owned(), value);
        match &self.no_cache {
            NoCache::None => None,
            NoCache::All => set("no-cache", String::new()),
            NoCache::Stages(stages) => set("no-cache", stages.join(",")),
        };
        match self.resolve {
            ResolveMode::Default => None,
            ResolveMode::Pull => set("image-resolve-mode", "pull".to_owned()),
            ResolveMode::PreferLocal => set("image-resolve-mode", "local".to_owned()),
        };
        match self.network {
            NetworkMode::Sandbox => None,
            NetworkMode::Host => set("force-network-mode", "host".to_owned()),
            NetworkMode::None => set("force-network-mode", "none".to_owned()),
        };
        if !self.add_hosts.is_empty() {
            set("add-hosts", joined(&self.add_hosts));
        }
        if !self.ulimits.is_empty() {
            set("ulimit", joined(&self.ulimits));
        }
        let optional = [
            ("hostname", self.hostname.clone()),
            ("cgroup-parent", self.cgroup_parent.clone()),
            ("shm-size", self.shm_size.filter(|size| *size > 0).map(|size| size.to_string())),
            ("contextsubdir", self.context_subdir.clone()),
        ];
        for (name, value) in optional.into_iter().chain(self.resources.attrs()) {
            if let Some(value) = value {
                set(name, value);
            }
        }
    }

    fn main_context(&self, request: &mut SolveRequest) {
        let main = match &self.context {
            MainContext::Session => None,
            MainContext::Remote { address, own_dockerfile } => {
                request.frontend_attrs.insert("context".to_owned(), address.clone());
                if *own_dockerfile {
                    request.frontend_attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
                }
                Some(address.as_str())
            }
            MainContext::Input(definition) => {
                for name in ["context", "dockerfile"] {
                    request.frontend_inputs.insert(name.to_owned(), definition.clone());
                }
                None
            }
        };
        let needed = contexts::capabilities(&self.contexts, main);
        if !needed.is_empty() {
            request.frontend_attrs.insert("frontend.caps".to_owned(), needed.join(","));
        }
    }
}

impl Resources {
    fn attrs(&self) -> [(&'static str, Option<String>); 7] {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let number = |n: u64| (n > 0).then(|| n.to_string());
        [
            ("memory", number(self.memory)),
            ("memswap", (self.memory_swap != 0).then(|| self.memory_swap.to_string())),
            ("cpushares", number(self.cpu_shares)),
            ("cpuperiod", number(self.cpu_period)),
            ("cpuquota", (self.cpu_quota > 0).then(|| self.cpu_quota.to_string())),
            ("cpusetcpus", text(&self.cpuset_cpus)),
            ("cpusetmems", text(&self.cpuset_mems)),
        ]
    }
}

impl std::fmt::Display for HostEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.address)
    }
}

impl std::fmt::Display for Ulimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}:{}", self.name, self.soft, self.hard)
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::{Provenance, Sbom};
    use super::*;

    fn shown(build: &Dockerfile) -> String {
        let mut request = SolveRequest::default();
        build.apply(&mut request).unwrap();
        let attrs: String = request.frontend_attrs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        let inputs: Vec<&String> = request.frontend_inputs.keys().collect();
        format!("{}\n{attrs}{:?} {inputs:?}", request.frontend, request.entitlements)
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one value with every field, and what it becomes")]
    fn every_option_has_its_attribute() {
        let map = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        let build = Dockerfile {
            filename: text("app.Dockerfile"),
            target: text("run"),
            platforms: ["linux/amd64", "linux/arm/v7"].map(|p| p.parse().unwrap()).to_vec(),
            multi_platform: true,
            build_args: map("A", "1"),
            labels: map("team", "shop"),
            source_date_epoch: Some(7),
            no_cache: NoCache::Stages(vec!["a".into(), "b".into()]),
            resolve: ResolveMode::Pull,
            network: NetworkMode::Host,
            add_hosts: vec![HostEntry { name: "db".into(), address: "::1".parse().unwrap() }],
            hostname: text("builder"),
            shm_size: Some(64 << 20),
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: -1 }],
            resources: Resources {
                memory: 1,
                memory_swap: -1,
                cpu_shares: 2,
                cpu_period: 3,
                cpu_quota: 4,
                cpuset_cpus: "0-1".into(),
                cpuset_mems: "0".into(),
            },
            cgroup_parent: text("/builds"),
            cache_mount_namespace: text("shop"),
            context: MainContext::Remote { address: "https://g/r.git?ref=main".into(), own_dockerfile: true },
            context_subdir: text("sub"),
            keep_git_dir: true,
            contexts: BTreeMap::from([
                ("base".to_owned(), NamedContext::Image("alpine:3".into())),
                ("git".to_owned(), NamedContext::Remote("https://g/o.git#v1".into())),
                ("in".to_owned(), NamedContext::Input(pb::Definition::default())),
                ("lib".to_owned(), NamedContext::Local { dir: "l".into(), shared_key: text("k") }),
                ("oci".to_owned(), NamedContext::OciLayout { store: "s".into(), digest: "sha256:0".into() }),
                ("stage".to_owned(), NamedContext::Target("t".into())),
            ]),
            attestations: vec![Provenance::default().into(), Sbom::default().into()],
            syntax: text("docker/dockerfile:1 x"),
            extra: map("new-option", "1"),
        };
        insta::assert_snapshot!(shown(&build), @r#"
        gateway.v0
        add-hosts = db=::1
        attest:provenance = type=provenance
        attest:sbom = type=sbom
        build-arg:A = 1
        build-arg:BUILDKIT_CACHE_MOUNT_NS = shop
        build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR = 1
        build-arg:SOURCE_DATE_EPOCH = 7
        cgroup-parent = /builds
        cmdline = docker/dockerfile:1 x
        context = https://g/r.git?ref=main
        context:base = docker-image://alpine:3
        context:git = https://g/o.git#v1
        context:in = input:in
        context:lib = local:l
        context:oci = oci-layout://s@sha256:0
        context:stage = target:t
        contextsubdir = sub
        cpuperiod = 3
        cpuquota = 4
        cpusetcpus = 0-1
        cpusetmems = 0
        cpushares = 2
        dockerfilekey = dockerfile
        filename = app.Dockerfile
        force-network-mode = host
        frontend.caps = moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.gitquerystring
        hostname = builder
        image-resolve-mode = pull
        label:team = shop
        memory = 1
        memswap = -1
        multi-platform = true
        new-option = 1
        no-cache = a,b
        platform = linux/amd64,linux/arm/v7
        sharedkey:localdir:lib = k
        shm-size = 67108864
        source = docker/dockerfile:1
        target = run
        ulimit = nofile=1:-1
        ["network.host"] ["in"]
        "#);
    }

    #[test]
    fn nothing_asked_for_is_nothing_said() {
        insta::assert_snapshot!(shown(&Dockerfile::default()), @r"
        dockerfile.v0
        filename = Dockerfile
        [] []
        ");
    }

    #[test]
    fn an_input_is_context_and_file_and_no_cache_is_for_all() {
        let build = Dockerfile {
            context: MainContext::Input(pb::Definition::default()),
            no_cache: NoCache::All,
            network: NetworkMode::None,
            resolve: ResolveMode::PreferLocal,
            ..Default::default()
        };
        insta::assert_snapshot!(shown(&build), @r#"
        dockerfile.v0
        filename = Dockerfile
        force-network-mode = none
        image-resolve-mode = local
        no-cache = 
        [] ["context", "dockerfile"]
        "#);
        let empty = Dockerfile { syntax: text(" "), ..Default::default() };
        assert!(empty.apply(&mut SolveRequest::default()).is_err());
    }
}
