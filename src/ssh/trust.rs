//! The files that say whose certificates count: authorities' public keys, and the revocation list.
//!
//! Both are read anew at each login by certificate and at each request, so that a line that was added counts at once.
//! What cannot be read or understood makes nobody welcome: an unreadable revocation list refuses every key.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKey};

use super::Error;
use super::certificate::{Revoked, Trust};
use crate::model::Fingerprint;

const LIMIT_BYTES: u64 = 1 << 20;
const LIMIT_LINES: usize = 20_000;

/// Where the files are; none where there is nothing to trust or revoke.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustFiles {
    /// Public keys in OpenSSH's format, one a line.
    pub authorities: Option<PathBuf>,
    /// The revocation list.
    pub revoked: Option<PathBuf>,
}

impl TrustFiles {
    /// Whether both can be read and understood.
    pub async fn check(&self) -> Result<(), Error> {
        self.read().await.map(drop)
    }

    /// Reads both, on a thread that may block.
    pub(super) async fn read(&self) -> Result<Trust, Error> {
        if self.authorities.is_none() && self.revoked.is_none() {
            return Ok(Trust::default());
        }
        let files = self.clone();
        tokio::task::spawn_blocking(move || files.read_now())
            .await
            .map_err(|cause| Error::Trust { path: PathBuf::new(), problem: cause.to_string() })?
    }

    fn read_now(&self) -> Result<Trust, Error> {
        let authorities = match &self.authorities {
            Some(path) => lines(path, authority)?,
            None => Vec::new(),
        };
        let revoked = match &self.revoked {
            Some(path) => lines(path, revoked)?,
            None => Vec::new(),
        };
        Ok(Trust { authorities, revoked })
    }
}

/// What each line of the file says; empty ones and comments say nothing.
fn lines<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Error> {
    let failed = |problem: String| Error::Trust { path: path.to_owned(), problem };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|cause| failed(cause.to_string()))?;
    file.take(LIMIT_BYTES + 1).read_to_string(&mut text).map_err(|cause| failed(cause.to_string()))?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(failed(format!("it has more than {LIMIT_BYTES} bytes")));
    }
    let mut found = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let said = parse(line).map_err(|why| failed(format!("line {}: {why}", number.saturating_add(1))))?;
        found.push(said);
        if found.len() > LIMIT_LINES {
            return Err(failed(format!("it has more than {LIMIT_LINES} lines")));
        }
    }
    Ok(found)
}

fn authority(line: &str) -> Result<Fingerprint, String> {
    let key = PublicKey::from_openssh(line)
        .map_err(|_| "this is not a public key in OpenSSH's format (TYPE BASE64 [COMMENT])".to_owned())?;
    if let KeyData::Certificate(_) = key.key_data() {
        return Err("this is a certificate: an authority is a plain key".to_owned());
    }
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    fingerprint.parse().map_err(|_| "its fingerprint cannot be computed".to_owned())
}

/// `serial: N`, `serial: N SHA256:…` (of that authority alone), `id: KEY ID`, `key: SHA256:…`.
fn revoked(line: &str) -> Result<Revoked, String> {
    let (what, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.trim();
    let fingerprint = |text: &str| {
        text.parse::<Fingerprint>()
            .map_err(|invalid| format!("{text:?} is no fingerprint: {}", invalid.allowed))
    };
    match what.trim() {
        "serial" => {
            let mut words = value.split_whitespace();
            let serial = words.next().unwrap_or_default();
            let serial = serial.parse().map_err(|_| format!("{serial:?} is no serial number"))?;
            let authority = words.next().map(fingerprint).transpose()?;
            match words.next() {
                Some(more) => Err(format!("{more:?} is too much: serial: N [SHA256:…]")),
                None => Ok(Revoked::Serial(serial, authority)),
            }
        }
        "id" if !value.is_empty() => Ok(Revoked::KeyId(value.to_owned())),
        "key" => fingerprint(value).map(Revoked::Key),
        _ => Err("a line is serial: N [SHA256:…], id: KEY ID or key: SHA256:…".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "SHA256:7TvMabxLmq7dUiszEhii8VWzAJ4CVIZ018qUNc/7zxg";

    #[test]
    fn a_revocation_list_says_one_thing_a_line() {
        let print = || PRINT.parse().unwrap();
        for (line, expected) in [
            ("serial: 7", Revoked::Serial(7, None)),
            (&format!("serial:8 {PRINT}"), Revoked::Serial(8, Some(print()))),
            ("id: ann@laptop: old", Revoked::KeyId("ann@laptop: old".to_owned())),
            (&format!("key: {PRINT}"), Revoked::Key(print())),
        ] {
            assert_eq!(revoked(line).unwrap(), expected, "{line}");
        }
        for line in ["serial: -1", "serial: 1 2", "serial: 7-9", "id:", "key: MD5:aa", "sha256: x", "7"] {
            assert!(revoked(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked");
        std::fs::write(&path, "# retired\n\nserial: 7\nserial 8\n").unwrap();
        let files = TrustFiles { authorities: None, revoked: Some(path) };
        let error = files.read_now().unwrap_err().to_string();
        assert!(error.contains("revoked: line 4: "), "{error}");
        let files = TrustFiles { authorities: Some(dir.path().join("absent")), revoked: None };
        assert!(files.read_now().is_err(), "no file is no permission");
    }
}
