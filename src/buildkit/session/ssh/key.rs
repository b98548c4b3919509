//! Private keys of files, and what they sign.
//!
//! Invariant: the secret part lives in the crypto library's own type, is never printed and never leaves. The library is
//! the one that TLS uses already: an SSH library would bring a second one, whose RSA is not in constant time.
//! Formats: OpenSSH PROTOCOL.key, RFC 5915, 5958, 8017; signatures: RFC 4253, 5656, 8332, 8709.

use std::fmt;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};

use super::pem::first_block;
use super::wire::{Reader, put_number, put_string, without_zeros};

/// Largest key file.
const FILE_LIMIT: u64 = 100 << 10;
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Why a private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key file cannot be read: {0}")]
    Unreadable(String),
    #[error("it is no private key in OpenSSH's, PKCS#8's or PEM's format")]
    Format,
    #[error("the key has a passphrase: add it to an agent with ssh-add, and forward that agent")]
    Encrypted,
    #[error("keys of the kind {0:?} are not supported: ed25519, ecdsa and rsa are")]
    Kind(String),
    #[error("the key is damaged, or too weak: {0}")]
    Rejected(String),
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A curve as SSH names it.
struct Curve {
    name: &'static str,
    algorithm: &'static EcdsaSigningAlgorithm,
    /// Bytes of a private key.
    length: usize,
}

static CURVES: [Curve; 3] = [
    Curve { name: "nistp256", algorithm: &signature::ECDSA_P256_SHA256_ASN1_SIGNING, length: 32 },
    Curve { name: "nistp384", algorithm: &signature::ECDSA_P384_SHA384_ASN1_SIGNING, length: 48 },
    Curve { name: "nistp521", algorithm: &signature::ECDSA_P521_SHA512_ASN1_SIGNING, length: 66 },
];

/// A key that signs.
pub struct PrivateKey {
    secret: Secret,
    public_blob: Vec<u8>,
    comment: String,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl PrivateKey {
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |cause: std::io::Error| KeyError::Unreadable(cause.to_string());
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(FILE_LIMIT).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (label, encrypted, data) = first_block(text).ok_or(KeyError::Format)?;
        if encrypted || label == "ENCRYPTED PRIVATE KEY" {
            return Err(KeyError::Encrypted);
        }
        match label {
            "OPENSSH PRIVATE KEY" => openssh(&data),
            "PRIVATE KEY" => pkcs8(&data),
            "RSA PRIVATE KEY" => {
                Ok(Self::new(Secret::Rsa(RsaKeyPair::from_der(&data).map_err(rejected)?), ""))
            }
            "EC PRIVATE KEY" => ecdsa_der(&data).ok_or(KeyError::Format),
            _ => Err(KeyError::Kind(label.to_owned())),
        }
    }

    fn new(secret: Secret, comment: &str) -> Self {
        let public_blob = public_blob(&secret);
        Self { secret, public_blob, comment: comment.to_owned() }
    }

    /// The public key as SSH writes it.
    pub fn public_blob(&self) -> &[u8] {
        &self.public_blob
    }

    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// A signature as SSH writes it; none where the flags ask for SHA-1, which is not to be relied on.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let mut signed = Vec::new();
        match &self.secret {
            Secret::Ed25519(key) => {
                put_string(&mut signed, b"ssh-ed25519");
                put_string(&mut signed, key.sign(data).as_ref());
            }
            Secret::Ecdsa(curve, key) => {
                let der = key.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = two_numbers(der.as_ref())?;
                let mut numbers = Vec::new();
                put_number(&mut numbers, r);
                put_number(&mut numbers, s);
                put_string(&mut signed, format!("ecdsa-sha2-{}", curve.name).as_bytes());
                put_string(&mut signed, &numbers);
            }
            Secret::Rsa(key) => {
                let (name, encoding): (_, &'static dyn RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &signature::RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &signature::RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut bytes = vec![0; key.public_modulus_len()];
                key.sign(encoding, &SystemRandom::new(), data, &mut bytes).ok()?;
                put_string(&mut signed, name.as_bytes());
                put_string(&mut signed, &bytes);
            }
        }
        Some(signed)
    }
}

