//! Stores new executions; those that arrive together share one statement.

use std::{collections::HashMap, sync::LazyLock};

use async_trait::async_trait;
use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::{Created, Idempotency, Lease, NewExecution},
};
use sqlx::{Postgres, pool::PoolConnection, postgres::PgArguments};
use uuid::Uuid;

use super::{
    PgStore,
    children::{Children, Lengths, Records, insert_children},
    definitions::hash,
};
use crate::{
    batch::BatchItem,
    codec::{
        ExecutionPlace, ExecutionRow, StepRow, Time, bytes32, field, int, number, row,
        search_vector, time_column, unnest,
    },
    database::{Database, arguments},
    error::{Error, Meaning},
};

row! {
    /// The values of a new execution that are not in its execution row.
    NewRow {
        type_set: i32 = "int4[]",
        definition_hash: [u8; 32] = "bytea[]",
        trigger_data: String = "text[]::json[]",
        node_overrides: String = "text[]::json[]",
        start_at: Option<Time> = "timestamptz[]",
        title: Option<String> = "text[]",
        search: String = "text[]::tsvector[]",
        idempotency_key: Option<String> = "text[]",
        fingerprint: Option<[u8; 32]> = "bytea[]",
        due_at: Option<Time> = "timestamptz[]",
        claimed_by: Option<Uuid> = "uuid[]",
        claimed_until: Option<Time> = "timestamptz[]",
        per_organization: Option<i64> = "int8[]",
    }
}

row! {
    DefinitionRow {
        hash: [u8; 32] = "bytea[]",
        definition: String = "text[]::json[]",
    }
}

/// A new execution, encoded.
pub(super) struct CreateItem {
    id: Uuid,
    size: usize,
    execution: ExecutionRow,
    place: ExecutionPlace,
    new: NewRow,
    definition: DefinitionRow,
    children: Children,
}

static CREATE: LazyLock<String> = LazyLock::new(|| create(false));
static CREATE_WITH_REQUESTS: LazyLock<String> = LazyLock::new(|| create(true));

