use std::sync::Arc;

use axum::Router;
use docg_core::{
    engine::Engine,
    ports::{TtlEntry, TtlKey},
};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{Answer, Call, World};

#[tokio::test]
async fn pause_resume_and_cancel_answer_with_the_new_state() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let paused = world
        .post(&format!("{path}/pause"), json!({"reason": "lunch"}))
        .await;
    assert_eq!(
        (paused.status.as_u16(), &paused.json()["status"]),
        (200, &json!("paused"))
    );
    assert_eq!(paused.json()["waiting_for"]["kind"], "pause");
    let again = world.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!(
        again.json()["version"],
        paused.json()["version"],
        "pausing what is paused changes nothing"
    );
    let resumed = world
        .send(Call::new("POST", format!("{path}/resume")).token("user"))
        .await;
    assert_eq!(
        (resumed.status.as_u16(), &resumed.json()["status"]),
        (200, &json!("sending"))
    );
    let canceled = world
        .post(
            &format!("{path}/cancel"),
            json!({"reason": "wrong customer"}),
        )
        .await;
    assert_eq!(canceled.json()["status"], "canceled");
    let refused = world
        .post(&format!("{path}/resume"), json!({}))
        .await
        .problem(409, "invalid_transition");
    assert_eq!(
        (&refused["from"], &refused["allowed"]),
        (&json!("canceled"), &json!(["retry"]))
    );
}

#[tokio::test]
async fn a_parked_run_is_repaired_through_resume() {
    let world = World::new().await;
    let path = world
        .start(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]))
        .await;
    world.until(&path, "preflight.completed").await;
    let preflight = world.get(&format!("{path}/preflight")).await.json();
    assert_eq!(
        preflight["preflight_summary"]["groups"]["data"][0]["code"],
        "unresolved_variables"
    );
    assert_eq!(preflight["recommended_actions"][0]["action"], "map_fields");
    let bad = world
        .post(
            &format!("{path}/resume"),
            json!({"changes": {"nodes": {"n": {"bogus": 1}}}}),
        )
        .await;
    assert_eq!(
        bad.problem(422, "validation_failed")["errors"][0]["pointer"],
        "/changes/nodes/n/bogus"
    );
    let answer = world
        .post(
            &format!("{path}/resume"),
            json!({"changes": {"customer": "c"}}),
        )
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    world.until(&path, "execution.completed").await;
}

#[tokio::test]
async fn a_repeated_call_with_its_key_gives_the_first_answer_again() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = |body| {
        world.send(
            Call::new("POST", format!("{path}/retry"))
                .token("user")
                .header("idempotency-key", "k")
                .json(body),
        )
    };
    let first = call(json!({})).await;
    let again = call(json!({})).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    call(json!({"dry_run": true}))
        .await
        .problem(422, "idempotency_key_reused");
    let body = first.json();
    assert_eq!(body["status"], "queued");
    assert_eq!(
        body["execution"]["retry_of"],
        path.rsplit('/').next().expect("an id")
    );
}

#[tokio::test]
async fn a_pause_that_comes_twice_with_its_key_is_made_once() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let pause = || {
        let call = Call::new("POST", format!("{path}/pause")).token("user");
        world.send(call.header("idempotency-key", "p"))
    };
    let first = pause().await;
    assert_eq!(first.json()["status"], "paused");
    world.post(&format!("{path}/resume"), json!({})).await;
    let again = pause().await;
    assert_eq!(
        (again.text, first.text.as_str()),
        (first.text.clone(), first.text.as_str())
    );
    assert_eq!(
        world.get(&path).await.json()["status"],
        "sending",
        "it stays resumed"
    );
}

#[tokio::test]
async fn an_answer_that_was_kept_and_cannot_be_read_is_no_other_request() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let pause = || {
        let call = Call::new("POST", format!("{path}/pause")).token("user");
        world.send(call.header("idempotency-key", "p"))
    };
    assert_eq!(pause().await.status.as_u16(), 200);
    let key = TtlKey {
        organization_id: Some(world.organization),
        kind: "idempotency",
        key: "p".to_owned(),
    };
    let kept = world.engine.recall(&key).await.expect("is up");
    let kept = kept.expect("the answer is kept");
    let mut without_answer = kept.value.clone();
    without_answer["given"] = json!(5);
    for value in [json!(1), json!(null), json!({}), json!([]), without_answer] {
        let entry = TtlEntry {
            value,
            ..kept.clone()
        };
        world.engine.replace(entry).await.expect("is up");
        pause().await.problem(409, "unreadable");
    }
}

