//! The reads of executions and their records.

use std::sync::Arc;

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
    run::Step,
    signature::SignatureRequest,
    workflow::Workflow,
};
use sqlx::postgres::{PgArguments, PgRow};

use uuid::Uuid;

use super::{
    PgStore,
    sql::{approval_record, execution_columns, signature_record, step_record, steps_of_execution},
};
use crate::{
    codec::{
        ExecutionIds, approval, audit_event, bytes32, field, int, lenient_step, record,
        signature_request, steps,
    },
    database::arguments,
    error::Error,
};

/// The row limit for a statement: one more than the page holds. The extra row tells that another page
/// follows.
pub(super) fn limit(limit: usize) -> i64 {
    int(limit as u64).saturating_add(1)
}

/// Makes a page from rows that may include one beyond the limit.
pub(super) fn page<T>(
    rows: &[PgRow],
    limit: usize,
    read: impl Fn(&PgRow) -> Result<T, Error>,
) -> Result<Page<T>, Error> {
    let items: Result<Vec<T>, Error> = rows.iter().take(limit).map(read).collect();
    Ok(Page {
        items: items?,
        has_more: rows.len() > limit,
    })
}

/// The sequence number at which a list continues after `after`; `None` if nothing can follow. If `after` is
/// 0, the list begins with rows whose damaged number is below all valid ones.
fn begin(after: u64) -> Option<i64> {
    match after {
        0 => Some(i64::MIN),
        after => i64::try_from(after).ok()?.checked_add(1),
    }
}

/// The last part of a statement that lists rows `$row` of `$table` by sequence number. All rows with a
/// damaged number (0 or less) come with the first page, beyond its limit, because no page can continue
/// after such a number.
macro_rules! by_place {
    ($table:literal, $row:literal) => {
        concat!(
            " ORDER BY ",
            $row,
            ".seq LIMIT $4 + (SELECT count(*) FROM docg.",
            $table,
            " x WHERE x.execution_id = $1 AND x.seq BETWEEN $3 AND 0)"
        )
    };
}

/// Makes a page of a list that is read by sequence number.
fn page_by_place<T>(
    rows: &[PgRow],
    limit: usize,
    read: impl Fn(&PgRow) -> Result<T, Error>,
) -> Result<Page<T>, Error> {
    let is_damaged = |row: &&PgRow| field::<i64>(row, "seq").is_ok_and(|seq| seq <= 0);
    let damaged = rows.iter().take_while(is_damaged).count();
    page(rows, limit.saturating_add(damaged), read)
}

/// The columns of an execution that are shown if the server cannot read all of it.
macro_rules! bare_columns {
    () => {
        "e.id, e.organization_id, e.workflow_id, e.workflow_version, e.status, e.version, \
         e.created_at, e.updated_at, e.completed_at"
    };
}

/// The columns of a signature request that are shown if the server cannot read all of it.
macro_rules! bare_signature {
    () => {
        "SELECT r.id, r.execution_id, r.organization_id, r.node_id, r.provider, r.envelope_id, \
            r.status, r.created_at, r.expires_at, r.completed_at \
         FROM docg.signature_requests r"
    };
}
pub(super) use bare_columns;

/// The columns of an approval that are shown if the server cannot read all of it.
macro_rules! bare_approval {
    () => {
        "SELECT a.id, a.execution_id, a.organization_id, a.node_id, a.quorum, a.decision, \
            a.created_at, a.decided_at, a.expires_at, a.on_expiry \
         FROM docg.approvals a"
    };
}

impl PgStore {
    /// Reads rows, or runs the statement `bare` if the server cannot read them completely.
    pub(super) async fn read_or_bare(
        &self,
        sql: &'static str,
        bare: &'static str,
        parameters: PgArguments,
    ) -> Result<Vec<PgRow>, Error> {
        match self.database.read(sql, parameters.clone()).await {
            Err(error) if error.is_unreadable() => self.database.read(bare, parameters).await,
            rows => rows,
        }
    }

    async fn find_execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, Error> {
        let sql = concat!(
            "SELECT ",
            execution_columns!(),
            " FROM docg.executions e LEFT JOIN docg.execution_data d ON d.execution_id = e.id
             WHERE e.id = $1 AND e.organization_id = $2"
        );
        let bare = concat!(
            "SELECT ",
            bare_columns!(),
            " FROM docg.executions e WHERE e.id = $1 AND e.organization_id = $2"
        );
        let parameters = arguments![id.0, organization.0];
        let rows = self.read_or_bare(sql, bare, parameters).await?;
        rows.first().map(record).transpose()
    }

