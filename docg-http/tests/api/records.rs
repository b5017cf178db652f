use serde_json::json;

use crate::support::{Call, World, scrubbed};

#[tokio::test]
async fn logs_are_in_plain_words_and_in_the_reader_s_language() {
    let world = World::new().await;
    let path = world.completed().await;
    let english = world.get(&format!("{path}/logs")).await.json();
    let call = Call::new("GET", format!("{path}/logs"))
        .token("user")
        .header("accept-language", "pt-BR");
    let answer = world.send(call).await;
    assert_eq!(answer.header("content-language"), "pt-BR");
    let portuguese = answer.json();
    let rows = english["logs"].as_array().expect("a list").len();
    assert!(rows >= 4);
    for row in 0..rows {
        let (en, pt) = (
            &english["logs"][row]["message_human"],
            &portuguese["logs"][row]["message_human"],
        );
        assert_ne!(en, pt, "each text has words of its own");
    }
}

#[tokio::test]
async fn log_pages_join_without_a_seam() {
    let world = World::new().await;
    let path = world.completed().await;
    let all = world.get(&format!("{path}/logs")).await.json();
    let mut seen = Vec::new();
    let mut next = format!("{path}/logs?limit=2");
    loop {
        let body = world.get(&next).await.json();
        seen.extend(body["logs"].as_array().expect("a list").clone());
        match body["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}/logs?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(json!(seen), all["logs"]);
    for query in [
        "level=bogus",
        "domain=bogus",
        "limit=0",
        "cursor=x",
        "step_id=%00",
        "limit=1&limit=2",
    ] {
        world
            .get(&format!("{path}/logs?{query}"))
            .await
            .problem(422, "validation_failed");
    }
    assert_eq!(
        world.get(&format!("{path}/logs?level=error")).await.json()["logs"],
        json!([])
    );
}

#[tokio::test]
async fn the_audit_trail_verifies() {
    let world = World::new().await;
    let path = world.completed().await;
    let rows = world.get(&format!("{path}/audit")).await.json();
    let actions: Vec<_> = rows["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["action"].clone())
        .collect();
    assert_eq!(
        json!(actions),
        json!([
            "execution.started",
            "document.generated",
            "execution.completed"
        ])
    );
    assert_eq!(
        (
            &rows["events"][0]["actor_type"],
            &rows["events"][0]["actor_id"]
        ),
        (&json!("user"), &json!("user"))
    );
    let report = world.get(&format!("{path}/audit/verify")).await.json();
    let last = &rows["events"][2]["hash"];
    assert_eq!(
        report,
        json!({"valid": true, "count": 3, "head_hash": last, "first_invalid_seq": null})
    );
    let call = Call::new("GET", format!("{path}/audit")).token("reader");
    world.send(call).await.problem(403, "missing_scope");
}

#[tokio::test]
async fn logs_and_audit_rows_look_like_this() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "broken"}])).await;
    world.until(&path, "execution.failed").await;
    let logs = Call::new("GET", format!("{path}/logs?level=error")).token("technician");
    let logs = world.send(logs).await.json();
    insta::assert_json_snapshot!("logs", scrubbed(&logs));
    let audit = world.get(&format!("{path}/audit?limit=1")).await.json();
    let mut audit = scrubbed(&audit);
    assert!(audit["next_cursor"].is_string() && audit["has_more"] == true);
    audit["next_cursor"] = json!("[cursor]");
    insta::assert_json_snapshot!("audit", audit);
}

#[tokio::test]
async fn a_cursor_of_another_execution_is_refused() {
    let world = World::new().await;
    let (own, other) = (world.completed().await, world.completed().await);
    for list in ["logs", "audit"] {
        let page = world.get(&format!("{own}/{list}?limit=1")).await.json();
        let cursor = page["next_cursor"].as_str().expect("more").to_owned();
        let with = |path: &str| format!("{path}/{list}?limit=1&cursor={cursor}");
        assert_eq!(world.get(&with(&own)).await.status.as_u16(), 200);
        let refused = world.get(&with(&other)).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "invalid_cursor");
    }
}
