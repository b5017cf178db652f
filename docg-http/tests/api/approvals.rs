use std::{sync::Arc, time::Duration};

use docg_core::{
    ids::WorkerId,
    ports::{ClaimRequest, ClaimWhat, RunStore},
    prelude::*,
    time::{ManualClock, Timestamp},
};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Call, World, scrubbed};

const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";

/// A run that waits for an approval, and how its approvers reach it.
struct Asked {
    world: World,
    path: String,
}

impl Asked {
    /// Asks with these parameters, and waits for the answer.
    async fn new(params: Value) -> Self {
        Self::of(World::new().await, params).await
    }

    async fn of(world: World, params: Value) -> Self {
        let nodes = json!([
            {"id": "draft", "type": "echo", "params": {"in": "{{trigger.deal}}"}},
            {"id": "ok", "type": "approval", "label": "Ask", "phase": "save", "params": params},
            {"id": "after", "type": "note", "params": {"in": "{{steps.ok.decided_by}}"}},
        ]);
        let path = world.start(nodes).await;
        world.until(&path, "approval.requested").await;
        Self { world, path }
    }

    /// The link of an approver, by the last invitation that they got.
    fn link(&self, email: &str) -> String {
        let invitations = self.world.invitations();
        let invitation = invitations.iter().rfind(|sent| sent.email == email);
        let token = &invitation.expect("an invitation").token;
        format!("/api/v1/approvals/{token}")
    }

    /// What the approver sees.
    async fn seen(&self, email: &str) -> Value {
        let answer = self.world.send(Call::new("GET", self.link(email))).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.json()
    }

    async fn vote(&self, email: &str, verb: &str, body: Value) -> Answer {
        let path = format!("{}/{verb}", self.link(email));
        self.world.send(Call::new("POST", path).json(body)).await
    }

    async fn execution(&self) -> Value {
        self.world.get(&self.path).await.json()
    }

    async fn until(&self, event: &str) {
        self.world.until(&self.path, event).await;
    }
}

#[tokio::test]
async fn an_approver_approves_by_the_token_alone_and_the_run_goes_on() {
    let asked = Asked::new(json!({
        "approvers": [format!("Ann <{ANN}>"), BEN],
        "message": "Deal over {{trigger.deal.amount}}",
        "expires_in_ms": 60_000,
    }))
    .await;
    let execution = asked.execution().await;
    assert_eq!(execution["status"], "paused");
    let waiting = &execution["waiting_for"];
    assert_eq!(
        (&waiting["kind"], &waiting["detail"]["approvers"]),
        (&json!("approval"), &json!([ANN, BEN]))
    );
    assert_eq!(waiting["until"], asked.seen(ANN).await["expires_at"]);
    insta::assert_json_snapshot!("asked", scrubbed(&asked.seen(ANN).await));

    let answer = asked
        .vote(ANN, "approve", json!({"comment": " Fine. "}))
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    insta::assert_json_snapshot!("approved", scrubbed(&answer.json()));
    asked.until("execution.completed").await;
    let steps = asked
        .world
        .get(&format!("{}/steps", asked.path))
        .await
        .json();
    assert_eq!(
        steps["steps"][1]["data_out"],
        json!({"decision": "approved", "decided_by": ANN, "comment": "Fine."})
    );
    assert_eq!(steps["steps"][2]["data_in"]["in"], ANN);
    assert_eq!(asked.seen(BEN).await["decided_by"], ANN);

    let late = asked.vote(BEN, "reject", json!({})).await;
    let problem = scrubbed(&late.problem(409, "approval_decided"));
    insta::assert_json_snapshot!("decided", problem);
}

#[tokio::test]
async fn one_refusal_fails_the_run_whatever_the_quorum() {
    let asked = Asked::new(json!({"approvers": [ANN, BEN], "quorum": 2})).await;
    let answer = asked
        .vote(BEN, "reject", json!({"comment": "Too much"}))
        .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["status"]),
        (200, &json!("rejected"))
    );
    asked.until("execution.failed").await;
    let execution = asked.execution().await;
    assert_eq!(execution["error_code"], "approval_rejected");
    assert_eq!(
        execution["last_error_human"],
        format!("{BEN} did not approve.")
    );
    let action = &execution["recommended_actions"][0];
    assert_eq!(action["action"], "retry", "{execution}");
    let late = asked.vote(ANN, "approve", json!({})).await;
    let late = late.problem(409, "approval_decided");
    assert_eq!(
        (&late["decision"], &late["decided_by"]),
        (&json!("rejected"), &json!(BEN))
    );
}

