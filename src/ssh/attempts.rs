//! One connection's attempts to log in: which keys were offered in vain, and what the client is told of it.
//!
//! Pure: knows no socket and no store.

use std::fmt::Write;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::certificate::Unfit;
use crate::model::Fingerprint;

/// Shorter than an OpenSSH client's log line, which would be cut.
const MAX_TEXT_BYTES: usize = 950;
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// Why an offered key does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Useless {
    Unknown,
    /// Bits of the modulus.
    RsaSize(u32),
    /// The key may be good; its signature would not be.
    Sha1,
    Kind,
    /// The operator has revoked it.
    Revoked,
    /// A certificate that opens nothing.
    Certificate(Unfit),
    /// The store, or a file of trust, did not answer.
    LookupFailed,
}

impl Useless {
    /// One word for the audit log.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown-key",
            Self::RsaSize(_) => "rsa-size",
            Self::Sha1 => "sha1-signature",
            Self::Kind => "key-kind",
            Self::Revoked => "revoked-key",
            Self::Certificate(_) => "certificate",
            Self::LookupFailed => "lookup-failed",
        }
    }
}

/// Whether a key of this kind is looked up at all.
pub(super) fn acceptable(key: &PublicKey, algorithm: &Algorithm) -> Result<(), Useless> {
    match algorithm {
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        Algorithm::Rsa { hash: Some(HashAlg::Sha256 | HashAlg::Sha512) } => match key.key_data().rsa() {
            Some(rsa) if RSA_BITS.contains(&rsa.key_size()) => Ok(()),
            Some(rsa) => Err(Useless::RsaSize(rsa.key_size())),
            None => Err(Useless::Kind),
        },
        Algorithm::Rsa { .. } => Err(Useless::Sha1),
        _ => Err(Useless::Kind),
    }
}

/// lemnos' own name of a key.
pub(super) fn fingerprint(key: &PublicKey) -> Option<Fingerprint> {
    key.fingerprint(HashAlg::Sha256).to_string().parse().ok()
}

/// What a connection has tried so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    ssh_user: String,
    refused: Vec<(Fingerprint, String, Useless)>,
    /// Never set back, so that changing the user name gains no attempts.
    refusals: usize,
    told: bool,
}

impl Attempts {
    /// Every request names a user. The name itself means nothing here, but what was gathered under one name says
    /// nothing under another.
    pub(super) fn by(&mut self, ssh_user: &str) {
        if self.ssh_user != ssh_user {
            ssh_user.clone_into(&mut self.ssh_user);
            self.refused.clear();
            self.told = false;
        }
    }

    pub(super) fn ssh_user(&self) -> &str {
        self.ssh_user.get(..64).unwrap_or(&self.ssh_user)
    }

    pub(super) fn refusals(&self) -> usize {
        self.refusals
    }

    /// Counts a key that was offered in vain.
    pub(super) fn refuse(&mut self, key: Option<Fingerprint>, algorithm: &Algorithm, why: Useless) {
        self.refusals += 1;
        if let Some(key) = key
            && !self.refused.iter().any(|(known, _, other)| *known == key && *other == why)
        {
            self.refused.push((key, algorithm.to_string(), why));
        }
    }

    /// Whether the client may still be told why; true once.
    pub(super) fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether no key or certificate has come this far.
    pub(super) fn none_seen(&self) -> bool {
        self.refused.is_empty()
    }

