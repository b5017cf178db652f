//! Small facts with an end.

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

/// Expired memos are looked for when there are this many, then when there are twice what is left.
const FIRST_SWEEP: usize = 1_024;

#[derive(Default)]
pub(super) struct Memos {
    facts: HashMap<MemoKey, Memo>,
    sweep_at: usize,
    /// The latest moment that a caller has named: `replace` names none.
    now: Option<Timestamp>,
}

#[async_trait]
impl MemoStore for MemoryStore {
    async fn remember(&self, memo: Memo, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        check(&memo, "remember")?;
        let mut memos = self.memos();
        memos.now = memos.now.max(Some(now));
        if let Some(known) = memos
            .facts
            .get(&memo.key)
            .filter(|known| known.expires_at > now)
        {
            return Ok(Some(known.clone()));
        }
        memos.put(memo, self.config.max_memos, "remember")?;
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
        self.memos().put(memo, self.config.max_memos, "replace")
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

impl Memos {
    fn put(&mut self, memo: Memo, max: usize, operation: &'static str) -> Result<(), StoreError> {
        if !self.facts.contains_key(&memo.key) {
            if self.facts.len() >= self.sweep_at.max(FIRST_SWEEP).min(max) {
                self.sweep();
            }
            if self.facts.len() >= max {
                let message = format!("{max} memos are kept already");
                return Err(StoreError::new(StoreErrorKind::Full, operation, message));
            }
        }
        self.facts.insert(memo.key.clone(), memo);
        Ok(())
    }

    fn sweep(&mut self) {
        if let Some(now) = self.now {
            self.facts.retain(|_, memo| memo.expires_at > now);
        }
        self.sweep_at = self.facts.len() * 2;
    }
}
