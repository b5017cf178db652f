//! Reads and records up to which number each execution's events are published.

use docg_core::{ids::ExecutionId, ports::Unpublished, time::Timestamp};
use uuid::Uuid;

use super::PgStore;
use crate::{
    codec::{Time, field, int, number},
    database::arguments,
    error::Error,
};

impl PgStore {
    pub(super) async fn list_unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, Error> {
        let sql = "SELECT e.organization_id, e.id, greatest(e.published, 0) AS published,
                greatest(e.event_seq, 0) AS event_seq
            FROM docg.executions e
            WHERE NOT e.is_published AND e.updated_at < $1 AND e.id > $2
            ORDER BY e.id LIMIT $3";
        // The nil id sorts before all others.
        let after = after.map_or(Uuid::nil(), |id| id.0);
        let parameters = arguments![Time::from(before), after, int(limit as u64)];
        let rows = self.database.read(sql, parameters).await?;
        rows.iter()
            .map(|row| {
                Ok(Unpublished {
                    organization_id: field::<Uuid>(row, "organization_id")?.into(),
                    execution_id: field::<Uuid>(row, "id")?.into(),
                    published: number(row, "published")?,
                    head: number(row, "event_seq")?,
                })
            })
            .collect()
    }

    pub(super) async fn mark(&self, published: &[(ExecutionId, u64)]) -> Result<(), Error> {
        if published.is_empty() {
            return Ok(());
        }
        // If an execution's row is locked, its events are published again later and marked then.
        let sql = "UPDATE docg.executions e
            SET published = greatest(e.published, least(marked.seq, e.event_seq))
            FROM (
                SELECT x.id, l.seq FROM docg.executions x
                JOIN (SELECT r.id, max(r.seq) AS seq
                    FROM unnest($1::uuid[], $2::int8[]) AS r (id, seq) GROUP BY r.id) l
                    ON l.id = x.id
                WHERE x.published < l.seq
                ORDER BY x.id FOR NO KEY UPDATE OF x SKIP LOCKED
            ) marked
            WHERE e.id = marked.id";
        let ids: Vec<Uuid> = published.iter().map(|(id, _)| id.0).collect();
        let seqs: Vec<i64> = published.iter().map(|(_, seq)| int(*seq)).collect();
        self.database
            .write(sql, arguments![ids, seqs])
            .await
            .map(|_| ())
    }
}
