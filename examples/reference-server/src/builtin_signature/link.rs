//! The tokens in links to the signing pages. A token names an envelope and a signer, and its signature proves
//! that this server made it. Tokens are not stored.

use docg_core::address::AddressKey;
use sha2::{Digest, Sha256};

use super::secret::{Purpose, Secret};

/// The identity of a signer within an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SignerRef {
    /// The id of the envelope, 32 hexadecimal digits.
    pub(super) envelope: String,
    /// The key of the signer, 16 hexadecimal digits derived from the address.
    pub(super) signer: String,
}

impl SignerRef {
    pub(super) fn new(envelope: &str, email: &str) -> Self {
        Self {
            envelope: envelope.to_owned(),
            signer: signer_key(email),
        }
    }

    /// The name of the records about the signer.
    pub(super) fn record_name(&self) -> String {
        format!("{}.{}", self.envelope, self.signer)
    }

    /// The token for the signer's link.
    pub(super) fn token(&self, secret: &Secret) -> String {
        let name = self.record_name();
        let signature = secret.sign(Purpose::Link, name.as_bytes());
        format!("{name}.{}", hex::encode(signature))
    }

    /// Reads a token. `None` if this server did not make it.
    pub(super) fn from_token(token: &str, secret: &Secret) -> Option<Self> {
        let (name, signature) = token.rsplit_once('.')?;
        let (envelope, signer) = name.split_once('.')?;
        let is_hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        // Check the format first: parts of the token become file names.
        if !is_hex(envelope, 32) || !is_hex(signer, 16) || !is_hex(signature, 64) {
            return None;
        }
        let signature = hex::decode(signature).ok()?;
        secret
            .verifies(Purpose::Link, name.as_bytes(), &signature)
            .then(|| Self {
                envelope: envelope.to_owned(),
                signer: signer.to_owned(),
            })
    }
}

/// The hash of an address, for use in names: it hides the address and has a fixed length.
pub(super) fn signer_key(email: &str) -> String {
    let digest = Sha256::digest(AddressKey::of(email).as_str());
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_for_whom_it_was_made_and_no_change_of_it_does() {
        let secret = Secret::fixed(1);
        let signer = SignerRef::new(&"ab".repeat(16), "Signer@Example.com");
        let token = signer.token(&secret);
        assert_eq!(SignerRef::from_token(&token, &secret), Some(signer));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(SignerRef::from_token(&changed, &secret), None, "{changed}");
        }
        assert_eq!(SignerRef::from_token(&token, &Secret::fixed(2)), None);
        assert_eq!(SignerRef::from_token(&token.to_uppercase(), &secret), None);
    }

    #[test]
    fn what_is_no_token_is_refused_whatever_it_looks_like() {
        let secret = Secret::fixed(1);
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            "../../x.y.z",
            &"0".repeat(5000),
            "é.é.é",
        ] {
            assert_eq!(SignerRef::from_token(text, &secret), None, "{text}");
        }
    }

    #[test]
    fn an_address_names_its_signer_in_any_spelling() {
        assert_eq!(signer_key("A@Example.com "), signer_key("a@example.COM"));
        assert_eq!(
            signer_key("a@exämple.com"),
            signer_key("a@xn--exmple-cua.com")
        );
        assert_ne!(signer_key("a@example.com"), signer_key("b@example.com"));
    }
}
