//! [`ExecutionStore`] for the memory store: all changes of executions.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use async_trait::async_trait;
use docg_core::{
    approval::Approval,
    ids::{ExecutionId, WorkerId},
    ports::{
        Claim, ClaimRequest, ClaimWhat, Claimed, Commit, Committed, Created, ExecutionStore,
        FirstClaim, Lease, NewExecution, Renewed, Signal, StoreError, StoreErrorKind, Unpublished,
        Unserved,
    },
    signature::SignatureRequest,
    time::Timestamp,
};

use crate::{config::StoreConfig, weight};

use super::{
    MemoryStore,
    entry::{Entry, Run, check_new, weight_of},
    queue::{Ask, Left},
    storable,
};

/// The size in bytes up to which a signal is accepted even if the store is full. Cancels and approvals are
/// small; they let executions end, and ended executions can be deleted.
const SMALL_SIGNAL: usize = 16 * 1024;

#[async_trait]
impl ExecutionStore for MemoryStore {
    async fn create(&self, run: NewExecution) -> Result<Created, StoreError> {
        storable::refuse("create", storable::of_run(&run))?;
        let organization = run.state.execution.organization_id;
        // Delete ended executions to make room, before taking any lock.
        let room = self.make_room("create", 1, weight_of(&run));
        let Some(idempotency) = run.idempotency.clone() else {
            room?;
            return self.insert(run);
        };
        // Hold the lock until the execution is stored, so that a second call with the same key finds it.
        let mut keys = self.keys(organization, &idempotency.key);
        let key = (organization, idempotency.key.into_boxed_str());
        if let Some((fingerprint, id)) = keys.get(&key) {
            if *fingerprint == idempotency.fingerprint {
                return Ok(Created::Existing(*id));
            }
            let message = "the idempotency key was used for something else";
            return Err(StoreError::new(
                StoreErrorKind::KeyReused,
                "create",
                message,
            ));
        }
        room?;
        let id = run.state.execution.id;
        let created = self.insert(run)?;
        keys.insert(key, (idempotency.fingerprint, id));
        Ok(created)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        Ok(match &request.what {
            ClaimWhat::One(id) => self.claim_one(*id, &request),
            ClaimWhat::Due {
                limit,
                per_organization,
                node_types,
            } => {
                self.expire_leases(request.now);
                let allowed = self.types.allowed(node_types);
                self.claim_due(
                    &Ask {
                        now: request.now,
                        lease_until: request.lease_until,
                        limit: *limit,
                        per_organization: *per_organization,
                        allowed: &allowed,
                    },
                    request.worker_id,
                )
            }
        })
    }

    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError> {
        let left = {
            let allowed = self.types.allowed(&node_types);
            self.queue().left(&allowed, before)
        };
        let unserved = |(types, due): (_, Vec<Left>)| {
            Some(Unserved {
                node_types: self.types.names(types),
                due_since: due.first()?.0,
                executions: due.into_iter().map(|(_, id, owner)| (owner, id)).collect(),
            })
        };
        Ok(left.into_iter().filter_map(unserved).collect())
    }

    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError> {
        let mut renewed = Renewed::default();
        for lease in leases {
            let is_signaled = self.entry(lease.execution_id).and_then(|entry| {
                let mut run = entry.lock();
                if !run.holds(lease) {
                    return None;
                }
                if run.hold_until(until) {
                    self.requeue(&entry, &mut run);
                }
                Some(!run.inbox.is_empty())
            });
            match is_signaled {
                Some(false) => {}
                Some(true) => renewed.signaled.push(*lease),
                None => renewed.lost.push(*lease),
            }
        }
        Ok(renewed)
    }

    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
        for lease in leases {
            let Some(entry) = self.entry(lease.execution_id) else {
                continue;
            };
            let mut run = entry.lock();
            if run.holds(lease) {
                run.release(now);
                self.requeue(&entry, &mut run);
            }
        }
        Ok(())
    }

    async fn commit(&self, mut commit: Commit) -> Result<Committed, StoreError> {
        let id = commit.lease.execution_id;
        let Some(entry) = self.entry(id) else {
            return Err(StoreError::new(
                StoreErrorKind::Conflict,
                "commit",
                format!("{id} is not there"),
            ));
        };
        let mut guard = entry.lock();
        let run = &mut *guard;
        run.check(id, &commit)?;
        storable::refuse("commit", storable::of_commit(&commit))?;

        let status = run.execution.status;
        let (was_terminal, weight) = (run.ended_at(), run.weight());
        let signature = commit.signature.take();
        let approval = commit.approval.take();
        if signature.is_some() || approval.is_some() {
            self.put_requests(id, run, signature, approval)?;
        }
        let lease_changed = run.apply(commit);
        let (workflow_id, now_status) = (run.execution.workflow_id, run.execution.status);
        if now_status != status {
            entry
                .lists
                .change(workflow_id, entry.list_key(), status, now_status);
        }
        let ended_at = run.ended_at();
        if ended_at != was_terminal {
            let mut ended = self
                .shard(id)
                .ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = was_terminal {
                ended.remove(&(at, id));
            }
            if let Some(at) = ended_at {
                ended.insert((at, id));
            }
        }
        if ended_at.is_some() {
            run.pack();
        }
        self.list_unpublished(&entry, run);
        if lease_changed {
            self.requeue(&entry, run);
        }
        self.reweigh(weight, run.weight());
        let signals_pending = !run.inbox.is_empty();
        let is_released = run.held.is_none();
        drop(guard);
        Ok(Committed {
            signals_pending,
            share_awaited: is_released && self.queue().is_share_awaited(entry.organization),
        })
    }

    async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        storable::refuse("signal", storable::of_record(&signal))?;
        let id = signal.execution_id;
        let refuse = |kind, message| Err(StoreError::new(kind, "signal", message));
        let Some(entry) = self.owned(signal.organization_id, id) else {
            return refuse(
                StoreErrorKind::NotFound,
                format!("there is no execution {id}"),
            );
        };
        let bytes = weight::record(&signal);
        let room = self.make_room("signal", 0, bytes);
        if bytes > SMALL_SIGNAL {
            room?;
        }
        let mut run = entry.lock();
        if run.gone {
            return refuse(
                StoreErrorKind::NotFound,
                format!("there is no execution {id}"),
            );
        }
        if run.knows(signal.id) {
            return Ok(());
        }
        if run.inbox.len() >= self.config.max_inbox {
            return refuse(
                StoreErrorKind::Full,
                format!(
                    "the inbox of {id} has {} signals, as many as max_inbox allows",
                    self.config.max_inbox
                ),
            );
        }
        let due = signal.received_at;
        let weight = run.weight();
        run.put_into_inbox(signal);
        self.reweigh(weight, run.weight());
        if run.due_by(due) {
            self.requeue(&entry, &mut run);
        }
        Ok(())
    }

    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError> {
        Ok(self
            .entry(execution)
            .map(|entry| entry.lock().inbox.clone())
            .unwrap_or_default())
    }

    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError> {
        let mut found = Vec::new();
        for shard in &self.shards {
            // Take the list out while the entries are examined: an entry's lock must be taken before the
            // list's.
            let listed = std::mem::take(
                &mut *shard
                    .unpublished
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            let still = listed
                .into_iter()
                .filter(|id| self.is_unpublished(*id, before, &mut found))
                .collect();
            let mut list = shard
                .unpublished
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let meanwhile = std::mem::replace(&mut *list, still);
            list.extend(meanwhile);
        }
        found.retain(|it| after.is_none_or(|after| it.execution_id > after));
        found.sort_unstable_by_key(|it| it.execution_id);
        found.truncate(limit);
        Ok(found)
    }

    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError> {
        for (id, seq) in published {
            if let Some(entry) = self.entry(*id) {
                entry.lock().mark_published(*seq);
            }
        }
        Ok(())
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.remove_ended(before, limit))
    }
}

