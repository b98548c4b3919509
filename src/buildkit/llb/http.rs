//! A file fetched over HTTP, as a source. Source: client/llb/source.go.

use super::source::{Attrs, FileInfo, id, insert, state};
use super::{Constraints, State, cap};

/// A file fetched over HTTP.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Http {
    url: String,
    checksum: String,
    file: FileInfo,
    auth_header_secret: String,
    headers: Option<(String, String)>,
    signature: Option<(String, String)>,
    constraints: Constraints,
}

impl Http {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The digest that the content must have.
    pub fn checksum(mut self, digest: impl Into<String>) -> Self {
        self.checksum = digest.into();
        self
    }

    pub fn filename(mut self, name: impl Into<String>) -> Self {
        self.file.name = name.into();
        self
    }

    pub fn chmod(mut self, mode: u32) -> Self {
        self.file.mode = mode & 0o777;
        self
    }

    pub fn chown(mut self, uid: i64, gid: i64) -> Self {
        (self.file.uid, self.file.gid) = (uid, gid);
        self
    }

    /// The secret whose value is sent as the Authorization header.
    pub fn auth_header_secret(mut self, secret: impl Into<String>) -> Self {
        self.auth_header_secret = secret.into();
        self
    }

    /// The Accept and User-Agent headers; an empty one is left as it is.
    pub fn headers(mut self, accept: impl Into<String>, user_agent: impl Into<String>) -> Self {
        self.headers = Some((accept.into(), user_agent.into()));
        self
    }

    /// A detached OpenPGP signature that the content must have, and the key, both armoured.
    pub fn verify_signature(mut self, key: impl Into<String>, signature: impl Into<String>) -> Self {
        self.signature = Some((key.into(), signature.into()));
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    pub fn state(self) -> State {
        let (mut attrs, mut constraints) = (Attrs::new(), self.constraints);
        let mode = self.file.mode();
        if insert(&mut attrs, "http.checksum", self.checksum) {
            constraints.needs(cap::SOURCE_HTTP_CHECKSUM);
        }
        insert(&mut attrs, "http.filename", self.file.name);
        if insert(&mut attrs, "http.perm", mode) {
            constraints.needs(cap::SOURCE_HTTP_PERM);
        }
        let uid = insert(&mut attrs, "http.uid", id(self.file.uid));
        let gid = insert(&mut attrs, "http.gid", id(self.file.gid));
        if uid || gid {
            constraints.needs(cap::SOURCE_HTTP_UID_GID);
        }
        if insert(&mut attrs, "http.authheadersecret", self.auth_header_secret) {
            constraints.needs(cap::SOURCE_HTTP_AUTH);
        }
        if let Some((accept, user_agent)) = self.headers {
            insert(&mut attrs, "http.header.accept", accept);
            insert(&mut attrs, "http.header.user-agent", user_agent);
            constraints.needs(cap::SOURCE_HTTP_HEADER);
        }
        if let Some((key, signature)) = self.signature {
            insert(&mut attrs, "http.sig.pubkey", key);
            insert(&mut attrs, "http.sig.signature", signature);
            constraints.needs(cap::SOURCE_HTTP_SIGNATURE_VERIFY);
        }
        constraints.needs(cap::SOURCE_HTTP);
        state(self.url, attrs, constraints, None)
    }
}
