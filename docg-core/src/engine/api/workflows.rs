//! Checks workflows, stores them in versions, reads and hides them.

use std::sync::Arc;

use crate::{
    engine::{Engine, EngineError},
    error::{FieldFault, codes},
    i18n::Text,
    ids::{OrganizationId, WorkflowId},
    ports::StoreErrorKind,
    programs,
    query::{Page, WorkflowQuery},
    storable,
    workflow::{
        Workflow, WorkflowDraft,
        size::size_of,
        validate::{Validated, schema, validate},
        variables::push_token,
    },
};

/// Drafts whose parameters have fewer values than this are checked on the runtime's own threads. A long text
/// counts as several values.
const SMALL_PARAMS: usize = 5_000;

/// Rejects a draft with values that are nested too deep to process.
fn refuse_deep(draft: &mut WorkflowDraft) -> Result<(), Vec<FieldFault>> {
    let pointer = |mut at: String, name: &str| {
        push_token(&mut at, name);
        at
    };
    let schema = draft.input_schema.iter_mut().filter_map(|(name, value)| {
        storable::refuse_deep(value, || pointer("/input_schema".to_owned(), name))
    });
    let nodes = draft.nodes.iter_mut().enumerate();
    let params = nodes.flat_map(|(index, node)| {
        node.params.iter_mut().filter_map(move |(name, value)| {
            storable::refuse_deep(value, || pointer(format!("/nodes/{index}/params"), name))
        })
    });
    let faults: Vec<_> = schema.chain(params).collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// True if checking a workflow is cheap.
fn is_small_draft(draft: &WorkflowDraft) -> bool {
    let params = draft.nodes.iter().flat_map(|node| node.params.values());
    let size: usize = params.map(|value| size_of(value, SMALL_PARAMS)).sum();
    size < SMALL_PARAMS && schema::has_small_schema(&draft.input_schema)
}

/// The result of storing a workflow.
#[derive(Debug, Clone)]
pub struct PutWorkflow {
    /// The stored version.
    pub workflow: Arc<Workflow>,
    /// True if no workflow existed under this id before.
    pub created: bool,
}

impl Engine {
    /// Checks that a workflow can run here, and fills in the defaults of its node types.
    ///
    /// # Errors
    ///
    /// All faults of the workflow, the same as [`put_workflow`](Self::put_workflow) names.
    pub fn check_workflow(&self, mut draft: WorkflowDraft) -> Result<Validated, Vec<FieldFault>> {
        refuse_deep(&mut draft)?;
        validate(draft, &self.inner.registry)
    }

    /// Like [`check_workflow`](Self::check_workflow), for drafts that organizations send. A large draft is
    /// checked off the runtime's threads, so that other tasks do not wait for it.
    ///
    /// # Errors
    ///
    /// As [`check_workflow`](Self::check_workflow).
    pub async fn check_workflow_of(
        &self,
        organization: OrganizationId,
        mut draft: WorkflowDraft,
    ) -> Result<Validated, Vec<FieldFault>> {
        refuse_deep(&mut draft)?;
        if is_small_draft(&draft) {
            return self.check_workflow(draft);
        }
        let engine = self.clone();
        programs::run(organization, move || engine.check_workflow(draft)).await
    }

    /// Stores a new version of a workflow. Existing executions keep their version.
    ///
    /// # Errors
    ///
    /// `InvalidWorkflow` names every fault; `VersionMismatch` if `if_version` is not the current version.
    pub async fn put_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
        draft: WorkflowDraft,
        if_version: Option<u32>,
    ) -> Result<PutWorkflow, EngineError> {
        let valid = self
            .check_workflow_of(organization, draft)
            .await
            .map_err(EngineError::InvalidWorkflow)?;
        loop {
            let latest = self.inner.store.latest_version(organization, id).await?;
            let current = self.inner.store.workflow(organization, id).await?;
            let actual = current.as_ref().map_or(0, |workflow| workflow.version);
            if let Some(expected) = if_version.filter(|expected| *expected != actual) {
                return Err(EngineError::VersionMismatch {
                    expected: expected.into(),
                    actual: actual.into(),
                });
            }
            let now = self.inner.now();
            let workflow = Workflow {
                id,
                organization_id: organization,
                name: valid.name.clone(),
                version: latest + 1,
                input_schema: valid.input_schema.clone(),
                settings: valid.settings.clone(),
                nodes: valid.nodes.clone(),
                created_at: current
                    .filter(|workflow| !workflow.unreadable)
                    .map_or(now, |workflow| workflow.created_at),
                updated_at: now,
                unreadable: false,
            };
            match self.inner.store.put_workflow(workflow.clone()).await {
                Ok(()) => {
                    return Ok(PutWorkflow {
                        workflow: Arc::new(workflow),
                        created: actual == 0,
                    });
                }
                // Another caller stored a version in between: store this draft as the version after it.
                Err(e) if e.kind == StoreErrorKind::Conflict => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The current version of a workflow. Parts that cannot be read are empty, and the workflow is marked
    /// [`unreadable`](Workflow::unreadable). Storing a new version repairs it.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Arc<Workflow>, EngineError> {
        let found = self.inner.store.workflow(organization, id).await?;
        found.ok_or(EngineError::NotFound("workflow"))
    }

    /// The current version of a workflow, which must be fully readable.
    pub(in crate::engine) async fn whole_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Arc<Workflow>, EngineError> {
        let workflow = self.workflow(organization, id).await?;
        if workflow.unreadable {
            let detail = Text::key("fault-workflow-unreadable");
            let fault = FieldFault::new("/workflow_id", codes::UNREADABLE, detail);
            return Err(EngineError::InvalidInput(vec![fault]));
        }
        Ok(workflow)
    }

    /// The highest version ever stored of a workflow, also if the workflow is deleted now.
    ///
    /// # Errors
    ///
    /// `NotFound` if no version was ever stored.
    pub async fn latest_workflow_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, EngineError> {
        match self.inner.store.latest_version(organization, id).await? {
            0 => Err(EngineError::NotFound("workflow")),
            version => Ok(version),
        }
    }

    /// A page of an organization's workflows, newest first.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn workflows(
        &self,
        query: WorkflowQuery,
    ) -> Result<Page<Arc<Workflow>>, EngineError> {
        Ok(self.inner.store.workflows(query).await?)
    }

    /// Hides a workflow. Its executions remain and go on.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<(), EngineError> {
        if self.inner.store.delete_workflow(organization, id).await? {
            Ok(())
        } else {
            Err(EngineError::NotFound("workflow"))
        }
    }
}
