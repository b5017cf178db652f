//! Executions in `needs_review`, which a person resumes with or without changes, or rejects.

use std::{sync::Arc, time::Duration};

use docg_core::{
    event::{Event, EventData},
    prelude::*,
    time::{ManualClock, Timestamp},
};
use serde_json::{Value, json};

use crate::support::World;

/// A test world with an execution that waits in `needs_review`, because one of its nodes failed.
struct Parked {
    world: World,
    path: String,
}

impl Parked {
    async fn new(nodes: Value) -> Self {
        let world = World::new().await;
        let path = world.start(nodes).await;
        let parked = Self { world, path };
        parked.until_parked(1).await;
        parked
    }

    async fn until_parked(&self, times: usize) {
        let parks = |event: &Event| {
            let to = match &event.data {
                EventData::StatusChanged { to, .. } => Some(*to),
                _ => None,
            };
            to == Some(Status::NeedsReview)
        };
        let parked = self
            .world
            .until_events(&self.path, times, "a review", parks);
        parked.await;
        let execution = self.execution().await;
        assert_eq!(
            (&execution["status"], &execution["waiting_for"]["kind"]),
            (&json!("needs_review"), &json!("review")),
            "{execution:#}"
        );
    }

    async fn execution(&self) -> Value {
        self.world.get(&self.path).await.json()
    }

    async fn steps(&self) -> Value {
        let steps = self.world.get(&format!("{}/steps", self.path)).await;
        steps.json()["steps"].clone()
    }

    async fn resume(&self, body: Value) -> crate::support::Answer {
        self.world
            .post(&format!("{}/resume", self.path), body)
            .await
    }

    async fn completed(&self) -> Value {
        self.world.until(&self.path, "execution.completed").await;
        self.steps().await
    }
}

fn picky() -> Value {
    json!([
        {"id": "draft", "type": "echo", "params": {"in": "{{trigger.deal.amount}}"}},
        {"id": "send", "type": "picky", "params": {"in": "bad"}, "on_error": "review"},
        {"id": "after", "type": "note", "params": {"in": "{{steps.send.sent}}"}},
    ])
}

fn doubtful() -> Value {
    json!([
        {"id": "send", "type": "doubtful"},
        {"id": "after", "type": "note", "params": {"in": "{{steps.send}}"}},
    ])
}

