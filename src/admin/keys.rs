//! Public keys as people hand them in: lines of authorized_keys, `.pub` files, what a forge's USER.keys page says.
//!
//! All or nothing: one line that cannot be used refuses the text, with its number. Private keys never get further than
//! the refusal.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::Caller;
use crate::error::{Kind, Report};
use crate::model::{Deploy, UserKey, UserName};
use crate::store::{Store, StoreError, now_ms};

const LIMIT_BYTES: usize = 256 << 10;
const LIMIT_KEYS: usize = 1_000;
const LIMIT_COMMENT_CHARS: usize = 200;
const LEAST_RSA_BITS: u32 = 2_048;
/// Verifying larger ones costs the server more than the client.
const MOST_RSA_BITS: u32 = 16_384;

/// Registers a user's keys; says of each whether it is new.
pub(super) async fn add(
    store: &Store,
    caller: &Caller,
    user: &UserName,
    text: &str,
) -> Result<Vec<(UserKey, bool)>, Report> {
    super::users::must_be_person(user)?;
    let keys = parse(user, text, now_ms())?;
    let new = store.add_keys(&keys).await.map_err(|error| match error {
        // whose it is, is nobody's business but an administrator's
        StoreError::KeyTaken { fingerprint, .. } if caller.limited_to().is_some() => {
            Report::new(Kind::Conflict, format!("key {fingerprint} is in use for something else already"))
                .hint("add another key: `ssh-keygen -t ed25519` makes one")
        }
        error => error.into(),
    })?;
    Ok(keys.into_iter().zip(new).collect())
}

/// Registers keys that open one app; says of each whether it is new.
pub(super) async fn add_deploy(
    store: &Store,
    deploy: Deploy,
    text: &str,
    name: Option<String>,
) -> Result<Vec<(UserKey, bool)>, Report> {
    let mut keys = parse(&UserName::of_deploy_key(&deploy.app), text, now_ms())?;
    for key in &mut keys {
        key.deploy = Some(deploy.clone());
        if let Some(name) = &name {
            key.comment = comment(name);
        }
    }
    let new = store.add_keys(&keys).await?;
    Ok(keys.into_iter().zip(new).collect())
}

/// The keys that the caller may see, of all or one.
pub(super) async fn list(
    store: &Store,
    caller: &Caller,
    user: Option<UserName>,
) -> Result<Vec<UserKey>, Report> {
    Ok(match (caller.limited_to(), user) {
        // as where there is no such user
        (Some(own), Some(asked)) if own != asked => Vec::new(),
        (Some(own), _) => store.keys(Some(&own)).await?,
        (None, user) => store.keys(user.as_ref()).await?,
    })
}

pub(super) fn comment(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(LIMIT_COMMENT_CHARS).collect()
}

/// The keys in `text`, each once, in order; at least one.
pub(super) fn parse(user: &UserName, text: &str, now_ms: i64) -> Result<Vec<UserKey>, Report> {
    if text.len() > LIMIT_BYTES {
        return Err(Report::user(format!("the keys have more than {LIMIT_BYTES} bytes"))
            .hint("give one public key a line, as in a .pub file"));
    }
    refuse_other_formats(text)?;
    let mut keys: Vec<UserKey> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = parse_line(user, line, now_ms).map_err(|report| {
            let message = format!("line {}: {}", number.saturating_add(1), report.message);
            Report { message, ..report }
        })?;
        if !keys.iter().any(|other| other.fingerprint == key.fingerprint) {
            keys.push(key);
        }
        if keys.len() > LIMIT_KEYS {
            return Err(Report::user(format!("there are more than {LIMIT_KEYS} keys")));
        }
    }
    if keys.is_empty() {
        return Err(
            Report::user("there is no key").hint("give the content of a .pub file: ssh-ed25519 AAAA…")
        );
    }
    Ok(keys)
}

fn refuse_other_formats(text: &str) -> Result<(), Report> {
    if text.contains("PRIVATE KEY-----") || text.contains("PuTTY-User-Key-File") {
        return Err(Report::user("this is a private key").hint(
            "it stays with its owner; give the public half, the file of the same name that ends in .pub",
        ));
    }
    if text.contains("---- BEGIN SSH2 PUBLIC KEY ----") || text.contains("-----BEGIN ") {
        return Err(Report::user("this is not in OpenSSH's format")
            .hint("`ssh-keygen -i -f FILE` converts an SSH2 key (`-m PKCS8` for a PEM one)"));
    }
    Ok(())
}

fn parse_line(user: &UserName, line: &str, now_ms: i64) -> Result<UserKey, Report> {
    let not_a_key = |hint: &str| Report::user("this is not a public key in OpenSSH's format").hint(hint);
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    if !is_algorithm(first) {
        return Err(if words.any(is_algorithm) {
            Report::user("options before a key are not supported").hint(
                "remove everything before the key's type: what a user may do is said by `lemnos apps grant`",
            )
        } else {
            not_a_key("a line is TYPE BASE64 [COMMENT], for example ssh-ed25519 AAAA… name@host")
        });
    }
    if first.contains("-cert-v01@") {
        return Err(Report::user("a certificate is not registered as a key")
            .hint("give the public key itself, the .pub file without -cert"));
    }
    let key = PublicKey::from_openssh(line).map_err(|_| {
        not_a_key("its base64 is broken or belongs to another type: copy the whole line again")
    })?;
    check_strength(&key)?;
    let comment = comment(&line.split_whitespace().skip(2).collect::<Vec<_>>().join(" "));
    let bare = PublicKey::new(key.key_data().clone(), "");
    let public_key =
        bare.to_openssh().map_err(|cause| Report::internal(format!("writing the key: {cause}")))?;
    Ok(UserKey {
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string().parse()?,
        user: user.clone(),
        deploy: None,
        public_key: public_key.trim().to_owned(),
        comment,
        added_at_ms: now_ms,
    })
}

fn is_algorithm(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "rsa-sha2-"].iter().any(|prefix| word.starts_with(prefix))
}

fn check_strength(key: &PublicKey) -> Result<(), Report> {
    const MAKE: &str = "make a new one: ssh-keygen -t ed25519";
    match (key.algorithm(), key.key_data()) {
        (Algorithm::Dsa, _) => Err(Report::user("ssh-dss keys are too weak and not accepted").hint(MAKE)),
        (_, KeyData::Rsa(rsa)) => {
            let bits = rsa.key_size();
            if (LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) {
                return Ok(());
            }
            let message = format!(
                "an RSA key of {bits} bits is not accepted: from {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits are"
            );
            Err(Report::user(message).hint(MAKE))
        }
        (
            Algorithm::Ed25519
            | Algorithm::SkEd25519
            | Algorithm::Ecdsa { .. }
            | Algorithm::SkEcdsaSha2NistP256,
            _,
        ) => Ok(()),
        (other, _) => {
            Err(Report::user(format!("keys of type {} are not supported", other.as_str())).hint(MAKE))
        }
    }
}

#[cfg(test)]
mod tests;