impl MemoryStore {
    /// Deletes executions that ended before `before`, at most `limit`.
    fn remove_ended(&self, before: Timestamp, limit: usize) -> usize {
        let mut purged = 0;
        for shard in &self.shards {
            let mut passed = Bound::Unbounded;
            while purged < limit {
                let next = {
                    let ended = shard.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.range((passed, Bound::Unbounded)).next().copied()
                };
                let Some((at, id)) = next.filter(|(at, _)| *at < before) else {
                    break;
                };
                passed = Bound::Excluded((at, id));
                purged += usize::from(self.remove(id, before));
            }
        }
        purged
    }

    fn insert(&self, run: NewExecution) -> Result<Created, StoreError> {
        let refuse = |kind, message: String| Err(StoreError::new(kind, "create", message));
        if let Err(message) = check_new(&run) {
            return refuse(StoreErrorKind::Invalid, message);
        }
        let max = self.config.max_executions;
        let room = |kept: usize| (kept < max).then_some(kept + 1);
        if self
            .executions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_err()
        {
            return refuse(
                StoreErrorKind::Full,
                format!("max_executions is {max}, and so many are kept already"),
            );
        }
        let types = self.types.of(&run.state.workflow);
        let lists = self.tenant_or_new(run.state.execution.organization_id);
        let claim = run.claim;
        if claim.is_some() {
            // Expired leases do not count towards the organization's share of leases.
            self.expire_leases(run.state.execution.created_at);
        }
        let entry = Arc::new(Entry::new(run, types, lists));
        // Lock the entry before other calls can find it, so that readers wait until it is complete.
        let mut guard = entry.lock();
        let run = &mut *guard;
        {
            let mut entries = self
                .shard(entry.id)
                .entries
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if entries.contains_key(&entry.id) {
                self.executions.fetch_sub(1, Ordering::Relaxed);
                return refuse(
                    StoreErrorKind::Conflict,
                    format!("{} is there already", entry.id),
                );
            }
            entries.insert(entry.id, Arc::clone(&entry));
        }
        self.reweigh(0, run.weight());
        entry.lists.insert(
            run.execution.workflow_id,
            entry.list_key(),
            run.execution.status,
        );
        if !run.signatures.is_empty() || !run.approvals.is_empty() {
            let mut lookups = self.lookups.write().unwrap_or_else(PoisonError::into_inner);
            run.signatures
                .iter()
                .for_each(|request| lookups.add_signature(request));
            run.approvals
                .iter()
                .for_each(|approval| lookups.add_approval(approval));
        }
        self.list_unpublished(&entry, run);
        let lease = claim.and_then(|claim| self.grant(&entry, run, &claim));
        if lease.is_none() {
            self.requeue(&entry, run);
        }
        Ok(Created::New { lease })
    }

