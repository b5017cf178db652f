use super::*;
use crate::{
    run::{Outcome, StepState},
    workflow::variables::tests::step,
};

/// A workflow of three nodes: render a file, save it if `when_save` holds, mail the URL to `trigger.to`.
fn chain(when_save: Value) -> Value {
    json!([
        node("r", "render", json!({"template": "t"})),
        {"id": "v", "type": "save", "when": when_save, "params": {"file": "{{steps.r.file}}", "folder": "f"}},
        node("s", "send", json!({"to": "{{trigger.to}}", "subject": "{{steps.v.url}}"})),
    ])
}

#[tokio::test]
async fn nodes_after_the_last_phase_are_not_checked() {
    let mut case = Case::new(chain(json!(null)), json!({"to": ""}));
    for (until, expected) in [
        (Phase::Render, vec![]),
        (Phase::Save, vec![]),
        (Phase::Delivery, vec!["delivery missing_recipient s to"]),
        (Phase::Signature, vec!["delivery missing_recipient s to"]),
    ] {
        case.until_phase = Some(until);
        assert_eq!(case.found().await, expected, "{until}");
    }
}

#[tokio::test]
async fn a_dry_run_checks_delivery_too() {
    let mut case = Case::new(chain(json!(null)), json!({"to": ""}));
    case.dry_run = true;
    assert_eq!(case.found().await, ["delivery missing_recipient s to"]);
}

#[tokio::test]
async fn a_dry_run_that_would_read_what_it_leaves_out_is_told() {
    let nodes = json!([
        node("v", "save", json!({"file": {"name": "f"}, "folder": "f"})),
        node(
            "r",
            "render",
            json!({"template": "t", "data": "{{steps.v.url}}"})
        ),
    ]);
    let mut case = Case::new(nodes, json!({}));
    assert_eq!(case.found().await, [""; 0]);
    case.dry_run = true;
    assert_eq!(case.found().await, ["data unresolved_variables r data"]);
}

#[tokio::test]
async fn a_node_whose_condition_is_surely_false_is_not_checked_and_gives_nothing() {
    let case = Case::new(
        chain(json!("trigger.save")),
        json!({"to": "a@example.com", "save": false}),
    );
    assert_eq!(case.found().await, ["data unresolved_variables s subject"]);
    let case = Case::new(
        chain(json!("trigger.save")),
        json!({"to": "a@example.com", "save": true}),
    );
    assert_eq!(case.found().await, [""; 0]);
    let case = Case::new(
        chain(json!("steps.r.file == 'x'")),
        json!({"to": "a@example.com"}),
    );
    assert_eq!(case.found().await, [""; 0], "cannot be told yet");
}

#[tokio::test]
async fn a_condition_over_absent_data_blocks() {
    let case = Case::new(
        chain(json!("trigger.save == 1")),
        json!({"to": "a@example.com"}),
    );
    assert_eq!(case.found().await, ["data unresolved_variables v when"]);
    let case = Case::new(
        chain(json!("trigger.to / 2 == 1")),
        json!({"to": "a@example.com"}),
    );
    assert_eq!(case.found().await, ["data invalid_condition v when"]);
}

#[tokio::test]
async fn steps_that_have_ended_are_not_checked_again_and_their_outputs_are_known() {
    let nodes = json!([
        node(
            "e",
            "extract",
            json!({"fields": {"to": "{{trigger.gone}}"}})
        ),
        node(
            "s",
            "send",
            json!({"to": "{{steps.e.to}}", "subject": "{{steps.e.other}}"})
        ),
    ]);
    let draft = json!([
        nodes[0],
        node("s", "send", json!({"to": "{{steps.e.to}}", "subject": "x"}))
    ]);
    let mut case = Case::new(draft, json!({}));
    case.steps = vec![
        step("e", 0, Some(json!({"to": "nobody"}))),
        step("s", 1, None),
    ];
    assert_eq!(case.found().await, ["delivery invalid_email_format s to"]);
    case.steps[0].output = Some(Arc::new(json!({})));
    assert_eq!(case.found().await, ["data unresolved_variables s to"]);
    case.steps[0].state = StepState::Skipped;
    case.steps[0].output = None;
    assert_eq!(case.found().await, ["data unresolved_variables s to"]);
    // A failed step runs again once a person has repaired it, so preflight checks it.
    case.steps[0].state = StepState::Failed(Outcome::Known);
    assert_eq!(
        case.found().await,
        ["data unresolved_variables e trigger.gone"]
    );
}
