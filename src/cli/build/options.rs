//! What the flags ask for, in types. Nothing is opened or connected to; only the environment, as it was handed in, is read.
//!
//! Invariant: what cannot be followed is refused here, before a daemon is asked for anything. Rules: buildx v0.36,
//! commands/build.go and build/opt.go.

use std::collections::BTreeMap;

use super::args::Args;
use crate::buildkit::Mode;
use crate::buildkit::flags::{self, AllowedFlag, CallFlag, Context, Output, Secret, Ssh};
use crate::buildkit::solve::{
    Annotation, Attestation, CacheEntry, DEFAULT_PROVENANCE, Dockerfile, NamedContext, NetworkMode, NoCache,
    ResolveMode,
};
use crate::config::Environment;
use crate::error::Report;

/// Everything that the flags say.
#[derive(Debug, Default)]
pub struct Options {
    /// But for the context and the file.
    pub dockerfile: Dockerfile,
    /// `--add-host`, as given: `host-gateway` is known to the daemon only.
    pub add_hosts: Vec<String>,
    pub outputs: Vec<Output>,
    pub push: bool,
    pub load: bool,
    /// As given.
    pub tags: Vec<String>,
    pub annotations: Vec<Annotation>,
    pub secrets: Vec<Secret>,
    pub ssh: Vec<Ssh>,
    pub cache_from: Vec<CacheEntry>,
    pub cache_to: Vec<CacheEntry>,
    pub contexts: Vec<(String, Context)>,
    pub entitlements: Vec<String>,
    pub delete_anywhere: bool,
    pub call: Option<CallFlag>,
    /// Whether a file with policies beside the Dockerfile may be passed over.
    pub policy_disabled: bool,
    pub mode: Mode,
    /// Whether the image's id is printed in the end.
    pub quiet: bool,
}

impl Options {
    pub fn read(args: &Args, environment: &Environment) -> Result<Self, Report> {
        if let Some((flag, reason)) = args.hidden.refused() {
            return Err(Report::user(format!("{flag} is not supported: {reason}")));
        }
        let (mode, quiet) = display(args, environment)?;
        let method = args.hidden.print.as_deref().unwrap_or(&args.call);
        let method = if args.check { "check" } else { method };
        let mut options = Self {
            dockerfile: dockerfile(args, environment)?,
            add_hosts: args.add_host.clone(),
            outputs: each(&args.output, flags::output)?,
            push: args.push,
            load: args.load,
            tags: each(&args.tag, flags::tag)?,
            annotations: each(&args.annotation, flags::annotation)?.into_iter().flatten().collect(),
            secrets: each(&args.secret, flags::secret)?,
            ssh: each(&args.ssh, flags::ssh)?,
            cache_from: caches("--cache-from", &args.cache_from, environment)?,
            cache_to: caches("--cache-to", &args.cache_to, environment)?,
            contexts: each(&args.build_context, flags::build_context)?,
            call: if method.is_empty() { None } else { flags::call(method)? },
            policy_disabled: policy_disabled(&args.policy)?,
            mode,
            quiet,
            ..Self::default()
        };
        for allowed in each(&args.allow, flags::allow)? {
            match allowed {
                AllowedFlag::Entitlement(name) => options.entitlements.push(name),
                AllowedFlag::LocalDelete => options.delete_anywhere = true,
            }
        }
        if options.ssh.is_empty() && is_git_over_ssh(&args.context) {
            options.ssh.push(flags::ssh("default")?);
        }
        if options.dockerfile.build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|v| yes(v)) {
            options.cache_to.push(CacheEntry::inline());
        }
        options.check(args)?;
        Ok(options)
    }

    fn check(&self, args: &Args) -> Result<(), Report> {
        if let Some((name, _)) =
            self.contexts.iter().find(|(_, c)| matches!(c, Context::Remote(NamedContext::Target(_))))
        {
            return Err(Report::user(format!(
                "--build-context {name}=target:… names a target of a bake file, and there is none"
            ))
            .hint("write `FROM STAGE` or `COPY --from=STAGE` in the Dockerfile"));
        }
        let files = |output: &Output| matches!(output.kind.as_str(), "local" | "tar");
        if args.iidfile.is_some() && self.outputs.iter().any(files) {
            return Err(Report::user("--iidfile: an output of files (type=local, type=tar) has no image id"));
        }
        let standard_input = [args.context == "-", args.file.as_deref() == Some("-")];
        if standard_input == [true, true] {
            return Err(Report::user("standard input cannot be both the build context and the Dockerfile"));
        }
        Ok(())
    }

    /// Whether attestations were asked for, beyond the provenance that everybody gets.
    pub fn attests(&self) -> bool {
        self.dockerfile.attestations.iter().any(|a| !a.disabled)
    }
}

