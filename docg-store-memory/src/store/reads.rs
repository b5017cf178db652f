//! [`ExecutionReader`] for the memory store: reads of executions and their records.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use docg_core::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignatureRequestId},
    observe::{AuditEvent, LogEntry},
    ports::{ExecutionReader, StoreError},
    query::{
        AuditQuery, AwaitingQuery, EventQuery, ExecutionCounts, ExecutionFilter, ExecutionQuery,
        ExecutionRecord, LogQuery, Page,
    },
    run::{Status, Step},
    signature::SignatureRequest,
    workflow::Workflow,
};

use super::{MemoryStore, entry::Run, lists::TenantLists};

#[async_trait]
impl ExecutionReader for MemoryStore {
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError> {
        Ok(self.read(organization, id, Run::record))
    }

    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError> {
        let Some(tenant) = self.tenant(query.organization_id) else {
            return Ok(empty());
        };
        if query.sort.is_by_change() {
            return Ok(self.by_change(&tenant, &query));
        }
        let (organization, filter) = (query.organization_id, &query.filter);
        let mut items = Vec::new();
        let mut after = query.after;
        loop {
            let wanted = (query.limit - items.len()).saturating_add(1).max(CHUNK);
            let keys = tenant.page(
                filter.workflow_id,
                &filter.statuses,
                !query.sort.is_descending(),
                after,
                wanted,
            );
            let exhausted = keys.len() < wanted;
            for key in keys {
                after = Some(key);
                // Check the status too: the execution may have changed it, or was purged, meanwhile.
                let record = self.read(organization, key.1, |run| {
                    filter.selects(&run.execution).then(|| run.record())
                });
                let Some(record) = record.flatten() else {
                    continue;
                };
                if items.len() == query.limit {
                    return Ok(Page {
                        items,
                        has_more: true,
                    });
                }
                items.push(record);
            }
            if exhausted {
                return Ok(Page {
                    items,
                    has_more: false,
                });
            }
        }
    }

    async fn execution_counts(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, StoreError> {
        let mut counts = ExecutionCounts::default();
        if let Some(tenant) = self.tenant(organization) {
            let all = tenant.page(
                filter.workflow_id,
                &filter.statuses,
                false,
                None,
                usize::MAX,
            );
            for (_, id) in all {
                self.read(organization, id, |run| {
                    if filter.selects(&run.execution) {
                        counts.add(&run.execution);
                    }
                });
            }
        }
        Ok(counts)
    }

    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError> {
        Ok(self
            .read(organization, id, |run| run.steps())
            .unwrap_or_default())
    }

    async fn awaiting(&self, query: AwaitingQuery) -> Result<Vec<ExecutionId>, StoreError> {
        Ok(self.find_awaiting(&query))
    }

    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        Ok(self
            .owned(organization, id)
            .map(|entry| Arc::clone(&entry.workflow)))
    }

    async fn readable(&self, _: ExecutionId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError> {
        let events = self.read(query.organization_id, query.execution_id, |run| {
            after(&run.events, query.after)
                .iter()
                .take(query.limit)
                .cloned()
                .collect()
        });
        Ok(events.unwrap_or_default())
    }

    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError> {
        let is_wanted = |entry: &&Arc<LogEntry>| query.selects(entry);
        let page = self.read(query.organization_id, query.execution_id, |run| {
            page(
                after(&run.logs, query.after).iter().filter(is_wanted),
                query.limit,
            )
        });
        Ok(page.unwrap_or_else(empty))
    }

    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError> {
        let page = self.read(query.organization_id, query.execution_id, |run| {
            page(after(&run.audit, query.after).iter(), query.limit)
        });
        Ok(page.unwrap_or_else(empty))
    }

    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        let execution = self
            .lookups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .request(id);
        let entry = execution.and_then(|execution| self.owned(organization, execution));
        Ok(entry.and_then(|entry| {
            entry
                .lock()
                .signatures
                .iter()
                .find(|request| request.id == id)
                .cloned()
        }))
    }

    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        let found = self
            .lookups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .envelope(provider, envelope_id);
        Ok(found.and_then(|(execution, id)| {
            let entry = self.entry(execution)?;
            let run = entry.lock();
            run.signatures
                .iter()
                .find(|request| request.id == id)
                .cloned()
        }))
    }

    async fn approval_by_token(
        &self,
        token_hash: [u8; 32],
    ) -> Result<Option<Approval>, StoreError> {
        let found = self
            .lookups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .token(&token_hash);
        Ok(found.and_then(|(execution, id)| {
            let entry = self.entry(execution)?;
            let run = entry.lock();
            run.approvals
                .iter()
                .find(|approval| approval.id == id)
                .cloned()
        }))
    }
}

