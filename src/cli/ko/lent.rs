//! What Go is lent to fetch private modules with: a netrc file and SSH keys, by buildx's flags.
//!
//! Nothing is lent that no flag names: the builder may be somebody else's machine.

use super::args::KoFlags;
use crate::buildkit::flags::{self, Secret, Ssh};
use crate::buildkit::join::Flags;
use crate::config::Environment;
use crate::error::Report;

pub struct Lent {
    secrets: Vec<Secret>,
    ssh: Vec<Ssh>,
    /// Whether modules are told to be private, or there is a file that would let Go in.
    private: bool,
}

impl Lent {
    pub fn read(given: &KoFlags, environment: &Environment) -> Result<Self, Report> {
        let secrets = given.secret.iter().map(|text| flags::secret(text)).collect::<Result<Vec<_>, _>>();
        let ssh = given.ssh.iter().map(|text| flags::ssh(text)).collect::<Result<Vec<_>, _>>();
        let (secrets, ssh) = (secrets?, ssh?);
        let refuse = |flag: &str, id: &str, known: &str| {
            Err(Report::user(format!("{flag}: nothing asks for {id:?}"))
                .hint(format!("Go is lent the one that is called {known}")))
        };
        if let Some(other) = secrets.iter().find(|secret| secret.id != "netrc") {
            return refuse("--secret", &other.id, "netrc: id=netrc,src=$HOME/.netrc");
        }
        if let Some(other) = ssh.iter().find(|ssh| ssh.id != "default") {
            return refuse("--ssh", &other.id, "default");
        }
        let set = |name: &str| environment.get(name).is_some_and(|text| !text.is_empty());
        let file =
            environment.get("HOME").is_some_and(|home| std::path::Path::new(home).join(".netrc").exists());
        Ok(Self { secrets, ssh, private: file || set("GOPRIVATE") || set("GONOPROXY") })
    }

    pub fn netrc(&self) -> bool {
        !self.secrets.is_empty()
    }

    pub fn ssh(&self) -> bool {
        !self.ssh.is_empty()
    }

    pub fn flags(&self) -> Flags {
        Flags { secrets: self.secrets.clone(), ssh: self.ssh.clone(), ..Flags::default() }
    }

    /// ko's Go would have found by itself what the builder's does not have.
    pub fn hint(&self, report: Report) -> Report {
        match self.private && !self.netrc() && !self.ssh() {
            true => report
                .hint("private modules are fetched with --secret id=netrc,src=$HOME/.netrc or --ssh default"),
            false => report,
        }
    }
}
