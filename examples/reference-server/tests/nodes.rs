//! The server's node types in an engine: their outputs and their failures.

mod support;

use docg_core::{
    engine::{ControlRequest, Repair},
    observe::{Actor, actions},
    query::AuditQuery,
    run::Status,
};
use serde_json::{Value, json};
use support::Harness;

fn contract() -> Value {
    serde_json::from_str(include_str!("../samples/contract.good.json")).expect("a sample")
}

fn one(node_type: &str, params: Value) -> Value {
    json!([{"id": "n", "type": node_type, "phase": "trigger", "params": params,
        "retry": {"max_attempts": 3, "initial_ms": 1, "max_ms": 5, "multiplier": 2.0}}])
}

fn rendered_and_saved(folder: &str) -> Value {
    json!([
        {"id": "extract", "type": "extract",
            "params": {"fields": {"title": "Contract {{trigger.contract.number}}"}}},
        {"id": "render", "type": "render-pdf",
            "params": {"template": "contract.typ", "data": "{{trigger}}", "filename": "{{steps.extract.title}}"}},
        {"id": "save", "type": "save-file", "on_error": "review",
            "params": {"file": "{{steps.render.file}}", "folder": folder}},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_rendered_and_saved() {
    let harness = Harness::offline();
    let ran = harness
        .run(rendered_and_saved("contracts/2026"), contract())
        .await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let (rendered, saved) = (ran.output("render"), ran.output("save"));
    assert!(rendered["pages"].as_u64() > Some(0));
    assert_eq!(rendered["file"]["filename"], "Contract 2026-0042.pdf");
    assert_eq!(rendered["file"]["language"], "en");
    for field in ["bytes", "sha256"] {
        assert_eq!(rendered[field], saved[field], "{field}");
    }
    let url: url::Url = saved["url"]
        .as_str()
        .expect("a URL")
        .parse()
        .expect("a URL");
    let content = std::fs::read(url.to_file_path().expect("a file")).expect("it is there");
    assert!(content.starts_with(b"%PDF-"));
    assert_eq!(Some(content.len() as u64), saved["bytes"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_renders_and_saves_nothing() {
    let harness = Harness::offline();
    let id = harness
        .start(rendered_and_saved("contracts"), contract(), true)
        .await;
    let ran = harness.rest(id).await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    assert!(
        ran.output("render")["file"].is_object(),
        "the preview can be fetched"
    );
    assert_eq!(*ran.output("save"), Value::Null);
    assert!(!harness.folder.path().join("files/saved").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_template_has_changed_since_it_was_last_used_is_in_the_trail() {
    let harness = Harness::offline();
    let noted = async || {
        let ran = harness.run(rendered_and_saved("a"), contract()).await;
        let query = AuditQuery::of(harness.organization, ran.record.execution.id);
        let trail = harness.engine.audit(query).await.expect("readable").items;
        let mut rows = trail.iter();
        rows.any(|row| row.action == actions::TEMPLATE_VERSION_UPDATED)
    };
    assert!(!noted().await, "there was none before");
    assert!(!noted().await, "it is the same");
    let notes = harness.folder.path().join("files/records/templates");
    for note in std::fs::read_dir(notes).expect("a folder") {
        std::fs::write(note.expect("a note").path(), b"\"another\"").expect("written");
    }
    assert!(noted().await);
    assert!(!noted().await, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_waits_for_a_person_and_then_goes_on() {
    let harness = Harness::offline();
    let own = harness
        .folder
        .path()
        .join(format!("files/saved/{}", harness.organization));
    std::fs::create_dir_all(&own).expect("a folder");
    std::fs::write(own.join("contracts"), b"a file").expect("a file in the folder's place");
    let ran = harness
        .run(rendered_and_saved("contracts"), contract())
        .await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::NeedsReview, "local.folder_not_found")
    );
    assert_eq!(ran.actions, ["select_folder"]);
    let id = ran.record.execution.id;
    let request = ControlRequest::new(harness.organization, id, Actor::user("test"));
    let changes = Repair::default().param("save", "folder", json!("elsewhere"));
    harness
        .engine
        .resume(request, changes.into())
        .await
        .expect("it goes on");
    let ended = harness.ended(id).await;
    assert_eq!(
        ended.status(),
        Status::Completed,
        "{} {}",
        ended.code(),
        ended.tech()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_in_the_folder_or_are_refused() {
    let harness = Harness::offline();
    let mut data = contract();
    data["contract"]["number"] = json!("../../../../tmp/x\u{202e}\u{0000}".replace('\0', ""));
    let ran = harness.run(rendered_and_saved("contracts"), data).await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let url: url::Url = ran.output("save")["url"]
        .as_str()
        .expect("a URL")
        .parse()
        .expect("a URL");
    let root = harness
        .folder
        .path()
        .canonicalize()
        .expect("it is there")
        .join("files/saved");
    assert!(
        url.to_file_path().expect("a file").starts_with(root),
        "{url}"
    );

    let ran = harness
        .run(rendered_and_saved("../../outside"), contract())
        .await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::NeedsReview, "local.folder_not_found")
    );

    let document = json!({"path": "records/sent/x.json", "filename": "x.pdf",
        "content_type": "application/pdf", "bytes": 1, "sha256": "00"});
    for file in [
        document,
        json!({"path": "../signature.key"}),
        json!("signature.key"),
    ] {
        let ran = harness.run(
            json!([{"id": "save", "type": "save-file", "params": {"file": "{{trigger.file}}"}}]),
            json!({"file": file}),
        );
        let ran = ran.await;
        assert_eq!(
            (ran.status(), ran.blame().as_str()),
            (Status::NeedsReview, "invalid_field_format")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_does_not_fill_the_template_is_found_before_anything_runs() {
    let harness = Harness::offline();
    let mut data = contract();
    data["customer"]["name"] = json!(" ");
    let ran = harness.run(rendered_and_saved("contracts"), data).await;
    assert_eq!(ran.status(), Status::NeedsReview);
    let preflight = ran.record.execution.preflight.as_ref().expect("it has run");
    let fields: Vec<_> = preflight
        .blocking()
        .filter(|issue| issue.code == "template_invalid_tags")
        .filter_map(|issue| issue.field.as_deref())
        .collect();
    assert_eq!(fields, ["/nodes/render/data/customer/name"]);
    assert!(
        ran.actions.contains(&"fix_template_tags".to_owned()),
        "{:?}",
        ran.actions
    );
    assert!(ran.steps.iter().all(|step| step.started_at.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_execution_and_nothing_else() {
    let harness = Harness::offline();
    let ran = harness.run(one("test-panic", json!({})), json!({})).await;
    assert_eq!(
        (ran.status(), ran.code()),
        (Status::Failed, "handler_panicked")
    );
    assert!(
        ran.tech().contains("test-panic does what it is for"),
        "{}",
        ran.tech()
    );
    assert_eq!(ran.actions, ["retry"]);
    let next = harness
        .run(one("test-delay", json!({"ms": 1})), json!({}))
        .await;
    assert_eq!(next.status(), Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_repeated_as_they_ask_for() {
    let harness = Harness::offline();
    let ran = harness
        .run(one("test-fail", json!({"times": 2})), json!({}))
        .await;
    assert_eq!((ran.status(), ran.steps[0].attempt), (Status::Completed, 3));
    let ran = harness
        .run(
            one("test-fail", json!({"times": 9, "code": "mine"})),
            json!({}),
        )
        .await;
    assert_eq!(
        (ran.status(), ran.code(), ran.steps[0].attempt),
        (Status::Failed, "mine", 3)
    );
    let once = json!({"times": 1, "retryable": false});
    let ran = harness.run(one("test-fail", once), json!({})).await;
    assert_eq!((ran.status(), ran.steps[0].attempt), (Status::Failed, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_leaves_its_line() {
    let harness = Harness::offline();
    let ran = harness
        .run(
            one("test-effect", json!({"ledger": "ledger.tsv"})),
            json!({}),
        )
        .await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let id = ran.record.execution.id;
    let ledger =
        std::fs::read_to_string(harness.folder.path().join("ledger.tsv")).expect("it is there");
    assert_eq!(ledger, format!("{id}\tn\t{id}/n\t1\n"));
}