/// The fewest keys of a list that are read at once. Filters may select few of them.
const CHUNK: usize = 64;

impl MemoryStore {
    /// Searches the organization's executions that have not ended.
    fn find_awaiting(&self, query: &AwaitingQuery) -> Vec<ExecutionId> {
        let Some(tenant) = self.tenant(query.organization_id) else {
            return Vec::new();
        };
        let waits = |step: &Step| {
            let awaited = step.awaits.as_ref();
            awaited.is_some_and(|it| it.is_for_event(&query.name, &query.key))
        };
        let open = Status::ALL.into_iter().filter(|it| !it.is_terminal());
        let open: Vec<_> = open.collect();
        let keys = tenant.page(None, &open, false, None, usize::MAX);
        let mut found: Vec<_> = keys
            .into_iter()
            .map(|key| key.1)
            .filter(|id| {
                self.read(query.organization_id, *id, |run| {
                    run.steps().iter().any(waits)
                }) == Some(true)
            })
            .collect();
        found.sort_unstable();
        found.truncate(query.limit);
        found
    }

    /// A page of executions by their last change. There is no index by change, because each commit would have
    /// to move the execution in it: reads all executions of the organization.
    fn by_change(&self, tenant: &TenantLists, query: &ExecutionQuery) -> Page<ExecutionRecord> {
        let (organization, filter) = (query.organization_id, &query.filter);
        let all = tenant.page(
            filter.workflow_id,
            &filter.statuses,
            false,
            None,
            usize::MAX,
        );
        let is_descending = query.sort.is_descending();
        let follows = |place| match query.after {
            Some(after) if is_descending => place < after,
            Some(after) => place > after,
            None => true,
        };
        let mut places: Vec<_> = all
            .into_iter()
            .filter_map(|(_, id)| {
                let place = self.read(organization, id, |run| {
                    let is_selected = filter.selects(&run.execution);
                    is_selected.then(|| query.sort.place(&run.execution))
                });
                place.flatten().filter(|place| follows(*place))
            })
            .collect();
        places.sort_unstable();
        if is_descending {
            places.reverse();
        }
        let has_more = places.len() > query.limit;
        places.truncate(query.limit);
        let records = places.into_iter();
        let items = records.filter_map(|(_, id)| self.read(organization, id, Run::record));
        Page {
            items: items.collect(),
            has_more,
        }
    }

    fn read<T>(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
        read: impl FnOnce(&Run) -> T,
    ) -> Option<T> {
        let entry = self.owned(organization, id)?;
        let run = entry.lock();
        (!run.gone).then(|| read(&run))
    }
}

/// The rows after number `seq`. They are numbered 1, 2, 3 … without a gap.
fn after<T>(rows: &[T], seq: u64) -> &[T] {
    usize::try_from(seq)
        .ok()
        .and_then(|seq| rows.get(seq..))
        .unwrap_or_default()
}

fn page<'a, T: Clone + 'a>(mut rows: impl Iterator<Item = &'a T>, limit: usize) -> Page<T> {
    let items = rows.by_ref().take(limit).cloned().collect();
    Page {
        items,
        has_more: rows.next().is_some(),
    }
}

fn empty<T>() -> Page<T> {
    Page {
        items: Vec::new(),
        has_more: false,
    }
}
