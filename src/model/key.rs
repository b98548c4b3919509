//! SSH public keys as lemnos knows them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Deploy, Invalid, UserName, text_newtype};

/// An OpenSSH SHA-256 key fingerprint: `SHA256:` and 43 characters of unpadded base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);
text_newtype!(Fingerprint);

impl FromStr for Fingerprint {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        match text.strip_prefix("SHA256:") {
            Some(rest) if rest.len() == 43 && rest.bytes().all(base64) => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new(
                "key fingerprint",
                text,
                "SHA256: and 43 base64 characters, as `ssh-keygen -lf FILE` prints it",
            )),
        }
    }
}

/// A registered key: who authenticates with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKey {
    pub fingerprint: Fingerprint,
    /// For a deploy key, `deploy:APP`.
    pub user: UserName,
    /// What it opens, when it is a deploy key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// The OpenSSH line without comment: `ssh-ed25519 AAAA…`.
    pub public_key: String,
    pub comment: String,
    /// Unix milliseconds.
    pub added_at_ms: i64,
}
