//! Applies the result of preflight to the run state.

use std::sync::Arc;

use serde_json::json;

use super::{
    super::{
        draft::Draft,
        phases::{self, lengthened},
        status,
    },
    earlier_data,
};
use crate::{
    event::EventData,
    i18n::Text,
    observe::{LogDomain, LogDraft, LogLevel},
    preflight::{Issue, PreflightSummary},
    run::{InvalidTransition, Phase, Status},
    time::Timestamp,
};

pub(in super::super) fn finished(
    draft: &mut Draft<'_>,
    mut issues: Vec<Issue>,
    started_at: Timestamp,
) -> Result<(), InvalidTransition> {
    // If a signal ended or paused the execution meanwhile, drop the result. Preflight runs again when the
    // execution goes on.
    let now = draft.now;
    let execution = draft.execution();
    let rests = execution.status.is_terminal()
        || matches!(
            execution.status,
            Status::Queued | Status::Paused | Status::NeedsReview
        );
    if rests || !execution.preflight_due {
        return Ok(());
    }
    let outdated = earlier_data::warnings(draft);
    earlier_data::log_new(draft, &outdated);
    issues.extend(outdated);
    // Hide the secrets that the application named, besides those that the checks have hidden already.
    let issues = issues.into_iter();
    let issues = issues.map(|issue| issue.printable(draft.env.redaction));
    let summary = Arc::new(PreflightSummary::new(issues.collect(), now));
    let (blocking, warnings) = (summary.blocking_count, summary.warning_count);
    // The times of records never go back, but the clock may have been set back. Then the start of preflight
    // would lie before the last record, so it takes that record's time.
    let started_at = started_at.max(draft.execution().updated_at);
    let times = phases::times_of(draft, Phase::Preflight, started_at);
    times.duration_ms = lengthened(times.duration_ms, now.millis_since(started_at));
    times.completed_at = Some(now);
    draft.edit().preflight = Some(Arc::clone(&summary));
    draft.edit().preflight_due = blocking > 0;
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
        phases::update_progress(draft, 0.0);
        return Ok(());
    }
    let codes: Vec<_> = summary.blocking().map(|issue| issue.code.clone()).collect();
    let detail = json!({"blocking_count": blocking, "codes": codes});
    status::park(draft, "preflight_blocked", detail)
}
