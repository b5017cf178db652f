//! An execution's status equals the last status that its audit trail records.

use std::sync::Arc;

use docg_core::{
    engine::{ControlRequest, Engine, StartRequest},
    ids::{ExecutionId, WorkflowId},
    observe::Actor,
    run::Phase,
    workflow::{NodeSpec, WorkflowDraft, compute},
};
use docg_store_memory::MemoryBus;
use docg_store_postgres::{AuditFault, PgStore, PgStoreConfig, verify_audit_export};
use serde_json::{Value, json};

use crate::World;

/// An engine without workers, and a queued execution.
async fn queued(world: &World) -> (Engine, ExecutionId) {
    let store = PgStore::connect(world.database.url(), PgStoreConfig::default()).await;
    let store = Arc::new(store.expect("connects"));
    let spec = NodeSpec::new("nothing", Phase::Render);
    let engine = Engine::builder(store, Arc::new(MemoryBus::default()))
        .step(compute(spec, |_, _: Value| async { Ok(json!({})) }))
        .build();
    let draft = json!({"name": "n", "nodes": [{"id": "n", "type": "nothing"}]});
    let draft: WorkflowDraft = serde_json::from_value(draft).expect("a draft");
    let workflow = WorkflowId::new();
    let put = engine.put_workflow(world.organization, workflow, draft, None);
    put.await.expect("is valid");
    let request = StartRequest::new(world.organization, workflow, Actor::user("somebody"));
    let started = engine.start(request).await.expect("starts");
    (engine, started.record.execution.id)
}

#[tokio::test]
async fn a_status_that_the_trail_does_not_tell_shows() {
    for (ends, erased, forged, shows) in [
        (true, false, "completed", true),
        (true, true, "completed", true),
        (true, false, "queued", true),
        (true, false, "canceled", false),
        (false, false, "canceled", true),
        (false, true, "queued", false),
    ] {
        let world = World::new().await;
        let (engine, execution_id) = queued(&world).await;
        if ends {
            let who = Actor::user("somebody");
            let request = ControlRequest::new(world.organization, execution_id, who);
            engine.cancel(request, None).await.expect("cancels");
        }
        if erased {
            let erase = world.store.erase_audit(world.organization, execution_id);
            erase.await.expect("erases");
        }
        assert!(world.verify().await.is_valid());
        world
            .forge(format!("UPDATE docg.executions SET status = '{forged}'"))
            .await;
        let faults = world.verify().await.faults;
        let is_of_status = |fault: &AuditFault| matches!(fault, AuditFault::Status { .. });
        assert_eq!(faults.iter().any(is_of_status), shows, "{forged}");
        let export = world.export().await;
        let exported = verify_audit_export(export.as_bytes(), &world.trust());
        assert_eq!(exported.expect("can be read").faults, faults);
        let told = engine.verify_audit(world.organization, execution_id).await;
        assert_eq!(told.expect("reads").fault.is_some(), shows, "{forged}");
    }
}