#[tokio::test]
async fn a_key_belongs_to_its_organization() {
    let world = World::new().await;
    let workflow = format!("/api/v1/workflows/{}", world.workflow);
    let draft = json!({"name": "Theirs", "nodes": [{"id": "a", "type": "echo"}]});
    let put = Call::new("PUT", workflow.clone()).token("stranger");
    world.send(put.json(draft)).await;
    let start = |token, deal: u32| {
        let call = Call::new("POST", format!("{workflow}/executions"));
        let call = call.token(token).header("idempotency-key", "k");
        world.send(call.json(json!({"trigger_data": {"deal": deal}})))
    };
    let (own, theirs) = (start("user", 1).await, start("stranger", 2).await);
    assert_eq!((own.status.as_u16(), theirs.status.as_u16()), (201, 201));
    assert_ne!(own.json()["id"], theirs.json()["id"]);
    let cancel = |token, made: &Answer| {
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let call = Call::new("POST", format!("/api/v1/executions/{id}/retry"));
        world.send(call.token(token).header("idempotency-key", "r"))
    };
    for (made, token) in [(&own, "user"), (&theirs, "stranger")] {
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let ended = async {
            let path = format!("/api/v1/executions/{id}");
            let read = || world.send(Call::new("GET", path.clone()).token(token));
            while read().await.json()["status"] != "completed" {
                tokio::task::yield_now().await;
            }
        };
        crate::sse::within(ended).await;
        assert_eq!(cancel(token, made).await.status.as_u16(), 201);
    }
}

/// A test world, and the router of a second process over the same store and bus. The second process runs no
/// workers and holds no lease.
async fn with_another_process() -> (World, Router) {
    let mut options = None;
    let world = World::with(|given| {
        given.metrics = None;
        options = Some(given.clone());
    })
    .await;
    let bus = Arc::clone(&world.bus) as _;
    let engine = Engine::builder(Arc::clone(&world.store) as _, bus).build();
    let router = docg_http::router(engine, options.expect("given"));
    (world, router)
}

#[tokio::test]
async fn a_call_that_another_process_applies_is_passed_on() {
    let (world, elsewhere) = with_another_process().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    for (verb, status) in [
        ("pause", "paused"),
        ("resume", "sending"),
        ("cancel", "canceled"),
    ] {
        let call = Call::new("POST", format!("{path}/{verb}")).token("user");
        let answer = elsewhere.clone().oneshot(call.request()).await;
        let answer = Answer::of(answer.expect("infallible")).await;
        if verb == "cancel" && answer.status.as_u16() == 200 {
            // The process that holds the lease applied the cancel before the second process answered.
            assert_eq!(answer.json()["status"], status);
            continue;
        }
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (202, json!({"status": "signal_sent"})),
            "{verb}"
        );
        let applied = async {
            while world.get(&path).await.json()["status"] != status {
                tokio::task::yield_now().await;
            }
        };
        crate::sse::within(applied).await;
    }
}

#[tokio::test]
async fn a_call_on_another_version_is_refused() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = |tag: &'static str| {
        world.send(
            Call::new("POST", format!("{path}/retry"))
                .token("user")
                .header("if-match", tag),
        )
    };
    call("\"0\"").await.problem(412, "version_mismatch");
    call("\"bogus\"").await.problem(412, "version_mismatch");
    assert_eq!(call("*").await.status.as_u16(), 201);
}

#[tokio::test]
async fn every_signal_is_bound_to_the_version_that_it_names() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    for verb in ["pause", "resume", "cancel"] {
        let call = |tag: &str| {
            let call = Call::new("POST", format!("{path}/{verb}")).token("user");
            world.send(call.header("if-match", tag))
        };
        call("\"0\"").await.problem(412, "version_mismatch");
        let current = world.get(&path).await.header("etag").to_owned();
        assert_eq!(call(&current).await.status.as_u16(), 200, "{verb}");
    }
}

