//! Workflow definitions: the current version of each.

use std::sync::Arc;

use async_trait::async_trait;
use docg_core::{
    ids::{OrganizationId, WorkflowId},
    ports::{StoreError, WorkflowStore},
    query::{Page, WorkflowQuery},
    workflow::Workflow,
};

use super::{
    PgStore,
    reads::{limit, page},
};
use crate::{
    codec::{Time, number, workflow},
    database::arguments,
    error::Error,
};

/// The latest version of workflow `w`, which the next version must follow. If the stored version is
/// damaged, the highest version that an execution was created with is used, or 1.
macro_rules! latest {
    () => {
        "CASE WHEN w.version BETWEEN 1 AND 4294967294 THEN w.version ELSE coalesce(
            (SELECT max(e.workflow_version) FROM docg.executions e
             WHERE e.organization_id = w.organization_id AND e.workflow_id = w.id
                 AND e.workflow_version BETWEEN 1 AND 4294967294), 1) END AS latest"
    };
}

macro_rules! workflows {
    ($more:literal) => {
        concat!(
            "SELECT w.id, w.organization_id, w.version, ",
            latest!(),
            $more,
            " FROM docg.workflows w WHERE w.organization_id = $1 AND NOT w.is_deleted "
        )
    };
}

macro_rules! columns {
    () => {
        workflows!(
            ", w.name, w.input_schema::text, w.settings::text, w.nodes::text, w.created_at, w.updated_at"
        )
    };
}

/// The columns of a workflow that are shown if the server cannot read all of it.
macro_rules! bare_columns {
    () => {
        workflows!(", w.name, w.created_at, w.updated_at")
    };
}

impl PgStore {
    async fn store_workflow(&self, workflow: &Workflow) -> Result<(), Error> {
        let encoder = self.encoder;
        let sql = "INSERT INTO docg.workflows AS w (organization_id, id, version, name,
                input_schema, settings, nodes, created_at, updated_at)
            SELECT $1, $2, $3, $4, $5::text::json, $6::text::json, $7::text::json, $8, $9
            WHERE $3::bigint = 1 OR EXISTS (
                SELECT FROM docg.workflows WHERE organization_id = $1 AND id = $2)
            ON CONFLICT (organization_id, id) DO UPDATE
            SET version = excluded.version, name = excluded.name,
                input_schema = excluded.input_schema, settings = excluded.settings,
                nodes = excluded.nodes, created_at = excluded.created_at,
                updated_at = excluded.updated_at, is_deleted = false
            WHERE w.version = excluded.version - 1 OR w.version NOT BETWEEN 1 AND 4294967294
            RETURNING w.version";
        let parameters = arguments![
            workflow.organization_id.0,
            workflow.id.0,
            i64::from(workflow.version),
            encoder.text("name", &workflow.name)?,
            encoder.json("input_schema", &workflow.input_schema)?,
            encoder.json("settings", &workflow.settings)?,
            encoder.json("nodes", &workflow.nodes)?,
            Time::from(workflow.created_at),
            Time::from(workflow.updated_at),
        ];
        if self.database.write(sql, parameters).await?.is_empty() {
            return Err(Error::Conflict(format!(
                "version {} of {} does not follow the latest",
                workflow.version, workflow.id
            )));
        }
        Ok(())
    }

    async fn find_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, Error> {
        let sql = concat!(columns!(), "AND w.id = $2");
        let bare = concat!(bare_columns!(), "AND w.id = $2");
        let parameters = arguments![organization.0, id.0];
        let rows = self.read_or_bare(sql, bare, parameters).await?;
        rows.first()
            .map(|row| workflow(row).map(Arc::new))
            .transpose()
    }

    async fn list_workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, Error> {
        let organization = query.organization_id.0;
        let (sql, bare, parameters) = match query.after {
            None => {
                macro_rules! first {
                    ($columns:ident) => {
                        concat!(
                            $columns!(),
                            "ORDER BY w.created_at DESC, w.id DESC LIMIT $2"
                        )
                    };
                }
                let parameters = arguments![organization, limit(query.limit)];
                (first!(columns), first!(bare_columns), parameters)
            }
            Some((created_at, id)) => {
                macro_rules! next {
                    ($columns:ident) => {
                        concat!(
                            $columns!(),
                            "AND (w.created_at, w.id) < (coalesce(
                                 (SELECT x.created_at FROM docg.workflows x
                                     WHERE x.organization_id = $1 AND x.id = $3),
                                 $2), $3)
                             ORDER BY w.created_at DESC, w.id DESC LIMIT $4"
                        )
                    };
                }
                let after = Time::from(created_at);
                let parameters = arguments![organization, after, id.0, limit(query.limit)];
                (next!(columns), next!(bare_columns), parameters)
            }
        };
        match self.database.read(sql, parameters.clone()).await {
            Err(error) if error.is_unreadable() => {
                let rows = self.database.read(bare, parameters).await?;
                let mut page = page(&rows, query.limit, |row| workflow(row).map(Arc::new))?;
                for listed in &mut page.items {
                    let found = self.find_workflow(listed.organization_id, listed.id);
                    // The workflow may have been deleted meanwhile.
                    if let Some(found) = found.await? {
                        *listed = found;
                    }
                }
                Ok(page)
            }
            rows => page(&rows?, query.limit, |row| workflow(row).map(Arc::new)),
        }
    }
}

#[async_trait]
impl WorkflowStore for PgStore {
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError> {
        let stored = self.store_workflow(&workflow).await;
        stored.map_err(|e| e.at("put_workflow"))
    }

    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        let found = self.find_workflow(organization, id).await;
        found.map_err(|e| e.at("workflow"))
    }

    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError> {
        self.list_workflows(query)
            .await
            .map_err(|e| e.at("workflows"))
    }

    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError> {
        let read = async || {
            let sql = concat!(
                "SELECT ",
                latest!(),
                " FROM docg.workflows w WHERE w.organization_id = $1 AND w.id = $2"
            );
            let rows = self
                .database
                .read(sql, arguments![organization.0, id.0])
                .await?;
            rows.first().map_or(Ok(0), |row| number(row, "latest"))
        };
        read().await.map_err(|e: Error| e.at("latest_version"))
    }

    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError> {
        let delete = async || {
            let sql = "UPDATE docg.workflows SET is_deleted = true
                WHERE organization_id = $1 AND id = $2 AND NOT is_deleted RETURNING id";
            let rows = self
                .database
                .write(sql, arguments![organization.0, id.0])
                .await?;
            Ok(!rows.is_empty())
        };
        delete().await.map_err(|e: Error| e.at("delete_workflow"))
    }
}
