//! Where a daemon is, as people write it.
//!
//! Invariant: what an `Address` holds can stand in an argument vector: nothing of it begins with `-`, and names are made
//! of the characters that such names have.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{DockerHost, Error};

/// Where `docker://` is, when nothing else is said.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Longest name of a container, pod, context, user or host.
const NAME_LIMIT: usize = 253;

/// Where a daemon listens, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://host:port`
    Tcp { host: String, port: u16 },
    /// `docker-container://NAME?context=NAME`: `docker exec` into a container of BuildKit.
    DockerContainer { container: String, context: Option<String> },
    /// `podman-container://NAME`
    PodmanContainer { container: String },
    /// `kube-pod://NAME?context=NAME&namespace=NAME&container=NAME`
    KubePod { pod: String, context: Option<String>, namespace: Option<String>, container: Option<String> },
    /// `ssh://user@host:port/socket`
    Ssh { user: Option<String>, host: String, port: Option<u16>, socket: Option<PathBuf> },
    /// The BuildKit inside dockerd: `docker:///path` at Docker's own socket (a `unix:///path/docker.sock` is one, too),
    /// `docker+tcp://host:port`, `docker+ssh://user@host:port/socket`.
    Docker(DockerHost),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Address { given: text.to_owned() };
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        match scheme {
            // no buildkitd has its socket there, and Docker's speaks another protocol first
            "unix" if rest.ends_with("/docker.sock") => docker(rest),
            "unix" => absolute(rest).map(Self::Unix),
            "docker" if rest.is_empty() => docker(DOCKER_SOCKET),
            "docker" => docker(rest),
            "docker+tcp" => host_and_port(rest)
                .and_then(|(host, port)| Some(Self::Docker(DockerHost::Tcp { host, port: port? }))),
            "docker+ssh" => ssh(rest).and_then(|far| DockerHost::try_from(far).ok()).map(Self::Docker),
            "tcp" => host_and_port(rest).and_then(|(host, port)| Some(Self::Tcp { host, port: port? })),
            "docker-container" => named(rest, &["context"], is_name)
                .map(|(container, [context])| Self::DockerContainer { container, context }),
            "podman-container" => {
                named(rest, &[], is_name).map(|(container, [])| Self::PodmanContainer { container })
            }
            "kube-pod" => kube_pod(rest),
            "ssh" => ssh(rest),
            _ => None,
        }
        .ok_or_else(invalid)
    }
}

fn docker(socket: &str) -> Option<Address> {
    absolute(socket).map(|socket| Address::Docker(DockerHost::Unix(socket)))
}

pub(super) fn absolute(path: &str) -> Option<PathBuf> {
    (path.starts_with('/') && !path.contains('\0')).then(|| PathBuf::from(path))
}

/// `host:port`, `[v6]:port`, or either without a port.
pub(super) fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let port = |digits: &str| digits.parse().ok().filter(|port| *port != 0);
    if let Some(v6) = text.strip_prefix('[') {
        let (v6, rest) = v6.split_once(']')?;
        v6.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest {
            "" => Some((v6.to_owned(), None)),
            _ => Some((v6.to_owned(), Some(port(rest.strip_prefix(':')?)?))),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, Some(port(digits)?)),
        None => (text, None),
    };
    is_host(host).then(|| (host.to_owned(), port))
}

/// A name and its query: each of `keys` at most once, and no other.
fn named<const N: usize>(
    text: &str,
    keys: &[&str; N],
    is_good: fn(&str) -> bool,
) -> Option<(String, [Option<String>; N])> {
    let (name, query) = text.split_once('?').unwrap_or((text, ""));
    let mut values = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        let place = keys.iter().position(|known| *known == key)?;
        let slot = values.get_mut(place)?;
        if slot.is_some() || !is_context(value) {
            return None;
        }
        *slot = Some(value.to_owned());
    }
    is_good(name).then(|| (name.to_owned(), values))
}

fn kube_pod(text: &str) -> Option<Address> {
    let (pod, [context, namespace, container]) =
        named(text, &["context", "namespace", "container"], is_kube_name)?;
    let good = [&namespace, &container].into_iter().flatten().all(|name| is_kube_name(name));
    good.then_some(Address::KubePod { pod, context, namespace, container })
}

