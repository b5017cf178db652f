//! Executions that are known to be damaged in other rows than their own, such as those of their steps.
//! Lists of executions mark them.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use docg_core::query::ExecutionRecord;
use uuid::Uuid;

use super::PgStore;
use crate::{codec::mark_unreadable, error::Error};

/// The maximum number of remembered ids. Beyond it all are forgotten, and found again by later reads.
const REMEMBERED: usize = 1_024;

/// The ids of damaged executions that this process has found.
#[derive(Default)]
pub(super) struct Damaged(Mutex<HashSet<Uuid>>);

impl Damaged {
    fn known(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers or forgets that an execution is damaged.
    pub(super) fn note(&self, id: Uuid, is_damaged: bool) {
        let mut known = self.known();
        if !is_damaged {
            known.remove(&id);
            return;
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id);
    }

    fn has(&self, id: Uuid) -> bool {
        self.known().contains(&id)
    }
}

impl PgStore {
    /// Marks the records of executions that are known to be damaged and still are.
    pub(super) async fn mark_damaged(&self, records: &mut [ExecutionRecord]) -> Result<(), Error> {
        for record in records.iter_mut().filter(|record| !record.unreadable) {
            let id = record.execution.id.0;
            if self.damaged.has(id)
                && let Some(why) = self.unreadable(id).await?
            {
                mark_unreadable(record, why);
            }
        }
        Ok(())
    }
}