/// The statement that stores the executions whose id and idempotency key are free. It returns their ids, each
/// with the lease if one was granted.
fn create(has_requests: bool) -> String {
    let input = [
        ExecutionRow::COLUMNS,
        ExecutionPlace::COLUMNS,
        NewRow::COLUMNS,
    ];
    let definitions_at = 1 + input.iter().map(|columns| columns.len()).sum::<usize>();
    let children_at = definitions_at + DefinitionRow::COUNT;
    let input = unnest(&input, 1, "i");
    let definitions = DefinitionRow::unnest(definitions_at, "r");
    let steps = StepRow::unnest(children_at, "r");
    let children = insert_children(children_at, "made", has_requests);
    format!(
        "WITH input AS MATERIALIZED (
            SELECT i.* FROM {input}),
        definitions AS (
            INSERT INTO docg.definitions (hash, definition)
            SELECT r.hash, r.definition FROM {definitions} ON CONFLICT DO NOTHING),
        keys AS (
            INSERT INTO docg.idempotency_keys (organization_id, key, fingerprint, execution_id)
            SELECT i.organization_id, i.idempotency_key, i.fingerprint, i.id FROM input i
            WHERE i.idempotency_key IS NOT NULL
                AND NOT EXISTS (SELECT FROM docg.executions x WHERE x.id = i.id)
            ORDER BY i.organization_id, i.idempotency_key
            ON CONFLICT DO NOTHING RETURNING execution_id),
        shares AS MATERIALIZED (
            SELECT o.organization_id,
                docg.share_left(o.organization_id, o.now, o.per_organization) AS share
            FROM (
                SELECT i.organization_id, max(i.created_at) AS now,
                    min(i.per_organization) AS per_organization
                FROM input i WHERE i.claimed_by IS NOT NULL GROUP BY i.organization_id) o),
        granted AS MATERIALIZED (
            SELECT i.id, i.claimed_by, i.claimed_until
            FROM (
                SELECT c.id, c.organization_id, c.claimed_by, c.claimed_until,
                    row_number() OVER (PARTITION BY c.organization_id) AS turn
                FROM input c WHERE c.claimed_by IS NOT NULL) i
                JOIN shares USING (organization_id)
            WHERE i.turn <= shares.share),
        made AS (
            INSERT INTO docg.executions (id, organization_id, workflow_id, workflow_version,
                status, progress, current_step, waiting_for, error_code, last_error_human,
                last_error_tech, preflight_summary, delivery_state, signature_state,
                phase_metrics, correlation_id, trigger_type, retry_of, follows, dry_run,
                until_phase, attempt, version, created_at, started_at, completed_at, updated_at,
                paused_from, preflight_due, delivery_confirmed, priority, wake_at, event_seq,
                log_seq, audit_seq, audit_hash, type_set, worker_id, fence, lease_until, expires_at,
                due_at)
            SELECT i.id, i.organization_id, i.workflow_id, i.workflow_version,
                i.status, i.progress, i.current_step, i.waiting_for, i.error_code,
                i.last_error_human, i.last_error_tech, i.preflight_summary, i.delivery_state,
                i.signature_state, i.phase_metrics, i.correlation_id, i.trigger_type, i.retry_of,
                i.follows, i.dry_run, i.until_phase, i.attempt, i.version, i.created_at,
                i.started_at, i.completed_at, i.updated_at, i.paused_from, i.preflight_due,
                i.delivery_confirmed, i.priority, i.wake_at, i.event_seq, i.log_seq, i.audit_seq,
                i.audit_hash, i.type_set, g.claimed_by,
                CASE WHEN g.claimed_by IS NULL THEN 0 ELSE 1 END, g.claimed_until, g.claimed_until,
                CASE WHEN g.claimed_by IS NULL THEN i.due_at END
            FROM input i LEFT JOIN granted g USING (id)
            WHERE NOT EXISTS (SELECT FROM docg.executions x WHERE x.id = i.id)
                AND (i.idempotency_key IS NULL OR i.id IN (SELECT execution_id FROM keys))
            RETURNING id, worker_id, fence),
        data AS (
            INSERT INTO docg.execution_data (execution_id, definition_hash, trigger_data,
                node_overrides, start_at, created_by, traceparent, title, search)
            SELECT i.id, i.definition_hash, i.trigger_data, i.node_overrides, i.start_at,
                i.created_by, i.traceparent, i.title, i.search
            FROM input i JOIN made USING (id)),
        steps AS (
            INSERT INTO docg.execution_steps (execution_id, position, id, node_id, node_type,
                label, phase, status, activity, attempt, attempts_before, takeovers, started_at,
                completed_at, waiting_ms, awaits, error_code, error_human, error_tech, outcome, data_in,
                data_out, output, reused_from)
            SELECT r.execution_id, r.position, r.id, r.node_id, r.node_type, r.label, r.phase,
                r.status, r.activity, r.attempt, r.attempts_before, r.takeovers, r.started_at,
                r.completed_at, r.waiting_ms, r.awaits, r.error_code, r.error_human, r.error_tech,
                r.outcome, r.data_in, r.data_out, r.output, r.reused_from
            FROM {steps} JOIN made m ON m.id = r.execution_id),
        {children}
        SELECT id, worker_id, fence FROM made"
    )
}

#[async_trait]
impl BatchItem for CreateItem {
    /// `None` if the execution was not stored.
    type Answer = Option<Created>;

    fn mark(&self) -> Uuid {
        self.id
    }

    fn size(&self) -> usize {
        self.size
    }

