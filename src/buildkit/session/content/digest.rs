//! Names of blobs: an algorithm and a number in hexadecimal.
//!
//! Invariant: what parses is a name without separators, fit to be a path's last part.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use super::store::StoreError;

/// `sha256:…` or `sha512:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    pub fn context(self) -> digest::Context {
        digest::Context::new(match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        })
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Digest {
    pub(super) fn of(algorithm: Algorithm, context: &digest::Context) -> Self {
        Self { algorithm, hex: hex::encode(context.clone().finish()) }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::Digest(text.chars().take(200).collect());
        let (name, hex) = text.split_once(':').ok_or_else(bad)?;
        let algorithm = Algorithm::ALL.into_iter().find(|known| known.name() == name).ok_or_else(bad)?;
        let fits =
            hex.len() == algorithm.digits() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(Self { algorithm, hex: hex.to_owned() }) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_digests_are_names() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../../etc/passwd",
            &good.to_uppercase(),
            &format!("{good}0"),
            &good.replace("sha256", "md5"),
            &good.replace("sha256", "sha512"),
            &format!("{good}/x"),
            &good.replacen("0a", "..", 1),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