fn rejected(cause: aws_lc_rs::error::KeyRejected) -> KeyError {
    KeyError::Rejected(cause.to_string())
}

fn public_blob(secret: &Secret) -> Vec<u8> {
    let mut blob = Vec::new();
    match secret {
        Secret::Ed25519(key) => {
            put_string(&mut blob, b"ssh-ed25519");
            put_string(&mut blob, key.public_key().as_ref());
        }
        Secret::Ecdsa(curve, key) => {
            put_string(&mut blob, format!("ecdsa-sha2-{}", curve.name).as_bytes());
            put_string(&mut blob, curve.name.as_bytes());
            put_string(&mut blob, key.public_key().as_ref());
        }
        Secret::Rsa(key) => {
            let (modulus, exponent) = two_numbers(key.public_key().as_ref()).unwrap_or_default();
            put_string(&mut blob, b"ssh-rsa");
            put_number(&mut blob, exponent);
            put_number(&mut blob, modulus);
        }
    }
    blob
}

/// OpenSSH's own format, without a passphrase.
fn openssh(data: &[u8]) -> Result<PrivateKey, KeyError> {
    let data = data.strip_prefix(b"openssh-key-v1\0").ok_or(KeyError::Format)?;
    let mut outer = Reader(data);
    let cipher = outer.string().ok_or(KeyError::Format)?;
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    let mut private = Reader(private_part(&mut outer).ok_or(KeyError::Format)?);
    let (check, again) = (private.u32(), private.u32());
    if check.is_none() || check != again {
        return Err(KeyError::Format);
    }
    let kind = private.string().ok_or(KeyError::Format)?;
    let secret = match kind {
        b"ssh-ed25519" => ed25519(&mut private),
        b"ssh-rsa" => rsa(&mut private),
        kind => {
            match CURVES.iter().find(|curve| kind.strip_prefix(b"ecdsa-sha2-") == Some(curve.name.as_bytes()))
            {
                Some(curve) => ecdsa(curve, &mut private),
                None => Err(KeyError::Kind(String::from_utf8_lossy(kind).into_owned())),
            }
        }
    }?;
    let comment = private.string().map(String::from_utf8_lossy).unwrap_or_default();
    Ok(PrivateKey::new(secret, &comment))
}

/// The private half of the one key in a file, behind how it is encrypted and the public half.
fn private_part<'a>(outer: &mut Reader<'a>) -> Option<&'a [u8]> {
    let (_kdf, _options, count) = (outer.string()?, outer.string()?, outer.u32()?);
    let (_public, private) = (outer.string()?, outer.string()?);
    (count == 1).then_some(private)
}

fn ed25519(from: &mut Reader<'_>) -> Result<Secret, KeyError> {
    let (public, both) = (from.string(), from.string());
    let seed = both.and_then(|both| both.get(..32)).ok_or(KeyError::Format)?;
    let key = Ed25519KeyPair::from_seed_and_public_key(seed, public.unwrap_or_default()).map_err(rejected)?;
    Ok(Secret::Ed25519(key))
}

fn ecdsa(curve: &'static Curve, from: &mut Reader<'_>) -> Result<Secret, KeyError> {
    let parts = [from.string(), from.string(), from.string()];
    let [Some(_name), Some(public), Some(number)] = parts else { return Err(KeyError::Format) };
    let bare = without_zeros(number);
    let padding = curve.length.checked_sub(bare.len()).ok_or(KeyError::Format)?;
    let private = [vec![0; padding].as_slice(), bare].concat();
    let key = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &private, public);
    Ok(Secret::Ecdsa(curve, key.map_err(rejected)?))
}

fn rsa(from: &mut Reader<'_>) -> Result<Secret, KeyError> {
    let mut number = || from.string().map(without_zeros).ok_or(KeyError::Format);
    let (n, e, d, q_inv, p, q) = (number()?, number()?, number()?, number()?, number()?, number()?);
    let (d_p, d_q) = (remainder(d, &less_one(p)), remainder(d, &less_one(q)));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: q_inv,
    };
    Ok(Secret::Rsa(RsaKeyPair::from_components(&components).map_err(rejected)?))
}

