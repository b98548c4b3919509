//! Whether a builder can push to a registry at all, told by their addresses; nothing is asked over the network.

use super::EngineError;

/// A builder on another machine cannot push to this machine's loopback: better said at start than at the first push.
pub fn check_reachability<'a>(
    builders: impl IntoIterator<Item = &'a str>,
    registry: &str,
) -> Result<(), EngineError> {
    if !is_loopback_registry(registry) {
        return Ok(());
    }
    match builders.into_iter().find(|builder| is_remote_builder(builder)) {
        Some(builder) => {
            Err(EngineError::Unreachable { builder: builder.to_owned(), registry: registry.to_owned() })
        }
        None => Ok(()),
    }
}

/// `localhost:5000`, `127.0.0.1/team`, `[::1]:5000`: a registry address that every machine takes for its own.
pub fn is_loopback_registry(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    is_loopback_host(without_port(host))
}

/// `tcp://…` and `ssh://…` that are not this machine, and containers and pods, whose loopback is their own. A unix socket
/// and Docker's are this machine's.
pub fn is_remote_builder(address: &str) -> bool {
    match address.split_once("://") {
        Some(("unix" | "docker", _)) | None => false,
        Some(("docker-container" | "podman-container" | "kube-pod", _)) => true,
        Some((_, rest)) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            !is_loopback_host(without_port(rest.split(['/', '?', ',']).next().unwrap_or_default()))
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries() {
        for yes in
            ["localhost:5000", "LOCALHOST", "127.0.0.1:5000/team", "127.9.9.9", "[::1]:5000", "a.localhost:1"]
        {
            assert!(is_loopback_registry(yes), "{yes}");
        }
        for no in [
            "registry.example.org",
            "10.0.0.1:5000",
            "localhost.example.org",
            "[2001:db8::1]:5000",
            "docker.io",
        ] {
            assert!(!is_loopback_registry(no), "{no}");
        }
    }

    #[test]
    fn only_a_remote_builder_with_a_loopback_registry_is_refused() {
        let local =
            ["unix:///run/buildkitd.sock", "tcp://127.0.0.1:1234", "tcp://[::1]:1234", "tcp://localhost:1"];
        assert!(check_reachability(local, "localhost:5000").is_ok());
        assert!(check_reachability(["ssh://me@localhost:22/s", "docker:///s"], "localhost:5000").is_ok());
        for far in [
            "ssh://localhost@far",
            "docker-container://localhost",
            "podman-container://b",
            "kube-pod://localhost",
        ] {
            assert!(check_reachability([far], "localhost:5000").is_err(), "{far}");
            assert!(check_reachability([far], "registry.example.org").is_ok(), "{far}");
        }
        assert!(check_reachability(["tcp://build1.example.org:1234"], "registry.example.org").is_ok());
        let error = check_reachability(["unix:///a", "tcp://10.1.2.3:1234"], "127.0.0.1:5000/x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the builder tcp://10.1.2.3:1234 is on another machine or in a container, and cannot push to 127.0.0.1:5000/x, which is this one's loopback"
        );
    }
}
