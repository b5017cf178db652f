//! The execution's row, which every commit rewrites.

use std::collections::BTreeMap;

use docg_core::run::Execution;
use serde_json::Value;
use uuid::Uuid;

use super::{Encoder, Time, int, row, time_column};
use crate::error::Error;

row! {
    /// The columns of an execution that a commit sets.
    ExecutionRow {
        id: Uuid = "uuid[]",
        status: &'static str = "text[]",
        progress: i16 = "int2[]",
        current_step: Option<String> = "text[]::json[]",
        waiting_for: Option<String> = "text[]::json[]",
        error_code: Option<String> = "text[]",
        last_error_human: Option<String> = "text[]::json[]",
        last_error_tech: Option<String> = "text[]",
        preflight_summary: Option<String> = "text[]::json[]",
        delivery_state: String = "text[]",
        signature_state: String = "text[]",
        phase_metrics: String = "text[]::json[]",
        attempt: i64 = "int8[]",
        version: i64 = "int8[]",
        started_at: Option<Time> = "timestamptz[]",
        completed_at: Option<Time> = "timestamptz[]",
        updated_at: Time = "timestamptz[]",
        paused_from: Option<&'static str> = "text[]",
        preflight_due: bool = "bool[]",
        delivery_confirmed: bool = "bool[]",
        priority: i16 = "int2[]",
        wake_at: Option<Time> = "timestamptz[]",
        event_seq: i64 = "int8[]",
        log_seq: i64 = "int8[]",
        audit_seq: i64 = "int8[]",
        audit_hash: [u8; 32] = "bytea[]",
    }
}

row! {
    /// The columns that are set once, when an execution is created.
    ExecutionPlace {
        organization_id: Uuid = "uuid[]",
        workflow_id: Uuid = "uuid[]",
        workflow_version: i64 = "int8[]",
        correlation_id: String = "text[]",
        trigger_type: String = "text[]",
        retry_of: Option<Uuid> = "uuid[]",
        follows: Option<Uuid> = "uuid[]",
        dry_run: bool = "bool[]",
        until_phase: Option<&'static str> = "text[]",
        created_at: Time = "timestamptz[]",
        created_by: String = "text[]::json[]",
        traceparent: Option<String> = "text[]",
    }
}

/// The name that serde gives a variant without fields.
pub(crate) fn name(variant: impl serde::Serialize) -> Result<String, Error> {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => Ok(name),
        other => Err(Error::Invalid(format!("{other:?} is no name"))),
    }
}

impl ExecutionRow {
    pub(crate) fn of(execution: &Execution, encoder: Encoder) -> Result<Self, Error> {
        let error = execution.error.as_ref();
        // Store a phase's times as numbers without field names: six phases take 200 bytes instead of 1,000.
        let metrics: BTreeMap<&str, _> = execution
            .phase_metrics
            .iter()
            .map(|(phase, times)| {
                let millis = |time: docg_core::time::Timestamp| time.as_millis();
                let times = (
                    millis(times.started_at),
                    times.completed_at.map(millis),
                    times.duration_ms,
                    times.waiting_ms,
                    times.resumed_at.map(millis),
                    times.waiting_since.map(millis),
                );
                (phase.as_str(), times)
            })
            .collect();
        let heads = &execution.heads;
        Ok(Self {
            id: execution.id.0,
            status: execution.status.as_str(),
            progress: i16::from(execution.progress),
            current_step: encoder.optional_json("current_step", execution.current_step.as_ref())?,
            waiting_for: encoder.optional_json("waiting_for", execution.waiting_for.as_ref())?,
            error_code: encoder.optional_text("error_code", error.map(|it| &*it.code))?,
            last_error_human: encoder
                .optional_json("last_error_human", error.map(|it| &it.human))?,
            last_error_tech: encoder
                .optional_text("last_error_tech", error.and_then(|it| it.tech.as_deref()))?,
            preflight_summary: encoder
                .optional_json("preflight_summary", execution.preflight.as_ref())?,
            delivery_state: name(execution.delivery_state)?,
            signature_state: name(execution.signature_state)?,
            phase_metrics: encoder.json("phase_metrics", &metrics)?,
            attempt: i64::from(execution.attempt),
            version: int(execution.version),
            started_at: time_column(execution.started_at),
            completed_at: time_column(execution.completed_at),
            updated_at: execution.updated_at.into(),
            paused_from: execution.paused_from.map(|status| status.as_str()),
            preflight_due: execution.preflight_due,
            delivery_confirmed: execution.delivery_confirmed,
            priority: execution.priority,
            wake_at: time_column(execution.wake_at),
            event_seq: int(heads.event_seq),
            log_seq: int(heads.log_seq),
            audit_seq: int(heads.audit_seq),
            audit_hash: heads.audit_hash,
        })
    }
}

impl ExecutionPlace {
    pub(crate) fn of(execution: &Execution, encoder: Encoder) -> Result<Self, Error> {
        Ok(Self {
            organization_id: execution.organization_id.0,
            workflow_id: execution.workflow_id.0,
            workflow_version: i64::from(execution.workflow_version),
            correlation_id: encoder.text("correlation_id", &execution.correlation_id)?,
            trigger_type: encoder.text("trigger_type", &execution.trigger_type)?,
            retry_of: execution.retry_of.map(|it| it.0),
            follows: execution.follows.map(|it| it.0),
            dry_run: execution.dry_run,
            until_phase: execution.until_phase.map(|phase| phase.as_str()),
            created_at: execution.created_at.into(),
            created_by: encoder.json("created_by", &execution.created_by)?,
            traceparent: encoder.optional_text("traceparent", execution.traceparent.as_deref())?,
        })
    }
}