#[tokio::test]
async fn a_quorum_counts_approvers_and_not_clicks() {
    let asked = Asked::new(json!({"approvers": [ANN, BEN], "quorum": 2})).await;
    let first = asked.vote(ANN, "approve", json!({"comment": "Yes"})).await;
    assert_eq!(first.json()["status"], "pending", "{}", first.text);
    let again = asked.vote(ANN, "reject", json!({})).await;
    let again = again.problem(409, "already_voted");
    assert_eq!(
        (&again["decision"], &again["your_decision"]),
        (&Value::Null, &json!("approved"))
    );
    assert_eq!(asked.execution().await["status"], "paused");
    let second = asked
        .vote(BEN, "approve", json!({"comment": "Yes, too"}))
        .await;
    assert_eq!(second.json()["comment"], "Yes\nYes, too");
    asked.until("execution.completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_votes_at_once_exactly_one_counts() {
    let everybody: Vec<String> = (0..10).map(|n| format!("p{n}@example.com")).collect();
    let asked = Arc::new(Asked::new(json!({"approvers": everybody})).await);
    let votes = (0..50).map(|n| {
        let (asked, email) = (Arc::clone(&asked), everybody[n % 10].clone());
        let verb = if n % 3 == 0 { "reject" } else { "approve" };
        tokio::spawn(async move { (verb, asked.vote(&email, verb, json!({})).await) })
    });
    let answers = join_all(votes).await;
    let answers: Vec<_> = answers.into_iter().map(|a| a.expect("no panic")).collect();
    let (won, lost): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|(_, answer)| answer.status.as_u16() == 200);
    assert_eq!(
        won.len(),
        1,
        "{:?}",
        won.iter().map(|w| &w.1.text).collect::<Vec<_>>()
    );
    let decision = &won[0].1.json()["decision"];
    let expected = if won[0].0 == "approve" {
        "approved"
    } else {
        "rejected"
    };
    assert_eq!(decision, expected);
    for (_, answer) in &lost {
        let problem = answer.problem(409, "approval_decided");
        assert_eq!(&problem["decision"], decision);
    }
    let ended = if expected == "approved" {
        "execution.completed"
    } else {
        "execution.failed"
    };
    asked.until(ended).await;
    let audit = asked
        .world
        .get(&format!("{}/audit?limit=100", asked.path))
        .await
        .json();
    let rows = audit["events"].as_array().expect("rows");
    let decided: Vec<_> = rows
        .iter()
        .filter(|row| row["action"] == "approval.decided")
        .collect();
    assert_eq!(decided.len(), 1, "the trail has one decision");
    assert_eq!(decided[0]["actor_id"], won[0].1.json()["decided_by"]);
}

#[tokio::test]
async fn a_token_that_nobody_was_given_opens_nothing() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let good = asked.link(ANN);
    let unknown = "0".repeat(40);
    let mut bodies = Vec::new();
    for token in [
        unknown.as_str(),
        "x",
        "%00",
        "%2e%2e",
        &good[18..good.len() - 1],
    ] {
        let path = format!("/api/v1/approvals/{token}");
        let shown = asked.world.send(Call::new("GET", path.clone())).await;
        let mut body = shown.problem(404, "not_found");
        body["correlation_id"] = Value::Null;
        bodies.push(body);
        for verb in ["approve", "reject"] {
            let call = Call::new("POST", format!("{path}/{verb}"));
            asked.world.send(call).await.problem(404, "not_found");
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let get = asked
        .world
        .send(Call::new("GET", format!("{good}/approve")))
        .await;
    get.problem(405, "method_not_allowed");
    assert_eq!(asked.execution().await["status"], "paused");
}

#[tokio::test]
async fn a_vote_is_read_with_care() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let unknown = asked
        .vote(ANN, "approve", json!({"comment": "x", "force": true}))
        .await;
    let problem = unknown.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/force");
    let long = asked
        .vote(ANN, "approve", json!({"comment": "x".repeat(2_001)}))
        .await;
    let problem = long.problem(422, "validation_failed");
    assert_eq!(
        (
            &problem["errors"][0]["pointer"],
            &problem["errors"][0]["code"]
        ),
        (&json!("/comment"), &json!("too_long"))
    );
    let huge = asked
        .vote(ANN, "approve", json!({"comment": "x".repeat(1 << 20)}))
        .await;
    huge.problem(413, "payload_too_large");
    let portuguese = Call::new("POST", format!("{}/approve", asked.link(ANN)))
        .header("accept-language", "pt-BR")
        .body("{")
        .header("content-type", "application/json");
    asked
        .world
        .send(portuguese)
        .await
        .problem(400, "malformed_json");
    let bogus = Call::new("POST", format!("{}/approve?bogus=1", asked.link(ANN)));
    let problem = asked
        .world
        .send(bogus)
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/bogus");
    let bare = Call::new("POST", format!("{}/approve", asked.link(ANN)));
    assert_eq!(
        asked.world.send(bare).await.status.as_u16(),
        200,
        "the body may be left out"
    );
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_again_and_only_to_its_token() {
    let asked = Asked::new(json!({"approvers": [ANN, BEN], "quorum": 2})).await;
    let vote = |email: &str, verb: &str| {
        let call = Call::new("POST", format!("{}/{verb}", asked.link(email)));
        asked.world.send(call.header("idempotency-key", "once"))
    };
    let first = vote(ANN, "approve").await;
    let again = vote(ANN, "approve").await;
    assert_eq!((again.status.as_u16(), &again.text), (200, &first.text));
    assert_eq!(again.header("idempotency-replayed"), "true");
    vote(ANN, "reject")
        .await
        .problem(422, "idempotency_key_reused");
    let other = vote(BEN, "approve").await;
    assert_eq!(other.json()["status"], "approved", "{}", other.text);
}

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
    // Another run wakes the workers, who find this one too.
    asked.world.completed().await;
    asked.until("execution.completed").await;
    assert_eq!(asked.seen(ANN).await["decided_by"], ANN);
}