    /// Reads each execution of a page by itself, because the server could not read all of them at once.
    pub(super) async fn one_by_one(
        &self,
        mut page: Page<ExecutionRecord>,
    ) -> Result<Page<ExecutionRecord>, Error> {
        for record in &mut page.items {
            let execution = &record.execution;
            let found = self.find_execution(execution.organization_id, execution.id);
            // The execution may have been purged meanwhile.
            if let Some(found) = found.await? {
                *record = found;
            }
        }
        Ok(page)
    }

    async fn list_steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, Error> {
        let sql = concat!(
            "SELECT ",
            steps_of_execution!(),
            " AS steps FROM docg.executions e WHERE e.id = $1 AND e.organization_id = $2"
        );
        let rows = self
            .database
            .read(sql, arguments![id.0, organization.0])
            .await?;
        let Some(row) = rows.first() else {
            return Ok(Vec::new());
        };
        match field(row, "steps").and_then(|json| steps(id, json)) {
            Err(error) if error.is_unreadable() => self.steps_one_by_one(id).await,
            read => read,
        }
    }

    /// Reads the steps one by one, because some cannot be read.
    async fn steps_one_by_one(&self, id: ExecutionId) -> Result<Vec<Step>, Error> {
        let sql = concat!(
            "SELECT row_to_json(step)::text AS step FROM (",
            step_record!(),
            " WHERE s.execution_id = $1) step ORDER BY step.position"
        );
        let rows = self.database.read(sql, arguments![id.0]).await?;
        rows.iter()
            .map(|row| lenient_step(id, field(row, "step")?))
            .collect()
    }

    async fn find_awaiting(&self, query: &AwaitingQuery) -> Result<Vec<ExecutionId>, Error> {
        let sql = "SELECT DISTINCT s.execution_id
            FROM docg.execution_steps s JOIN docg.executions e ON e.id = s.execution_id
            WHERE s.awaits IS NOT NULL AND s.awaits->>'name' = $1 AND s.awaits->>'key' = $2
                AND s.activity = 'waiting' AND e.organization_id = $3
            ORDER BY s.execution_id LIMIT $4";
        let parameters = arguments![
            &query.name,
            &query.key,
            query.organization_id.0,
            int(query.limit as u64)
        ];
        let rows = self.database.read(sql, parameters).await?;
        let ids = rows.iter().map(|row| field::<Uuid>(row, "execution_id"));
        ids.map(|id| Ok(ExecutionId(id?))).collect()
    }

    async fn find_snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, Error> {
        let sql = "SELECT d.definition_hash
            FROM docg.executions e LEFT JOIN docg.execution_data d ON d.execution_id = e.id
            WHERE e.id = $1 AND e.organization_id = $2";
        let rows = self
            .database
            .read(sql, arguments![id.0, organization.0])
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let hash = bytes32(row, "definition_hash")?;
        let mut found = self.definitions.find(&self.database, &[hash]).await?;
        found.pop().transpose()
    }

    async fn list_events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, Error> {
        let (organization, id) = (query.organization_id, query.execution_id);
        let Some(mut journal) = Journal::after(query.after, EVENTS) else {
            return Ok(Vec::new());
        };
        let mut found = Found::new(query.limit, query.after);
        while found.has_room() && journal.has_more {
            for row in journal.read(self, organization, id).await? {
                found.extend(ExecutionIds::of(&row)?.events(&row)?);
            }
        }
        Ok(found.page().items)
    }

    async fn list_logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, Error> {
        let (organization, id) = (query.organization_id, query.execution_id);
        let Some(mut journal) = Journal::after(query.after, LOGS) else {
            return Ok(Page {
                items: Vec::new(),
                has_more: false,
            });
        };
        let mut found = Found::new(query.limit, query.after);
        while found.has_room() && journal.has_more {
            for row in journal.read(self, organization, id).await? {
                let mut logs = ExecutionIds::of(&row)?.logs(&row)?;
                logs.retain(|(_, entry)| query.selects(entry));
                found.extend(logs);
            }
        }
        Ok(found.page())
    }

    async fn list_audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, Error> {
        let Some(begin) = begin(query.after) else {
            return Ok(Page {
                items: Vec::new(),
                has_more: false,
            });
        };
        let sql = concat!(
            "SELECT a.id, a.seq, a.organization_id, a.execution_id, a.timestamp, a.action,
                a.target_type, a.target_id, a.actor_type, a.actor_id, a.metadata::text, a.salt,
                a.commitment, a.prev_hash, a.hash
            FROM docg.executions e JOIN docg.audit_events a ON a.execution_id = e.id
            WHERE e.id = $1 AND e.organization_id = $2 AND a.seq >= $3",
            by_place!("audit_events", "a")
        );
        let parameters = arguments![
            query.execution_id.0,
            query.organization_id.0,
            begin,
            limit(query.limit),
        ];
        let rows = self.database.read(sql, parameters).await?;
        page_by_place(&rows, query.limit, |row| audit_event(row).map(Arc::new))
    }

