//! Events as a reader of a stream gets them. Each event's data have exactly the keys that are documented for
//! its type.

use std::collections::BTreeMap;

use docg_core::{
    event::EventData,
    observe::Actor,
    signature::{SignerFact, SignerFactKind},
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    sse::{parse, stream_of},
    support::{Call, World},
};

/// The event types that clients rely on, each with the keys of its data, separated by spaces.
const DATA: [(&str, &str); 21] = [
    ("approval.decided", "approval_id decided_by decision"),
    ("approval.requested", "approval_id approvers"),
    ("execution.canceled", "canceled_by reason"),
    ("execution.completed", "duration_ms"),
    ("execution.created", "trigger_type"),
    ("execution.failed", "error_code error_human"),
    ("execution.paused", "reason waiting_for"),
    ("execution.progress", "progress"),
    ("execution.resumed", "resumed_by"),
    ("execution.status_changed", "from reason to"),
    ("preflight.completed", "blocking_count groups warning_count"),
    (
        "signature.completed",
        "envelope_id signature_request_id signed_at",
    ),
    (
        "signature.expired",
        "envelope_id expires_at signature_request_id",
    ),
    (
        "signature.requested",
        "envelope_id provider signature_request_id signers",
    ),
    (
        "signature.signer.declined",
        "reason signature_request_id signer_email",
    ),
    (
        "signature.signer.signed",
        "signature_request_id signed_at signer_email",
    ),
    (
        "signature.signer.viewed",
        "signature_request_id signer_email",
    ),
    (
        "step.completed",
        "duration_ms node_id node_type output_preview",
    ),
    (
        "step.failed",
        "error_code error_human next_attempt_at node_id node_type will_retry",
    ),
    ("step.skipped", "node_id node_type reason"),
    ("step.started", "attempt node_id node_type position"),
];

/// Starts an execution that asks for one signature, and reports these facts about its signer.
async fn signed(world: &World, kinds: &[SignerFactKind]) -> String {
    let path = world.start(json!([{"id": "s", "type": "sign"}])).await;
    world.until(&path, "signature.requested").await;
    let waiting = world.get(&path).await.json()["waiting_for"]["detail"].clone();
    let request = waiting["signature_request_id"].as_str().expect("an id");
    let facts = kinds
        .iter()
        .map(|kind| SignerFact::new("signer@example.com", *kind, Timestamp::now()));
    let report = world.engine.report_signers(
        world.organization,
        request.parse().expect("an id"),
        facts.collect(),
        Actor::system(),
    );
    report.await.expect("taken");
    path
}

/// Waits until an execution has ended, and returns all events of its stream.
async fn events(world: &World, path: &str) -> Vec<Value> {
    world
        .until_events(path, 1, "an end", |event| {
            matches!(
                event.data,
                EventData::Completed { .. } | EventData::Failed { .. } | EventData::Canceled { .. }
            )
        })
        .await;
    let frames = parse(&world.get(&stream_of(path)).await.text);
    frames[1..].iter().map(|frame| frame.json()).collect()
}

#[tokio::test]
async fn every_event_has_the_data_of_its_type_and_no_other() {
    let world = World::new().await;
    let approver = "ann@example.com";
    let nodes = json!([
        {"id": "no", "type": "echo", "when": "trigger.deal.amount > 9"},
        {"id": "ask", "type": "approval", "phase": "save", "params": {"approvers": [approver]}},
        {"id": "wait", "type": "gated"},
    ]);
    let approved = world.start(nodes).await;
    world.until(&approved, "approval.requested").await;
    let token = world.invitations()[0].token.clone();
    let approve = Call::new("POST", format!("/api/v1/approvals/{token}/approve"));
    assert_eq!(world.send(approve).await.status.as_u16(), 200);
    world.until_events(&approved, 1, "the last step", |event| {
        matches!(&event.data, EventData::StepStarted { node_id, .. } if *node_id == *"wait")
    })
    .await;
    world.post(&format!("{approved}/pause"), json!({})).await;
    world.post(&format!("{approved}/resume"), json!({})).await;
    world.post(&format!("{approved}/cancel"), json!({})).await;
    let runs = [
        approved,
        world.start(json!([{"id": "n", "type": "broken"}])).await,
        signed(&world, &[SignerFactKind::Viewed, SignerFactKind::Signed]).await,
        signed(&world, &[SignerFactKind::Declined]).await,
        signed(&world, &[SignerFactKind::Expired]).await,
    ];
    let mut seen = BTreeMap::new();
    for run in &runs {
        for event in events(&world, run).await {
            let keys = event["data"].as_object().expect("an object").keys();
            let keys = keys.map(String::as_str).collect::<Vec<_>>().join(" ");
            let event_type = event["event_type"].as_str().expect("a type").to_owned();
            let known = seen.insert(event_type, keys.clone());
            assert!(known.is_none_or(|known| known == keys), "{event:#}");
        }
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|(name, keys)| (name.as_str(), keys.as_str()))
        .collect();
    assert_eq!(seen, DATA);
}

#[tokio::test]
async fn a_failed_step_says_what_it_means_and_nothing_technical() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "broken"}])).await;
    let events = events(&world, &path).await;
    let data = |event_type: &str| {
        let event = events
            .iter()
            .find(|event| event["event_type"] == event_type);
        event.unwrap_or_else(|| panic!("{event_type}"))["data"].clone()
    };
    let (code, human) = ("render_failed", "The document cannot be rendered.");
    assert_eq!(
        data("step.failed"),
        json!({
            "node_id": "n", "node_type": "broken", "error_code": code, "error_human": human,
            "will_retry": false, "next_attempt_at": null,
        })
    );
    assert_eq!(
        data("execution.failed"),
        json!({"error_code": code, "error_human": human})
    );
    assert!(
        !events
            .iter()
            .any(|event| event.to_string().contains("canary-tech"))
    );
}
