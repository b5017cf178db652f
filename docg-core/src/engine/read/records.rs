//! Reads what is stored: executions, steps, logs, the audit trail, and signature requests.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::{
    actions::RecommendedAction,
    engine::{
        Engine, EngineError,
        api::start::{data_fault, refuse_faults},
    },
    error::{ErrorContext, codes},
    i18n::Text,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{
        AuditEvent, ChainFault, ChainReport, JsonText, LogEntry, Redaction, status_told,
        verify_chain,
    },
    ports::{StoreErrorKind, TtlEntry, TtlKey},
    preflight::{self, PreflightRequest, PreflightSummary},
    programs,
    query::{
        AuditQuery, EventQuery, ExecutionCounts, ExecutionFilter, ExecutionQuery, ExecutionRecord,
        LogQuery, Page,
    },
    run::{Execution, Inputs, Step},
    signature::SignatureRequest,
    time::Timestamp,
};

/// The result of checking a workflow before it runs.
#[derive(Debug, Clone)]
pub struct PreflightAnswer {
    /// The issues that preflight found.
    pub summary: PreflightSummary,
    /// The actions that a person can take on the issues.
    pub actions: Vec<RecommendedAction>,
}

/// Rows that are read per call where all rows are needed.
const BATCH: usize = 1000;