    async fn find_signature(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, Error> {
        let sql = concat!(
            "SELECT row_to_json(request)::text AS request FROM (",
            signature_record!(),
            " WHERE r.id = $1 AND r.organization_id = $2) request"
        );
        let bare = concat!(
            "SELECT row_to_json(request)::text AS request FROM (",
            bare_signature!(),
            " WHERE r.id = $1 AND r.organization_id = $2) request"
        );
        let parameters = arguments![id.0, organization.0];
        let rows = self.read_or_bare(sql, bare, parameters).await?;
        first_text(&rows, "request")?
            .map(signature_request)
            .transpose()
    }

    async fn find_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, Error> {
        let sql = concat!(
            "SELECT row_to_json(request)::text AS request FROM (",
            signature_record!(),
            " WHERE r.provider = $1 AND r.envelope_id = $2
             ORDER BY r.arrival DESC LIMIT 1) request"
        );
        let parameters = arguments![
            self.encoder.text("provider", provider)?,
            self.encoder.text("envelope_id", envelope_id)?,
        ];
        let bare = concat!(
            "SELECT row_to_json(request)::text AS request FROM (",
            bare_signature!(),
            " WHERE r.provider = $1 AND r.envelope_id = $2
             ORDER BY r.arrival DESC LIMIT 1) request"
        );
        let rows = self.read_or_bare(sql, bare, parameters).await?;
        first_text(&rows, "request")?
            .map(signature_request)
            .transpose()
    }

    async fn find_approval(&self, token_hash: [u8; 32]) -> Result<Option<Approval>, Error> {
        let sql = concat!(
            "SELECT row_to_json(approval)::text AS approval FROM (",
            approval_record!(),
            " WHERE a.token_hashes @> ARRAY[$1] ORDER BY a.arrival DESC LIMIT 1) approval"
        );
        let bare = concat!(
            "SELECT row_to_json(approval)::text AS approval FROM (",
            bare_approval!(),
            " WHERE a.token_hashes @> ARRAY[$1] ORDER BY a.arrival DESC LIMIT 1) approval"
        );
        let parameters = arguments![token_hash.to_vec()];
        let rows = self.read_or_bare(sql, bare, parameters).await?;
        first_text(&rows, "approval")?.map(approval).transpose()
    }
}

