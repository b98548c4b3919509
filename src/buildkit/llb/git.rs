//! A git repository as a source.
//!
//! The identifier holds host, path, ref and directory, so that one repository over https and ssh is one; how to reach it
//! is an attribute. Host keys are never fetched here: give them, or the daemon takes what it is offered. Source:
//! client/llb/source.go, util/gitutil/git_url.go.

use std::sync::LazyLock;

use regex::Regex;

use super::source::{Attrs, insert};
use super::url::{Url, query_is_readable};
use super::{Constraints, LlbError, State, cap, path, source};

/// The secrets that the daemon asks for unless others are named.
const AUTH_HEADER_SECRET: &str = "GIT_AUTH_HEADER";
const AUTH_TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";

#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Git {
    url: String,
    reference: String,
    subdir: String,
    keep_git_dir: bool,
    auth_token_secret: String,
    auth_header_secret: String,
    says_auth: bool,
    known_ssh_hosts: String,
    ssh_socket: String,
    checksum: String,
    skip_submodules: bool,
    mtime: String,
    fetch_by_commit: bool,
    bundle: String,
    bundle_session: String,
    bundle_store: String,
    checkout_bundle: bool,
    constraints: Constraints,
}

impl Git {
    /// `https://host/path`, `ssh://…`, `git://…`, `user@host:path`; without a scheme https is meant.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth_token_secret: AUTH_TOKEN_SECRET.into(),
            auth_header_secret: AUTH_HEADER_SECRET.into(),
            ..Self::default()
        }
    }

    /// `ref` or `ref:directory`, as after the `#` of a build context.
    pub fn fragment(mut self, fragment: &str) -> Self {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() {
            self.reference = reference.into();
        }
        let subdir = path::join(&["/", subdir]);
        if subdir != "/" {
            self.subdir = subdir.trim_start_matches('/').into();
        }
        self
    }

    /// A branch, a tag, a full ref or a commit.
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    pub fn subdir(mut self, subdir: impl Into<String>) -> Self {
        self.subdir = subdir.into();
        self
    }

    pub fn keep_git_dir(mut self) -> Self {
        self.keep_git_dir = true;
        self
    }

    /// The secret that holds a token; empty for none.
    pub fn auth_token_secret(mut self, secret: impl Into<String>) -> Self {
        (self.auth_token_secret, self.says_auth) = (secret.into(), true);
        self
    }

    /// The secret that holds an Authorization header; empty for none.
    pub fn auth_header_secret(mut self, secret: impl Into<String>) -> Self {
        (self.auth_header_secret, self.says_auth) = (secret.into(), true);
        self
    }

    /// A line of a known_hosts file. Lines add up.
    pub fn known_ssh_hosts(mut self, line: &str) -> Self {
        self.known_ssh_hosts.push_str(line.strip_suffix('\n').unwrap_or(line));
        self.known_ssh_hosts.push('\n');
        self
    }

    /// The id of the SSH agent to use, for ssh; `default` unless given.
    pub fn ssh_socket(mut self, id: impl Into<String>) -> Self {
        self.ssh_socket = id.into();
        self
    }

    /// The commit, or the beginning of it, that the ref must be.
    pub fn checksum(mut self, commit: impl Into<String>) -> Self {
        self.checksum = commit.into();
        self
    }

    pub fn skip_submodules(mut self) -> Self {
        self.skip_submodules = true;
        self
    }

    /// `checkout` or `commit`: whose time files have.
    pub fn mtime(mut self, policy: impl Into<String>) -> Self {
        self.mtime = policy.into();
        self
    }

    /// The checksum is fetched without asking what the ref is now.
    pub fn fetch_by_commit(mut self) -> Self {
        self.fetch_by_commit = true;
        self
    }

    /// History from a bundle: `docker-image+blob://name@digest` or `oci-layout+blob://name@digest`. Needs a checksum.
    pub fn bundle(mut self, locator: impl Into<String>) -> Self {
        self.bundle = locator.into();
        self
    }

    /// The session and store of a bundle in an OCI layout.
    pub fn bundle_store(mut self, session_id: impl Into<String>, store_id: impl Into<String>) -> Self {
        (self.bundle_session, self.bundle_store) = (session_id.into(), store_id.into());
        self
    }

    /// The result is one file, `bundle`, in place of a worktree.
    pub fn checkout_bundle(mut self) -> Self {
        self.checkout_bundle = true;
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(mut self) -> State {
        let mut remote = Remote::parse(&self.url);
        if matches!(remote, Err(Unreadable::NoProtocol)) {
            self.url = format!("https://{}", self.url);
            remote = Remote::parse(&self.url);
        }
        let (id, ssh, mistake) = match &remote {
            Ok(remote) => {
                self.url.clone_from(&remote.remote);
                match (self.identifier(remote), remote.ssh) {
                    (Some(id), ssh) => (id, ssh, None),
                    (None, ssh) => (String::new(), ssh, Some("its host or path is not UTF-8".to_owned())),
                }
            }
            // the daemon says what is wrong with it, as with Go's client
            Err(_) => (self.url.clone(), false, None),
        };
        let mistake = mistake.map(|reason| LlbError::Git { url: self.url.clone(), reason });
        let (attrs, constraints) = self.attributes(ssh);
        source::state(format!("git://{id}"), attrs, constraints, mistake)
    }

    fn identifier(&self, remote: &Remote) -> Option<String> {
        let host = std::str::from_utf8(&remote.host).ok()?;
        let path = std::str::from_utf8(&remote.path).ok()?;
        let mut id = format!("{host}{}", path::join(&["/", path]));
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            id.push('#');
            id.push_str(&self.reference);
        }
        if !self.subdir.is_empty() {
            id.push(':');
            id.push_str(&self.subdir);
        }
        Some(id)
    }

    fn attributes(self, ssh: bool) -> (Attrs, Constraints) {
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
        for (key, value, needed) in [
            ("git.keepgitdir", flag(self.keep_git_dir), cap::SOURCE_GIT_KEEP_DIR),
            ("git.fullurl", self.url, cap::SOURCE_GIT_FULL_URL),
            ("git.checksum", self.checksum, cap::SOURCE_GIT_CHECKSUM),
            ("git.skipsubmodules", flag(self.skip_submodules), cap::SOURCE_GIT_SKIP_SUBMODULES),
            ("git.mtime", self.mtime, cap::SOURCE_GIT_MTIME),
            ("git.fetchbycommit", flag(self.fetch_by_commit), cap::SOURCE_GIT_FETCH_BY_COMMIT),
            ("git.bundle", self.bundle, cap::SOURCE_GIT_BUNDLE),
            ("git.checkoutbundle", flag(self.checkout_bundle), cap::SOURCE_GIT_CHECKOUT_BUNDLE),
        ] {
            if insert(&mut attrs, key, value) {
                constraints.needs(needed);
            }
        }
        let token = insert(&mut attrs, "git.authtokensecret", self.auth_token_secret);
        let header = insert(&mut attrs, "git.authheadersecret", self.auth_header_secret);
        if self.says_auth && (token || header) {
            constraints.needs(cap::SOURCE_GIT_HTTP_AUTH);
        }
        insert(&mut attrs, "oci.session", self.bundle_session);
        insert(&mut attrs, "oci.store", self.bundle_store);
        if ssh {
            insert(&mut attrs, "git.knownsshhosts", self.known_ssh_hosts);
            constraints.needs(cap::SOURCE_GIT_KNOWN_SSH_HOSTS);
            let socket = if self.ssh_socket.is_empty() { "default".into() } else { self.ssh_socket };
            insert(&mut attrs, "git.mountsshsock", socket);
            constraints.needs(cap::SOURCE_GIT_MOUNT_SSH_SOCK);
        }
        constraints.needs(cap::SOURCE_GIT);
        (attrs, constraints)
    }
}

