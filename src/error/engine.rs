//! `engine` errors as people see them.

use super::{Kind, Report};
use crate::engine::EngineError;

impl From<EngineError> for Report {
    fn from(error: EngineError) -> Self {
        let (kind, hint) = verdict(&error);
        let report = Self::new(kind, error.to_string());
        if hint.is_empty() { report } else { report.hint(hint) }
    }
}

fn verdict(error: &EngineError) -> (Kind, String) {
    use EngineError as E;
    let say = |kind, hint: &str| (kind, hint.to_owned());
    match error {
        E::NoBuildkitd => say(
            Kind::User,
            "`deploy/quickstart` builds one (from deploy/tools: `go build tool`), Docker's moby/buildkit image holds one; name it with `--buildkitd PATH`, or a running one with `--builder ADDR`",
        ),
        E::NoRegistry => say(
            Kind::User,
            "install the package docker-registry (Debian and Ubuntu; elsewhere distribution's `registry` program), or name a registry with `--registry HOST`",
        ),
        E::NoTool(tool) => say(
            Kind::User,
            &format!("install the package {tool}, or name a running builder with `--builder ADDR`"),
        ),
        E::NoCni(_) => say(
            Kind::User,
            "install the package containernetworking-plugins (Debian and Ubuntu; others: containernetworking-plugins or cni-plugins), or name a running builder with `--builder ADDR`",
        ),
        E::NotRoot => say(
            Kind::User,
            "run `lemnos serve` as root, or start a rootless buildkitd yourself (`rootlesskit buildkitd`, or the image moby/buildkit:rootless) or use one on another machine, and name it with `--builder ADDR`",
        ),
        E::NotRunnable { .. } => say(Kind::User, "check the path and that it may be executed"),
        E::SocketPath(_) => say(Kind::User, "take a shorter data directory"),
        E::NotLoopback(_) => say(
            Kind::User,
            "let it listen on 127.0.0.1, and run a registry with access control yourself for other machines (`--registry HOST`)",
        ),
        E::Listen { addr, .. } => say(
            Kind::Conflict,
            &format!("`ss -ltnp 'sport = {}'` shows who listens there; port 0 takes a free one", addr.port()),
        ),
        E::Ended { .. } | E::NotReady { .. } => say(
            Kind::Unavailable,
            "its own words above say why; its configuration is under engine/ in the data directory",
        ),
        E::InUse(_) => {
            say(Kind::Conflict, "stop that one first, or take another data directory (`--data DIR`)")
        }
        E::NetworkSetup { .. } => say(
            Kind::Internal,
            "builds are walled off with iptables, which needs root and the kernel's netfilter; where that cannot be had, `network = \"host\"` under [engine] gives builds this machine's network, loopback services included",
        ),
        E::NoSubnet => say(
            Kind::Conflict,
            "a route of this machine covers 10.192.0.0/11; `network = \"host\"` under [engine] does without a bridge, or name a running builder with `--builder ADDR`",
        ),
        E::Unreachable { .. } => say(
            Kind::User,
            "name a registry that both machines reach under one name (`--registry HOST[:PORT][/PREFIX]`)",
        ),
        E::Io { .. } => (Kind::Internal, String::new()),
    }
}