#[tokio::test]
async fn a_failed_step_is_repaired_by_other_parameters_and_nothing_before_it_is_repeated() {
    let parked = Parked::new(picky()).await;
    let execution = parked.execution().await;
    assert_eq!(execution["error_code"], "wrong_value");
    assert_eq!(execution["current_step"]["node_id"], "send");
    let before = parked.steps().await;

    // Preflight checks the changes before any step runs.
    let open = json!({"changes": {"nodes": {"send": {"in": "{{trigger.nobody}}"}}}});
    assert_eq!(parked.resume(open).await.status.as_u16(), 200);
    parked.until_parked(2).await;
    let execution = parked.execution().await;
    let issue = &execution["preflight_summary"]["groups"]["data"][0];
    assert_eq!(
        (&issue["code"], &issue["node_id"]),
        (&json!("unresolved_variables"), &json!("send"))
    );
    assert_eq!(parked.steps().await[1]["attempt"], 1, "it was not run");

    let good = json!({"changes": {"nodes": {"send": {"in": "good"}}}});
    assert_eq!(parked.resume(good).await.status.as_u16(), 200);
    let steps = parked.completed().await;
    assert_eq!(steps[0], before[0], "what was done stays as it was");
    assert_eq!(
        (&steps[1]["attempt"], &steps[1]["data_in"]["in"]),
        (&json!(2), &json!("good"))
    );
    assert_eq!(steps[2]["data_in"]["in"], "good");
    let execution = parked.execution().await;
    assert_eq!(
        (&execution["error_code"], &execution["waiting_for"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn without_a_change_the_step_is_tried_again_and_may_fail_again() {
    let parked = Parked::new(picky()).await;
    assert_eq!(
        parked
            .resume(json!({"approved": true}))
            .await
            .status
            .as_u16(),
        200
    );
    parked.until_parked(2).await;
    assert_eq!(parked.steps().await[1]["attempt"], 2);
}

#[tokio::test]
async fn a_review_that_is_refused_ends_the_run() {
    let parked = Parked::new(picky()).await;
    let answer = parked.resume(json!({"approved": false})).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let execution = answer.json();
    assert_eq!(
        (&execution["status"], &execution["error_code"]),
        (&json!("failed"), &json!("review_rejected"))
    );
    assert_eq!(execution["recommended_actions"][0]["action"], "retry");
    let again = parked.resume(json!({})).await;
    again.problem(409, "invalid_transition");
}

#[tokio::test]
async fn an_unknown_outcome_waits_for_a_person_who_knows() {
    let parked = Parked::new(doubtful()).await;
    let execution = parked.execution().await;
    assert_eq!(execution["error_code"], "outcome_unknown");
    let actions = execution["recommended_actions"].as_array().expect("a list");
    let actions: Vec<_> = actions.iter().map(|a| &a["action"]).collect();
    assert_eq!(actions, ["confirm_done", "run_again"]);
    for (body, pointer, code) in [
        (json!({}), "/resolution", "resolution_required"),
        (
            json!({"approved": true}),
            "/resolution",
            "resolution_required",
        ),
        (
            json!({"resolution": "maybe"}),
            "/resolution",
            "invalid_value",
        ),
        (json!({"output": {}}), "/output", "unexpected_output"),
        (
            json!({"resolution": "run_again", "output": {}}),
            "/output",
            "unexpected_output",
        ),
    ] {
        let refused = parked.resume(body.clone()).await;
        let error = &refused.problem(422, "validation_failed")["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(pointer), &json!(code)),
            "{body}"
        );
    }
    assert_eq!(parked.execution().await["version"], execution["version"]);

    let done = json!({"resolution": "confirm_done", "output": {"message_id": "<1@example.com>"}});
    assert_eq!(parked.resume(done).await.status.as_u16(), 200);
    let steps = parked.completed().await;
    assert_eq!(
        (&steps[0]["status"], &steps[0]["attempt"]),
        (&json!("success"), &json!(1))
    );
    assert_eq!(
        steps[1]["data_in"]["in"]["message_id"], "<1@example.com>",
        "later steps read what the person said"
    );
}

#[tokio::test]
async fn an_effect_that_did_not_happen_is_run_again() {
    let parked = Parked::new(doubtful()).await;
    let again = parked.resume(json!({"resolution": "run_again"})).await;
    assert_eq!(again.status.as_u16(), 200, "{}", again.text);
    let steps = parked.completed().await;
    assert_eq!(steps[0]["attempt"], 2);
    assert_eq!(steps[1]["data_in"]["in"], json!({"sent": "on attempt 2"}));
}

#[tokio::test]
async fn nobody_who_reviews_in_time_ends_the_run() {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    let world = World::at(Arc::new(clock.clone()), |_| {}).await;
    let workflow = WorkflowId::new();
    let draft = json!({
        "name": "Test", "nodes": picky(), "settings": {"review_expires_ms": 60_000},
    });
    let path = format!("/api/v1/workflows/{workflow}");
    let put = crate::support::Call::new("PUT", path.clone())
        .token("user")
        .json(draft);
    assert_eq!(world.send(put).await.status.as_u16(), 201);
    let body = json!({"trigger_data": {"deal": {"amount": 1}}});
    let started = world.post(&format!("{path}/executions"), body).await;
    let id = started.json()["id"].clone();
    let path = format!("/api/v1/executions/{}", id.as_str().expect("an id"));
    let parked = Parked { world, path };
    parked.until_parked(1).await;
    let until: Timestamp = parked.execution().await["waiting_for"]["until"]
        .as_str()
        .and_then(|until| until.parse().ok())
        .expect("a moment");
    assert_eq!(until, parked.world.engine.now() + Duration::from_secs(60));
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(parked.execution().await["status"], "needs_review");
    clock.advance(Duration::from_millis(1));
    parked.world.until(&parked.path, "execution.failed").await;
    let execution = parked.execution().await;
    assert_eq!(execution["error_code"], "review_expired");
    assert_eq!(execution["recommended_actions"][0]["action"], "retry");
}
