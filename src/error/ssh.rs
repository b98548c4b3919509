//! `ssh` errors as people see them.

use std::io::ErrorKind;

use super::{Kind, Report};
use crate::ssh::Error;

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Listen { address, source } => match source.kind() {
                ErrorKind::AddrInUse => Report::new(Kind::Conflict, message).hint(format!(
                    "stop what listens on port {}, or choose another with --ssh ADDR:PORT",
                    address.port()
                )),
                ErrorKind::PermissionDenied => Report::new(Kind::Forbidden, message)
                    .hint("ports below 1024 need a privilege: choose a higher one with --ssh ADDR:PORT"),
                ErrorKind::AddrNotAvailable => {
                    Report::user(message).hint("name an address of this machine with --ssh ADDR:PORT")
                }
                _ => Report::internal(message),
            },
            Error::HostKeyFile { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Report::new(Kind::Forbidden, message)
                    .hint("the server must own its --data directory and the keys in it")
            }
            Error::HostKeyFile { .. } => Report::internal(message),
            Error::HostKeyExposed { ref path, .. } => {
                Report::new(Kind::Forbidden, message).hint(format!("chmod 600 {}", path.display()))
            }
            Error::HostKeyDirectoryExposed { ref path, .. } => {
                Report::new(Kind::Forbidden, message).hint(format!("chmod 700 {}", path.display()))
            }
            Error::HostKey { ref path, .. } => Report::user(message).hint(format!(
                "put back the OpenSSH private key that was there, or remove {} to have a new one made: clients will then see a changed host key",
                path.display()
            )),
            Error::Trust { .. } => Report::user(message).hint(
                "correct the file, or take ssh_user_ca_keys or ssh_revoked_keys out of the configuration: without it nobody could be told from those who were revoked",
            ),
            Error::Protocol(_) | Error::TooManyAttempts => Report::internal(message),
        }
    }
}
