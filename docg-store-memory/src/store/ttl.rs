//! The TTL store: small values that expire.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use async_trait::async_trait;
use docg_core::{
    ports::{StoreError, StoreErrorKind, TtlEntry, TtlKey, TtlStore},
    storable::Unstorable,
    time::Timestamp,
};

use super::{MemoryStore, storable};
use crate::weight;

/// The number of entries at which the first sweep deletes expired entries. The next sweep starts at twice
/// the number that a sweep has left.
const FIRST_SWEEP: usize = 1_024;

#[derive(Default)]
pub(super) struct TtlEntries {
    facts: HashMap<TtlKey, TtlEntry>,
    sweep_at: usize,
    weight: usize,
    /// The latest current time that a caller of `remember` has passed. Sweeps use it, because `replace` gets
    /// no time.
    now: Option<Timestamp>,
}

#[async_trait]
impl TtlStore for MemoryStore {
    async fn remember(
        &self,
        entry: TtlEntry,
        now: Timestamp,
    ) -> Result<Option<TtlEntry>, StoreError> {
        check(&entry, "remember")?;
        // Delete ended executions before taking any lock. If that frees too little, expired entries are
        // deleted below.
        let _ = self.make_room("remember", 0, 1);
        let mut ttl = self.ttl();
        ttl.now = ttl.now.max(Some(now));
        if let Some(known) = ttl
            .facts
            .get(&entry.key)
            .filter(|known| known.expires_at > now)
        {
            return Ok(Some(known.clone()));
        }
        self.put(&mut ttl, entry, "remember")?;
        Ok(None)
    }

    async fn recall(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, StoreError> {
        Ok(self
            .ttl()
            .facts
            .get(key)
            .filter(|known| known.expires_at > now)
            .cloned())
    }

    async fn replace(&self, entry: TtlEntry) -> Result<(), StoreError> {
        check(&entry, "replace")?;
        let _ = self.make_room("replace", 0, 1);
        self.put(&mut self.ttl(), entry, "replace")
    }
}

fn check(entry: &TtlEntry, operation: &'static str) -> Result<(), StoreError> {
    let fault = Unstorable::of_text(&entry.key.key);
    storable::refuse(
        operation,
        fault.or_else(|| storable::of_record(&entry.value)),
    )
}

impl MemoryStore {
    fn ttl(&self) -> MutexGuard<'_, TtlEntries> {
        self.ttl.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    fn put(
        &self,
        ttl: &mut TtlEntries,
        entry: TtlEntry,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        let (weight, max) = (ttl.weight, self.config.max_ttl_entries);
        if !ttl.facts.contains_key(&entry.key) {
            let is_many = ttl.facts.len() >= ttl.sweep_at.max(FIRST_SWEEP).min(max);
            if is_many || self.bytes() >= self.config.max_bytes {
                ttl.sweep();
                self.reweigh(weight, ttl.weight);
            }
            if ttl.facts.len() >= max || self.bytes() >= self.config.max_bytes {
                let message = format!(
                    "{} entries and {} bytes are kept already",
                    ttl.facts.len(),
                    self.bytes()
                );
                return Err(StoreError::new(StoreErrorKind::Full, operation, message));
            }
        }
        let weight = ttl.weight;
        ttl.insert(entry);
        self.reweigh(weight, ttl.weight);
        Ok(())
    }
}

/// The size of an entry in bytes.
fn weigh(entry: &TtlEntry) -> usize {
    2 * entry.key.key.len() + weight::value(&entry.value) + 256
}

impl TtlEntries {
    fn insert(&mut self, entry: TtlEntry) {
        self.weight += weigh(&entry);
        if let Some(old) = self.facts.insert(entry.key.clone(), entry) {
            self.weight -= weigh(&old);
        }
    }

    fn sweep(&mut self) {
        if let Some(now) = self.now {
            self.facts.retain(|_, entry| entry.expires_at > now);
            self.weight = self.facts.values().map(weigh).sum();
        }
        self.sweep_at = self.facts.len() * 2;
    }
}
