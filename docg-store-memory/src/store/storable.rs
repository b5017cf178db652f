//! Rejects values that a database could not keep, so that programs that work with this store work with
//! a database too.

use docg_core::{
    error::ErrorContext,
    event::{Event, EventData},
    observe::{AuditEvent, JsonText, LogEntry},
    ports::{Commit, NewExecution, StoreError, StoreErrorKind},
    run::{Execution, Inputs, Step},
    storable::{MAX_STORED_DEPTH, Unstorable},
};
use serde::Serialize;

/// The reason why a value cannot be stored, if there is one.
type Fault = Option<Unstorable>;

/// Returns an error if there is a fault.
pub(super) fn refuse(operation: &'static str, fault: Fault) -> Result<(), StoreError> {
    match fault {
        Some(fault) => {
            let message = format!("a value cannot be stored: {fault}");
            Err(StoreError::new(StoreErrorKind::Invalid, operation, message))
        }
        None => Ok(()),
    }
}

/// Checks a record by its JSON form. Used for records without [`JsonText`], and for rare records.
pub(super) fn of_record(record: &impl Serialize) -> Fault {
    Unstorable::of_record(record, MAX_STORED_DEPTH)
}

/// Checks a new execution. Its definition was checked when it was stored.
pub(super) fn of_run(run: &NewExecution) -> Fault {
    let state = &run.state;
    of_execution(&state.execution)
        .or_else(|| Unstorable::of_text(&state.execution.trigger_type))
        .or_else(|| Unstorable::of_text(&state.execution.correlation_id))
        .or_else(|| of_inputs(&state.inputs))
        .or_else(|| state.steps.iter().find_map(of_step))
        .or_else(|| run.events.iter().find_map(|event| of_event(event)))
        .or_else(|| run.logs.iter().find_map(|entry| of_log(entry)))
        .or_else(|| run.audit.iter().find_map(|row| of_audit(row)))
        .or_else(|| state.signature.as_ref().and_then(of_record))
        .or_else(|| state.approval.as_ref().and_then(of_record))
        .or_else(|| Unstorable::of_text(&run.idempotency.as_ref()?.key))
}

/// Checks all that a commit changes.
pub(super) fn of_commit(commit: &Commit) -> Fault {
    of_execution(&commit.execution)
        .or_else(|| commit.inputs.as_deref().and_then(of_inputs))
        .or_else(|| commit.steps.iter().find_map(of_step))
        .or_else(|| commit.events.iter().find_map(|event| of_event(event)))
        .or_else(|| commit.logs.iter().find_map(|entry| of_log(entry)))
        .or_else(|| commit.audit.iter().find_map(|row| of_audit(row)))
        .or_else(|| commit.signature.as_ref().and_then(of_record))
        .or_else(|| commit.approval.as_ref().and_then(of_record))
}

fn of_execution(execution: &Execution) -> Fault {
    of_error(execution.error.as_ref())
        .or_else(|| execution.waiting_for.as_ref().and_then(of_record))
        .or_else(|| execution.preflight.as_ref().and_then(of_record))
}

fn of_inputs(inputs: &Inputs) -> Fault {
    Unstorable::of_value(&inputs.trigger_data, MAX_STORED_DEPTH)
        .or_else(|| of_record(&inputs.node_overrides))
        .or_else(|| of_record(&inputs.events))
}

fn of_step(step: &Step) -> Fault {
    of_error(step.error.as_ref())
        .or_else(|| step.awaits.as_ref().and_then(of_record))
        .or_else(|| of_json(step.data_in.as_ref()))
        .or_else(|| of_json(step.data_out.as_ref()))
        .or_else(|| Unstorable::of_value(step.output.as_ref()?, MAX_STORED_DEPTH))
}

fn of_error(error: Option<&ErrorContext>) -> Fault {
    error.and_then(of_record)
}

fn of_event(event: &Event) -> Fault {
    match &event.data {
        EventData::StepCompleted { output_preview, .. } => of_json(output_preview.as_ref()),
        other => of_record(other),
    }
}

fn of_log(entry: &LogEntry) -> Fault {
    of_record(&entry.message_human)
        .or_else(|| Unstorable::of_text(entry.message_tech.as_deref()?))
        .or_else(|| of_json(entry.details_tech.as_ref()))
}

fn of_audit(row: &AuditEvent) -> Fault {
    Unstorable::of_text(&row.actor.actor_id)
        .or_else(|| Unstorable::of_text(&row.action))
        .or_else(|| Unstorable::of_text(&row.target.kind))
        .or_else(|| Unstorable::of_text(&row.target.id))
        .or_else(|| of_json(Some(&row.metadata)))
}

fn of_json(json: Option<&JsonText>) -> Fault {
    Unstorable::of_json(json?.as_str(), MAX_STORED_DEPTH)
}
