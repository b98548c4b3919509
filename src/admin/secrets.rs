//! Apps' secrets: what may be kept, before it is.

use super::Response;
use crate::error::Report;
use crate::event::{SECRET_BYTES_MIN, SECRETS_BYTES_MAX};
use crate::model::{AppName, AppSecret, SecretName, SecretUse, SecretValue};
use crate::store::{Store, now_ms};

pub(super) async fn add(
    store: &Store,
    app: AppName,
    name: SecretName,
    used_as: SecretUse,
    value: &SecretValue,
) -> Result<Response, Report> {
    let bytes = value.expose();
    if bytes.trim_ascii().len() < SECRET_BYTES_MIN {
        return Err(Report::user(format!(
            "the value has fewer than {SECRET_BYTES_MIN} bytes: so short a secret could not be taken out of what a build prints"
        ))
        .hint(format!("pass the value on standard input: lemnos secrets add {app} {name} <FILE")));
    }
    if bytes.len() > SECRETS_BYTES_MAX {
        return Err(Report::user(format!("the value has more than {SECRETS_BYTES_MAX} bytes")));
    }
    if used_as == SecretUse::Ssh {
        check_key(bytes)?;
    }
    let new = store.put_secret(&app, &name, used_as, value).await?;
    let secret = AppSecret { app, name, used_as, added_at_ms: now_ms() };
    Ok(Response::SecretAdded { secret, replaced: !new })
}

/// Whether a build could sign with it: what it holds is not said in any error.
fn check_key(bytes: &[u8]) -> Result<(), Report> {
    let refuse = |problem: &str| {
        Err(Report::user(format!("the private key cannot be used: {problem}")).hint(
            "make one for this app alone: ssh-keygen -t ed25519 -N '' -f KEY, then add KEY, not KEY.pub",
        ))
    };
    let Ok(key) = russh::keys::ssh_key::PrivateKey::from_openssh(bytes) else {
        return refuse("it is not in OpenSSH's format");
    };
    if key.is_encrypted() {
        return refuse("it has a passphrase, which a build cannot be asked for");
    }
    Ok(())
}
