//! Reads of an execution: the fields of the answers, which readers see which fields, and the language of
//! texts.

use serde_json::{Value, json};

use crate::support::{Answer, Call, World};

async fn portuguese(world: &World, method: &'static str, path: &str) -> Value {
    let call = Call::new(method, path).token("user");
    let answer: Answer = world.send(call.header("accept-language", "pt-BR")).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_failed_step_repeats_its_fields_for_old_clients() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "broken"}])).await;
    world.until(&path, "execution.failed").await;
    let step = world.get(&format!("{path}/steps")).await.json()["steps"][0].clone();
    let human = "The document cannot be rendered.";
    assert_eq!(
        (&step["error_human"], &step["error_details"]),
        (&json!(human), &json!(human))
    );
    assert_eq!(
        (&step["node_id"], &step["step_id"]),
        (&json!("n"), &json!("n"))
    );
    assert_eq!(
        (&step["error_code"], &step["status"]),
        (&json!("render_failed"), &json!("failure"))
    );
}

#[tokio::test]
async fn a_step_whose_output_is_reused_says_from_where() {
    let world = World::new().await;
    let path = world
        .start(json!([
            {"id": "a", "type": "echo", "params": {"in": "{{trigger.deal}}"}},
            {"id": "n", "type": "broken"},
        ]))
        .await;
    world.until(&path, "execution.failed").await;
    let retried = world
        .post(&format!("{path}/retry"), json!({"from_step": "n"}))
        .await
        .json();
    let id = retried["execution_id"].as_str().expect("an id");
    let retry = format!("/api/v1/executions/{id}");
    world.until(&retry, "execution.failed").await;
    let steps = world.get(&format!("{retry}/steps")).await.json();
    let reused = &steps["steps"][0];
    assert_eq!(
        (&reused["status"], &reused["attempt"]),
        (&json!("success"), &json!(0))
    );
    assert_eq!(
        reused["reused_from"],
        path.rsplit('/').next().expect("an id")
    );
    assert_eq!(steps["steps"][1]["reused_from"], json!(null));
}

#[tokio::test]
async fn what_docg_says_is_in_the_reader_s_language() {
    let world = World::new().await;
    let node = json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]);
    let path = world.start(node).await;
    world.until(&path, "preflight.completed").await;
    let message = |report: &Value| report["groups"]["data"][0]["message_human"].clone();
    let check = format!("/api/v1/workflows/{}/preflight", world.workflow);
    let pairs = [
        (
            message(&world.get(&format!("{path}/preflight")).await.json()["preflight_summary"]),
            message(
                &portuguese(&world, "GET", &format!("{path}/preflight")).await["preflight_summary"],
            ),
        ),
        (
            message(&world.post(&check, json!({})).await.json()),
            message(&portuguese(&world, "POST", &check).await),
        ),
    ];
    for (english, portuguese) in pairs {
        assert!(english.is_string() && portuguese.is_string());
        assert_ne!(english, portuguese);
    }
    world.post(&format!("{path}/cancel"), json!({})).await;

    // Get an error whose text comes from the engine: the step times out, and its outcome is unknown.
    let lost = world
        .start(json!([{"id": "n", "type": "gated", "timeout_ms": 1}]))
        .await;
    world.until(&lost, "step.failed").await;
    let steps = format!("{lost}/steps");
    let english = world.get(&steps).await.json()["steps"][0]["error_human"].clone();
    let portuguese = portuguese(&world, "GET", &steps).await["steps"][0]["error_human"].clone();
    assert!(english.is_string() && portuguese.is_string());
    assert_ne!(english, portuguese);
}

#[tokio::test]
async fn a_dry_run_says_of_each_skipped_step_why_and_in_which_phase() {
    let world = World::new().await;
    world
        .put(
            world.workflow,
            json!([{"id": "a", "type": "echo"}, {"id": "n", "type": "note"}, {"id": "s", "type": "sign"}]),
        )
        .await;
    let start = format!("/api/v1/workflows/{}/executions", world.workflow);
    let made = world.post(&start, json!({"dry_run": true})).await.json();
    let path = format!("/api/v1/executions/{}", made["id"].as_str().expect("an id"));
    world.until(&path, "execution.completed").await;
    let steps = world.get(&format!("{path}/steps")).await.json()["steps"].clone();
    assert_eq!(steps[0]["status"], "success");
    for (index, phase) in [(1, "delivery"), (2, "signature")] {
        assert_eq!(steps[index]["status"], "skipped");
        assert_eq!(
            steps[index]["data_out"],
            json!({"reason": "dry_run", "phase": phase})
        );
    }
}

