//! The store: executions in shards by id, each behind a lock of its own, and indexes beside them.
//!
//! [`entry`] is one execution and what a commit does to it, [`packed`] what it worked on once it has
//! ended, [`queue`] who is due, [`types`] which worker can run what, [`lists`] and [`lookups`] the
//! ways to an execution; [`runs`], [`reads`],
//! [`workflows`] and [`memos`] implement the four traits.
//!
//! Locks are taken in this order and never across an await: an idempotency key's, an execution's,
//! then any one of the rest.

mod entry;
mod lists;
mod lookups;
mod memos;
mod packed;
mod queue;
mod reads;
mod runs;
mod storable;
#[cfg(test)]
mod tests;
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
use memos::Memos;
use queue::DueQueue;
use types::TypeSets;
use workflows::Workflows;

const SHARDS: usize = 64;

/// Keeps everything in this process's memory, up to the bounds of its configuration.
///
/// Cheap to share behind an `Arc`; when it is dropped, what it kept is gone.
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
    memos: Mutex<Memos>,
    executions: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    entries: RwLock<IdMap<ExecutionId, Arc<Entry>>>,
    /// By when they ended.
    ended: Mutex<BTreeSet<(Timestamp, ExecutionId)>>,
    /// May have unpublished events. Those that have none leave when somebody asks.
    unpublished: Mutex<Vec<ExecutionId>>,
}

/// Idempotency keys, with what they asked for and what they made.
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
    /// An empty store.
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
            memos: Mutex::default(),
            executions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// How many executions are kept, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.executions.load(Ordering::Relaxed)
    }

    /// How many bytes all that is kept takes, nearly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Something weighs otherwise than before.
    fn reweigh(&self, before: usize, now: usize) {
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether no execution is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: ExecutionId) -> &Shard {
        // The last byte is random in a UUIDv7 and counts in test ids.
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

    /// The entry, where it is the organization's.
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

    /// Lets the queue know where an execution belongs now.
    fn requeue(&self, entry: &Entry, run: &mut Run) {
        run.generation += 1;
        self.queue().place(
            entry.id,
            entry.organization,
            run.generation,
            run.want(entry.types),
        );
    }

    /// Lists an execution among those that may have unpublished events.
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
