//! An app's secrets: names, what each is used as, and values that nothing prints.
//!
//! Which steps of a build may have one is said by its Dockerfile (`RUN --mount=type=secret,id=NAME`); that it never stands in
//! a plan, a log or an image is held by who handles it: `store` seals it, `event::Masker` takes it out of what a build says.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{AppName, Invalid, text_newtype};

/// The most names that one app may have.
pub const SECRETS_MAX: usize = 64;

/// A secret's name: the `id` of the mount that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);
text_newtype!(SecretName);

impl FromStr for SecretName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        // one that begins with '-' would be an option wherever it is typed
        let ok = (1..=128).contains(&text.len()) && text.bytes().all(word) && !text.starts_with('-');
        if !ok {
            let rule = "use 1 to 128 letters, digits, '_', '-' and '.', not beginning with '-'";
            return Err(Invalid::new("secret's name", text, rule));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How steps come by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretUse {
    /// `RUN --mount=type=secret`: its bytes, as a file or a variable of one step.
    #[default]
    Secret,
    /// `RUN --mount=type=ssh`: a private key that signs for one step and is never in it.
    Ssh,
}

impl SecretUse {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl FromStr for SecretUse {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "secret" => Ok(Self::Secret),
            "ssh" => Ok(Self::Ssh),
            _ => Err(Invalid::new("use of a secret", text, "use secret or ssh")),
        }
    }
}

/// The bytes. They are written where a message carries them to the server, and nowhere else: `Debug` hides them, and there is
/// no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves, for whoever seals them, serves them to a step or looks for them in its output.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl Serialize for SecretValue {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // the text itself is the secret: it stands in no error
        STANDARD.decode(text).map(Self).map_err(|_| serde::de::Error::custom("a secret that is not base64"))
    }
}

/// A secret as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSecret {
    pub app: AppName,
    pub name: SecretName,
    #[serde(rename = "use")]
    pub used_as: SecretUse,
    /// Unix milliseconds.
    pub added_at_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_no_shell_and_no_mount_reads_as_something_else() {
        for good in ["npm_token", "a", "A.b-c_1", ".npmrc"] {
            assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
        }
        for bad in ["", "-f", "a b", "a,b", "a=b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_travels_whole_and_is_never_shown() {
        let value = SecretValue::new(b"canary\xff\0\n".to_vec());
        assert_eq!(format!("{value:?}"), "SecretValue(…)");
        let json = serde_json::to_string(&value).unwrap();
        assert!(!json.contains("canary"));
        assert_eq!(serde_json::from_str::<SecretValue>(&json).unwrap(), value);
        let error = serde_json::from_str::<SecretValue>("\"canary!\"").unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