fn each<T>(given: &[String], read: fn(&str) -> Result<T, flags::FlagError>) -> Result<Vec<T>, Report> {
    Ok(given.iter().map(|given| read(given)).collect::<Result<_, _>>()?)
}

/// A variable that says yes.
pub fn yes(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn dockerfile(args: &Args, environment: &Environment) -> Result<Dockerfile, Report> {
    let build_args = build_args(&args.build_arg, environment)?;
    let mut build = Dockerfile {
        target: args.target.clone().filter(|target| !target.is_empty()),
        platforms: platforms(args, environment)?,
        multi_platform: build_args.get("BUILDKIT_MULTI_PLATFORM").is_some_and(|v| yes(v)),
        labels: pairs("--label", &args.label, |_| Some(String::new()))?,
        syntax: build_args.get("BUILDKIT_SYNTAX").map(|image| image.trim().to_owned()),
        no_cache: no_cache(args)?,
        resolve: if args.pull { ResolveMode::Pull } else { ResolveMode::Default },
        network: network(&args.network)?,
        shm_size: args.shm_size.as_deref().map(flags::shm_size).transpose()?,
        ulimits: each(&args.ulimit, flags::ulimit)?,
        cgroup_parent: args.cgroup_parent.clone().filter(|group| !group.is_empty()),
        attestations: attestations(args)?,
        build_args,
        ..Dockerfile::default()
    };
    for limit in args.hidden.resources().chain(args.resource.iter().cloned()) {
        flags::resource(&limit, &mut build.resources)?;
    }
    let said = build.attestations.iter().any(|a| a.kind == "provenance");
    let unwanted = environment.get("BUILDX_NO_DEFAULT_ATTESTATIONS").is_some_and(yes);
    if !said && !unwanted {
        build.extra.insert("attest:provenance".to_owned(), DEFAULT_PROVENANCE.to_owned());
    }
    Ok(build)
}

fn build_args(given: &[String], environment: &Environment) -> Result<BTreeMap<String, String>, Report> {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    let mut args = pairs("--build-arg", given, |name| environment.lookup(name).map(str::to_owned))?;
    if let Some(epoch) = environment.get(EPOCH) {
        args.entry(EPOCH.to_owned()).or_insert_with(|| epoch.to_owned());
    }
    Ok(args)
}

/// `NAME=VALUE`; a name alone gets what `otherwise` knows, or is left out.
fn pairs(
    flag: &str,
    given: &[String],
    otherwise: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Report> {
    let mut all = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), otherwise(text)),
        };
        if name.is_empty() {
            return Err(Report::user(format!("{flag} {text:?}: the name is empty")).hint("write NAME=VALUE"));
        }
        all.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(all)
}

fn platforms(
    args: &Args,
    environment: &Environment,
) -> Result<Vec<crate::buildkit::solve::Platform>, Report> {
    let default = environment.get("DOCKER_DEFAULT_PLATFORM").filter(|_| args.platform.is_empty());
    let mut all = Vec::new();
    for given in args.platform.iter().map(String::as_str).chain(default) {
        for platform in flags::platforms(given)? {
            if !all.contains(&platform) {
                all.push(platform);
            }
        }
    }
    Ok(all)
}

fn no_cache(args: &Args) -> Result<NoCache, Report> {
    match (args.no_cache, args.no_cache_filter.as_slice()) {
        (true, []) => Ok(NoCache::All),
        (false, []) => Ok(NoCache::None),
        (false, stages) => Ok(NoCache::Stages(stages.to_vec())),
        (true, _) => Err(Report::user("--no-cache and --no-cache-filter cannot be used together")),
    }
}

fn network(given: &str) -> Result<NetworkMode, Report> {
    match given {
        "" | "default" => Ok(NetworkMode::Sandbox),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(Report::user(format!("--network {other:?}: BuildKit's steps have no such network"))
            .hint("there are default, none and host; other networks are the builder's own setting")),
    }
}

