//! Bombs: workflows of a tenant that are expensive to evaluate. Other tenants notice nothing, the execution
//! reports the fault, and the server still stops when told to.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::process::Server;

/// The longest time of `/healthz` while a bomb is evaluated, on a machine that also builds other things.
const HEALTHY: Duration = Duration::from_secs(2);
/// The additional memory that the process may use under all bombs together, in bytes.
const MEMORY: u64 = 700 * 1024 * 1024;
/// The number of executions of each bomb that are started at once.
const AT_ONCE: usize = 12;

struct Bomb {
    name: &'static str,
    /// The fields of the workflow besides name and nodes.
    workflow: Value,
    data: Value,
    /// The error code that the bomb's executions report.
    code: &'static str,
}

fn extracting(extra: Value, data: Value, name: &'static str, code: &'static str) -> Bomb {
    let node = json!({"id": "a", "type": "extract", "params": {"fields": {"x": 1}}});
    let mut workflow = json!({"name": name, "nodes": [node]});
    for (field, value) in extra.as_object().into_iter().flatten() {
        match field.as_str() {
            "input_schema" => workflow["input_schema"] = value.clone(),
            other => workflow["nodes"][0][other] = value.clone(),
        }
    }
    Bomb {
        name,
        workflow,
        data,
        code,
    }
}

fn bombs() -> Vec<Bomb> {
    let numbers: Vec<_> = (100_000..165_000).collect();
    let others: Vec<_> = (200_000..265_000).collect();
    let lists = json!({"l": numbers, "m": others});
    let enumerated: Vec<_> = (0..5_000).map(|index| json!([index])).collect();
    let long = "x".repeat(900_000);
    let letters = "ab".repeat(200_000);
    let fields: Map<String, Value> = (0..100)
        .map(|index| (format!("f{index}"), json!("{{trigger.long}}".repeat(10))))
        .collect();
    vec![
        extracting(
            json!({"when": "trigger.l|select('in', trigger.m)|list|length > 0"}),
            lists.clone(),
            "a condition",
            "invalid_condition",
        ),
        extracting(
            json!({"input_schema": {"properties": {"l": {"items": {"allOf": vec![json!({}); 1_900]}}}}}),
            json!({"l": vec![0; 200_000]}),
            "a wide schema",
            "data.check_failed",
        ),
        extracting(
            json!({"input_schema": {"properties": {"l": {"items": {"enum": enumerated}}}}}),
            json!({"l": vec![json!([4_999]); 40_000]}),
            "a large enum",
            "data.check_failed",
        ),
        extracting(
            json!({"input_schema": {"properties": {"t": {"allOf":
                vec![json!({"pattern": "(a|b)*a(a|b){31}$"}); 500]}}}}),
            json!({"t": letters}),
            "patterns",
            "data.check_failed",
        ),
        extracting(
            json!({"params": {"fields": fields}}),
            json!({"long": long}),
            "variables",
            "parameters_too_large",
        ),
    ]
}

/// Runs `work`, and polls the server's health meanwhile. Returns the longest time of a health check, and the
/// result of `work`.
async fn watched<T>(server: &Server, work: impl Future<Output = T>) -> (Duration, T) {
    let slowest = Cell::new(Duration::ZERO);
    let asking = async {
        loop {
            let asked = Instant::now();
            server.get("/healthz").await;
            slowest.set(slowest.get().max(asked.elapsed()));
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::select! {
        () = asking => unreachable!("it asks for ever"),
        done = work => done,
    };
    (slowest.get(), done)
}

/// The peak memory of the server, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("Linux tells it") * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_a_tenant_stall_nobody_and_the_server_still_ends() {
    let mut server = Server::start(&["--cancel-grace-ms", "500"]);
    let before = memory(&server);
    let mut started = Vec::new();
    for bomb in bombs() {
        let path = format!("/api/v1/workflows/{}", uuid::Uuid::new_v4());
        let (status, answer) = server.send(Method::PUT, &path, &bomb.workflow).await;
        assert_eq!(status, StatusCode::CREATED, "{}: {answer}", bomb.name);
        let executions = format!("{path}/executions");
        let mut ids = Vec::new();
        for _ in 0..AT_ONCE {
            ids.push(server.start_at(&executions, &bomb.data).await);
        }
        let body = json!({"trigger_data": bomb.data});
        let preflight = format!("{path}/preflight");
        let (slowest, (status, answer)) = watched(&server, server.post(&preflight, &body)).await;
        assert_eq!(status, StatusCode::OK, "{}", bomb.name);
        assert_eq!(answer["can_execute"], false, "{}: {answer}", bomb.name);
        let more = memory(&server).saturating_sub(before) >> 20;
        eprintln!(
            "{}: /healthz took at most {slowest:?}, {more} MB more",
            bomb.name
        );
        assert!(slowest < HEALTHY, "{}: {slowest:?}", bomb.name);
        started.push((bomb, ids));
    }
    for (bomb, ids) in &started {
        let execution = server.until(&ids[0], &["needs_review"]).await;
        let groups = &execution["preflight_summary"]["groups"]["data"];
        assert_eq!(groups[0]["code"], bomb.code, "{}: {groups}", bomb.name);
        assert_eq!(groups[0]["severity"], "blocking", "{}", bomb.name);
    }
    assert!(memory(&server).saturating_sub(before) < MEMORY);
    // Start more work than can be evaluated before the stop.
    for (bomb, ids) in &started {
        for id in ids {
            let change = json!({"changes": {"trigger_data": {"again": bomb.name}}});
            server
                .post(&format!("/api/v1/executions/{id}/resume"), &change)
                .await;
        }
    }
    server.signal("TERM");
    let told = Instant::now();
    assert!(server.wait().success());
    assert!(
        told.elapsed() < Duration::from_secs(15),
        "{:?}",
        told.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_unfolds_without_end_is_refused_with_its_place() {
    let server = Server::start(&[]);
    let definitions: Map<String, Value> = (0..45)
        .map(|index| {
            let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
            (format!("d{index}"), json!({"allOf": [next.clone(), next]}))
        })
        .chain([("d45".to_owned(), json!({"type": "object"}))])
        .collect();
    let bomb = extracting(
        json!({"input_schema": {"$ref": "#/$defs/d0", "$defs": definitions}}),
        json!({}),
        "definitions",
        "",
    );
    let path = format!("/api/v1/workflows/{}", uuid::Uuid::new_v4());
    let (status, problem) = server.send(Method::PUT, &path, &bomb.workflow).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let error = &problem["errors"][0];
    assert_eq!(error["code"], "invalid_schema");
    let pointer = error["pointer"].as_str().expect("a pointer");
    assert!(pointer.starts_with("/input_schema/$defs/d"), "{pointer}");
}