    /// Leases a new execution if its organization is below its share of leases.
    fn grant(&self, entry: &Entry, run: &mut Run, claim: &FirstClaim) -> Option<Lease> {
        let mut queue = self.queue();
        if queue.leased_of(entry.organization) >= claim.per_organization {
            return None;
        }
        let lease = run.lease(entry.id, claim.worker_id, claim.lease_until);
        run.generation += 1;
        let want = run.want(entry.types);
        queue.place(entry.id, entry.organization, run.generation, want);
        Some(lease)
    }

    fn claim_one(&self, id: ExecutionId, request: &ClaimRequest) -> Claim {
        let Some(entry) = self.entry(id) else {
            return Claim::default();
        };
        let mut run = entry.lock();
        if run.gone || run.is_leased(request.now) {
            return Claim::default();
        }
        let lease = run.lease(id, request.worker_id, request.lease_until);
        self.requeue(&entry, &mut run);
        let mut claim = Claim::default();
        claim.claimed.push(claimed(&entry, &run, lease));
        claim
    }

    fn claim_due(&self, ask: &Ask<'_>, worker: WorkerId) -> Claim {
        let taken = self.queue().take(ask);
        let mut claim = Claim::default();
        claim.claimed.reserve_exact(taken.executions.len());
        claim.next_due = taken.next_due;
        claim.held_back = taken.held_back;
        for (id, generation) in taken.executions {
            let Some(entry) = self.entry(id) else {
                continue;
            };
            let mut run = entry.lock();
            if run.generation == generation && !run.gone {
                let lease = run.lease(id, worker, ask.lease_until);
                claim.claimed.push(claimed(&entry, &run, lease));
            } else {
                // The execution changed after the claim took it from the queue, and the change has requeued
                // it.
                claim.next_due = Some(ask.now);
            }
        }
        claim
    }

    /// Makes executions due again whose lease expired without a commit or renewal.
    fn expire_leases(&self, now: Timestamp) {
        let run_out = self.queue().run_out(now);
        for id in run_out {
            if let Some(entry) = self.entry(id) {
                let mut run = entry.lock();
                if !run.gone {
                    run.lapse(now);
                    self.requeue(&entry, &mut run);
                }
            }
        }
    }

    fn put_requests(
        &self,
        id: ExecutionId,
        run: &mut Run,
        signature: Option<SignatureRequest>,
        approval: Option<Approval>,
    ) -> Result<(), StoreError> {
        let mut lookups = self.lookups.write().unwrap_or_else(PoisonError::into_inner);
        if lookups.is_taken(id, signature.as_ref(), approval.as_ref()) {
            let message = format!("a request of {id} has a name that leads elsewhere");
            return Err(StoreError::new(
                StoreErrorKind::NameTaken,
                "commit",
                message,
            ));
        }
        if let Some(request) = signature {
            match run
                .signatures
                .iter_mut()
                .find(|known| known.id == request.id)
            {
                Some(known) => {
                    lookups.remove_signature(known);
                    lookups.add_signature(&request);
                    *known = request;
                }
                None => {
                    lookups.add_signature(&request);
                    run.signatures.push(request);
                }
            }
        }
        if let Some(approval) = approval {
            match run
                .approvals
                .iter_mut()
                .find(|known| known.id == approval.id)
            {
                Some(known) => {
                    lookups.remove_approval(known);
                    lookups.add_approval(&approval);
                    *known = approval;
                }
                None => {
                    lookups.add_approval(&approval);
                    run.approvals.push(approval);
                }
            }
        }
        run.weigh_requests();
        Ok(())
    }

