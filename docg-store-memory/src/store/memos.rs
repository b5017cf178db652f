//! The TTL store: small values that expire.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use async_trait::async_trait;
use docg_core::{
    ports::{Memo, MemoKey, MemoStore, StoreError, StoreErrorKind},
    storable::Unstorable,
    time::Timestamp,
};

use super::{MemoryStore, storable};
use crate::weight;

/// The number of memos that starts the first sweep; each next one starts at twice the remaining number.
const FIRST_SWEEP: usize = 1_024;

#[derive(Default)]
pub(super) struct Memos {
    facts: HashMap<MemoKey, Memo>,
    sweep_at: usize,
    weight: usize,
    /// The latest time that a caller passed; `replace` passes none.
    now: Option<Timestamp>,
}

#[async_trait]
impl MemoStore for MemoryStore {
    async fn remember(&self, memo: Memo, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        check(&memo, "remember")?;
        // Delete ended executions before taking any lock. If that fails, expired memos make room.
        let _ = self.make_room("remember", 0, 1);
        let mut memos = self.memos();
        memos.now = memos.now.max(Some(now));
        if let Some(known) = memos
            .facts
            .get(&memo.key)
            .filter(|known| known.expires_at > now)
        {
            return Ok(Some(known.clone()));
        }
        self.put(&mut memos, memo, "remember")?;
        Ok(None)
    }

    async fn recall(&self, key: &MemoKey, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        Ok(self
            .memos()
            .facts
            .get(key)
            .filter(|known| known.expires_at > now)
            .cloned())
    }

    async fn replace(&self, memo: Memo) -> Result<(), StoreError> {
        check(&memo, "replace")?;
        let _ = self.make_room("replace", 0, 1);
        self.put(&mut self.memos(), memo, "replace")
    }
}

fn check(memo: &Memo, operation: &'static str) -> Result<(), StoreError> {
    let fault = Unstorable::of_text(&memo.key.key);
    storable::refuse(
        operation,
        fault.or_else(|| storable::of_record(&memo.value)),
    )
}

impl MemoryStore {
    fn memos(&self) -> MutexGuard<'_, Memos> {
        self.memos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    fn put(
        &self,
        memos: &mut Memos,
        memo: Memo,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        let (weight, max) = (memos.weight, self.config.max_memos);
        if !memos.facts.contains_key(&memo.key) {
            let is_many = memos.facts.len() >= memos.sweep_at.max(FIRST_SWEEP).min(max);
            if is_many || self.bytes() >= self.config.max_bytes {
                memos.sweep();
                self.reweigh(weight, memos.weight);
            }
            if memos.facts.len() >= max || self.bytes() >= self.config.max_bytes {
                let message = format!(
                    "{} memos and {} bytes are kept already",
                    memos.facts.len(),
                    self.bytes()
                );
                return Err(StoreError::new(StoreErrorKind::Full, operation, message));
            }
        }
        let weight = memos.weight;
        memos.insert(memo);
        self.reweigh(weight, memos.weight);
        Ok(())
    }
}

/// The size of a memo in bytes.
fn weigh(memo: &Memo) -> usize {
    2 * memo.key.key.len() + weight::value(&memo.value) + 256
}

impl Memos {
    fn insert(&mut self, memo: Memo) {
        self.weight += weigh(&memo);
        if let Some(old) = self.facts.insert(memo.key.clone(), memo) {
            self.weight -= weigh(&old);
        }
    }

    fn sweep(&mut self) {
        if let Some(now) = self.now {
            self.facts.retain(|_, memo| memo.expires_at > now);
            self.weight = self.facts.values().map(weigh).sum();
        }
        self.sweep_at = self.facts.len() * 2;
    }
}