/// Where a repository is.
struct Remote {
    ssh: bool,
    host: Vec<u8>,
    path: Vec<u8>,
    /// For git itself: without query and fragment.
    remote: String,
}

enum Unreadable {
    NoProtocol,
    Bad,
}

static PROTOCOL: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([a-zA-Z0-9]+)://").expect("written here"));
static SCP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([a-zA-Z0-9\-_]+)@([a-zA-Z0-9\-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?$").expect("written here")
});

impl Remote {
    fn parse(text: &str) -> Result<Self, Unreadable> {
        if let Some(scheme) = PROTOCOL.captures(text).and_then(|found| found.get(1)) {
            let scheme = scheme.as_str().to_lowercase();
            if !["http", "https", "ssh", "git"].contains(&scheme.as_str()) {
                return Err(Unreadable::Bad);
            }
            let url = Url::parse(&scheme, text).map_err(|_| Unreadable::Bad)?;
            let remote = url.remote();
            return Ok(Self { ssh: scheme == "ssh", host: url.host, path: url.path, remote });
        }
        let parts = SCP.captures(text).ok_or(Unreadable::NoProtocol)?;
        let part = |at| parts.get(at).map_or("", |found| found.as_str());
        if !query_is_readable(part(4)) {
            return Err(Unreadable::NoProtocol);
        }
        let (user, host, path) = (part(1), part(2), part(3));
        let remote = format!("{user}@{host}:{path}");
        Ok(Self { ssh: true, host: host.into(), path: path.into(), remote })
    }
}