pub(super) fn ssh(text: &str) -> Option<Address> {
    if text.contains(['?', '#']) {
        return None;
    }
    let (place, socket) = match text.find('/') {
        Some(at) => (text.get(..at)?, Some(absolute(text.get(at..)?)?)),
        None => (text, None),
    };
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user).filter(|user| is_name(user)).map(str::to_owned)?.into(), place),
        None => (None, place),
    };
    let (host, port) = host_and_port(place)?;
    // a far shell reads the socket's name: only what no shell takes for anything else
    let plain = |path: &PathBuf| {
        path.to_str()
            .is_some_and(|text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)))
    };
    socket.as_ref().is_none_or(plain).then_some(Address::Ssh { user, host, port, socket })
}

/// Whether `host` is made of what host names and IPv4 addresses are made of.
fn is_host(host: &str) -> bool {
    is_name(host) && !host.starts_with('.')
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LIMIT
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Contexts of kubectl are often called after a user, an address or a cloud's resource.
fn is_context(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LIMIT
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._@:/".contains(&b))
}

fn is_kube_name(name: &str) -> bool {
    is_name(name) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Docker(DockerHost::Unix(path)) => write!(f, "docker://{}", path.display()),
            Self::Docker(far) => write!(f, "docker+{far}"),
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Self::DockerContainer { container, context } => {
                write!(f, "docker-container://{container}{}", query(&[("context", context)]))
            }
            Self::PodmanContainer { container } => write!(f, "podman-container://{container}"),
            Self::KubePod { pod, context, namespace, container } => {
                let pairs = [("context", context), ("namespace", namespace), ("container", container)];
                write!(f, "kube-pod://{pod}{}", query(&pairs))
            }
            Self::Ssh { user, host, port, socket } => {
                write!(f, "ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                write!(f, "{}", bracketed(host))?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                socket.as_ref().map_or(Ok(()), |path| write!(f, "{}", path.display()))
            }
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn query(pairs: &[(&str, &Option<String>)]) -> String {
    let given = pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    let joined = given.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in [
            "unix:///run/b.sock",
            "tcp://b.example:1234",
            "tcp://10.0.0.1:1",
            "tcp://[::1]:1234",
            "docker-container://buildkitd",
            "docker-container://buildkitd?context=far",
            "podman-container://buildkitd",
            "kube-pod://buildkitd-0",
            "kube-pod://buildkitd-0?context=user@cluster&namespace=ns&container=buildkitd",
            "ssh://far",
            "ssh://me@far:2222/run/b.sock",
            "ssh://me@[::1]:22",
            "docker:///run/docker.sock",
            "docker+tcp://d:2376",
            "docker+ssh://me@far:22/run/d.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["docker://", "unix:///var/run/docker.sock"] {
            assert_eq!(
                text.parse::<Address>().unwrap(),
                Address::Docker(DockerHost::Unix(DOCKER_SOCKET.into()))
            );
        }
    }

    #[test]
    fn addresses_that_are_none() {
        for text in [
            "",
            "unix://",
            "unix://rel",
            "/run/b.sock",
            "tcp://",
            "tcp://h",
            "tcp://h:",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://:1",
            "tcp://::1:1",
            "tcp://[h]:1",
            "tcp://u@h:1",
            "tcp://h/p:1",
            "tcp://-h:1",
            "http://h:1",
            "tcp://h h:1",
            "docker://rel",
            "docker+tcp://d",
            "docker+ssh://-oProxyCommand=x",
            "docker+unix:///d.sock",
            "docker-container://",
            "docker-container://-v",
            "docker-container://a b",
            "docker-container://a?context=-H",
            "docker-container://a?context=x&context=y",
            "docker-container://a?host=x",
            "podman-container://--help",
            "podman-container://a?context=x",
            "kube-pod://",
            "kube-pod://Pod",
            "kube-pod://unsupported_pod_name",
            "kube-pod://-p",
            "kube-pod://p?container=no_good",
            "kube-pod://p?namespace=-n",
            "kube-pod://p?context=$(id)",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://me:secret@far",
            "ssh://-l@far",
            "ssh://far?x",
            "ssh://far#x",
            "ssh://far/run/$(id)",
            "ssh://far/a b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