    /// Deletes the executions that ended first, until `more` executions and `bytes` fit. Call it only before
    /// adding a new thing: a commit must not delete the execution that it ends before its caller has read it.
    pub(super) fn make_room(
        &self,
        operation: &'static str,
        more: usize,
        bytes: usize,
    ) -> Result<(), StoreError> {
        let full = |message| Err(StoreError::new(StoreErrorKind::Full, operation, message));
        let StoreConfig {
            max_executions,
            max_bytes,
            ..
        } = self.config;
        if bytes > max_bytes {
            return full(format!(
                "it takes {bytes} bytes, and max_bytes is {max_bytes}"
            ));
        }
        loop {
            let limit = if self.len() + more > max_executions {
                format!("max_executions is {max_executions}")
            } else if self.bytes() + bytes > max_bytes {
                format!("it takes {bytes} more, and max_bytes is {max_bytes}")
            } else {
                return Ok(());
            };
            if !self.remove_oldest_ended() {
                let (len, kept) = (self.len(), self.bytes());
                return full(format!(
                    "{len} executions and {kept} bytes are kept, and none of them has ended: {limit}"
                ));
            }
        }
    }

    /// Deletes the execution that ended first. Returns `false` if none could be deleted.
    fn remove_oldest_ended(&self) -> bool {
        let firsts = self.shards.iter().filter_map(|shard| {
            let ended = shard.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.first().copied()
        });
        let oldest = firsts.min();
        // An execution whose inbox is not empty has to stay; then delete the next one.
        oldest.is_some_and(|(_, id)| self.remove(id, Timestamp::MAX))
            || self.remove_ended(Timestamp::MAX, 1) > 0
    }

    /// True if an execution may still have unpublished events. If it was last updated before `before`, adds
    /// it to `found`.
    fn is_unpublished(
        &self,
        id: ExecutionId,
        before: Timestamp,
        found: &mut Vec<Unpublished>,
    ) -> bool {
        let Some(entry) = self.entry(id) else {
            return false;
        };
        let mut run = entry.lock();
        let (published, head) = (run.published, run.head());
        if published >= head || run.gone {
            run.listed_unpublished = false;
            return false;
        }
        if run.execution.updated_at < before {
            found.push(Unpublished {
                organization_id: entry.organization,
                execution_id: id,
                published,
                head,
            });
        }
        true
    }

    fn remove(&self, id: ExecutionId, before: Timestamp) -> bool {
        let Some(entry) = self.entry(id) else {
            return false;
        };
        {
            let mut run = entry.lock();
            let Some(ended_at) = run.ended_at().filter(|at| *at < before && !run.gone) else {
                return false;
            };
            // Signals that were accepted have to be settled before the execution is deleted.
            if !run.inbox.is_empty() {
                return false;
            }
            run.gone = true;
            self.reweigh(run.weight(), 0);
            run.held = None;
            self.requeue(&entry, &mut run);
            self.shard(id)
                .ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&(ended_at, id));
            entry.lists.remove(
                run.execution.workflow_id,
                entry.list_key(),
                run.execution.status,
            );
            if !run.signatures.is_empty() || !run.approvals.is_empty() {
                let mut lookups = self.lookups.write().unwrap_or_else(PoisonError::into_inner);
                run.signatures
                    .iter()
                    .for_each(|request| lookups.remove_signature(request));
                run.approvals
                    .iter()
                    .for_each(|approval| lookups.remove_approval(approval));
            }
        }
        self.shard(id)
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(key) = &entry.key {
            self.keys(entry.organization, key)
                .remove(&(entry.organization, key.clone()));
        }
        self.executions.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

fn claimed(entry: &Entry, run: &Run, lease: Lease) -> Claimed {
    let mut claimed = Claimed::new(lease, entry.state(run));
    claimed.taken_over = run.taken_over;
    claimed.takeovers = run.takeovers;
    claimed.signals = run.inbox.clone();
    claimed.published = run.published;
    claimed
}