    async fn send(
        items: &[Self],
        database: &Database,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<Vec<Result<Option<Created>, Error>>, Error> {
        let mut definitions: Vec<&DefinitionRow> = Vec::new();
        for item in items {
            if definitions.iter().all(|it| it.hash != item.definition.hash) {
                definitions.push(&item.definition);
            }
        }
        let has_requests = items.iter().any(|item| item.children.has_requests());
        let sql = match has_requests {
            true => &CREATE_WITH_REQUESTS,
            false => &CREATE,
        };
        let all = items.iter();
        let mut arguments = PgArguments::default();
        ExecutionRow::bind(all.clone().map(|item| &item.execution), &mut arguments)?;
        ExecutionPlace::bind(all.clone().map(|item| &item.place), &mut arguments)?;
        NewRow::bind(all.clone().map(|item| &item.new), &mut arguments)?;
        DefinitionRow::bind(definitions.into_iter(), &mut arguments)?;
        Children::bind(all.map(|item| &item.children), &mut arguments, has_requests)?;
        let rows = database.write_on(connection, sql, arguments).await?;
        let mut made = HashMap::with_capacity(rows.len());
        for row in &rows {
            let id: Uuid = field(row, "id")?;
            let lease = match field::<Option<Uuid>>(row, "worker_id")? {
                Some(worker) => Some(Lease {
                    execution_id: id.into(),
                    worker_id: worker.into(),
                    fence: number(row, "fence")?,
                }),
                None => None,
            };
            made.insert(id, Created::New { lease });
        }
        let answer = |item: &Self| Ok(made.get(&item.id).copied());
        Ok(items.iter().map(answer).collect())
    }
}

impl PgStore {
    pub(super) async fn create_run(&self, run: NewExecution) -> Result<Created, Error> {
        let id = run.state.execution.id;
        let organization = run.state.execution.organization_id;
        let idempotency = run.idempotency.clone();
        let item = match self.write_down(run).await {
            // If the id is also taken, report that instead.
            Err(error @ Error::Invalid(_)) => {
                let sql = "SELECT id FROM docg.executions WHERE id = $1";
                let is_free = self.database.read(sql, arguments![id.0]).await?.is_empty();
                return Err(if is_free { error } else { taken(id) });
            }
            other => other?,
        };
        match self.creations.send(item).await {
            Ok(Some(created)) => return Ok(created),
            Ok(None) => {}
            // Another transaction has just stored an execution with this id or key.
            Err(error) if error.meaning() == Some(Meaning::Duplicate) => {}
            Err(error) => return Err(error),
        }
        self.why_not_created(id, organization, idempotency).await
    }

    async fn write_down(&self, run: NewExecution) -> Result<CreateItem, Error> {
        let encoder = self.encoder;
        let state = &run.state;
        let records = Records {
            execution: &state.execution,
            steps: &state.steps,
            events: &run.events,
            logs: &run.logs,
            audit: &run.audit,
            signature: state.signature.as_ref(),
            approval: state.approval.as_ref(),
        };
        Lengths::default().check(&records)?;
        let definition = encoder.json("workflow", &state.workflow)?;
        let definition_hash = hash(&definition);
        let key = run.idempotency.as_ref();
        let new = NewRow {
            type_set: self
                .definitions
                .type_set(&self.database, &state.workflow)
                .await?,
            definition_hash,
            trigger_data: encoder.json("trigger_data", &state.inputs.trigger_data)?,
            node_overrides: encoder.json("node_overrides", &state.inputs.node_overrides)?,
            start_at: time_column(state.inputs.start_at),
            title: encoder.optional_text("title", state.execution.title.as_deref())?,
            search: encoder.text("search", &search_vector(&state.execution))?,
            idempotency_key: encoder.optional_text("idempotency key", key.map(|it| &*it.key))?,
            fingerprint: key.map(|it| it.fingerprint),
            due_at: time_column(run.due_at),
            claimed_by: run.claim.map(|claim| claim.worker_id.0),
            claimed_until: time_column(run.claim.map(|claim| claim.lease_until)),
            per_organization: run.claim.map(|claim| int(claim.per_organization as u64)),
        };
        let children = Children::of(&records, encoder)?;
        Ok(CreateItem {
            id: state.execution.id.0,
            size: children.size() + new.trigger_data.len() + 1_000,
            execution: ExecutionRow::of(&state.execution, encoder)?,
            place: ExecutionPlace::of(&state.execution, encoder)?,
            new,
            definition: DefinitionRow {
                hash: definition_hash,
                definition,
            },
            children,
        })
    }

    async fn why_not_created(
        &self,
        id: ExecutionId,
        organization: OrganizationId,
        idempotency: Option<Idempotency>,
    ) -> Result<Created, Error> {
        if let Some(Idempotency { key, fingerprint }) = idempotency {
            let sql = "SELECT fingerprint, execution_id FROM docg.idempotency_keys
                WHERE organization_id = $1 AND key = $2";
            let rows = self
                .database
                .read(sql, arguments![organization.0, key])
                .await?;
            if let Some(row) = rows.first() {
                return if bytes32(row, "fingerprint")? == fingerprint {
                    Ok(Created::Existing(
                        field::<Uuid>(row, "execution_id")?.into(),
                    ))
                } else {
                    Err(Error::KeyReused)
                };
            }
        }
        Err(taken(id))
    }
}

fn taken(id: ExecutionId) -> Error {
    Error::Conflict(format!("{id} is there already"))
}
