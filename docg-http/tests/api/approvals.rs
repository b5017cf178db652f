//! Approvers read and decide approvals. Each approver has only the token of an invitation, and no other
//! credentials.

mod care;
mod ends;

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Call, World, scrubbed};

const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";

/// A test world with an execution that waits for an approval.
struct Asked {
    world: World,
    path: String,
}

impl Asked {
    /// Starts an execution whose approval node has these parameters, and waits until approval is requested.
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

    /// The path of an approver's link, from the last invitation that the approver got.
    fn link(&self, email: &str) -> String {
        let invitations = self.world.invitations();
        let invitation = invitations.iter().rfind(|sent| sent.email == email);
        let token = &invitation.expect("an invitation").token;
        format!("/api/v1/approvals/{token}")
    }

    /// The approval as JSON, as this approver's link shows it.
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
