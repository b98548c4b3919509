//! Where a dockerd is, as `DOCKER_HOST` has it, and a stream of bytes to it: its socket, TCP, TLS, or
//! `docker system dial-stdio` behind ssh.
//!
//! Knows nothing of what is said over the stream: the client speaks gRPC on it, others Docker's own API.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::buildkit::connect::address::{absolute, host_and_port, ssh};
use crate::buildkit::connect::{Address, Programs, Tls, command, tls};

/// Where dockerd listens on TCP when no port is named: plain, and with TLS.
const PORTS: [u16; 2] = [2375, 2376];

/// A connection's two directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Where a dockerd listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DockerHost {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://host:port`
    Tcp { host: String, port: u16 },
    /// `ssh://user@host:port/socket`
    Ssh { user: Option<String>, host: String, port: Option<u16>, socket: Option<PathBuf> },
}

impl DockerHost {
    /// Reads what stands in `DOCKER_HOST`; a port that is not named is Docker's own, with TLS or without.
    pub fn parse(text: &str, encrypted: bool) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "unix" => absolute(rest).map(Self::Unix),
            "tcp" | "http" => {
                let (host, port) = host_and_port(rest.trim_end_matches('/'))?;
                let [plain, secured] = PORTS;
                Some(Self::Tcp { host, port: port.unwrap_or(if encrypted { secured } else { plain }) })
            }
            // a path of `/` alone names no socket
            "ssh" => ssh(rest.strip_suffix('/').unwrap_or(rest)).and_then(|far| far.try_into().ok()),
            _ => None,
        }
    }

    /// Opens a connection. `tls` is for TCP alone.
    pub async fn open(&self, tls: Option<&Tls>, programs: &Programs) -> io::Result<Box<dyn ByteStream>> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => Ok(Box::new(tls::encrypted(tls, host, stream).await?)),
                }
            }
            Self::Ssh { .. } => Ok(Box::new(command::start(&self.command(), programs)?)),
        }
    }

    /// Docker's own way over ssh.
    fn command(&self) -> Vec<String> {
        let Self::Ssh { user, host, port, socket } = self else { return Vec::new() };
        let mut words = command::ssh(user.as_deref(), host, *port);
        words.push("docker".to_owned());
        words.extend(socket.iter().map(|path| format!("--host=unix://{}", path.display())));
        words.extend(["system", "dial-stdio"].map(str::to_owned));
        words
    }
}

impl TryFrom<Address> for DockerHost {
    type Error = ();

    /// The dockerd where a buildkitd would be.
    fn try_from(address: Address) -> Result<Self, ()> {
        match address {
            Address::Ssh { user, host, port, socket } => Ok(Self::Ssh { user, host, port, socket }),
            Address::Tcp { host, port } => Ok(Self::Tcp { host, port }),
            Address::Unix(path) => Ok(Self::Unix(path)),
            Address::Docker(host) => Ok(host),
            _ => Err(()),
        }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.clone() {
            Self::Unix(path) => Address::Unix(path).fmt(f),
            Self::Tcp { host, port } => Address::Tcp { host, port }.fmt(f),
            Self::Ssh { user, host, port, socket } => Address::Ssh { user, host, port, socket }.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_docker_reads_them() {
        for (text, encrypted, full) in [
            ("unix:///run/d.sock", false, Some("unix:///run/d.sock")),
            ("tcp://d", false, Some("tcp://d:2375")),
            ("tcp://d", true, Some("tcp://d:2376")),
            ("tcp://d:1/", true, Some("tcp://d:1")),
            ("http://[::1]:1", false, Some("tcp://[::1]:1")),
            ("ssh://me@far:22", false, Some("ssh://me@far:22")),
            ("ssh://far/", false, Some("ssh://far")),
            ("ssh://far/run/d.sock", false, Some("ssh://far/run/d.sock")),
            ("ssh://-oProxyCommand=x", false, None),
            ("npipe:////./pipe/docker_engine", false, None),
            ("d:1", false, None),
        ] {
            let read = DockerHost::parse(text, encrypted);
            assert_eq!(read.map(|host| host.to_string()).as_deref(), full, "{text}");
        }
    }

    #[test]
    fn ssh_leads_to_dockers_own_command() {
        let words = |text: &str| DockerHost::parse(text, false).unwrap().command().join(" ");
        assert_eq!(words("ssh://far"), "ssh -- far docker system dial-stdio");
        assert_eq!(
            words("ssh://me@far:22/run/d.sock"),
            "ssh -l me -p 22 -- far docker --host=unix:///run/d.sock system dial-stdio"
        );
    }
}
