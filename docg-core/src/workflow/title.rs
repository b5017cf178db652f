//! Titles: what people call an execution, made from the workflow's `settings.title` and the trigger data.

use serde_json::Value;

use crate::{
    limits,
    observe::Redaction,
    storable,
    workflow::variables::{Root, Unfilled, fill, references},
};

/// The largest length of a title, in characters. A longer title is cut.
pub const MAX_TITLE: usize = 200;

/// The title of an execution with these trigger data; `None` if nothing of it is visible.
///
/// A variable without a value becomes `…`, and a secret becomes `[redacted]`. The title is one line.
#[must_use]
pub(crate) fn title(template: &str, trigger: &Value, redaction: &Redaction) -> Option<String> {
    let hidden = |path: &[&str]| path.iter().any(|name| redaction.is_secret(name));
    let text = fill(
        template,
        trigger,
        Unfilled {
            absent: "…",
            hidden: &hidden,
        },
    );
    let text = storable::printable(text);
    let text = storable::one_line(&redaction.text(&text), usize::MAX);
    let text = storable::cut(text, MAX_TITLE);
    (!limits::is_blank(&text)).then_some(text)
}

/// The variables of a title that cannot be filled in when an execution is created: only the trigger data is
/// known then. Each is shortened if it is very long.
pub(crate) fn unknown_variables(template: &str) -> Vec<String> {
    let found = references(&Value::from(template)).into_iter();
    let unknown = found.filter(|reference| {
        let target = reference.target.as_ref();
        !target.is_ok_and(|path| path.root == Root::Trigger)
    });
    unknown.map(|reference| reference.path).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(template: &str) -> Option<String> {
        let trigger = json!({
            "number": "2026-001", "amount": 12.5, "empty": "", "api_token": "abc",
            "customer": {"name": "Ann\n\u{202e}Lee"}, "long": "é".repeat(500),
        });
        title(template, &trigger, &Redaction::default())
    }

    #[test]
    fn a_title_is_one_line_with_the_values_of_the_trigger_data() {
        for (template, expected) in [
            ("Contract {{trigger.number}}", Some("Contract 2026-001")),
            ("{{trigger.amount}}", Some("12.5")),
            ("For {{ trigger.customer.name }}", Some("For Ann Lee")),
            (
                "{{trigger.missing}} of {{trigger.number}}",
                Some("… of 2026-001"),
            ),
            ("{{trigger.api_token}}", Some("[redacted]")),
            ("{{trigger.empty}}", None),
            ("  ", None),
        ] {
            assert_eq!(made(template).as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn a_long_title_is_cut_to_its_limit() {
        let title = made("{{trigger.long}}").expect("a title");
        assert_eq!(title.chars().count(), MAX_TITLE);
        assert!(title.ends_with(storable::CUT_MARK), "{title}");
    }

    #[test]
    fn a_title_reads_only_the_trigger_data() {
        let unknown = unknown_variables("{{trigger.a}} {{steps.b.c}} {{execution.id}} {{d}} {{");
        assert_eq!(unknown, ["steps.b.c", "execution.id", "d", "{{"]);
    }
}
