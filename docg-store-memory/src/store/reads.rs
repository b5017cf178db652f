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
        AuditQuery, AwaitingQuery, EventQuery, ExecutionQuery, ExecutionRecord, LogQuery, Page,
    },
    run::{Status, Step},
    signature::SignatureRequest,
    workflow::Workflow,
};

use super::{MemoryStore, entry::Run};

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
        let mut items = Vec::new();
        let Some(tenant) = self.tenant(query.organization_id) else {
            return Ok(Page {
                items,
                has_more: false,
            });
        };
        let mut after = query.after;
        loop {
            let wanted = (query.limit - items.len()).saturating_add(1);
            let keys = tenant.page(query.workflow_id, query.status, after, wanted);
            let exhausted = keys.len() < wanted;
            for key in keys {
                if items.len() == query.limit {
                    return Ok(Page {
                        items,
                        has_more: true,
                    });
                }
                after = Some(key);
                // If the execution changed its status or was purged meanwhile, it is no longer in the list.
                let record = self.read(query.organization_id, key.1, Run::record);
                items.extend(
                    record.filter(|record| {
                        query.status.is_none_or(|it| record.execution.status == it)
                    }),
                );
            }
            if exhausted {
                return Ok(Page {
                    items,
                    has_more: false,
                });
            }
        }
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
        let keys = open.flat_map(|status| tenant.page(None, Some(status), None, usize::MAX));
        let mut found: Vec<_> = keys
            .map(|key| key.1)
            .filter(|id| {
                self.read(query.organization_id, *id, |run| {
                    run.steps().iter().any(waits)
                }) == Some(true)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(query.limit);
        found
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
