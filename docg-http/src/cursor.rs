//! Cursors of lists. A cursor is opaque, signed, and valid only for the list that issued it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use docg_core::i18n::Text;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;

use crate::problem::Problem;

const TAG: usize = 16;

/// Signs and reads the cursors of one list, which is a route with an organization and filters.
pub(crate) struct Cursors<'a> {
    key: &'a [u8; 32],
    list: String,
}

impl<'a> Cursors<'a> {
    pub(crate) fn new(key: &'a [u8; 32], list: String) -> Self {
        Self { key, list }
    }

    pub(crate) fn write(&self, position: &impl Serialize) -> String {
        // Never fails: positions are numbers, ids and times.
        let mut bytes = serde_json::to_vec(position).unwrap_or_default();
        let tag = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, cursor: &str) -> Result<T, Problem> {
        let refused =
            || Problem::invalid_field("/cursor", "invalid_cursor", Text::key("fault-cursor"));
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (position, tag) = bytes
            .split_at_checked(bytes.len().wrapping_sub(TAG))
            .ok_or_else(refused)?;
        self.mac(position)
            .verify_truncated_left(tag)
            .map_err(|_| refused())?;
        serde_json::from_slice(position).map_err(|_| refused())
    }

    fn mac(&self, position: &[u8]) -> Hmac<Sha256> {
        // RFC 2104: pad the key with zeros to the hash's block size.
        let mut block = [0; 64];
        block[..self.key.len()].copy_from_slice(self.key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(&(self.list.len() as u64).to_be_bytes());
        mac.update(self.list.as_bytes());
        mac.update(position);
        mac
    }
}

/// The number of rows of a page: 1 to 100, by default 50.
pub(crate) fn limit(limit: Option<&str>) -> Result<usize, Problem> {
    match limit.map(str::parse) {
        None => Ok(50),
        Some(Ok(limit @ 1..=100)) => Ok(limit),
        Some(_) => Err(Problem::invalid_field(
            "/limit",
            "invalid_limit",
            Text::key("fault-range").with("least", 1).with("most", 100),
        )),
    }
}
