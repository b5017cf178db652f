//! Applies the result of preflight to the run state.

use std::sync::Arc;

use serde_json::json;

use super::{
    draft::{Draft, lengthened},
    earlier_data,
};
use crate::{
    event::EventData,
    i18n::Text,
    observe::{LogDomain, LogDraft, LogLevel},
    preflight::{Issue, PreflightSummary},
    run::{InvalidTransition, Phase, PhaseTimes, Status},
    time::Timestamp,
};

pub(super) fn finished(
    draft: &mut Draft<'_>,
    mut issues: Vec<Issue>,
    started_at: Timestamp,
) -> Result<(), InvalidTransition> {
    // If a signal ended or paused the run meanwhile, drop the result. Preflight runs again when the run goes
    // on.
    let status = draft.state.execution.status;
    let rests = status.is_terminal()
        || matches!(
            status,
            Status::Queued | Status::Paused | Status::NeedsReview
        );
    if rests || !draft.state.execution.preflight_due {
        return Ok(());
    }
    let outdated = earlier_data::warnings(draft);
    earlier_data::log_new(draft, &outdated);
    issues.extend(outdated);
    // Hide the secrets that the application named, besides those that the checks know.
    let issues = issues.into_iter();
    let issues = issues.map(|issue| issue.printable(draft.env.redaction));
    let summary = Arc::new(PreflightSummary::new(issues.collect(), draft.now));
    let (blocking, warnings) = (summary.blocking_count, summary.warning_count);
    // Use the time of records, which does not go back when the clock is set back.
    let started_at = started_at.max(draft.state.execution.updated_at);
    let times = draft.state.execution.phase_metrics.0[Phase::Preflight as usize]
        .get_or_insert_with(|| PhaseTimes::new(started_at));
    times.duration_ms = lengthened(times.duration_ms, draft.now.millis_since(started_at));
    times.completed_at = Some(draft.now);
    draft.state.execution.preflight = Some(Arc::clone(&summary));
    draft.state.execution.preflight_due = blocking > 0;
    draft.event(EventData::PreflightCompleted {
        summary: summary.for_events(),
    });
    let (level, text) = match (blocking, warnings) {
        (0, 0) => (LogLevel::Ok, Text::key("log-preflight-passed")),
        (0, count) => (
            LogLevel::Warn,
            Text::key("log-preflight-warnings").with("count", count),
        ),
        (count, _) => (
            LogLevel::Error,
            Text::key("log-preflight-blocked").with("count", count),
        ),
    };
    draft.log(
        level,
        LogDomain::Preflight,
        None,
        LogDraft::new(level, text),
    );
    if blocking == 0 {
        draft.update_progress(0.0);
        return Ok(());
    }
    let codes: Vec<_> = summary.blocking().map(|issue| issue.code.clone()).collect();
    draft.park(
        "preflight_blocked",
        json!({"blocking_count": blocking, "codes": codes}),
    )
}
