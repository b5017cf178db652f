//! Workflow definitions.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;
use docg_core::{
    ids::{OrganizationId, WorkflowId},
    ports::{StoreError, StoreErrorKind, WorkflowStore},
    query::{Page, WorkflowQuery},
    time::Timestamp,
    workflow::Workflow,
};

use super::{MemoryStore, storable};
use crate::weight;

#[derive(Default)]
pub(super) struct Workflows(HashMap<OrganizationId, Tenant>);

#[derive(Default)]
struct Tenant {
    versions: HashMap<WorkflowId, Versions>,
    listed: BTreeSet<(Timestamp, WorkflowId)>,
}

#[derive(Default)]
struct Versions {
    latest: u32,
    /// The current version; `None` once the workflow is deleted. A later version still gets the number after
    /// `latest`.
    current: Option<Arc<Workflow>>,
}

impl Versions {
    /// The size of the current version, in bytes. Earlier versions are kept only by their executions, so they
    /// do not count.
    fn weight(&self) -> usize {
        self.current.as_deref().map_or(0, weight::record)
    }
}

#[async_trait]
impl WorkflowStore for MemoryStore {
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError> {
        storable::refuse("put_workflow", storable::of_record(&workflow))?;
        self.make_room("put_workflow", 0, weight::record(&workflow))?;
        let mut workflows = self
            .workflows
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let tenant = workflows.0.entry(workflow.organization_id).or_default();
        let latest = tenant
            .versions
            .get(&workflow.id)
            .map_or(0, |versions| versions.latest);
        if workflow.version.checked_sub(1) != Some(latest) {
            let message = format!(
                "version {} of {} after version {latest}",
                workflow.version, workflow.id
            );
            return Err(StoreError::new(
                StoreErrorKind::Conflict,
                "put_workflow",
                message,
            ));
        }
        let versions = tenant.versions.entry(workflow.id).or_default();
        if let Some(current) = &versions.current {
            tenant.listed.remove(&(current.created_at, current.id));
        }
        tenant.listed.insert((workflow.created_at, workflow.id));
        self.reweigh(versions.weight(), 0);
        *versions = Versions {
            latest: workflow.version,
            current: Some(Arc::new(workflow)),
        };
        self.reweigh(0, versions.weight());
        Ok(())
    }

    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        let workflows = self
            .workflows
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let tenant = workflows.0.get(&organization);
        Ok(tenant
            .and_then(|tenant| tenant.versions.get(&id))
            .and_then(|versions| versions.current.clone()))
    }

    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError> {
        let workflows = self
            .workflows
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(tenant) = workflows.0.get(&query.organization_id) else {
            return Ok(Page {
                items: Vec::new(),
                has_more: false,
            });
        };
        let bound = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut newest_first = tenant.listed.range((Bound::Unbounded, bound)).rev();
        let items = newest_first
            .by_ref()
            .take(query.limit)
            .filter_map(|(_, id)| tenant.versions.get(id)?.current.clone())
            .collect();
        Ok(Page {
            items,
            has_more: newest_first.next().is_some(),
        })
    }

    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError> {
        let workflows = self
            .workflows
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let tenant = workflows.0.get(&organization);
        Ok(tenant
            .and_then(|tenant| tenant.versions.get(&id))
            .map_or(0, |versions| versions.latest))
    }

    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError> {
        let mut workflows = self
            .workflows
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(tenant) = workflows.0.get_mut(&organization) else {
            return Ok(false);
        };
        let Some(versions) = tenant.versions.get_mut(&id) else {
            return Ok(false);
        };
        self.reweigh(versions.weight(), 0);
        let Some(current) = versions.current.take() else {
            return Ok(false);
        };
        tenant.listed.remove(&(current.created_at, id));
        Ok(true)
    }
}
