//! What is negotiated: algorithms, windows, timers.
//!
//! Neither ChaCha20-Poly1305 nor any encrypt-then-MAC mode is offered, since only these can lose their first packets to
//! a prefix truncation (Terrapin, CVE-2023-48795): a peer without strict key exchange is then as safe as one with it.
//! No finite-field Diffie-Hellman (dear for the server, cheap for a stranger), no SHA-1, no compression.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac, server};

use super::Config;
use super::window::Window;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
const MACS: &[mac::Name] = &[mac::HMAC_SHA256, mac::HMAC_SHA512];
const COMPRESSION: &[compression::Name] = &[compression::NONE];

/// What a refused key costs the client. Which keys are known is no secret to whoever holds one, so this hides nothing;
/// it only paces a client that guesses.
const REFUSAL_PACE: Duration = Duration::from_millis(5);

/// Signatures accepted from users, also told to clients as `server-sig-algs`; host keys are chosen among them.
fn signatures() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaSha2NistP256,
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// The ways to log in: a key, and a round that only tells a client why its keys were refused.
pub(super) fn methods() -> MethodSet {
    MethodSet::from([MethodKind::PublicKey, MethodKind::KeyboardInteractive].as_slice())
}

pub(super) fn russh_config(config: &Config, keys: Vec<PrivateKey>) -> server::Config {
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-lemnos_", env!("CARGO_PKG_VERSION")))),
        methods: methods(),
        auth_rejection_time: REFUSAL_PACE,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys,
        window_size: Window::initial(config.window_bytes),
        maximum_packet_size: config.max_packet_bytes,
        channel_buffer_size: 64,
        event_buffer_size: 64,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Owned(signatures()),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(COMPRESSION),
            host_key_certificates: Cow::Borrowed(&[]),
        },
        // The "none" request, the keys, the round that tells: whoever goes on after these is cut off.
        max_auth_attempts: config.max_auth_tries.saturating_add(2),
        // russh's timer also runs while a push is held back by a slow disk; `connection` has its own deadlines.
        inactivity_timeout: None,
        keepalive_interval: Some(config.keepalive_interval),
        keepalive_max: config.keepalive_max,
        nodelay: true,
        ..server::Config::default()
    }
}