#[tokio::test]
async fn preflight_says_what_is_wrong_with_who_is_asked() {
    let world = World::new().await;
    let workflow = WorkflowId::new();
    for (params, domain, expected) in [
        (
            json!({"approvers": [ANN], "quorum": 0}),
            "data",
            ("invalid_quorum", "quorum"),
        ),
        (
            json!({"approvers": [ANN, BEN], "quorum": 3}),
            "data",
            ("invalid_quorum", "quorum"),
        ),
        (
            json!({"approvers": [ANN, "Ann Again <ANN@example.com>"]}),
            "delivery",
            ("duplicate_approver", "approvers.1"),
        ),
        (
            json!({"approvers": [ANN, "ben at example"]}),
            "delivery",
            ("invalid_email_format", "approvers.1"),
        ),
        (
            json!({"approvers": []}),
            "delivery",
            ("missing_recipient", "approvers"),
        ),
        (
            json!({"approvers": "{{trigger.people}}", "quorum": 2}),
            "data",
            ("invalid_quorum", "quorum"),
        ),
    ] {
        let node = json!({"id": "ok", "type": "approval", "phase": "save", "params": params});
        let draft = serde_json::from_value(json!({"name": "Test", "nodes": [node]}));
        let put =
            world
                .engine
                .put_workflow(world.organization, workflow, draft.expect("readable"), None);
        put.await.expect("its values are left to preflight");
        let path = format!("/api/v1/workflows/{workflow}/preflight");
        let body = json!({"trigger_data": {"people": [ANN]}});
        let answer = world.post(&path, body).await.json();
        assert_eq!(answer["can_execute"], false, "{params}");
        let issue = &answer["groups"][domain][0];
        assert_eq!(
            (&issue["code"], &issue["field"], &issue["node_id"]),
            (&json!(expected.0), &json!(expected.1), &json!("ok")),
            "{answer:#}"
        );
        let action = &answer["recommended_actions"][0];
        assert_eq!(action["params"]["issue_code"], expected.0);
        assert_ne!(action["label"], "", "{answer:#}");
    }
}

#[tokio::test]
async fn a_token_is_kept_nowhere_but_with_its_approver() {
    let asked = Asked::new(json!({"approvers": [ANN], "message": "Please"})).await;
    let link = asked.link(ANN);
    let token = link.rsplit('/').next().expect("a token");
    assert_eq!(token.len(), 40);
    asked.vote(ANN, "approve", json!({})).await;
    asked.until("execution.completed").await;
    for part in ["", "/steps", "/logs?limit=100", "/audit?limit=100"] {
        let call = Call::new("GET", format!("{}{part}", asked.path)).token("technician");
        let shown = asked.world.send(call).await;
        assert_eq!(shown.status.as_u16(), 200);
        assert!(!shown.text.contains(token), "{part}: {}", shown.text);
    }
    let id: ExecutionId = asked.path[asked.path.len() - 36..].parse().expect("an id");
    let debugged = format!("{:?}", asked.world.invitations());
    assert!(
        !debugged.contains(token),
        "nor does it show when it is debugged"
    );
    let mut feed = asked
        .world
        .engine
        .feed(asked.world.organization, id, 0)
        .await
        .expect("a feed");
    while let Some(event) = futures::StreamExt::next(&mut feed).await {
        let event = serde_json::to_string(&*event.expect("readable")).expect("JSON");
        assert!(!event.contains(token), "{event}");
    }
}

#[tokio::test]
async fn in_every_phase_the_run_goes_on_where_it_was_paused() {
    for phase in ["trigger", "render", "save", "delivery", "signature"] {
        let world = World::new().await;
        let params = json!({"approvers": ANN});
        let nodes = json!([{"id": "ok", "type": "approval", "phase": phase, "params": params}]);
        let path = world.start(nodes).await;
        world.until(&path, "approval.requested").await;
        let asked = Asked { world, path };
        assert_eq!(asked.execution().await["status"], "paused", "{phase}");
        let voted = asked.vote(ANN, "approve", json!({})).await;
        assert_eq!(voted.status.as_u16(), 200, "{phase}: {}", voted.text);
        asked.until("execution.completed").await;
    }
}
