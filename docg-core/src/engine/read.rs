use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::{
    Engine, EngineError,
    start::{data_fault, none},
};
use crate::{
    actions::RecommendedAction,
    error::{ErrorContext, codes},
    i18n::Text,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{
        AuditEvent, ChainFault, ChainReport, JsonText, LogEntry, Redaction, status_told,
        verify_chain,
    },
    ports::{
        AuditQuery, EventQuery, ExecutionQuery, ExecutionRecord, LogQuery, Memo, MemoKey, Page,
        StoreErrorKind,
    },
    preflight::{self, PreflightRequest, PreflightSummary},
    programs,
    run::{Execution, Inputs, Step},
    signature::SignatureRequest,
    time::Timestamp,
};

/// What preflight says of a workflow before it is run.
#[derive(Debug, Clone)]
pub struct PreflightAnswer {
    /// What was found.
    pub summary: PreflightSummary,
    /// What a person can do about it.
    pub actions: Vec<RecommendedAction>,
}

/// Rows read at once where a whole list is needed.
const BATCH: usize = 1000;

impl Engine {
    /// The engine's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.now()
    }

    /// What is hidden in snapshots.
    #[must_use]
    pub fn redaction(&self) -> &Redaction {
        &self.inner.redaction
    }

    /// The trigger data of an execution as they may be shown: redacted, and cut where they are large.
    pub async fn shown_trigger_data(&self, record: &ExecutionRecord) -> JsonText {
        let data = Arc::clone(&record.inputs.trigger_data);
        if programs::is_little(&data) {
            return self.inner.redaction.snapshot(&data);
        }
        let inner = Arc::clone(&self.inner);
        let organization = record.execution.organization_id;
        programs::run(organization, move || inner.redaction.snapshot(&data)).await
    }

    /// Whether the store answers and takes writes. It is given one that changes nothing, which a
    /// database refuses that is read-only, or where the role may not write.
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
    /// `NotFound`, also where it is another organization's.
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

    /// One execution, marked as unreadable also where that is so of what lies beside its own row: its
    /// steps, its definition, what it waits for.
    ///
    /// # Errors
    ///
    /// `NotFound`, also where it is another organization's.
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

    /// A page of executions, newest first.
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

    /// The `seq` of the earliest event that is left of an execution: 1 where none has been purged,
    /// and that of the next one where all have.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn earliest_event(
        &self,
        organization_id: OrganizationId,
        execution_id: ExecutionId,
    ) -> Result<u64, EngineError> {
        let query = EventQuery {
            organization_id,
            execution_id,
            after: 0,
            limit: 1,
        };
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

    /// Verifies an execution's whole audit trail, and that the execution has the status in which the
    /// trail leaves it.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn verify_audit(
        &self,
        organization_id: OrganizationId,
        execution_id: ExecutionId,
    ) -> Result<ChainReport, EngineError> {
        // The head first: rows that are added meanwhile lie behind it and are left out.
        let Execution { heads, status, .. } = self
            .execution(organization_id, execution_id)
            .await?
            .execution;
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map_or(0, |row: &Arc<AuditEvent>| row.seq);
            let query = AuditQuery {
                organization_id,
                execution_id,
                after,
                limit: BATCH,
            };
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

    /// What a person can do about an execution as it stands.
    #[must_use]
    pub fn recommended_actions(
        &self,
        execution: &Execution,
        steps: &[Step],
    ) -> Vec<RecommendedAction> {
        self.inner.actions.for_execution(execution, steps)
    }

    /// Checks a workflow with trigger data, and creates nothing.
    ///
    /// # Errors
    ///
    /// `NotFound`; `InvalidInput` for trigger data that [`start`](Self::start) refuses.
    pub async fn preflight(
        &self,
        organization: OrganizationId,
        workflow: WorkflowId,
        mut trigger_data: Value,
    ) -> Result<PreflightAnswer, EngineError> {
        none(data_fault(&mut trigger_data))?;
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

    /// The signature request that a provider knows by this name, whosever it is: for providers'
    /// own pages, whose links are the proof.
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

    /// Remembers a small fact unless its name is taken; then returns what is there.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn remember(&self, memo: Memo) -> Result<Option<Memo>, EngineError> {
        Ok(self.inner.store.remember(memo, self.inner.now()).await?)
    }

    /// A small fact that was remembered.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn recall(&self, key: &MemoKey) -> Result<Option<Memo>, EngineError> {
        Ok(self.inner.store.recall(key, self.inner.now()).await?)
    }

    /// Replaces a small fact.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn replace(&self, memo: Memo) -> Result<(), EngineError> {
        Ok(self.inner.store.replace(memo).await?)
    }
}