/// One less than an odd number.
fn less_one(odd: &[u8]) -> Vec<u8> {
    let mut even = odd.to_vec();
    if let Some(last) = even.last_mut() {
        *last &= !1;
    }
    even
}

/// `number` modulo `modulus`, bit by bit: once for a key, so it need not be fast. A wrong result would be noticed, for
/// the library checks how the parts of a key fit.
fn remainder(number: &[u8], modulus: &[u8]) -> Vec<u8> {
    // one byte more than the modulus, so that doubling cannot overflow
    let modulus = [&[0], modulus].concat();
    let mut rest = vec![0_u8; modulus.len()];
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = byte >> bit & 1;
            for digit in rest.iter_mut().rev() {
                let doubled = u16::from(*digit) << 1 | u16::from(carry);
                let [high, low] = doubled.to_be_bytes();
                (*digit, carry) = (low, high);
            }
            if rest >= modulus {
                let mut borrow = false;
                for (digit, less) in rest.iter_mut().zip(&modulus).rev() {
                    let (once, under) = digit.overflowing_sub(*less);
                    let (twice, again) = once.overflowing_sub(u8::from(borrow));
                    (*digit, borrow) = (twice, under || again);
                }
            }
        }
    }
    rest
}

fn ecdsa_der(data: &[u8]) -> Option<PrivateKey> {
    CURVES.iter().find_map(|curve| {
        let key = EcdsaKeyPair::from_private_key_der(curve.algorithm, data).ok()?;
        Some(PrivateKey::new(Secret::Ecdsa(curve, key), ""))
    })
}

fn pkcs8(data: &[u8]) -> Result<PrivateKey, KeyError> {
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(data) {
        return Ok(PrivateKey::new(Secret::Ed25519(key), ""));
    }
    if let Some(key) = ecdsa_der(data) {
        return Ok(key);
    }
    RsaKeyPair::from_pkcs8(data).map(|key| PrivateKey::new(Secret::Rsa(key), "")).map_err(rejected)
}

/// A sequence of two integers in ASN.1's DER, as ECDSA's signatures and RSA's public keys are.
fn two_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut inner = Reader(der_value(&mut Reader(der), 0x30)?);
    Some((der_value(&mut inner, 0x02)?, der_value(&mut inner, 0x02)?))
}

fn der_value<'a>(from: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    let &[found, length] = from.take(2)? else { return None };
    let length = match length {
        short @ 0..0x80 => usize::from(short),
        long => {
            let bytes = from.take(usize::from(long & 0x7f)).filter(|bytes| bytes.len() <= 4)?;
            bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        }
    };
    from.take(length).filter(|_| found == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_right() {
        for (number, modulus) in [(1000_u64, 7_u64), (255, 256), (0, 5), (u64::MAX, 65_537), (12, 12)] {
            let rest = remainder(&number.to_be_bytes(), without_zeros(&modulus.to_be_bytes()));
            let rest = rest.iter().fold(0, |sum, digit| sum << 8 | u64::from(*digit));
            assert_eq!(rest, number % modulus, "{number} mod {modulus}");
        }
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        let block =
            |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (text, want) in [
            (String::new(), KeyError::Format),
            ("ssh-ed25519 AAAA".into(), KeyError::Format),
            (block("OPENSSH PRIVATE KEY", "AAAA"), KeyError::Format),
            (block("OPENSSH PRIVATE KEY", "!"), KeyError::Format),
            (block("ENCRYPTED PRIVATE KEY", "AAAA"), KeyError::Encrypted),
            (
                block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA"),
                KeyError::Encrypted,
            ),
            (block("DSA PRIVATE KEY", "AAAA"), KeyError::Kind("DSA PRIVATE KEY".into())),
        ] {
            assert_eq!(PrivateKey::parse(&text).unwrap_err(), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(data: Vec<u8>) {
            use base64::Engine as _;
            let framed = [b"openssh-key-v1\0".as_slice(), &data].concat();
            for bytes in [data, framed] {
                let body = base64::engine::general_purpose::STANDARD.encode(bytes);
                for label in ["OPENSSH PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
                    let _ = PrivateKey::parse(&format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----"));
                }
            }
        }
    }
}
