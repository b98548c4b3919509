//! Secrets at rest: AES-256-GCM under a key file beside the database, so that a copy of the database alone opens nothing.
//!
//! The key is 32 random bytes in a file of mode 0600, made once; a file that others may read is refused, not mended.
//! Each secret is bound to what it is for: moved to another row it does not open.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

use super::{Result, StoreError};

/// The key's file name in the data directory. Backups leave it out unless they are asked for it.
pub const KEY_FILE_NAME: &str = "secret.key";

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// First byte of what is sealed: how the rest is to be read.
const FORMAT: u8 = 1;

/// The key, read from its file for one piece of work.
pub(super) struct SealingKey(RandomizedNonceKey);

fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join(KEY_FILE_NAME)
}

impl SealingKey {
    /// Reads the key; none where there is no file.
    pub fn read(data_dir: &Path) -> Result<Option<Self>> {
        let path = key_path(data_dir);
        let failed = |cause| StoreError::SecretKey { path: path.clone(), cause };
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut file = match std::fs::OpenOptions::new().read(true).custom_flags(no_follow).open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        };
        let about = file.metadata().map_err(failed)?;
        let unsafe_because = |problem| Err(StoreError::UnsafeSecretKey { path: path.clone(), problem });
        if about.mode() & 0o077 != 0 {
            return unsafe_because("may be read by others");
        }
        if !about.is_file() || about.len() != KEY_BYTES as u64 {
            return unsafe_because("is not a file of 32 bytes");
        }
        let mut bytes = [0; KEY_BYTES];
        file.read_exact(&mut bytes).map_err(failed)?;
        Self::of(&bytes).map(Some).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).ok().map(Self)
    }

    /// Makes the file, whole or not at all; where another process was faster, its key counts.
    pub fn make(data_dir: &Path) -> Result<Self> {
        let path = key_path(data_dir);
        let failed = |cause| StoreError::SecretKey { path: path.clone(), cause };
        let mut bytes = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| failed(std::io::Error::other("the system gives no random bytes")))?;
        // a temporary file has mode 0600, and a link never replaces what is there
        let mut fresh = tempfile::NamedTempFile::new_in(data_dir).map_err(failed)?;
        fresh.write_all(&bytes).and_then(|()| fresh.as_file().sync_all()).map_err(failed)?;
        match fresh.persist_noclobber(&path) {
            Ok(_) => std::fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(failed)?,
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error.error)),
        }
        Self::read(data_dir)?.ok_or_else(|| StoreError::NoSecretKey { path: path.clone() })
    }

    /// `bytes` sealed for `purpose`.
    pub fn seal(&self, purpose: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let mut body = bytes.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(purpose), &mut body).ok()?;
        let mut sealed = vec![FORMAT];
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Some(sealed)
    }

    /// What was sealed for `purpose`; none where key, purpose or bytes are others.
    pub fn open(&self, purpose: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (&format, rest) = sealed.split_first()?;
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES)?;
        if format != FORMAT {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        self.0.open_in_place(nonce, Aad::from(purpose), &mut body).ok().map(|bytes| bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = SealingKey::make(dir.path()).unwrap();
        let sealed = key.seal(b"a", b"hunter2").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
        assert_ne!(sealed, key.seal(b"a", b"hunter2").unwrap(), "a nonce used twice");
        let again = SealingKey::read(dir.path()).unwrap().unwrap();
        assert_eq!(again.open(b"a", &sealed).as_deref(), Some(b"hunter2".as_slice()));
        assert_eq!(key.open(b"b", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"a", &changed), None, "byte {at}");
            assert_eq!(key.open(b"a", &sealed[..at]), None, "cut at {at}");
        }
        let other = tempfile::tempdir().unwrap();
        assert_eq!(SealingKey::make(other.path()).unwrap().open(b"a", &sealed), None);
    }

    #[test]
    fn the_file_is_private_made_once_and_refused_when_it_is_not_as_made() {
        let dir = tempfile::tempdir().unwrap();
        assert!(SealingKey::read(dir.path()).unwrap().is_none());
        let first = SealingKey::make(dir.path()).unwrap();
        let path = key_path(dir.path());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let sealed = first.seal(b"a", b"x").unwrap();
        let second = SealingKey::make(dir.path()).unwrap();
        assert_eq!(second.open(b"a", &sealed).as_deref(), Some(b"x".as_slice()), "made anew");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file stays");

        let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o640);
        assert!(matches!(SealingKey::read(dir.path()), Err(StoreError::UnsafeSecretKey { .. })));
        chmod(0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(SealingKey::read(dir.path()), Err(StoreError::UnsafeSecretKey { .. })));
        let target = dir.path().join("elsewhere");
        std::fs::rename(&path, &target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(SealingKey::read(dir.path()), Err(StoreError::SecretKey { .. })));
    }
}
