use std::sync::Arc;

use docg_core::{
    run::Phase,
    workflow::{Handler, NodeSpec, ParamKind, ParamSpec, compute},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use serde_json::{Value, json};

use super::*;

const ID: &str = "0197a000-0000-7000-8000-00000000000a";

fn handler() -> Handler {
    let spec =
        NodeSpec::new("echo", Phase::Trigger).param(ParamSpec::optional("x", ParamKind::Json));
    compute(spec, |_context, params: Value| async move { Ok(params) })
}

fn engine() -> Engine {
    let store = Arc::new(MemoryStore::new(StoreConfig::default()));
    let bus = Arc::new(MemoryBus::new(BusConfig::default()));
    Engine::builder(store, bus).step(handler()).build()
}

fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

fn workflow() -> Value {
    json!({"id": ID, "name": "Echo", "nodes": [{"id": "a", "type": "echo"}]})
}

#[test]
fn the_bundled_workflows_are_read_with_their_schema() {
    let workflows = bundled().unwrap();
    assert_eq!(workflows.len(), 2);
    for workflow in workflows {
        let schema = workflow.draft.input_schema;
        assert!(schema.contains_key("properties"), "{}", workflow.file);
    }
}

#[tokio::test]
async fn what_has_not_changed_gets_no_new_version() {
    let engine = engine();
    let organizations = [OrganizationId::new(), OrganizationId::new()];
    let folder = folder(&[("echo.json", workflow())]);
    let version = async |file: &Path| {
        let workflows = in_folder(file).unwrap();
        put_all(&engine, &workflows, &organizations).await.unwrap();
        let id = ID.parse().unwrap();
        let mut versions = Vec::new();
        for organization in organizations {
            versions.push(engine.workflow(organization, id).await.unwrap().version);
        }
        versions
    };
    assert_eq!(version(folder.path()).await, [1, 1]);
    assert_eq!(version(folder.path()).await, [1, 1]);
    let mut changed = workflow();
    changed["name"] = json!("Echo again");
    std::fs::write(folder.path().join("echo.json"), changed.to_string()).unwrap();
    assert_eq!(version(folder.path()).await, [2, 2]);
}

#[tokio::test]
async fn what_clients_have_changed_or_deleted_stays_until_the_file_changes() {
    let engine = engine();
    let (changed, deleted) = (OrganizationId::new(), OrganizationId::new());
    let id = ID.parse().unwrap();
    let folder = folder(&[("echo.json", workflow())]);
    let give = async || {
        let workflows = in_folder(folder.path()).unwrap();
        put_all(&engine, &workflows, &[changed, deleted]).await
    };
    give().await.unwrap();
    let mut draft = in_folder(folder.path()).unwrap()[0].draft.clone();
    draft.name = "A client's own".to_owned();
    engine.put_workflow(changed, id, draft, None).await.unwrap();
    engine.delete_workflow(deleted, id).await.unwrap();

    give().await.unwrap();
    let current = engine.workflow(changed, id).await.unwrap();
    assert_eq!(current.name, "A client's own");
    assert!(engine.workflow(deleted, id).await.is_err());

    let mut file = workflow();
    file["name"] = json!("Echo again");
    std::fs::write(folder.path().join("echo.json"), file.to_string()).unwrap();
    give().await.unwrap();
    for organization in [changed, deleted] {
        let current = engine.workflow(organization, id).await.unwrap();
        assert_eq!(current.name, "Echo again");
    }
}

#[test]
fn a_file_is_known_by_what_it_says_not_by_what_this_version_adds_or_how_it_is_written() {
    let digest = |text: &str| read_one("echo.json", text, &[]).unwrap().digest;
    let written = digest(&workflow().to_string());
    // SHA-256 of {"name":"Echo","nodes":[{"id":"a","type":"echo"}]}, without any default.
    assert_eq!(
        written,
        "15870a2010b795074323a6a7bef6c80f628c5e67f65f6aa02182eb0b1565e757"
    );
    let nodes = r#""nodes": [{"type": "echo", "id": "a"}]"#;
    let again = format!(r#"{{ {nodes}, "name": "Echo", "id": "{ID}" }}"#);
    assert_eq!(digest(&again), written);
    assert_ne!(digest(&again.replace("Echo", "Other")), written);
}

#[tokio::test]
async fn every_fault_of_every_file_is_told_and_nothing_is_stored() {
    let engine = engine();
    let organization = OrganizationId::new();
    let other = "0197a000-0000-7000-8000-00000000000b";
    let broken = json!({"id": other, "name": "", "nodes": [
        {"id": "a", "type": "echo", "params": {"y": 1}},
        {"id": "b", "type": "unknown"},
    ]});
    let folder = folder(&[("a.json", workflow()), ("b.json", broken)]);
    let workflows = in_folder(folder.path()).unwrap();
    let put = put_all(&engine, &workflows, &[organization]).await;
    let told = put.unwrap_err().to_string();
    for part in [
        "b.json: /name",
        "b.json: /nodes/0/params/y",
        "b.json: /nodes/1/type",
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    assert!(
        engine
            .workflow(organization, ID.parse().unwrap())
            .await
            .is_err()
    );
}

#[test]
fn files_that_are_no_workflows_are_named() {
    let without_id = json!({"name": "x", "nodes": []});
    let unknown_field = json!({"id": ID, "name": "x", "nodes": [], "extra": 1});
    let mut schema = workflow();
    schema["input_schema"] = json!("missing.schema.json");
    for (value, part) in [
        (without_id, "/id: it is missing"),
        (unknown_field, "extra"),
        (schema, "missing.schema.json"),
        (json!([]), "an object is expected"),
    ] {
        let folder = folder(&[("w.json", value)]);
        let told = in_folder(folder.path()).unwrap_err().to_string();
        assert!(told.contains("w.json") && told.contains(part), "{told}");
    }
    let twice = folder(&[("a.json", workflow()), ("b.json", workflow())]);
    let told = in_folder(twice.path()).unwrap_err().to_string();
    assert!(told.contains("b.json: /id: a.json has it too"), "{told}");
    assert!(in_folder(tempfile::tempdir().unwrap().path()).is_err());
    assert!(in_folder(Path::new("/nonexistent")).is_err());
}

#[test]
fn a_schema_may_lie_in_a_file_of_its_own() {
    let mut with_schema = workflow();
    with_schema["input_schema"] = json!("echo.schema.json");
    let schema = json!({"type": "object"});
    let folder = folder(&[
        ("echo.json", with_schema),
        ("echo.schema.json", schema.clone()),
    ]);
    let workflows = in_folder(folder.path()).unwrap();
    assert_eq!(Value::from(workflows[0].draft.input_schema.clone()), schema);
}