#[tokio::test]
async fn a_run_until_a_phase_is_completed_and_says_so() {
    let world = World::new().await;
    world
        .put(
            world.workflow,
            json!([{"id": "a", "type": "echo"}, {"id": "n", "type": "note"}]),
        )
        .await;
    let start = format!("/api/v1/workflows/{}/executions", world.workflow);
    let made = world
        .post(&start, json!({"until_phase": "render"}))
        .await
        .json();
    let path = format!("/api/v1/executions/{}", made["id"].as_str().expect("an id"));
    world.until(&path, "execution.completed").await;
    let run = world.get(&path).await.json();
    assert_eq!(
        (&run["status"], &run["until_phase"], &run["progress"]),
        (&json!("completed"), &json!("render"), &json!(100))
    );
}

#[tokio::test]
async fn the_cursor_of_a_log_is_bound_to_its_filters() {
    let world = World::new().await;
    let path = world.completed().await;
    let first = world
        .get(&format!("{path}/logs?limit=1&level=ok"))
        .await
        .json();
    let cursor = first["next_cursor"].as_str().expect("more");
    let with = |filter: &str| format!("{path}/logs?limit=1&cursor={cursor}{filter}");
    assert_eq!(world.get(&with("&level=ok")).await.status.as_u16(), 200);
    for filter in [
        "",
        "&level=warn",
        "&level=ok&domain=step",
        "&level=ok&step_id=a",
    ] {
        let refused = world.get(&with(filter)).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "invalid_cursor", "{filter}");
    }
}

#[tokio::test]
async fn the_technical_text_of_an_issue_is_for_technicians() {
    let world = World::new().await;
    let node = json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]);
    let path = world.start(node).await;
    world.until(&path, "preflight.completed").await;
    for (token, sees) in [("user", false), ("technician", true)] {
        let call = Call::new("GET", format!("{path}/preflight")).token(token);
        let report = world.send(call).await.json();
        let issue = &report["preflight_summary"]["groups"]["data"][0];
        let tech = issue.get("message_tech").expect("absent values are null");
        assert_eq!(tech.is_string(), sees, "{issue}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_value_is_told_in_the_reader_s_language() {
    let world = World::new().await;
    let draft = json!({"name": "", "bogus": 1, "nodes": [
        {"id": "a b", "type": "nonsense", "when": "1 +", "timeout_ms": 0},
        {"id": "b", "type": "echo", "phase": "delivery", "retry": {"multiplier": 0.0}},
        {"id": "b", "type": "echo", "params": {"in": "{{steps.c.x}} {{env.X}}", "bogus": 1}},
        {"id": "c", "label": "x\u{0}", "on_error": "shrug"},
    ]});
    let workflow = format!("/api/v1/workflows/{}", world.workflow);
    let start = format!("{workflow}/executions");
    let calls = [
        ("PUT", workflow, draft),
        (
            "POST",
            start,
            json!({"dry_run": 1, "until_phase": "x", "trigger_data": {"a": "\u{0}"}}),
        ),
        ("GET", "/api/v1/executions?limit=0".to_owned(), json!(null)),
        ("GET", "/api/v1/executions?cursor=x".to_owned(), json!(null)),
        ("GET", "/api/v1/executions?status=x".to_owned(), json!(null)),
    ];
    for (method, path, body) in calls {
        let details = async |language: &str| {
            let call = Call::new(method, path.clone())
                .token("user")
                .json(body.clone());
            let answer = world.send(call.header("accept-language", language)).await;
            let problem = answer.problem(422, "validation_failed");
            let errors = problem["errors"].as_array().expect("a list").clone();
            errors
                .into_iter()
                .map(|error| error["detail"].clone())
                .collect::<Vec<_>>()
        };
        let (english, portuguese) = (details("en").await, details("pt-BR").await);
        assert_eq!(english.len(), portuguese.len());
        for (english, portuguese) in english.iter().zip(&portuguese) {
            assert_ne!(english, portuguese, "{method} {path}");
        }
    }
}