/// The statement that reads rows of the journal whose records are in one of its two columns.
macro_rules! journal {
    ($records:literal, $last:literal, $other:literal) => {
        concat!(
            "SELECT e.id, e.workflow_id, e.organization_id, e.correlation_id, j.last_event, j.last_log, j.",
            $records,
            "::text
            FROM docg.executions e JOIN docg.journal j ON j.execution_id = e.id
            WHERE e.id = $1 AND e.organization_id = $2 AND (j.",
            $last,
            ", j.",
            $other,
            ") >= ($3, $4) AND j.",
            $records,
            "::text <> '[]'
            ORDER BY j.",
            $last,
            ", j.",
            $other,
            " LIMIT $5"
        )
    };
}

struct JournalSql {
    sql: &'static str,
    last: &'static str,
    other: &'static str,
}

const EVENTS: JournalSql = JournalSql {
    sql: journal!("events", "last_event", "last_log"),
    last: "last_event",
    other: "last_log",
};
const LOGS: JournalSql = JournalSql {
    sql: journal!("logs", "last_log", "last_event"),
    last: "last_log",
    other: "last_event",
};

/// Reads the rows of an execution's journal in order.
struct Journal {
    sql: JournalSql,
    position: (i64, i64),
    /// The number of rows that the next statement reads.
    rows: usize,
    has_more: bool,
}

impl Journal {
    /// The rows with records after number `after`; `None` if nothing can follow. After 0 they begin with rows
    /// whose damaged number is below all valid ones.
    fn after(after: u64, sql: JournalSql) -> Option<Self> {
        let position = (begin(after)?, i64::MIN);
        Some(Self {
            sql,
            position,
            rows: FIRST_ROWS,
            has_more: true,
        })
    }

    /// The next rows, each with at least one record.
    async fn read(
        &mut self,
        store: &PgStore,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<PgRow>, Error> {
        let limit = self.rows;
        self.rows = (2 * limit).min(MOST_ROWS);
        let (last, other) = self.position;
        let parameters = arguments![id.0, organization.0, last, other, int(limit as u64)];
        let rows = store.database.read(self.sql.sql, parameters).await?;
        self.has_more = rows.len() == limit;
        if let Some(row) = rows.last() {
            let (last, other): (i64, i64) =
                (field(row, self.sql.last)?, field(row, self.sql.other)?);
            match other.checked_add(1) {
                Some(next) => self.position = (last, next),
                // A damaged number, after which nothing valid can follow.
                None => self.has_more = false,
            }
        }
        Ok(rows)
    }
}

/// The number of the journal's rows that the first statement for a page reads. It doubles with each statement: most
/// rows have several records, but a filter may select few of them.
const FIRST_ROWS: usize = 32;
/// The maximum number of the journal's rows that one statement reads.
const MOST_ROWS: usize = 512;

/// The records of a page, each with its stored number. All records with a damaged number (0 or less) come with
/// the first page, beyond its limit, because no page can continue after such a number.
struct Found<T> {
    records: Vec<(i64, T)>,
    limit: usize,
    after: u64,
}

impl<T> Found<T> {
    fn new(limit: usize, after: u64) -> Self {
        Self {
            records: Vec::new(),
            limit,
            after,
        }
    }

    fn extend(&mut self, records: Vec<(i64, T)>) {
        let is_first_page = self.after == 0;
        let after = int(self.after);
        let records = records.into_iter();
        self.records
            .extend(records.filter(|(seq, _)| is_first_page || *seq > after));
    }

    /// True until there is one record more than the page holds, which tells that another page follows.
    fn has_room(&self) -> bool {
        self.records.iter().filter(|(seq, _)| *seq > 0).count() <= self.limit
    }

    fn page(self) -> Page<T> {
        let damaged = self.records.iter().filter(|(seq, _)| *seq <= 0).count();
        let room = self.limit.saturating_add(damaged);
        Page {
            has_more: self.records.len() > room,
            items: self
                .records
                .into_iter()
                .take(room)
                .map(|(_, it)| it)
                .collect(),
        }
    }
}

fn first_text<'r>(rows: &'r [PgRow], column: &str) -> Result<Option<&'r str>, Error> {
    rows.first().map(|row| field(row, column)).transpose()
}

#[async_trait]
impl ExecutionReader for PgStore {
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError> {
        let found = self.find_execution(organization, id).await;
        found.map_err(|e| e.at("execution"))
    }

    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError> {
        let listed = async {
            let mut page = self.list_executions(query).await?;
            self.mark_damaged(&mut page.items).await?;
            Ok::<_, Error>(page)
        };
        listed.await.map_err(|e| e.at("executions"))
    }

    async fn execution_counts(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, StoreError> {
        let counts = self.count_executions(organization, filter).await;
        counts.map_err(|e| e.at("execution_counts"))
    }

    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError> {
        self.list_steps(organization, id)
            .await
            .map_err(|e| e.at("steps"))
    }

    async fn awaiting(&self, query: AwaitingQuery) -> Result<Vec<ExecutionId>, StoreError> {
        let found = self.find_awaiting(&query).await;
        found.map_err(|e| e.at("awaiting"))
    }

    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        self.find_snapshot(organization, id)
            .await
            .map_err(|e| e.at("snapshot"))
    }

    async fn readable(&self, id: ExecutionId) -> Result<(), StoreError> {
        let read = match self.unreadable(id.0).await {
            Ok(why) => why.map_or(Ok(()), |why| Err(Error::Corrupt(why.to_string()))),
            Err(error) => Err(error),
        };
        read.map_err(|e| e.at("readable"))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError> {
        self.list_events(query).await.map_err(|e| e.at("events"))
    }

    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError> {
        self.list_logs(query).await.map_err(|e| e.at("logs"))
    }

    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError> {
        self.list_audit(query).await.map_err(|e| e.at("audit"))
    }

    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        let found = self.find_signature(organization, id).await;
        found.map_err(|e| e.at("signature_request"))
    }

    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        let found = self.find_envelope(provider, envelope_id).await;
        found.map_err(|e| e.at("signature_by_envelope"))
    }

    async fn approval_by_token(
        &self,
        token_hash: [u8; 32],
    ) -> Result<Option<Approval>, StoreError> {
        let found = self.find_approval(token_hash).await;
        found.map_err(|e| e.at("approval_by_token"))
    }
}
