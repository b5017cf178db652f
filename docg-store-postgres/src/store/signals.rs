//! The signal inbox.

use docg_core::{ids::ExecutionId, ports::Signal};
use uuid::Uuid;

use super::PgStore;
use crate::{
    codec::{Time, field, json_field},
    database::arguments,
    error::{Error, Meaning},
};

impl PgStore {
    /// Adds a signal to the inbox. It locks the execution's row first. So signals have an order, and a
    /// commit that releases the lease at the same time comes before the signal or sees it. An impossible
    /// count of pending signals restarts at one.
    pub(super) async fn add_signal(&self, signal: &Signal) -> Result<(), Error> {
        let sql = "WITH target AS (
                UPDATE docg.executions e
                SET signals_pending = CASE WHEN e.signals_pending BETWEEN 0 AND 1000000000
                        THEN e.signals_pending + 1 ELSE 1 END,
                    signaled_at = least(e.signaled_at, $5),
                    due_at = CASE WHEN e.expires_at IS NULL THEN least(e.due_at, $5) END
                WHERE e.id = $2 AND e.organization_id = $3
                    AND (e.signals_pending < $7 OR e.signals_pending > 1000000000)
                    AND NOT EXISTS (SELECT FROM docg.signals s WHERE s.id = $1)
                RETURNING e.id),
            added AS (
                INSERT INTO docg.signals (id, execution_id, organization_id, kind, signal,
                    received_at)
                SELECT $1, target.id, $3, $4, $6::text::json, $5 FROM target)
            SELECT EXISTS (SELECT FROM target) AS is_added,
                EXISTS (SELECT FROM docg.signals s WHERE s.id = $1) AS is_known,
                EXISTS (SELECT FROM docg.executions e WHERE e.id = $2 AND e.organization_id = $3)
                    AS is_there";
        let kind = match serde_json::to_value(&signal.kind) {
            Ok(value) => value["kind"].as_str().unwrap_or_default().to_owned(),
            Err(e) => return Err(Error::Invalid(format!("the signal cannot be written: {e}"))),
        };
        let max_inbox = i32::try_from(self.config.max_inbox).unwrap_or(i32::MAX);
        let parameters = arguments![
            signal.id.0,
            signal.execution_id.0,
            signal.organization_id.0,
            kind,
            Time::from(signal.received_at),
            self.encoder.json("signal", signal)?,
            max_inbox,
        ];
        let rows = match self.database.write(sql, parameters).await {
            // The same signal arrived twice at once.
            Err(error) if error.meaning() == Some(Meaning::Duplicate) => return Ok(()),
            other => other?,
        };
        let id = signal.execution_id;
        let Some(row) = rows.first() else {
            return Err(Error::Corrupt("a statement without an answer".to_owned()));
        };
        if !field::<bool>(row, "is_there")? {
            return Err(Error::NotFound(format!("there is no execution {id}")));
        }
        if field(row, "is_added")? || field(row, "is_known")? {
            return Ok(());
        }
        Err(Error::Full(format!("the inbox of {id} is full")))
    }

    /// The pending signals of an execution. Signals that cannot be read are set aside, so that the lease
    /// holder goes on with the others.
    pub(super) async fn inbox(&self, execution: ExecutionId) -> Result<Vec<Signal>, Error> {
        let sql = "SELECT s.id, s.signal::text
            FROM docg.signals s WHERE s.execution_id = $1 AND NOT s.is_settled ORDER BY s.arrival";
        let rows = self.database.read(sql, arguments![execution.0]).await?;
        let mut signals = Vec::with_capacity(rows.len());
        let mut unreadable = Vec::new();
        for row in &rows {
            match json_field(row, "signal") {
                Ok(signal) => signals.push(signal),
                Err(error) => unreadable.push((field(row, "id")?, error)),
            }
        }
        if !unreadable.is_empty() {
            self.set_aside(execution, &unreadable).await?;
        }
        Ok(signals)
    }

    /// Takes unreadable signals out of the inbox. Left there, they would make the execution due forever
    /// and keep it from being purged. Their rows stay, for a technician.
    async fn set_aside(
        &self,
        execution: ExecutionId,
        unreadable: &[(Uuid, Error)],
    ) -> Result<(), Error> {
        let why: Vec<_> = unreadable
            .iter()
            .map(|(id, error)| format!("{id}: {error}"))
            .collect();
        tracing::error!(
            %execution,
            "{} signals cannot be read and are set aside in docg.signals: {}",
            why.len(),
            why.join("; ")
        );
        // Lock the execution's row first, as adding and settling signals do.
        let sql = "WITH held AS MATERIALIZED (
                SELECT x.id FROM docg.executions x WHERE x.id = $1 FOR NO KEY UPDATE),
            aside AS (
                UPDATE docg.signals s SET is_settled = true FROM held
                WHERE s.execution_id = held.id AND s.id = ANY ($2) AND NOT s.is_settled
                RETURNING s.id),
            counted AS (SELECT count(*)::integer AS n FROM aside)
            UPDATE docg.executions e
            SET signals_pending = e.signals_pending - counted.n,
                signaled_at = CASE WHEN e.signals_pending > counted.n THEN e.signaled_at END
            FROM counted WHERE e.id = $1 AND counted.n > 0";
        let ids: Vec<Uuid> = unreadable.iter().map(|(id, _)| *id).collect();
        let parameters = arguments![execution.0, ids];
        self.database.write(sql, parameters).await.map(|_| ())
    }
}
