//! The key from which the server derives its signing keys.

use std::{io::Write, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The reason why the key could not be read or created.
#[derive(Debug, thiserror::Error)]
#[error("the secret of the built-in signatures, {path}: {why}")]
pub struct SecretError {
    path: String,
    why: String,
}

/// A random key of 32 bytes. Each purpose has its own derived key, so that a signature for one purpose is
/// invalid for another.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// The purpose of a signature.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Link,
    Webhook,
    Cursors,
    Approvals,
    Checkpoints,
    Development,
    Fingerprint,
}

impl Secret {
    /// Reads the key from a file. If the file is missing, creates it with a new key; only its owner can read
    /// it.
    ///
    /// # Errors
    ///
    /// If the file can neither be read nor created, or does not hold a key.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        let error = |why: &dyn std::fmt::Display| SecretError {
            path: path.display().to_string(),
            why: why.to_string(),
        };
        if !path.exists() {
            Self::create(path).map_err(|e| error(&e))?;
        }
        Self::load(path)
    }

    /// Reads the key from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or does not hold a key.
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let error = |why: &dyn std::fmt::Display| SecretError {
            path: path.display().to_string(),
            why: why.to_string(),
        };
        let text = std::fs::read(path).map_err(|e| error(&e))?;
        // Some editors start a file with a byte order mark.
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
        let mut key = [0; 32];
        // Drop the decoder's error: it quotes a part of the key.
        hex::decode_to_slice(text.trim_ascii(), &mut key)
            .map_err(|_| error(&"64 hexadecimal digits are needed"))?;
        Ok(Self(key))
    }

    fn create(path: &Path) -> std::io::Result<()> {
        let mut key = Vec::with_capacity(32);
        // Each UUID has 122 random bits from the operating system's generator.
        key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
        key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
        // Write to a temporary file and link it into place. Another process that starts at the same moment
        // then reads a whole key, and both processes use the same key.
        let staged = path.with_extension(format!("{}.part", uuid::Uuid::new_v4()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&staged).and_then(|mut file| {
            file.write_all(hex::encode(&key).as_bytes())?;
            file.sync_all()?;
            match std::fs::hard_link(&staged, path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        });
        // Remove only the file that this call created.
        let _ = std::fs::remove_file(&staged);
        written
    }

    /// The key for cursors of the API's lists. It is the same in all processes that share this secret.
    #[must_use]
    pub fn cursor_key(&self) -> [u8; 32] {
        self.sign(Purpose::Cursors, b"")
    }

    /// The key for approvers' tokens. It is the same in all processes that share this secret.
    #[must_use]
    pub fn approval_key(&self) -> [u8; 32] {
        self.sign(Purpose::Approvals, b"")
    }

    /// The seed of the key that signs checkpoints of audit trails.
    #[must_use]
    pub fn checkpoint_seed(&self) -> [u8; 32] {
        self.sign(Purpose::Checkpoints, b"")
    }

    /// The bearer token that a server without an auth file accepts. Everybody who can read the key file can
    /// compute it.
    #[must_use]
    pub fn development_token(&self) -> String {
        format!("dev-{}", hex::encode(self.sign(Purpose::Development, b"")))
    }

    /// A fingerprint that distinguishes this key from others and reveals nothing of it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.sign(Purpose::Fingerprint, b"")[..16])
    }

    pub(super) fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        self.mac(purpose, message).finalize().into_bytes().into()
    }

    /// Verifies a signature in constant time.
    pub(super) fn verifies(&self, purpose: Purpose, message: &[u8], signature: &[u8]) -> bool {
        self.mac(purpose, message).verify_slice(signature).is_ok()
    }

    fn mac(&self, purpose: Purpose, message: &[u8]) -> Hmac<Sha256> {
        let label: &[u8] = match purpose {
            Purpose::Link => b"docg.builtin.link.v1",
            Purpose::Webhook => b"docg.builtin.webhook.v1",
            Purpose::Cursors => b"docg.http.cursors.v1",
            Purpose::Approvals => b"docg.approvals.v1",
            Purpose::Checkpoints => b"docg.audit.checkpoints.v1",
            Purpose::Development => b"docg.development.v1",
            Purpose::Fingerprint => b"docg.fingerprint.v1",
        };
        let mut derive = keyed(&self.0);
        derive.update(label);
        let mut mac = keyed(&derive.finalize().into_bytes());
        mac.update(message);
        mac
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length (RFC 2104).
    Hmac::new_from_slice(key).expect("every length will do")
}

#[cfg(test)]
impl Secret {
    pub(super) fn fixed(byte: u8) -> Self {
        Self([byte; 32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signature.key");
        let first = Secret::load_or_create(&path).unwrap();
        assert_eq!(Secret::load_or_create(&path).unwrap().0, first.0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_key_is_not_taken_and_nothing_of_it_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signature.key");
        for damaged in ["", "abcd", "abc", "Xyz", &"Z".repeat(64), &"a".repeat(66)] {
            std::fs::write(&path, damaged).unwrap();
            let refused = Secret::load_or_create(&path).unwrap_err();
            assert_eq!(refused.why, "64 hexadecimal digits are needed", "{damaged}");
        }
        let marked = format!("\u{feff}{}\r\n", "ab".repeat(32));
        std::fs::write(&path, marked).unwrap();
        assert_eq!(Secret::load(&path).unwrap().0, [0xab; 32]);
    }

    #[test]
    fn a_signature_holds_for_its_purpose_only() {
        let secret = Secret::fixed(7);
        let link = secret.sign(Purpose::Link, b"message");
        assert!(secret.verifies(Purpose::Link, b"message", &link));
        assert!(!secret.verifies(Purpose::Webhook, b"message", &link));
        assert!(!secret.verifies(Purpose::Link, b"messagf", &link));
        assert!(!secret.verifies(Purpose::Link, b"message", &link[..16]));
        assert!(!Secret::fixed(8).verifies(Purpose::Link, b"message", &link));
    }
}
