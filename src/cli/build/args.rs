//! The flags of `lemnos build`: the names, short forms and defaults of `docker buildx build` (v0.36).
//!
//! Invariant: a flag that is named here either does what buildx does with it, or is refused with the reason by
//! `options`; docs/reference/build.md has a row for each. Nothing is decided here.

use std::path::PathBuf;

use clap::ArgAction;

/// What Go's flags take for yes and no.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// Build with BuildKit, as `docker buildx build` does.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    /// The build context: a directory, a git or http(s) address, - for a tar or a Dockerfile on standard input, or
    /// GITDIR@COMMIT for a commit of a repository at hand.
    #[arg(value_name = "PATH | URL | -")]
    pub context: String,
    /// A line of /etc/hosts while steps run.
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// What steps may do beyond the usual: network.host, security.insecure, device; buildx.local.delete for outputs.
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// An annotation of the image.
    #[arg(long, value_name = "[LEVEL:]KEY=VALUE")]
    pub annotation: Vec<String>,
    /// An attestation's parameters.
    #[arg(long, value_name = "type=TYPE,…")]
    pub attest: Vec<String>,
    /// A build argument; without a value that of the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A further context, by the name of an image or of a stage.
    #[arg(long, value_name = "NAME=WHERE")]
    pub build_context: Vec<String>,
    /// A BuildKit daemon: unix://, tcp://, docker-container://, podman-container://, kube-pod://, ssh:// or docker://;
    /// again for each one, with the platforms it shall build; or the name of an instance of buildx [default:
    /// BUILDX_BUILDER, BUILDKIT_HOST, else that of the server that runs on the data directory].
    #[arg(long, value_name = "ADDR[,platform=P]… | NAME")]
    pub builder: Vec<String>,
    /// A cache to read.
    #[arg(long, value_name = "IMAGE | type=TYPE,…")]
    pub cache_from: Vec<String>,
    /// A cache to write.
    #[arg(long, value_name = "IMAGE | type=TYPE,…")]
    pub cache_to: Vec<String>,
    /// What to ask of the Dockerfile: build, check, outline, targets; with ,format=json for programs.
    #[arg(long, value_name = "METHOD", default_value = "build", overrides_with_all = ["check", "print"])]
    pub call: String,
    /// The control group above those of the steps.
    #[arg(long, value_name = "GROUP")]
    pub cgroup_parent: Option<String>,
    /// The same as --call=check.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set, overrides_with_all = ["call", "print"])]
    pub check: bool,
    /// Show warnings with their details.
    #[arg(short = 'D', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub debug: bool,
    /// The Dockerfile: a path, an http(s) address, or - for standard input [default: PATH/Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Write the image's id to this file.
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// A label of the image.
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Load the image into docker: --output=type=docker.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub load: bool,
    /// Write what the build gave to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// The network of the steps: default, none or host.
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Run every step again.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub no_cache: bool,
    /// Run the steps of this stage again.
    #[arg(long, value_name = "STAGE")]
    pub no_cache_filter: Vec<String>,
    /// Where the result goes: a directory, - for a tar on standard output, or type=TYPE,dest=PATH.
    #[arg(short, long, value_name = "DEST | type=TYPE,…")]
    pub output: Vec<String>,
    /// Platforms, separated by commas [default: DOCKER_DEFAULT_PLATFORM, else the builder's own].
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Vec<String>,
    /// Only disabled=true: policies in Rego are not evaluated here.
    #[arg(long, value_name = "disabled=true")]
    pub policy: Vec<String>,
    /// How progress is shown on standard error: auto, none, plain, quiet, rawjson or tty [env: BUILDKIT_PROGRESS].
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub progress: String,
    /// How the build came to be: --attest=type=provenance.
    #[arg(long, value_name = "BOOL | mode=MODE,…")]
    pub provenance: Option<String>,
    /// Look base images up again.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub pull: bool,
    /// Push the image: --output=type=registry,unpack=false.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub push: bool,
    /// Show no progress; print the image's id when it is done.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, value_name = "BOOL", value_parser = truth, action = ArgAction::Set)]
    pub quiet: bool,
    /// A limit of each step's control group: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus,
    /// cpuset-mems.
    #[arg(long, value_name = "NAME=VALUE")]
    pub resource: Vec<String>,
    /// What is inside the image, found by a scanner: --attest=type=sbom.
    #[arg(long, value_name = "BOOL | generator=IMAGE")]
    pub sbom: Option<String>,
    /// A secret that steps may mount.
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub secret: Vec<String>,
    /// The size of /dev/shm.
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// An SSH agent or keys that steps may use.
    #[arg(long, value_name = "ID[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// The image's name.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// The stage to build.
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// A limit of a step's processes.
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// A registry to push to in plain http, besides loopback; again for each one.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<String>,
    /// Data directory of a running server [env: LEMNOS_DATA].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub hidden: Hidden,
}

/// What buildx takes without telling: older names, and flags that have had no meaning since BuildKit.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Hidden {
    #[arg(long, hide = true, overrides_with_all = ["call", "check"])]
    pub print: Option<String>,
    #[arg(short, long, hide = true)]
    pub memory: Vec<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub memory_swap: Vec<String>,
    #[arg(short, long, hide = true)]
    pub cpu_shares: Vec<String>,
    #[arg(long, hide = true)]
    pub cpu_period: Vec<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub cpu_quota: Vec<String>,
    #[arg(long, hide = true)]
    pub cpuset_cpus: Vec<String>,
    #[arg(long, hide = true)]
    pub cpuset_mems: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub compress: Option<bool>,
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub squash: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, action = ArgAction::Set)]
    pub force_rm: Option<bool>,
}

impl Hidden {
    /// Why a flag that was given cannot be followed.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        let keeps = "BuildKit keeps no intermediate containers: there is nothing to keep or to remove";
        let given = [
            (
                self.compress == Some(true),
                "--compress",
                "BuildKit asks for single files of the context: leave it out",
            ),
            (
                self.isolation.is_some(),
                "--isolation",
                "BuildKit has one way of isolating steps: leave it out",
            ),
            (
                !self.security_opt.is_empty(),
                "--security-opt",
                "write `RUN --security=insecure`, and allow it with --allow security.insecure",
            ),
            (
                self.squash == Some(true),
                "--squash",
                "BuildKit squashes nothing: copy the result into a last stage with `COPY --from`",
            ),
            (self.rm == Some(false), "--rm=false", keeps),
        ];
        given.into_iter().find(|(given, ..)| *given).map(|(_, flag, reason)| (flag, reason))
    }

    /// The older names of `--resource`, as it takes them.
    pub fn resources(&self) -> impl Iterator<Item = String> {
        let all = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        all.into_iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}")))
    }
}