#[tokio::test]
async fn from_step_names_a_step() {
    let world = World::new().await;
    let path = world.completed().await;
    for (from, status) in [
        (json!("a"), 201),
        (json!(0), 201),
        (json!("zzz"), 422),
        (json!(9), 422),
        (json!(-1), 422),
        (json!([]), 422),
    ] {
        let answer = world
            .post(&format!("{path}/retry"), json!({"from_step": from}))
            .await;
        assert_eq!(answer.status.as_u16(), status, "{from}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_many_times_at_once_is_made_once() {
    let world = Arc::new(World::new().await);
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    world.post(&format!("{path}/pause"), json!({})).await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (world, path) = (Arc::clone(&world), format!("{path}/resume"));
            tokio::spawn(async move {
                let call = Call::new("POST", path).token("user");
                world.send(call.header("idempotency-key", "r")).await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("no panic"));
    }
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    assert_eq!(answers[0].status.as_u16(), 200, "{}", answers[0].text);
    let first = |answer: &&Answer| answer.header("idempotency-replayed").is_empty();
    assert_eq!(answers.iter().filter(first).count(), 1);
}

#[tokio::test]
async fn the_answer_is_there_for_a_caller_who_went_away() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = || {
        Call::new("POST", format!("{path}/retry"))
            .token("user")
            .header("idempotency-key", "gone")
    };
    {
        let going = std::pin::pin!(world.open(call()));
        assert!(futures::poll!(going).is_pending(), "it is under way");
    }
    let again = world.send(call()).await;
    assert_eq!(again.status.as_u16(), 201, "{}", again.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let all = world.get("/api/v1/executions").await.json();
    assert_eq!(all["executions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_failed_may_be_tried_again_with_its_key() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let resume = || {
        let call = Call::new("POST", format!("{path}/resume")).token("user");
        world.send(call.header("idempotency-key", "k"))
    };
    resume().await.problem(409, "invalid_transition");
    world.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!(resume().await.status.as_u16(), 200);
}

#[tokio::test]
async fn an_answer_for_technicians_is_not_given_to_others_again() {
    let world = World::new().await;
    let node = json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]);
    let path = world.start(node).await;
    world.until(&path, "preflight.completed").await;
    let cancel = |token: &str| {
        let call = Call::new("POST", format!("{path}/cancel")).token(token);
        world.send(call.header("idempotency-key", "c"))
    };
    let first = cancel("technician").await;
    let technical = |answer: &Answer| answer.text.contains("\"message_tech\":\"");
    assert!(technical(&first), "{}", first.text);
    let other = cancel("user").await;
    other.problem(422, "idempotency_key_reused");
    assert!(!technical(&other));
    assert_eq!(cancel("technician").await.text, first.text);
}

#[tokio::test]
async fn a_refusal_says_what_is_allowed() {
    let world = World::new().await;
    let path = world.completed().await;
    let refused = world.post(&format!("{path}/pause"), json!({})).await;
    let problem = crate::support::scrubbed(&refused.problem(409, "invalid_transition"));
    insta::assert_json_snapshot!(problem);
}

#[tokio::test]
async fn changes_are_objects_and_nothing_else_is_changed() {
    let world = World::new().await;
    let path = world.completed().await;
    let refused = async |changes| {
        let body = json!({"changes": changes});
        let answer = world.post(&format!("{path}/resume"), body).await;
        answer.problem(422, "validation_failed")["errors"].clone()
    };
    let wrong = refused(json!({"nodes": [], "trigger_data": {}})).await;
    assert_eq!(wrong[0]["pointer"], "/changes/nodes");
    let unknown = refused(json!({"nodes": {}, "a/b": 1, "c": 2})).await;
    assert_eq!(
        (&unknown[0]["pointer"], &unknown[1]["pointer"]),
        (&json!("/changes/a~1b"), &json!("/changes/c"))
    );
    let absent = json!({"changes": {"nodes": null, "trigger_data": null}});
    world
        .post(&format!("{path}/resume"), absent)
        .await
        .problem(409, "invalid_transition");
}