impl Engine {
    /// The present time of the engine's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.now()
    }

    /// The rules that hide secrets in snapshots.
    #[must_use]
    pub fn redaction(&self) -> &Redaction {
        &self.inner.redaction
    }

    /// An execution's trigger data for display: redacted, and truncated if they are large.
    pub async fn shown_trigger_data(&self, record: &ExecutionRecord) -> JsonText {
        let data = Arc::clone(&record.inputs.trigger_data);
        if programs::is_little(&data) {
            return self.inner.redaction.snapshot(&data);
        }
        let inner = Arc::clone(&self.inner);
        let organization = record.execution.organization_id;
        programs::run(organization, move || inner.redaction.snapshot(&data)).await
    }

    /// Checks that the store answers and accepts writes. The check is a write that changes nothing. A
    /// read-only database rejects it, and so does a database to which the role may not write.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn ready(&self) -> Result<(), EngineError> {
        let nothing = [(ExecutionId(Uuid::nil()), 0)];
        let written = self.inner.store.mark_published(&nothing).await;
        match &written {
            Ok(()) => self.inner.warnings.not_ready.is_over(),
            Err(error) => self.inner.warnings.not_ready.happened(error),
        }
        Ok(written?)
    }

    /// One execution.
    ///
    /// # Errors
    ///
    /// `NotFound`, also if the execution belongs to another organization.
    pub async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        self.inner
            .store
            .execution(organization, id)
            .await?
            .ok_or(EngineError::NotFound("execution"))
    }

    /// One execution, with all its parts checked. It is marked as unreadable also if its steps, its
    /// definition or its open request cannot be read.
    ///
    /// # Errors
    ///
    /// `NotFound`, also if the execution belongs to another organization.
    pub async fn inspected(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        let mut record = self.execution(organization, id).await?;
        if !record.unreadable
            && let Err(why) = self.inner.store.readable(id).await
            && why.kind == StoreErrorKind::Corrupt
        {
            record.unreadable = true;
            record.execution.error = Some(ErrorContext {
                code: codes::UNREADABLE.into(),
                human: Text::key("error-unreadable"),
                tech: Some(why.to_string()),
            });
        }
        Ok(record)
    }

    /// A page of executions, in the order of the query.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn executions(
        &self,
        query: ExecutionQuery,
    ) -> Result<Page<ExecutionRecord>, EngineError> {
        Ok(self.inner.store.executions(query).await?)
    }

    /// Counts an organization's executions that a filter selects, by status and by what they wait for.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn execution_counts(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, EngineError> {
        let counts = self.inner.store.execution_counts(organization, filter);
        Ok(counts.await?)
    }

    /// An execution's steps, in the workflow's order.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, EngineError> {
        self.execution(organization, id).await?;
        Ok(self.inner.store.steps(organization, id).await?)
    }

    /// The `seq` of an execution's earliest remaining event. It is 1 if no event was purged. If all were
    /// purged, it is the `seq` of the next event.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn earliest_event(
        &self,
        organization_id: OrganizationId,
        execution_id: ExecutionId,
    ) -> Result<u64, EngineError> {
        let query = EventQuery::of(organization_id, execution_id).limit(1);
        if let Some(event) = self.inner.store.events(query).await?.first() {
            return Ok(event.seq);
        }
        let record = self.execution(organization_id, execution_id).await?;
        Ok(record.execution.heads.event_seq + 1)
    }

    /// A page of an execution's log, oldest first.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, EngineError> {
        self.execution(query.organization_id, query.execution_id)
            .await?;
        Ok(self.inner.store.logs(query).await?)
    }

    /// A page of an execution's audit trail, oldest first.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, EngineError> {
        self.execution(query.organization_id, query.execution_id)
            .await?;
        Ok(self.inner.store.audit(query).await?)
    }

    /// Verifies an execution's whole audit trail. The trail's last status must equal the execution's status.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn verify_audit(
        &self,
        organization_id: OrganizationId,
        execution_id: ExecutionId,
    ) -> Result<ChainReport, EngineError> {
        // Read the head first: rows that are added later are left out.
        let Execution { heads, status, .. } = self
            .execution(organization_id, execution_id)
            .await?
            .execution;
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map_or(0, |row: &Arc<AuditEvent>| row.seq);
            let query = AuditQuery::of(organization_id, execution_id)
                .after(after)
                .limit(BATCH);
            let page = self.inner.store.audit(query).await?;
            let added = page.items.len();
            rows.extend(page.items);
            if !page.has_more || added == 0 {
                break;
            }
        }
        let now_head = self
            .execution(organization_id, execution_id)
            .await?
            .execution
            .heads;
        if now_head.audit_seq != heads.audit_seq {
            rows.truncate(rows.partition_point(|row| row.seq <= heads.audit_seq));
        }
        let mut report = verify_chain(&rows, heads.audit_seq, heads.audit_hash);
        let other = status_told(&rows).filter(|(_, told)| *told != status);
        report.fault = report.fault.or(other.map(|(seq, _)| ChainFault { seq }));
        Ok(report)
    }

    /// The actions that a person can take on an execution in its present state.
    #[must_use]
    pub fn recommended_actions(
        &self,
        execution: &Execution,
        steps: &[Step],
    ) -> Vec<RecommendedAction> {
        self.inner.actions.for_execution(execution, steps)
    }

    /// Runs preflight on a workflow with trigger data. Nothing is created.
    ///
    /// # Errors
    ///
    /// `NotFound` for the workflow; `InvalidInput` for trigger data that [`start`](Self::start) refuses, and if the
    /// workflow cannot be read.
    pub async fn preflight(
        &self,
        organization: OrganizationId,
        workflow: WorkflowId,
        mut trigger_data: Value,
    ) -> Result<PreflightAnswer, EngineError> {
        refuse_faults(data_fault(&mut trigger_data))?;
        let workflow = self.whole_workflow(organization, workflow).await?;
        let inputs = Inputs {
            trigger_data: trigger_data.into(),
            ..Inputs::default()
        };
        let issues = preflight::run(PreflightRequest {
            organization_id: organization,
            workflow: &workflow,
            inputs: &inputs,
            registry: &self.inner.registry,
            probe: &self.inner.probe,
            limits: &self.inner.limits,
            steps: &[],
            dry_run: false,
            until_phase: None,
        })
        .await;
        let summary = PreflightSummary::new(issues, self.inner.now());
        let actions = self.inner.actions.for_issues(summary.blocking());
        Ok(PreflightAnswer { summary, actions })
    }

    /// One signature request.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<SignatureRequest, EngineError> {
        let request = self.inner.store.signature_request(organization, id).await?;
        request.ok_or(EngineError::NotFound("signature request"))
    }

    /// The signature request with a provider's envelope id, of any organization. It serves the pages of
    /// providers, where the link proves the right to read.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<SignatureRequest, EngineError> {
        let request = self
            .inner
            .store
            .signature_by_envelope(provider, envelope_id)
            .await?;
        request.ok_or(EngineError::NotFound("signature request"))
    }

    /// Stores an entry in the TTL store unless its key is taken. If it is taken, returns the present entry.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn remember(&self, entry: TtlEntry) -> Result<Option<TtlEntry>, EngineError> {
        Ok(self.inner.store.remember(entry, self.inner.now()).await?)
    }

    /// Reads an entry of the TTL store.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn recall(&self, key: &TtlKey) -> Result<Option<TtlEntry>, EngineError> {
        Ok(self.inner.store.recall(key, self.inner.now()).await?)
    }

    /// Replaces an entry of the TTL store.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn replace(&self, entry: TtlEntry) -> Result<(), EngineError> {
        Ok(self.inner.store.replace(entry).await?)
    }
}
