//! The store: executions in shards by id, each execution behind its own lock, and indexes beside them.
//!
//! [`entry`] is one execution and the effect of a commit on it. [`packed`] holds the data of an ended
//! execution. [`queue`] orders the due executions, and [`types`] tells which worker can run which
//! definition. [`lists`] and [`lookups`] find executions. [`executions`], [`reads`], [`workflows`] and
//! [`ttl`] implement the four traits.
//!
//! Locks are taken in this order and never held across an await: the lock of an idempotency key, the
//! lock of an execution, then at most one other lock.

mod entry;
mod executions;
mod lists;
mod lookups;
mod packed;
mod queue;
mod reads;
mod storable;
#[cfg(test)]
mod tests;
mod ttl;
mod types;
mod workflows;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    time::Timestamp,
};

use crate::{config::StoreConfig, hash::IdMap};
use entry::{Entry, Run};
use lists::TenantLists;
use lookups::Lookups;
use queue::DueQueue;
use ttl::TtlEntries;
use types::TypeSets;
use workflows::Workflows;

const SHARDS: usize = 64;

/// A store that keeps everything in this process's memory, within the bounds of its configuration.
///
/// Share it behind an `Arc`. When it is dropped, its content is lost.
///
/// ```
/// use docg_store_memory::{MemoryStore, StoreConfig};
///
/// let store = MemoryStore::new(StoreConfig::default().max_executions(10_000));
/// assert!(store.is_empty());
/// ```
pub struct MemoryStore {
    config: StoreConfig,
    shards: Box<[Shard]>,
    keys: Box<[Mutex<Keys>]>,
    key_hash: RandomState,
    tenants: RwLock<IdMap<OrganizationId, Arc<TenantLists>>>,
    queue: Mutex<DueQueue>,
    types: TypeSets,
    lookups: RwLock<Lookups>,
    workflows: RwLock<Workflows>,
    ttl: Mutex<TtlEntries>,
    executions: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    entries: RwLock<IdMap<ExecutionId, Arc<Entry>>>,
    /// The ended executions, by the time of their end.
    ended: Mutex<BTreeSet<(Timestamp, ExecutionId)>>,
    /// Executions that may have unpublished events. A query for them removes those that have none.
    unpublished: Mutex<Vec<ExecutionId>>,
}

/// Idempotency keys, each with the request's fingerprint and the execution that it created.
type Keys = HashMap<(OrganizationId, Box<str>), ([u8; 32], ExecutionId)>;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(StoreConfig::default())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("executions", &self.len())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new(config: StoreConfig) -> Self {
        Self {
            config,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
            key_hash: RandomState::new(),
            tenants: RwLock::default(),
            queue: Mutex::default(),
            types: TypeSets::default(),
            lookups: RwLock::default(),
            workflows: RwLock::default(),
            ttl: Mutex::default(),
            executions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The number of executions, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.executions.load(Ordering::Relaxed)
    }

    /// The approximate number of bytes that the content takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Updates the total size after an item's size changed from `before` to `now` bytes.
    fn reweigh(&self, before: usize, now: usize) {
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// True if the store has no executions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: ExecutionId) -> &Shard {
        // Ids are spread over the shards by their last byte. It is random in a UUIDv7, and test ids count in
        // it.
        &self.shards[usize::from(id.0.as_bytes()[15]) % SHARDS]
    }

    fn entry(&self, id: ExecutionId) -> Option<Arc<Entry>> {
        self.shard(id)
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// The entry, if it belongs to the organization.
    fn owned(&self, organization: OrganizationId, id: ExecutionId) -> Option<Arc<Entry>> {
        self.entry(id)
            .filter(|entry| entry.organization == organization)
    }

    fn keys(&self, organization: OrganizationId, key: &str) -> MutexGuard<'_, Keys> {
        #[allow(clippy::cast_possible_truncation, reason = "any bits choose a shard")]
        let hash = self.key_hash.hash_one((organization, key)) as usize;
        self.keys[hash % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tenant(&self, organization: OrganizationId) -> Option<Arc<TenantLists>> {
        self.tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&organization)
            .cloned()
    }

    fn tenant_or_new(&self, organization: OrganizationId) -> Arc<TenantLists> {
        self.tenant(organization).unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tenants.entry(organization).or_default())
        })
    }

    fn queue(&self) -> MutexGuard<'_, DueQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the execution's place in the queue.
    fn requeue(&self, entry: &Entry, run: &mut Run) {
        run.generation += 1;
        self.queue().place(
            entry.id,
            entry.organization,
            run.generation,
            run.want(entry.types),
        );
    }

    /// If the execution has unpublished events, adds it to its shard's list of executions that may have some.
    fn list_unpublished(&self, entry: &Entry, run: &mut Run) {
        if !run.listed_unpublished && run.published < run.head() {
            run.listed_unpublished = true;
            self.shard(entry.id)
                .unpublished
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry.id);
        }
    }
}