    /// What the client is told when its keys are used up. `hint` says how to register one. Where certificates are taken,
    /// one that is out of its time, or badly signed, may have been turned away without a look at whose it is.
    pub(super) fn text(&self, max_tries: usize, certificates: bool, hint: &str) -> String {
        let mut text = String::new();
        if self.none_seen() && certificates {
            text.push_str(
                "lemnos: log in with an SSH key or certificate; none was offered that is in its time\n",
            );
        } else if self.none_seen() {
            text.push_str("lemnos: log in with an SSH key; none was offered\n");
        } else {
            text.push_str("lemnos: none of these keys opens this server:\n");
        }
        let reserved = hint.len().min(500) + if certificates { 330 } else { 200 };
        for (i, (key, algorithm, why)) in self.refused.iter().enumerate() {
            let line = match why {
                Useless::Unknown => format!("  {key} ({algorithm})\n"),
                Useless::RsaSize(bits) => {
                    format!(
                        "  {key} (RSA of {bits} bits: {} to {} are taken)\n",
                        RSA_BITS.start(),
                        RSA_BITS.end()
                    )
                }
                Useless::Sha1 => format!("  {key} (the client signs with SHA-1: rsa-sha2-256 is needed)\n"),
                Useless::Kind => format!("  {key} ({algorithm} keys are not taken)\n"),
                Useless::Revoked => format!("  {key} (revoked)\n"),
                Useless::Certificate(unfit) => format!("  {key} (the certificate is not taken: {unfit})\n"),
                Useless::LookupFailed => format!("  {key} (could not be looked up, try again later)\n"),
            };
            if text.len() + line.len() + reserved > MAX_TEXT_BYTES {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "  and {} more", self.refused.len() - i);
                break;
            }
            text.push_str(&line);
        }
        if self.refusals >= max_tries {
            let _ = writeln!(
                text,
                "Only {max_tries} keys are tried: name the right one with ssh -o IdentitiesOnly=yes -i FILE"
            );
        }
        if certificates {
            text.push_str(
                "A certificate of yours that is not named as one has expired or is not valid yet: see ssh-keygen -L -f KEY-cert.pub\n",
            );
        }
        text.extend(hint.chars().filter(|c| !c.is_control() || *c == '\n').take(500));
        while text.ends_with('\n') {
            text.pop();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDMxq2zR1rhV0DXQ9sS0p3KmPXaNPHl4wG4vyiTvWtWQsEV4CWUEPHnJgXGrT0fCZnWQhI0cZ5DPWsS0IO6+8mAtUSO0vDRw5q5cJfJqIIuN8C4LzvEcR4dJKk+gfjyFZkMJj3gfm8QKHZsCq0pM0sN6W5TTEZWT7XEFZTY5M3U9Q==";

    fn key(n: u8) -> Fingerprint {
        format!("SHA256:{}", char::from(b'A' + n).to_string().repeat(43)).parse().unwrap()
    }

    #[test]
    fn weak_and_foreign_keys_are_not_looked_up() {
        let rsa = PublicKey::from_openssh(RSA_1024).unwrap();
        let sha2 = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
        assert_eq!(acceptable(&rsa, &sha2), Err(Useless::RsaSize(1024)));
        assert_eq!(acceptable(&rsa, &Algorithm::Rsa { hash: None }), Err(Useless::Sha1));
        assert_eq!(acceptable(&rsa, &Algorithm::Dsa), Err(Useless::Kind));
        assert_eq!(acceptable(&rsa, &Algorithm::SkEd25519), Ok(()));
    }

    #[test]
    fn the_text_names_each_key_once_and_stays_short() {
        let mut attempts = Attempts::default();
        attempts.by("git");
        attempts.refuse(Some(key(0)), &Algorithm::Ed25519, Useless::Unknown);
        attempts.refuse(Some(key(0)), &Algorithm::Ed25519, Useless::Unknown);
        attempts.refuse(Some(key(1)), &Algorithm::Rsa { hash: None }, Useless::Sha1);
        insta::assert_snapshot!(attempts.text(6, false, "Ask the administrator:\n  lemnos keys add YOU id.pub\n"), @"
        lemnos: none of these keys opens this server:
          SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA (ssh-ed25519)
          SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB (the client signs with SHA-1: rsa-sha2-256 is needed)
        Ask the administrator:
          lemnos keys add YOU id.pub
        ");
        for n in 2..26 {
            attempts.refuse(Some(key(n)), &Algorithm::Ed25519, Useless::Unknown);
        }
        let text = attempts.text(6, false, &"h".repeat(2000));
        assert!(text.len() <= MAX_TEXT_BYTES + 50, "{}", text.len());
        assert!(text.contains("more\n") && text.contains("Only 6 keys are tried"), "{text}");
        let text = attempts.text(6, true, &"h".repeat(2000));
        assert!(text.len() <= MAX_TEXT_BYTES + 50 && text.contains("has expired"), "{}: {text}", text.len());
    }

    #[test]
    fn where_certificates_are_taken_one_that_was_turned_away_unseen_is_thought_of() {
        let mut attempts = Attempts::default();
        attempts.by("git");
        assert_eq!(attempts.text(6, false, ""), "lemnos: log in with an SSH key; none was offered");
        insta::assert_snapshot!(attempts.text(6, true, ""), @"
        lemnos: log in with an SSH key or certificate; none was offered that is in its time
        A certificate of yours that is not named as one has expired or is not valid yet: see ssh-keygen -L -f KEY-cert.pub
        ");
    }

    #[test]
    fn another_user_name_begins_anew_but_gains_no_attempts() {
        let mut attempts = Attempts::default();
        attempts.by("git");
        attempts.refuse(Some(key(0)), &Algorithm::Ed25519, Useless::Unknown);
        assert!(attempts.tell() && !attempts.tell());
        attempts.by("root");
        assert!(!attempts.text(6, false, "").contains(key(0).as_str()));
        assert!(attempts.tell());
        assert_eq!(attempts.refusals(), 1);
    }
}
