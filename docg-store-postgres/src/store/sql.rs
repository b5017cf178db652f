//! Column lists that several statements share. JSON is sent as text.

/// The columns of an execution `e` with its data `d`.
macro_rules! execution_columns {
    () => {
        "e.id, e.organization_id, e.workflow_id, e.workflow_version, e.status, e.progress, \
         e.current_step::text, e.waiting_for::text, e.error_code, e.last_error_human::text, \
         e.last_error_tech, e.preflight_summary::text, e.delivery_state, e.signature_state, \
         e.phase_metrics::text, e.correlation_id, e.trigger_type, e.retry_of, e.follows, \
         e.dry_run, e.until_phase, e.attempt, e.version, e.created_at, e.started_at, \
         e.completed_at, e.updated_at, e.paused_from, e.preflight_due, e.delivery_confirmed, \
         e.priority, e.wake_at, e.event_seq, e.log_seq, e.audit_seq, e.audit_hash, \
         d.title, d.trigger_data::text, d.node_overrides::text, d.kept_events::text, d.start_at, \
         d.created_by::text, d.traceparent"
    };
}

/// The query for steps `s`, with the columns of their JSON records.
macro_rules! step_record {
    () => {
        "SELECT s.id, s.node_id, s.node_type, s.label, s.phase, s.position, s.status, \
            s.activity, s.attempt, s.attempts_before, s.takeovers, s.started_at, \
            s.completed_at, s.waiting_ms, s.awaits, s.error_code, s.error_human, s.error_tech, \
            s.outcome, \
            CASE WHEN s.data_in IS NOT NULL THEN json_build_array(s.data_in) END AS data_in, \
            CASE WHEN s.data_out IS NOT NULL THEN json_build_array(s.data_out) END \
                AS data_out, \
            CASE WHEN s.output IS NOT NULL THEN json_build_array(s.output) END AS output, \
            s.reused_from \
        FROM docg.execution_steps s"
    };
}

/// The steps of execution `e`, as a JSON array.
macro_rules! steps_of_execution {
    () => {
        concat!(
            "(SELECT coalesce(json_agg(row_to_json(step) ORDER BY step.position), '[]')::text \
                FROM (",
            step_record!(),
            " WHERE s.execution_id = e.id) step)"
        )
    };
}

/// The query for signature requests `r`, with the columns of their JSON records.
macro_rules! signature_record {
    () => {
        "SELECT r.id, r.execution_id, r.organization_id, r.node_id, r.provider, r.envelope_id, \
            r.status, r.signers, r.file, r.created_at, r.expires_at, r.completed_at, r.details, \
            r.follow_up \
         FROM docg.signature_requests r"
    };
}

/// The query for approvals `a`, with the columns of their JSON records.
macro_rules! approval_record {
    () => {
        "SELECT a.id, a.execution_id, a.organization_id, a.node_id, a.message, a.approvers, a.quorum, \
            a.decision, a.decided_by, a.created_at, a.decided_at, a.expires_at, a.on_expiry \
         FROM docg.approvals a"
    };
}

/// The columns that a worker needs to load execution `e` with its data `d`.
macro_rules! run_state_columns {
    () => {
        concat!(
            execution_columns!(),
            ", e.published, d.definition_hash, ",
            steps_of_execution!(),
            " AS steps, (SELECT row_to_json(last)::text FROM (",
            signature_record!(),
            " WHERE r.execution_id = e.id ORDER BY r.arrival DESC LIMIT 1) last) AS signature, \
             (SELECT row_to_json(last)::text FROM (",
            approval_record!(),
            " WHERE a.execution_id = e.id ORDER BY a.arrival DESC LIMIT 1) last) AS approval, \
             (SELECT json_agg(s.signal ORDER BY s.arrival)::text FROM docg.signals s \
              WHERE s.execution_id = e.id AND NOT s.is_settled) AS signals"
        )
    };
}

pub(super) use {
    approval_record, execution_columns, run_state_columns, signature_record, step_record,
    steps_of_execution,
};
