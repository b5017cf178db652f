//! Why an execution is where it is, in one text for people.

use std::borrow::Cow;

use serde_json::Value;

use super::{Execution, Status, WaitKind, WaitingFor};
use crate::{error::ErrorContext, i18n::Text};

impl Execution {
    /// The error to show: the latest error, or the first blocking issue of preflight if that is what stopped
    /// the execution.
    #[must_use]
    pub fn shown_error(&self) -> Option<Cow<'_, ErrorContext>> {
        let blocked = self
            .preflight
            .as_ref()
            .filter(|summary| self.status == Status::NeedsReview && !summary.can_execute());
        if let Some(issue) = blocked.and_then(|summary| summary.blocking().next()) {
            return Some(Cow::Owned(ErrorContext {
                code: issue.code.clone(),
                human: issue.message_human.clone(),
                tech: issue.message_tech.clone(),
            }));
        }
        self.error.as_ref().map(Cow::Borrowed)
    }

    /// Why the execution waits, needs a review or failed; `None` if it does none of these.
    #[must_use]
    pub fn reason(&self) -> Option<Text> {
        match (&self.waiting_for, self.status) {
            (Some(waiting), _) => Some(self.reason_of_wait(waiting)),
            (None, Status::NeedsReview) => Some(self.reason_of_review()),
            (None, Status::Paused) => Some(Text::key("reason-paused")),
            (None, Status::Failed) => Some(self.shown_error().map_or_else(
                || Text::key("error-unspecified"),
                |error| error.human.clone(),
            )),
            (
                None,
                Status::Queued
                | Status::Running
                | Status::Ready
                | Status::Sending
                | Status::Sent
                | Status::Signing
                | Status::Signed
                | Status::Completed
                | Status::Canceled,
            ) => None,
        }
    }

    fn reason_of_wait(&self, waiting: &WaitingFor) -> Text {
        let detail = &waiting.detail;
        match waiting.kind {
            WaitKind::Review => self.reason_of_review(),
            WaitKind::Approval => people("approval", &detail["approvers"]),
            WaitKind::Signature => people("signature", &detail["signers"]),
            WaitKind::Confirmation => Text::key("reason-confirmation"),
            WaitKind::Pause => match (detail["paused_by"].as_str(), detail["reason"].as_str()) {
                (Some(by), Some(why)) => Text::key("reason-paused-by-because")
                    .with("by", by)
                    .with("why", why),
                (Some(by), None) => Text::key("reason-paused-by").with("by", by),
                (None, _) => Text::key("reason-paused"),
            },
            WaitKind::Retry => match &self.current_step {
                Some(step) => Text::key("reason-retry-of").with("label", &step.label),
                None => Text::key("reason-retry"),
            },
            WaitKind::Timer => match waiting.until {
                Some(until) => {
                    Text::key("reason-timer-until").with("moment", until.to_the_minute())
                }
                None => Text::key("reason-timer"),
            },
            WaitKind::Event => match detail["name"].as_str() {
                Some(name) => Text::key("reason-event-of").with("name", name),
                None => Text::key("reason-event"),
            },
        }
    }

    fn reason_of_review(&self) -> Text {
        let Some(error) = self.shown_error() else {
            return Text::key("reason-review");
        };
        let human = error.human.clone();
        let others = match (&self.preflight, &error) {
            // The error is the first of the blocking issues.
            (Some(summary), Cow::Owned(_)) => summary.blocking_count.saturating_sub(1),
            _ => 0,
        };
        match others {
            0 => Text::key("reason-review-of").with_text("error", human),
            others => Text::key("reason-review-of-several")
                .with_text("error", human)
                .with("others", others),
        }
    }
}

/// The reason for a wait for people: one text if their names are known, another if not.
fn people(wait: &str, names: &Value) -> Text {
    let names = names.as_array().into_iter().flatten();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    let known = !names.is_empty();
    let key = match (wait, known) {
        ("approval", true) => "reason-approval-by",
        ("approval", false) => "reason-approval",
        (_, true) => "reason-signature-by",
        (_, false) => "reason-signature",
    };
    Text::key(key).with("people", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        i18n::Locale,
        preflight::{Domain, Issue, PreflightSummary},
        time::Timestamp,
        workflow::variables::tests::execution,
    };

    fn waiting(status: Status, kind: WaitKind, detail: Value) -> Execution {
        let mut execution = execution();
        execution.status = status;
        execution.waiting_for = Some(WaitingFor {
            kind,
            since: Timestamp::from_millis(0),
            until: None,
            detail,
        });
        execution
    }

    fn reason(execution: &Execution, locale: Locale) -> String {
        execution.reason().expect("a reason").render(locale)
    }

    #[test]
    fn every_wait_review_and_failure_has_a_reason_in_both_languages() {
        for kind in WaitKind::ALL {
            for status in Status::ALL {
                let details = [
                    json!({"approvers": ["a@b.c"], "signers": ["a@b.c"], "paused_by": "ann", "reason": "x"}),
                    json!({"paused_by": "ann"}),
                    Value::Null,
                ];
                for detail in details {
                    let execution = waiting(status, kind, detail);
                    for locale in Locale::ALL {
                        let text = reason(&execution, locale);
                        assert!(text.contains(' ') && !text.contains("reason-"), "{text}");
                    }
                }
            }
        }
        for status in Status::ALL {
            let mut execution = execution();
            execution.status = status;
            let needed = matches!(
                status,
                Status::NeedsReview | Status::Failed | Status::Paused
            );
            assert_eq!(execution.reason().is_some(), needed, "{status}");
        }
    }

    #[test]
    fn the_reason_names_the_people_who_are_waited_for() {
        let detail = json!({"signers": ["ann@example.com", "bob@example.com"]});
        let execution = waiting(Status::Signing, WaitKind::Signature, detail);
        assert_eq!(
            reason(&execution, Locale::En),
            "Waiting for ann@example.com, bob@example.com to sign."
        );
    }

    #[test]
    fn an_execution_that_preflight_stopped_shows_its_first_blocking_issue_as_error() {
        let issues = vec![
            Issue::warning(Domain::Data, "odd", "Odd."),
            Issue::blocking(Domain::Data, "first", "The first."),
            Issue::blocking(Domain::Signature, "second", "The second."),
        ];
        let summary = PreflightSummary::new(issues, Timestamp::from_millis(0));
        let mut execution = waiting(Status::NeedsReview, WaitKind::Review, json!({}));
        execution.preflight = Some(Arc::new(summary));
        let error = execution.shown_error().expect("an error");
        assert_eq!(error.code, "first");
        let text = reason(&execution, Locale::En);
        assert!(text.contains("The first.") && text.contains('1'), "{text}");
        execution.status = Status::Running;
        execution.waiting_for = None;
        assert_eq!(execution.shown_error(), None);
    }
}
