//! Certificates: an authority's word that a key is a user's, judged by rules and a time that are handed in.
//!
//! russh has verified two signatures when one gets here: the client's, by the certified key, and the authority's over the
//! certificate. Whether that authority is trusted, and everything the certificate says, is judged here, and again at each
//! request of the connection. Must not read files or the store.

use std::net::IpAddr;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

use super::attempts;
use super::command::{self, Command};
use crate::model::Fingerprint;

/// Names in one certificate; each costs a look-up.
const MAX_PRINCIPALS: usize = 64;
const MAX_ADDRESSES: usize = 64;
/// Of a key id in logs.
const MAX_ID_CHARS: usize = 120;

/// What a certificate says, as far as it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The key that signs.
    pub key: Fingerprint,
    /// The authority's key.
    pub authority: Fingerprint,
    pub key_id: String,
    pub serial: u64,
    pub principals: Vec<String>,
    /// Unix seconds: valid from the first one, and no more at the second.
    valid: (u64, u64),
    addresses: Option<Vec<Network>>,
    /// The one command that it allows.
    command: Option<Command>,
}

/// Why a certificate opens nothing. The text is for the one who has it: what their own certificate says, and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("its authority is not trusted here")]
    Authority,
    #[error("it is a host's certificate, not a user's")]
    Host,
    #[error("its authority signed it with SHA-1 or with a weak key")]
    Weak,
    #[error("it is not valid yet, or has expired")]
    Expired,
    #[error("it is revoked")]
    Revoked,
    #[error("it names no principals: a certificate for everybody is not taken")]
    NoPrincipals,
    #[error("it names too many principals")]
    TooManyPrincipals,
    #[error("none of its principals is a user here")]
    Nobody,
    #[error("its principals are several users: say which one with ssh USER@…")]
    Ambiguous,
    #[error("it is not valid from this address")]
    Address,
    #[error("its critical option {0} is not known here")]
    Option(String),
    #[error("its critical option {0} cannot be understood")]
    Malformed(&'static str),
}

impl Certified {
    /// Reads what does not change with time and place.
    pub(super) fn read(certificate: &Certificate) -> Result<Self, Unfit> {
        if certificate.cert_type() != CertType::User {
            return Err(Unfit::Host);
        }
        if !strong(certificate) {
            return Err(Unfit::Weak);
        }
        let principals = certificate.valid_principals();
        match principals.len() {
            0 => return Err(Unfit::NoPrincipals),
            1..=MAX_PRINCIPALS => {}
            _ => return Err(Unfit::TooManyPrincipals),
        }
        let (mut addresses, mut command) = (None, None);
        for (name, value) in certificate.critical_options().iter() {
            match name.as_str() {
                "source-address" => {
                    addresses = Some(networks(value).ok_or(Unfit::Malformed("source-address"))?);
                }
                "force-command" => {
                    let forced = command::parse(value.as_bytes());
                    command = Some(forced.map_err(|_| Unfit::Malformed("force-command"))?);
                }
                other => return Err(Unfit::Option(printable(other))),
            }
        }
        Ok(Self {
            key: fingerprint(certificate.public_key())?,
            authority: fingerprint(certificate.signature_key())?,
            key_id: printable(certificate.key_id()),
            serial: certificate.serial(),
            principals: principals.to_vec(),
            valid: (certificate.valid_after(), certificate.valid_before()),
            addresses,
            command,
        })
    }

    /// Whether it counts at this moment, from this address.
    pub(super) fn judge(&self, trust: &Trust, now_s: u64, peer: IpAddr) -> Result<(), Unfit> {
        if !trust.authorities.contains(&self.authority) {
            return Err(Unfit::Authority);
        }
        let (from, until) = self.valid;
        if now_s < from || now_s >= until {
            return Err(Unfit::Expired);
        }
        if trust.revokes(self) {
            return Err(Unfit::Revoked);
        }
        let peer = peer.to_canonical();
        match &self.addresses {
            Some(networks) if !networks.iter().any(|network| network.contains(peer)) => Err(Unfit::Address),
            _ => Ok(()),
        }
    }

    /// It, for the record.
    pub(super) fn about(&self) -> String {
        let Self { key_id, serial, authority, .. } = self;
        format!("certificate {key_id:?}, serial {serial}, of {authority}")
    }

    /// Whether it allows this command.
    pub(super) fn allows(&self, command: &Command) -> bool {
        self.command.as_ref().is_none_or(|only| only == command)
    }
}

fn fingerprint(key: &KeyData) -> Result<Fingerprint, Unfit> {
    key.fingerprint(HashAlg::Sha256).to_string().parse().map_err(|_| Unfit::Weak)
}

/// Whether the authority's key and signature are of a kind that is taken from users as well.
fn strong(certificate: &Certificate) -> bool {
    let algorithm = certificate.signature().algorithm();
    let authority = PublicKey::new(certificate.signature_key().clone(), "");
    let same_kind = match (&algorithm, authority.algorithm()) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (signed, key) => *signed == key,
    };
    same_kind && attempts::acceptable(&authority, &algorithm).is_ok()
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_ID_CHARS).collect()
}

/// An address block, as in 192.0.2.0/24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    fn contains(self, other: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let shift = width.saturating_sub(self.bits);
            // all bits shifted away: everything is the same
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// At least one block; none when any of them cannot be understood.
fn networks(list: &str) -> Option<Vec<Network>> {
    let blocks: Option<Vec<Network>> =
        list.split(',').take(MAX_ADDRESSES + 1).map(|text| Network::parse(text.trim())).collect();
    blocks.filter(|blocks| blocks.len() <= MAX_ADDRESSES)
}

/// The clock that certificates are judged by.
pub(super) fn now_s() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // a clock before 1970 makes every certificate one that is not valid yet
    since_epoch.map_or(0, |since| since.as_secs())
}

/// Whose certificates count, and what counts no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) authorities: Vec<Fingerprint>,
    pub(super) revoked: Vec<Revoked>,
}

/// A line of the revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Revoked {
    /// Of one authority, or of any.
    Serial(u64, Option<Fingerprint>),
    KeyId(String),
    /// A user's key, a certified key, or an authority.
    Key(Fingerprint),
}

impl Trust {
    fn revokes(&self, certificate: &Certified) -> bool {
        self.revoked.iter().any(|revoked| match revoked {
            Revoked::Serial(serial, authority) => {
                *serial == certificate.serial
                    && authority.as_ref().is_none_or(|authority| *authority == certificate.authority)
            }
            Revoked::KeyId(id) => *id == certificate.key_id,
            Revoked::Key(key) => *key == certificate.key || *key == certificate.authority,
        })
    }

    /// Whether a key is revoked, certified or not.
    pub(super) fn revokes_key(&self, key: &Fingerprint) -> bool {
        self.revoked.iter().any(|revoked| matches!(revoked, Revoked::Key(other) if other == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_blocks() {
        let contains = |list: &str, address: &str| {
            let networks = networks(list).unwrap();
            networks.iter().any(|network| network.contains(address.parse().unwrap()))
        };
        for (list, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("10.0.0.0/8, 2001:db8::/32", "2001:db8:ffff::1", true),
            ("10.0.0.0/8,2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
        ] {
            assert_eq!(contains(list, address), expected, "{list} {address}");
        }
        for list in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "!10.0.0.0/8", "10.0.0.1,", "host"] {
            assert_eq!(networks(list), None, "{list}");
        }
        assert_eq!(networks(&["10.0.0.1"; MAX_ADDRESSES + 1].join(",")), None);
    }
}
