//! The server's own keys: made once, kept private.
//!
//! One Ed25519 and one ECDSA P-256 key, as OpenSSH private key files. Never RSA: its signatures are slow and nothing
//! that speaks to this server needs them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};

use super::Error;

const ECDSA: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
/// An OpenSSH private key of these kinds has about 500 bytes.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// Reads the host keys in `directory`, making the directory (0700) and the keys (0600) that are missing.
pub fn host_keys(directory: &Path) -> Result<Vec<PrivateKey>, Error> {
    let at = |source| Error::HostKeyFile { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at)?;
    let mode = fs::metadata(directory).map_err(at)?.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(Error::HostKeyDirectoryExposed { path: directory.to_owned(), mode });
    }
    [("ssh_host_ed25519_key", Algorithm::Ed25519), ("ssh_host_ecdsa_key", ECDSA)]
        .into_iter()
        .map(|(name, algorithm)| {
            let path = directory.join(name);
            match read(&path, &algorithm)? {
                Some(key) => Ok(key),
                None => make(directory, &path, algorithm),
            }
        })
        .collect()
}

fn read(path: &Path, algorithm: &Algorithm) -> Result<Option<PrivateKey>, Error> {
    let at = |source| Error::HostKeyFile { path: path.to_owned(), source };
    let wrong = |problem: String| Error::HostKey { path: path.to_owned(), problem };
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = match fs::OpenOptions::new().read(true).custom_flags(nofollow).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(e)),
    };
    let mode = file.metadata().map_err(at)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::HostKeyExposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(at)?;
    let key =
        PrivateKey::from_openssh(&text).map_err(|e| wrong(format!("not an OpenSSH private key: {e}")))?;
    if key.is_encrypted() {
        return Err(wrong("it has a passphrase, and nobody is there to type it".to_owned()));
    }
    if key.algorithm() != *algorithm {
        return Err(wrong(format!("it is a key of kind {}, not {algorithm}", key.algorithm())));
    }
    Ok(Some(key))
}

/// Writes a new key under a temporary name and gives it its own with a link: a server killed meanwhile leaves no half
/// key, and of two servers that start at once, one makes the key and both use it.
fn make(directory: &Path, path: &Path, algorithm: Algorithm) -> Result<PrivateKey, Error> {
    let at = |source| Error::HostKeyFile { path: path.to_owned(), source };
    let wrong = |problem: String| Error::HostKey { path: path.to_owned(), problem };
    let key = PrivateKey::random(&mut safe_rng(), algorithm.clone()).map_err(|e| wrong(e.to_string()))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-host-key-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(at)?;
    file.write_all(text.as_bytes()).map_err(at)?;
    file.as_file().sync_all().map_err(at)?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            fs::File::open(directory).and_then(|d| d.sync_all()).map_err(at)?;
            Ok(key)
        }
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => {
            read(path, &algorithm)?.ok_or_else(|| at(ErrorKind::NotFound.into()))
        }
        Err(e) => Err(at(e.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_kept_private() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("a/ssh");
        let made = host_keys(&dir).unwrap();
        assert_eq!(made.iter().map(PrivateKey::algorithm).collect::<Vec<_>>(), [Algorithm::Ed25519, ECDSA]);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("ssh_host_ed25519_key")), 0o600);
        assert_eq!(mode(&dir.join("ssh_host_ecdsa_key")), 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        let again = host_keys(&dir).unwrap();
        assert_eq!(
            made.iter().map(PrivateKey::public_key).collect::<Vec<_>>(),
            again.iter().map(PrivateKey::public_key).collect::<Vec<_>>()
        );
    }

    #[test]
    fn exposed_foreign_and_broken_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_host_ed25519_key");
        host_keys(dir.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(host_keys(dir.path()), Err(Error::HostKeyExposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

        fs::write(&path, fs::read(dir.path().join("ssh_host_ecdsa_key")).unwrap()).unwrap();
        let error = host_keys(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not ssh-ed25519"), "{error}");
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(host_keys(dir.path()), Err(Error::HostKey { .. })));

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("ssh_host_ecdsa_key", &path).unwrap();
        assert!(matches!(host_keys(dir.path()), Err(Error::HostKeyFile { .. })));

        fs::remove_file(&path).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(host_keys(dir.path()), Err(Error::HostKeyDirectoryExposed { mode: 0o777, .. })));
    }

    #[test]
    fn servers_that_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let seen: Vec<_> = std::thread::scope(|scope| {
            let servers: Vec<_> = (0..8).map(|_| scope.spawn(|| host_keys(dir.path()).unwrap())).collect();
            servers.into_iter().map(|s| s.join().unwrap()).collect()
        });
        for keys in &seen {
            for (key, first) in keys.iter().zip(&seen[0]) {
                assert_eq!(key.public_key(), first.public_key());
            }
        }
    }
}
