use std::{fmt::Write as _, sync::Arc};

use docg_core::{
    engine::{Engine, StartRequest},
    ids::WorkflowId,
    query::AuditQuery,
    workflow::{NodeSpec, WorkflowDraft, compute},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use serde_json::json;

use super::*;

/// Runs an execution with one step. Returns its audit rows in the form of an export.
async fn rows() -> Vec<Value> {
    let store = Arc::new(MemoryStore::new(StoreConfig::default()));
    let bus = Arc::new(MemoryBus::new(BusConfig::default()));
    let spec = NodeSpec::new("echo", docg_core::run::Phase::Render);
    let echo = compute(spec, |_context, params: Value| async move { Ok(params) });
    let engine = Engine::builder(store, bus).step(echo).build();
    let (organization_id, workflow) = (OrganizationId::new(), WorkflowId::new());
    let draft = json!({"name": "Echo", "nodes": [{"id": "a", "type": "echo"}]});
    let draft: WorkflowDraft = serde_json::from_value(draft).unwrap();
    engine
        .put_workflow(organization_id, workflow, draft, None)
        .await
        .unwrap();
    let workers = engine
        .start_workers(docg_core::engine::WorkerOptions::concurrency(1))
        .expect("no other workers run");
    let request = StartRequest::new(organization_id, workflow, Actor::user("someone"));
    let started = engine.start(request).await.unwrap();
    let execution_id = started.record.execution.id;
    let feed = engine.feed(organization_id, execution_id, 0).await.unwrap();
    let events: Vec<_> = futures::StreamExt::collect(feed).await;
    assert!(!events.is_empty());
    workers.shutdown().await;
    let query = AuditQuery::of(organization_id, execution_id);
    let page = engine.audit(query).await.unwrap();
    assert!(page.items.len() > 2);
    let row = |row: &AuditEvent| {
        json!({
            "id": row.id, "seq": row.seq, "organization_id": row.organization_id,
            "execution_id": row.execution_id, "timestamp": row.timestamp,
            "actor_type": row.actor.actor_type, "actor_id": row.actor.actor_id,
            "action": row.action, "target_type": row.target.kind, "target_id": row.target.id,
            "metadata": row.metadata, "salt": row.salt,
            "commitment": format!("\\x{}", hex::encode(row.commitment)),
            "prev_hash": hex::encode(row.prev_hash), "hash": hex::encode(row.hash),
        })
    };
    page.items.iter().map(|event| row(event)).collect()
}

fn check(text: &str) -> Result<Chain, CliError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Ok(verify_rows(&read_export(file.path(), None)?, None))
}

fn lines(rows: &[Value]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        writeln!(text, "{row}").unwrap();
        text
    })
}

#[tokio::test]
async fn an_export_verifies_in_each_of_its_forms() {
    let rows = rows().await;
    let pages = format!(
        "{}\n{}",
        json!({"events": rows[..2]}),
        json!({"events": rows[2..]})
    );
    for text in [lines(&rows), Value::from(rows.clone()).to_string(), pages] {
        let verdict = check(&text).unwrap();
        assert_eq!(
            (verdict.count, verdict.first_invalid_seq),
            (rows.len() as u64, None)
        );
    }
}

#[tokio::test]
async fn every_change_of_a_row_shows() {
    let rows = rows().await;
    for (field, value) in [
        ("actor_id", json!("somebody else")),
        ("action", json!("execution.nothing")),
        ("timestamp", json!("2020-01-01T00:00:00.000Z")),
        ("metadata", json!({"x": 1})),
        ("target_id", json!("another")),
        ("hash", json!("00".repeat(32))),
    ] {
        let mut changed = rows.clone();
        changed[1][field] = value;
        assert_eq!(
            check(&lines(&changed)).unwrap().first_invalid_seq,
            Some(2),
            "{field}"
        );
    }
    let mut gap = rows.clone();
    gap.remove(1);
    assert_eq!(check(&lines(&gap)).unwrap().first_invalid_seq, Some(2));
    let mut swapped = rows.clone();
    swapped.swap(1, 2);
    assert_eq!(check(&lines(&swapped)).unwrap().first_invalid_seq, Some(2));
}

#[tokio::test]
async fn a_cut_tail_shows_against_what_the_server_keeps() {
    let rows = rows().await;
    let whole: Vec<AuditEvent> = rows
        .iter()
        .map(|row| serde_json::from_value::<Row>(row.clone()).unwrap().into())
        .collect();
    let kept = verify_rows(&whole, None);
    assert_eq!(verify_rows(&whole, Some(&kept)).first_invalid_seq, None);
    let cut = &whole[..whole.len() - 1];
    assert_eq!(
        verify_rows(cut, None).first_invalid_seq,
        None,
        "nothing in the rows tells"
    );
    assert_eq!(
        verify_rows(cut, Some(&kept)).first_invalid_seq,
        Some(whole.len() as u64)
    );
    assert_eq!(
        verify_rows(&whole, Some(&verify_rows(cut, None))).first_invalid_seq,
        Some(whole.len() as u64),
        "the server has lost what the file has"
    );
}

#[tokio::test]
async fn what_cannot_be_checked_is_no_verdict() {
    let rows = rows().await;
    let mut other = rows[0].clone();
    other["execution_id"] = json!(Uuid::new_v4());
    let mut bare = rows[0].clone();
    bare.as_object_mut().unwrap().remove("commitment");
    for text in [
        "".to_owned(),
        "{".to_owned(),
        "[1]".to_owned(),
        lines(&[bare]),
        lines(&[rows[0].clone(), other]),
    ] {
        assert!(check(&text).is_err(), "{text}");
    }
}
