//! Approvals that expire, are canceled or are requested again, and votes that another process applies.

use std::{sync::Arc, time::Duration};

use docg_core::{
    ids::WorkerId,
    ports::{ClaimRequest, ClaimWhat, ExecutionStore},
    prelude::*,
    time::{ManualClock, Timestamp},
};
use serde_json::json;

use super::{ANN, Asked};
use crate::support::{Call, World};

#[tokio::test]
async fn no_decision_in_time_does_what_the_workflow_says() {
    for (on_expiry, status, code) in [
        (json!(null), "failed", json!("approval_expired")),
        (json!("fail"), "failed", json!("approval_expired")),
        (json!("review"), "needs_review", json!("approval_expired")),
        (json!("approve"), "completed", json!(null)),
    ] {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let world = World::at(Arc::new(clock.clone()), |_| {}).await;
        let mut params = json!({"approvers": [ANN], "expires_in_ms": 60_000});
        if !on_expiry.is_null() {
            params["on_expiry"] = on_expiry.clone();
        }
        let asked = Asked::of(world, params).await;
        clock.advance(Duration::from_secs(60));
        asked.until("approval.decided").await;
        let last = match status {
            "completed" => "execution.completed",
            "failed" => "execution.failed",
            _ => "step.failed",
        };
        asked.until(last).await;
        let execution = asked.execution().await;
        assert_eq!(execution["status"], status, "{on_expiry}");
        assert_eq!(execution["error_code"], code, "{on_expiry}");
        let late = asked.vote(ANN, "approve", json!({})).await;
        let expected = if status == "completed" {
            "approval_decided"
        } else {
            "approval_expired"
        };
        let late = late.problem(409, expected);
        assert_eq!(
            late["decided_by"],
            if status == "completed" {
                json!("expiry")
            } else {
                json!(null)
            }
        );
    }
}

#[tokio::test]
async fn after_a_review_the_approvers_are_asked_anew_by_a_new_link() {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    let world = World::at(Arc::new(clock.clone()), |_| {}).await;
    let params = json!({"approvers": [ANN], "expires_in_ms": 1_000, "on_expiry": "review"});
    let asked = Asked::of(world, params).await;
    let first = asked.link(ANN);
    clock.advance(Duration::from_secs(1));
    asked.until("step.failed").await;
    let changes = json!({"changes": {"nodes": {"ok": {"expires_in_ms": 60_000}}}});
    let resumed = asked
        .world
        .post(&format!("{}/resume", asked.path), changes)
        .await;
    assert_eq!(resumed.status.as_u16(), 200, "{}", resumed.text);
    asked
        .world
        .until_count(&asked.path, "approval.requested", 2)
        .await;
    assert_ne!(asked.link(ANN), first);
    let late = asked
        .world
        .send(Call::new("POST", format!("{first}/approve")))
        .await;
    late.problem(409, "approval_expired");
    assert_eq!(
        asked.vote(ANN, "approve", json!({})).await.status.as_u16(),
        200
    );
    asked.until("execution.completed").await;
}

#[tokio::test]
async fn what_waits_for_an_approval_can_be_canceled_and_not_resumed() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let resumed = asked
        .world
        .post(&format!("{}/resume", asked.path), json!({}))
        .await;
    let problem = resumed.problem(409, "invalid_transition");
    assert_eq!(
        (&problem["from"], &problem["allowed"]),
        (&json!("paused"), &json!(["cancel"]))
    );
    let canceled = asked
        .world
        .post(&format!("{}/cancel", asked.path), json!({}))
        .await;
    assert_eq!(canceled.json()["status"], "canceled");
    assert_eq!(asked.seen(ANN).await["status"], "canceled");
    let late = asked.vote(ANN, "approve", json!({})).await;
    late.problem(409, "approval_canceled");
}

#[tokio::test]
async fn a_vote_reaches_a_run_that_another_process_holds() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let id: ExecutionId = asked.path[asked.path.len() - 36..].parse().expect("an id");
    let now = asked.world.engine.now();
    let claim = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now,
        lease_until: now + Duration::from_secs(600),
    };
    let claim = asked.world.store.claim(claim).await.expect("claimed");
    let sent = asked.vote(ANN, "approve", json!({})).await;
    assert_eq!(
        (sent.status.as_u16(), sent.json()),
        (202, json!({"status": "signal_sent"}))
    );
    assert_eq!(asked.seen(ANN).await["status"], "pending");
    let lease = claim.claimed[0].lease;
    let released = asked.world.store.release(&[lease], now).await;
    released.expect("released");
    // Complete another execution: that wakes the workers, which then also claim the one with the approval.
    asked.world.completed().await;
    asked.until("execution.completed").await;
    assert_eq!(asked.seen(ANN).await["decided_by"], ANN);
}