fn attestations(args: &Args) -> Result<Vec<Attestation>, Report> {
    let mut all = each(&args.attest, flags::attest)?;
    all.extend(args.provenance.as_deref().filter(|v| !v.is_empty()).map(flags::provenance).transpose()?);
    all.extend(args.sbom.as_deref().filter(|v| !v.is_empty()).map(flags::sbom).transpose()?);
    for (place, attestation) in all.iter().enumerate() {
        if all.iter().skip(place + 1).any(|other| other.kind == attestation.kind) {
            return Err(Report::user(format!("the attestation {} is asked for twice", attestation.kind)));
        }
    }
    Ok(all)
}

fn caches(
    flag: &'static str,
    given: &[String],
    environment: &Environment,
) -> Result<Vec<CacheEntry>, Report> {
    let mut all = Vec::new();
    for text in given {
        all.extend(flags::cache(flag, text)?);
    }
    all.iter_mut().for_each(|entry| runners_own(entry, environment));
    // without its token the cache of a CI runner is nowhere
    all.retain(|entry| {
        let has = |name: &str| entry.attrs.get(name).is_some_and(|value| !value.is_empty());
        entry.kind != "gha" || has("token") && (has("url") || has("url_v2"))
    });
    Ok(all)
}

/// What a CI runner, or AWS's own tools, have set for their caches.
fn runners_own(entry: &mut CacheEntry, environment: &Environment) {
    let second = environment.get("ACTIONS_CACHE_SERVICE_V2").is_some_and(yes);
    let second = entry.attrs.get("version").map_or(second, |version| version == "2");
    let results = environment.get("ACTIONS_RESULTS_URL");
    let first = environment.get("ACTIONS_CACHE_URL").or(results);
    let set: &[(&str, Option<&str>)] = match entry.kind.as_str() {
        "gha" => &[
            ("token", environment.get("ACTIONS_RUNTIME_TOKEN")),
            ("url_v2", results.filter(|_| second)),
            ("url", first),
        ],
        "s3" if !(entry.attrs.contains_key("access_key_id")
            && entry.attrs.contains_key("secret_access_key")) =>
        {
            &[
                ("access_key_id", environment.get("AWS_ACCESS_KEY_ID")),
                ("secret_access_key", environment.get("AWS_SECRET_ACCESS_KEY")),
                ("session_token", environment.get("AWS_SESSION_TOKEN")),
            ]
        }
        _ => &[],
    };
    for (name, value) in set {
        if let Some(value) = value {
            entry.attrs.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
        }
    }
}

fn policy_disabled(given: &[String]) -> Result<bool, Report> {
    let mut disabled = false;
    for text in given {
        match text.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("disabled") && yes(value) => {
                disabled = true
            }
            _ => {
                return Err(Report::user(format!("--policy {text:?} is not supported: policies in Rego are not evaluated here"))
                    .hint("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=FILE names a policy that the daemon holds; --policy disabled=true builds without"));
            }
        }
    }
    Ok(disabled)
}

/// How progress is shown, and whether the id is printed. `none` shows nothing and prints nothing.
fn display(args: &Args, environment: &Environment) -> Result<(Mode, bool), Report> {
    let read = |text: &str| match text {
        "none" => Ok(Mode::Quiet),
        text => text.parse::<Mode>().map_err(|e| Report::user(format!("--progress: {e}"))),
    };
    let quiet = args.quiet || args.progress == "quiet";
    let mode = read(&args.progress)?;
    if quiet {
        return match mode {
            Mode::Auto | Mode::Quiet => Ok((Mode::Quiet, true)),
            _ => {
                Err(Report::user(format!("--progress={} and --quiet cannot be used together", args.progress)))
            }
        };
    }
    match environment.get("BUILDKIT_PROGRESS").filter(|_| mode == Mode::Auto) {
        Some(text) => Ok((read(text)?, false)),
        None => Ok((mode, false)),
    }
}

/// Whether the daemon fetches the context with a key.
fn is_git_over_ssh(context: &str) -> bool {
    context.starts_with("ssh://")
        || flags::is_remote(context) && !context.contains("://") && context.contains('@')
}
