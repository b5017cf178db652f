//! A hash for ids. The engine makes the ids, not callers, so the hash need not resist attacks.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Hashes eight bytes at a time, by multiplying and folding.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

const ODD: u64 = 0xf135_7aea_2e62_a9c5;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(ODD);
        self.0 ^= self.0 >> 32;
    }

    fn write_usize(&mut self, _length: usize) {
        // Ignore the length: it is the same for all ids.
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(ODD).rotate_left(26)
    }
}
