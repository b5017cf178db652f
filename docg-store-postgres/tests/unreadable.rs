//! Records that have become unreadable, by damage or by another version, do not delay other executions.

use std::sync::Arc;

use docg_core::{
    conformance::fixtures::{self, CommitFixture, RunFixture, at, signal},
    engine::{ControlAnswer, ControlRequest, Engine, EngineError, StartRequest},
    ids::{OrganizationId, WorkerId, WorkflowId},
    observe::Actor,
    ports::{Claim, ClaimRequest, ClaimWhat, ExecutionReader, ExecutionStore},
    prelude::*,
    query::{AuditQuery, EventQuery, ExecutionQuery, LogQuery, WorkflowQuery},
    time::Timestamp,
    workflow::WorkflowDraft,
};
use docg_store_memory::MemoryBus;
use docg_store_postgres::{AuditFault, AuditTrust, PgStore, PgStoreConfig};
use docg_test_servers::postgres::Database;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

mod support;

struct World {
    store: PgStore,
    organization: OrganizationId,
    database: Database,
}

impl World {
    async fn new() -> Self {
        let database = support::migrated().await;
        let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
        Self {
            store: store.expect("connects"),
            organization: OrganizationId::new(),
            database,
        }
    }

    async fn create(&self) -> ExecutionId {
        let run = RunFixture::of(self.organization).build();
        let id = run.state.execution.id;
        self.store.create(run).await.expect("stores");
        id
    }

    async fn claim(&self, now: i64) -> Claim {
        self.claim_share(now, 64).await
    }

    async fn claim_share(&self, now: i64, per_organization: usize) -> Claim {
        let request = ClaimRequest {
            worker_id: WorkerId::new(),
            what: ClaimWhat::Due {
                limit: 64,
                per_organization,
                node_types: ["extract", "render"].map(Arc::from).into(),
            },
            now: at(now),
            lease_until: at(now + 1_000),
        };
        self.store.claim(request).await.expect("claims")
    }

    async fn damage(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database.url())
            .await
            .expect("connects");
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .expect("damages");
        assert_ne!(done.rows_affected(), 0, "something was damaged");
    }
}

fn ids(claim: &Claim) -> Vec<ExecutionId> {
    let claimed = claim.claimed.iter();
    let mut ids: Vec<_> = claimed.map(|it| it.lease.execution_id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn an_execution_that_cannot_be_read_does_not_keep_others_from_being_claimed() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for damage in [
        "UPDATE docg.execution_steps SET output = '$deep' WHERE execution_id = '$id' AND position = 0",
        "UPDATE docg.execution_data SET trigger_data = '$deep' WHERE execution_id = '$id'",
        "UPDATE docg.executions SET waiting_for = '{}' WHERE id = '$id'",
        "WITH d AS (INSERT INTO docg.definitions VALUES (sha256('x'), '{}') RETURNING hash)
         UPDATE docg.execution_data SET definition_hash = sha256('x') WHERE execution_id = '$id'",
    ] {
        let world = World::new().await;
        let mut good = Vec::new();
        for _ in 0..3 {
            good.push(world.create().await);
        }
        let bad = world.create().await;
        let damage = damage
            .replace("$id", &bad.to_string())
            .replace("$deep", &deep);
        world.damage(&damage).await;
        good.sort_unstable();
        assert_eq!(ids(&world.claim(0).await), good, "{damage}");
        // The damaged execution is not due at once; the others are due again only when their leases expire.
        assert_eq!(ids(&world.claim(999).await), []);
        assert_eq!(ids(&world.claim(1_000).await), good, "{damage}");
    }
}

#[tokio::test]
async fn executions_that_cannot_be_read_take_up_no_share_of_the_leases() {
    let world = World::new().await;
    for _ in 0..3 {
        world.create().await;
    }
    world
        .damage("UPDATE docg.executions SET waiting_for = '{}'")
        .await;
    let good = world.create().await;
    // The damaged executions have been due longest, so a claim takes them first.
    assert_eq!(ids(&world.claim_share(0, 3).await), []);
    assert_eq!(ids(&world.claim_share(1, 1).await), [good]);
}

#[tokio::test]
async fn signals_that_cannot_be_read_leave_the_inbox_and_their_execution_goes_on() {
    let world = World::new().await;
    let id = world.create().await;
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(signal(world.organization, id, at(0)));
        let stored = world.store.signal(sent[sent.len() - 1].clone()).await;
        stored.expect("signals");
    }
    let damage = "UPDATE docg.signals SET signal = '{}' WHERE id = ";
    world.damage(&format!("{damage}'{}'", sent[0].id)).await;
    let claim = world.claim(0).await;
    let [claimed] = &claim.claimed[..] else {
        panic!("it is claimed: {claim:?}");
    };
    assert_eq!(claimed.signals, sent[1..]);
    let ended = CommitFixture::on(claimed)
        .settle(&sent[1..])
        .status(Status::Completed)
        .build();
    let committed = world.store.commit(ended).await.expect("commits");
    assert!(!committed.signals_pending);
    assert_eq!(
        ids(&world.claim(1_000_000).await),
        [],
        "it is not due again"
    );

    let last = signal(world.organization, id, at(1));
    world.store.signal(last.clone()).await.expect("signals");
    world.damage(&format!("{damage}'{}'", last.id)).await;
    assert_eq!(world.store.purge(at(2_000), 10).await.expect("waits"), 0);
    let claim = world.claim(2_000).await;
    let lease = claim.claimed[0].lease;
    assert_eq!(claim.claimed[0].signals, []);
    // The signal's row stays for a technician, and the same signal is not added again.
    world.store.signal(last).await.expect("is known");
    world
        .store
        .release(&[lease], at(2_000))
        .await
        .expect("releases");
    assert_eq!(ids(&world.claim(1_000_000).await), []);
    assert_eq!(world.store.purge(at(2_000), 10).await.expect("purges"), 1);
}

#[tokio::test]
async fn an_ended_execution_that_cannot_be_read_goes_when_its_signals_are_old_too() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for damage in [
        "UPDATE docg.execution_steps SET output = '$deep' WHERE execution_id = '$id' AND position = 0",
        "UPDATE docg.executions SET waiting_for = '{}' WHERE id = '$id'",
        "WITH d AS (INSERT INTO docg.definitions VALUES (sha256('x'), '{}') RETURNING hash)
         UPDATE docg.execution_data SET definition_hash = sha256('x') WHERE execution_id = '$id'",
    ] {
        let world = World::new().await;
        let (bad, good) = (world.create().await, world.create().await);
        for claimed in &world.claim(0).await.claimed {
            let ended = CommitFixture::on(claimed).status(Status::Completed).build();
            world.store.commit(ended).await.expect("commits");
            let id = claimed.lease.execution_id;
            for sent in [100, 200] {
                let sent = signal(world.organization, id, at(sent));
                world.store.signal(sent).await.expect("signals");
            }
        }
        let damage = damage
            .replace("$id", &bad.to_string())
            .replace("$deep", &deep);
        world.damage(&damage).await;
        let purge = async |before| world.store.purge(at(before), 10).await.expect("purges");
        // A purge keeps an execution that a worker holds: the worker may be able to read it.
        world
            .damage("UPDATE docg.executions SET expires_at = now()")
            .await;
        assert_eq!(purge(1_000).await, 0, "{damage}");
        world
            .damage("UPDATE docg.executions SET expires_at = NULL")
            .await;
        assert_eq!(purge(100).await, 0, "{damage}: nobody has had the time");
        assert_eq!(purge(200).await, 0, "{damage}: one signal is younger");
        assert_eq!(purge(201).await, 1, "{damage}");
        assert!(world.store.signals(bad).await.expect("reads").is_empty());
        // The signals of a readable execution stay until a worker settles them.
        assert_eq!(ids(&world.claim(300).await), [good], "{damage}");
    }
}

/// SQL that makes the server fail to read an output of these executions, as if a disk had lost pages.
fn lose_outputs(ids: &[ExecutionId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    format!(
        "CREATE FUNCTION public.fetch(execution uuid, output json) RETURNS json
        LANGUAGE plpgsql AS $$
        BEGIN
            IF execution = ANY ('{{{}}}'::uuid[]) THEN
                RAISE EXCEPTION 'missing chunk' USING ERRCODE = 'data_corrupted';
            END IF;
            RETURN output;
        END $$;
        ALTER TABLE docg.execution_steps RENAME TO stored_steps;
        CREATE VIEW docg.execution_steps AS
        SELECT execution_id, position, id, node_id, node_type, label, phase, status, activity,
            attempt, attempts_before, takeovers, started_at, completed_at, waiting_ms, awaits,
            error_code, error_human, error_tech, outcome, data_in, data_out, public.fetch(execution_id, output) AS output,
            reused_from
        FROM docg.stored_steps;
        UPDATE docg.executions SET updated_at = updated_at",
        ids.join(", ")
    )
}

impl World {
    /// Creates executions that have ended, each with a signal that arrived after the end.
    async fn ended_and_signaled<const N: usize>(&self) -> [ExecutionId; N] {
        let mut ids = [ExecutionId::new(); N];
        for id in &mut ids {
            *id = self.create().await;
        }
        for claimed in &self.claim(0).await.claimed {
            let ended = CommitFixture::on(claimed).status(Status::Completed).build();
            self.store.commit(ended).await.expect("commits");
        }
        for id in ids {
            let sent = signal(self.organization, id, at(100));
            self.store.signal(sent).await.expect("signals");
        }
        ids
    }
}

#[tokio::test]
async fn what_the_server_cannot_read_keeps_nothing_else_from_being_purged() {
    let world = World::new().await;
    let [lost, also_lost, good] = world.ended_and_signaled().await;
    world.damage(&lose_outputs(&[lost, also_lost])).await;
    let purged = world.store.purge(at(1_000), 10).await.expect("purges");
    assert_eq!(purged, 2);
    assert_eq!(ids(&world.claim(300).await), [good]);
}

#[tokio::test]
async fn a_purge_passes_over_what_cannot_be_read_while_somebody_is_at_it() {
    let world = World::new().await;
    let [held, free] = world.ended_and_signaled().await;
    world
        .damage("UPDATE docg.executions SET waiting_for = '{}'")
        .await;
    let mut holder = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    let hold = format!("BEGIN; SELECT FROM docg.executions WHERE id = '{held}' FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(hold))
        .execute(&mut holder)
        .await
        .expect("locks");
    let purged = world.store.purge(at(1_000), 10).await.expect("purges");
    assert_eq!(purged, 1);
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .expect("lets go");
    let left = world.store.signals(held).await.expect("reads");
    assert_eq!(left.len(), 1);
    assert_eq!(world.store.signals(free).await.expect("reads"), []);
    assert_eq!(world.store.purge(at(1_000), 10).await.expect("purges"), 1);
}

#[tokio::test]
async fn a_signal_that_cannot_be_read_does_not_hide_the_others() {
    let world = World::new().await;
    let id = world.create().await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(signal(world.organization, id, at(0)));
        world
            .store
            .signal(sent[sent.len() - 1].clone())
            .await
            .expect("signals");
    }
    let damage = format!(
        "UPDATE docg.signals SET signal = '{{}}' WHERE id = '{}'",
        sent[1].id
    );
    world.damage(&damage).await;
    sent.remove(1);
    assert_eq!(world.store.signals(id).await.expect("reads"), sent);
    let claim = world.claim(0).await;
    assert_eq!(claim.claimed[0].signals, sent);
}

#[tokio::test]
async fn the_schema_refuses_a_status_that_is_none() {
    let world = World::new().await;
    world.create().await;
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    for table in ["executions", "execution_steps"] {
        let sql = format!("UPDATE docg.{table} SET status = 'done'");
        let refused = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        let error = refused.expect_err(table);
        let error = error.as_database_error().expect("the server's");
        assert!(error.is_check_violation(), "{table}: {error}");
    }
}

#[tokio::test]
async fn what_the_server_cannot_read_keeps_nothing_else_from_being_claimed() {
    let world = World::new().await;
    let (lost, good) = (world.create().await, world.create().await);
    world.damage(&lose_outputs(&[lost])).await;
    // The server reports its error before it releases the rows, so the claim may have to be repeated.
    let mut claim = world.claim(0).await;
    while claim.claimed.is_empty() && claim.next_due == Some(at(0)) {
        claim = world.claim(0).await;
    }
    assert_eq!(ids(&claim), [good]);
    // After 1,000 ms the lease of the good execution ends, and the unreadable one, put off for as long, is due
    // again. Only the good one is claimed.
    assert_eq!(ids(&world.claim(1_000).await), [good]);
    assert_eq!(ids(&world.claim(1_001).await), []);
}

/// Values that a column's type allows, but that docg never writes.
fn bad_values(data_type: &str) -> Vec<String> {
    let deep = format!("'{}{}'", "[".repeat(200), "]".repeat(200));
    let values: &[&str] = match data_type {
        "smallint" => &["-1", "32767"],
        "integer" => &["-1", "0", "2147483647"],
        "bigint" => &["-1", "0", "4611686018427387904", "9223372036854775807"],
        "timestamp with time zone" => &[
            "'infinity'",
            "'-infinity'",
            "'294000-01-01'",
            "'0044-03-15 BC'",
        ],
        "text" => &["''", "'no such name'"],
        "json" => &[
            "'\"x\"'",
            "'\"\\u0000\"'",
            "'{}'",
            "'[]'",
            "'-1'",
            "'null'",
            deep.as_str(),
        ],
        _ => &[],
    };
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// The tables that have rows for every execution.
const OF_EXECUTIONS: &[&str] = &[
    "executions",
    "execution_data",
    "execution_steps",
    "journal",
    "audit_events",
];

/// The columns of these tables, each as table, column and type.
async fn columns(connection: &mut PgConnection, tables: &[&str]) -> Vec<(String, String, String)> {
    let sql = "SELECT table_name::text, column_name::text, data_type::text
        FROM information_schema.columns
        WHERE table_schema = 'docg' AND is_generated = 'NEVER' AND is_identity = 'NO'
            AND table_name = ANY ($1)
        ORDER BY table_name, ordinal_position";
    let rows = sqlx::query(sql).bind(tables).fetch_all(connection).await;
    let rows = rows.expect("reads the catalog");
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

/// SQL statements that each damage the execution `$id` in one way. Most write a bad value into a column: into
/// all rows or, for sequence numbers, into the last. The others delete all rows of a table.
async fn damages(connection: &mut PgConnection) -> Vec<String> {
    let mut damages = Vec::new();
    for (table, column, data_type) in columns(connection, OF_EXECUTIONS).await {
        let of_execution = match (&*table, &*column) {
            ("executions", _) => "id = '$id'".to_owned(),
            (_, "seq" | "last_event" | "last_log") => format!(
                "execution_id = '$id' AND {column} = (
                    SELECT max({column}) FROM docg.{table} WHERE execution_id = '$id')"
            ),
            _ => "execution_id = '$id'".to_owned(),
        };
        for value in bad_values(&data_type) {
            damages.push(format!(
                "UPDATE docg.{table} SET {column} = {value} WHERE {of_execution}"
            ));
        }
    }
    for table in [
        "execution_data",
        "execution_steps",
        "journal",
        "audit_events",
    ] {
        damages.push(format!(
            "DELETE FROM docg.{table} WHERE execution_id = '$id'"
        ));
    }
    let no_nodes = "WITH d AS (INSERT INTO docg.definitions
            SELECT sha256('no nodes'), jsonb_set(f.definition::jsonb, '{nodes}', '[]')::json
            FROM docg.definitions f LIMIT 1 RETURNING hash)
        UPDATE docg.execution_data SET definition_hash = sha256('no nodes') WHERE execution_id = '$id'";
    damages.push(no_nodes.to_owned());
    damages
}

/// An engine over the store, without workers.
fn engine(store: &Arc<PgStore>) -> Engine {
    let spec = NodeSpec::new("nothing", Phase::Render);
    Engine::builder(Arc::clone(store) as _, Arc::new(MemoryBus::default()))
        .step(compute(spec, |_, _: Value| async { Ok(json!({})) }))
        .build()
}

/// The executions of an organization, read in pages of one.
async fn page_through(
    engine: &Engine,
    organization: OrganizationId,
) -> Result<Vec<ExecutionId>, String> {
    let (mut ids, mut after) = (Vec::new(), None);
    // Read a few more pages than there are executions, to notice a list that starts again.
    for _ in 0..4 {
        let query = ExecutionQuery::of(organization).after(after).limit(1);
        let page = engine.executions(query).await.map_err(|e| e.to_string())?;
        let Some(record) = page.items.first() else {
            break;
        };
        ids.push(record.execution.id);
        after = Some((record.execution.created_at, record.execution.id));
    }
    Ok(ids)
}

/// Names the checks that fail when a damaged execution exists beside a good one.
async fn complaints(
    store: &PgStore,
    engine: &Engine,
    organization: OrganizationId,
    [bad, good]: [ExecutionId; 2],
    is_gone: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |what: &str, result: Result<bool, String>| match result {
        Ok(true) => {}
        Ok(false) => found.push(format!("{what}: not so")),
        Err(error) => found.push(format!("{what}: {error}")),
    };
    let list = ExecutionQuery::of(organization).limit(10);
    let listed = engine.executions(list).await.map_err(|e| e.to_string());
    must(
        "both are listed",
        listed.map(|page| {
            let ids = page.items.iter().map(|record| record.execution.id);
            ids.filter(|id| [bad, good].contains(id)).count() == 2
        }),
    );
    let paged = page_through(engine, organization).await;
    must(
        "both are come to page by page",
        paged.map(|ids| [bad, good].iter().all(|id| ids.contains(id))),
    );
    let trust = AuditTrust::default();
    let trail = store.verify_audit(organization, None, &trust);
    must(
        "no other chain is at fault",
        trail.await.map_err(|e| e.to_string()).map(|report| {
            let of_good = |fault: &AuditFault| fault.to_string().contains(&good.to_string());
            report.chains == 2 && !report.faults.iter().any(of_good)
        }),
    );
    let exported = store.export_audit(organization, None, Vec::new()).await;
    must(
        "the trail is exported",
        exported.map(|()| true).map_err(|e| e.to_string()),
    );
    for id in [bad, good] {
        // The damaged execution may lack the rows that were deleted.
        let may_lack = is_gone && id == bad;
        let record = engine.execution(organization, id).await;
        must(
            "it is shown",
            record.map(|_| true).map_err(|e| e.to_string()),
        );
        let steps = engine.steps(organization, id).await;
        must(
            "steps",
            steps
                .map(|it| may_lack || it.len() == 1)
                .map_err(|e| e.to_string()),
        );
        let query = EventQuery::of(organization, id).limit(10);
        let events = store.events(query).await;
        must(
            "events",
            events
                .map(|it| may_lack || !it.is_empty())
                .map_err(|e| e.to_string()),
        );
        let query = LogQuery::of(organization, id).limit(10);
        let logs = engine.logs(query).await;
        must(
            "logs",
            logs.map(|it| may_lack || !it.items.is_empty())
                .map_err(|e| e.to_string()),
        );
        let verified = engine.verify_audit(organization, id).await;
        must("audit", verified.map(|_| true).map_err(|e| e.to_string()));
    }
    let now = Timestamp::now();
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::Due {
            limit: 64,
            per_organization: 64,
            node_types: [Arc::from("nothing")].into(),
        },
        now,
        lease_until: now.plus_millis(60_000),
    };
    let claim = store.claim(request).await.map_err(|e| e.to_string());
    if let Ok(claim) = &claim {
        let leases: Vec<_> = claim.claimed.iter().map(|it| it.lease).collect();
        store.release(&leases, now).await.expect("releases");
    }
    let has_good = |claim: Claim| ids(&claim).contains(&good);
    must("the good one is claimed", claim.map(has_good));
    must(
        "purge",
        store
            .purge(at(0), 10)
            .await
            .map(|_| true)
            .map_err(|e| e.to_string()),
    );
    for id in [good, bad] {
        let request = ControlRequest::new(organization, id, Actor::user("somebody"));
        let canceled = match engine.cancel(request, None).await {
            Ok(ControlAnswer::Applied(record)) => Ok(record.execution.status == Status::Canceled),
            Ok(ControlAnswer::Pending) => Err("sent".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        must("it can be canceled", canceled);
    }
    found
}

#[tokio::test]
async fn whatever_cannot_be_read_it_is_listed_and_canceled_and_harms_nothing_beside_it() {
    let database = support::migrated().await;
    let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let store = Arc::new(store.expect("connects"));
    let engine = engine(&store);
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "nothing"}]});
    let draft = serde_json::from_value(draft).expect("readable");
    let stored = engine.put_workflow(organization, workflow, draft, None);
    stored.await.expect("a valid definition");
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("connects");
    let (mut tried, mut wrong) = (0, Vec::new());
    for damage in damages(&mut connection).await {
        let mut ids = [ExecutionId::new(); 2];
        for id in &mut ids {
            let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
            let started = engine.start(request).await.expect("accepted");
            *id = started.record.execution.id;
        }
        // Damage the rows as a superuser can, bypassing the guards of the audit rows.
        let damage = damage.replace("$id", &ids[0].to_string());
        let sql = format!(
            "SET session_replication_role = replica; {damage};
            SET session_replication_role = DEFAULT"
        );
        let damaged = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        // If the schema rejects the damage, readers never meet it.
        if damaged.is_ok_and(|done| done.rows_affected() > 0) {
            tried += 1;
            let empties = damage.contains("docg.journal SET") && damage.contains("= '[]'");
            let is_gone = damage.starts_with("DELETE") || empties;
            let found = complaints(&store, &engine, organization, ids, is_gone).await;
            wrong.extend(found.iter().map(|it| format!("{damage}: {it}")));
        }
        let clean = format!("DELETE FROM docg.executions WHERE organization_id = '{organization}'");
        let cleaned = sqlx::raw_sql(AssertSqlSafe(clean)).execute(&mut connection);
        cleaned.await.expect("cleans");
    }
    assert!(tried > 100, "only {tried} were tried");
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn an_execution_whose_commits_are_all_refused_is_canceled_after_its_takeovers() {
    let world = World::new().await;
    let id = world.create().await;
    let refuse = "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END $$;
        UPDATE docg.executions SET status = 'running', takeovers = 21;
        UPDATE docg.execution_steps SET status = 'running', activity = 'running';
        CREATE TRIGGER refuse BEFORE UPDATE ON docg.execution_steps
            FOR EACH ROW EXECUTE FUNCTION public.refuse()";
    world.damage(refuse).await;
    let store = Arc::new(world.store);
    let request = ControlRequest::new(world.organization, id, Actor::user("somebody"));
    let canceled = engine(&store).cancel(request, None).await.expect("heard");
    let ControlAnswer::Applied(record) = canceled else {
        panic!("it is canceled: {canceled:?}");
    };
    assert_eq!(record.execution.status, Status::Canceled);
}

#[tokio::test]
async fn a_workflow_that_cannot_be_read_is_listed_named_as_such_and_repaired_by_storing_it_anew() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    let store = Arc::new(world.store);
    let engine = engine(&store);
    let draft = || -> WorkflowDraft {
        let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "nothing"}]});
        serde_json::from_value(draft).expect("readable")
    };
    let (mut refused, mut unreadable) = (0, 0);
    for (column, data_type) in [
        ("version", "bigint"),
        ("input_schema", "json"),
        ("settings", "json"),
        ("nodes", "json"),
        ("created_at", "timestamp with time zone"),
        ("updated_at", "timestamp with time zone"),
    ] {
        for value in bad_values(data_type) {
            let (organization, id) = (OrganizationId::new(), WorkflowId::new());
            let stored = engine.put_workflow(organization, id, draft(), None).await;
            let first = stored.expect("a valid definition").workflow.version;
            let damage = format!("UPDATE docg.workflows SET {column} = {value} WHERE id = '{id}'");
            let damaged = sqlx::raw_sql(AssertSqlSafe(damage.clone())).execute(&mut connection);
            damaged.await.expect("damages");
            let query = WorkflowQuery::of(organization).limit(10);
            let listed = engine.workflows(query).await.expect("lists");
            assert_eq!(listed.items.len(), 1, "{damage}");
            let shown = engine.workflow(organization, id).await.expect("is shown");
            assert_eq!(shown, listed.items[0], "{damage}");
            assert_eq!((&*shown.name, shown.version), ("test", first), "{damage}");
            if shown.unreadable {
                unreadable += 1;
            }
            let request = StartRequest::new(organization, id, Actor::user("somebody"));
            if let Err(error) = engine.start(request).await {
                let EngineError::InvalidInput(faults) = error else {
                    panic!("{damage}: {error}");
                };
                assert_eq!(faults[0].code, "unreadable", "{damage}");
                assert!(shown.unreadable, "{damage}");
                refused += 1;
            }
            let again = engine.put_workflow(organization, id, draft(), Some(first));
            let again = again.await.expect("it is repaired");
            assert_eq!(again.workflow.version, first + 1, "{damage}");
            assert!(!again.created, "{damage}");
            let request = StartRequest::new(organization, id, Actor::user("somebody"));
            engine.start(request).await.expect("it can be started");
        }
    }
    assert!(refused > 10, "only {refused} could not be read");
    assert_eq!(unreadable, refused);
}

#[tokio::test]
async fn a_workflow_whose_version_is_damaged_goes_on_after_those_that_executions_were_made_with() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    let engine = engine(&Arc::new(world.store));
    let (organization, id) = (OrganizationId::new(), WorkflowId::new());
    let put = async |if_version| {
        let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "nothing"}]});
        let draft = serde_json::from_value(draft).expect("readable");
        let put = engine.put_workflow(organization, id, draft, if_version);
        put.await.expect("stores").workflow.version
    };
    assert_eq!((put(None).await, put(None).await), (1, 2));
    let request = StartRequest::new(organization, id, Actor::user("somebody"));
    engine.start(request).await.expect("starts");
    let damage = "UPDATE docg.workflows SET version = -1";
    let damaged = sqlx::raw_sql(damage).execute(&mut connection);
    damaged.await.expect("damages");
    assert_eq!(put(Some(2)).await, 3);
}

#[tokio::test]
async fn what_people_were_asked_for_is_shown_in_reduced_form_where_it_cannot_be_read() {
    let world = World::new().await;
    let id = world.create().await;
    let claim = world.claim(0).await;
    let execution = &claim.claimed[0].state.execution;
    let token = fixtures::token_hash();
    let request = fixtures::signature_request(execution, "envelope");
    let approval = fixtures::approval(execution, &[token]);
    let commit = CommitFixture::on(&claim.claimed[0])
        .signature(request.clone())
        .approval(approval.clone())
        .build();
    world.store.commit(commit).await.expect("commits");
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    let mut run = async |sql: &str| {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.is_ok()
    };
    let tables = ["signature_requests", "approvals"];
    for table in tables {
        assert!(
            run(&format!(
                "CREATE TABLE public.{table} AS TABLE docg.{table}"
            ))
            .await
        );
    }
    let mut unreadable = 0;
    let mut of_catalog = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    for (table, column, data_type) in columns(&mut of_catalog, &tables).await {
        for value in bad_values(&data_type) {
            let damage = format!("UPDATE docg.{table} SET {column} = {value}");
            // If the schema rejects the value, readers never meet it.
            if !run(&damage).await {
                continue;
            }
            let asked = world
                .store
                .signature_request(world.organization, request.id);
            let asked = asked.await.expect(&damage).expect(&damage);
            assert_eq!((asked.id, asked.execution_id), (request.id, id), "{damage}");
            let found = world
                .store
                .signature_by_envelope(&asked.provider, &asked.envelope_id);
            assert_eq!(
                found.await.expect(&damage).as_ref(),
                Some(&asked),
                "{damage}"
            );
            let open = world.store.approval_by_token(token).await;
            let open = open.expect(&damage).expect(&damage);
            assert_eq!((open.id, open.execution_id), (approval.id, id), "{damage}");
            unreadable += usize::from(asked.unreadable) + usize::from(open.unreadable);
            let restore = format!(
                "DELETE FROM docg.{table};
                 INSERT INTO docg.{table} OVERRIDING SYSTEM VALUE TABLE public.{table}"
            );
            assert!(run(&restore).await, "{restore}");
        }
    }
    assert!(unreadable > 20, "only {unreadable} could not be read");

    for table in tables {
        let column = if table == "approvals" {
            "approvers"
        } else {
            "signers"
        };
        assert!(run(&format!("UPDATE docg.{table} SET {column} = '{{}}'")).await);
    }
    let request = ControlRequest::new(world.organization, id, Actor::user("somebody"));
    let engine = engine(&Arc::new(world.store));
    let canceled = engine.cancel(request, None).await.expect("heard");
    assert!(
        matches!(canceled, ControlAnswer::Applied(_)),
        "{canceled:?}"
    );
}

#[tokio::test]
async fn rows_whose_place_is_damaged_are_listed_once_however_small_the_pages() {
    for place in ["0", "-1", "-9223372036854775808", "9223372036854775807"] {
        let world = World::new().await;
        let id = world.create().await;
        let claim = world.claim(0).await;
        let mut commit = CommitFixture::on(&claim.claimed[0]).events(3);
        for _ in 0..3 {
            let level = docg_core::observe::LogLevel::Ok;
            commit = commit.log(level, docg_core::observe::LogDomain::Execution, None);
            commit = commit.audit("test");
        }
        world.store.commit(commit.build()).await.expect("commits");
        let tables = ["execution_events", "execution_logs", "audit_events"];
        let count = async |table| {
            let mut connection = PgConnection::connect(world.database.url())
                .await
                .expect("connects");
            let sql = AssertSqlSafe(format!("SELECT count(*) FROM docg.{table}"));
            let row = sqlx::query(sql)
                .fetch_one(&mut connection)
                .await
                .expect("counts");
            usize::try_from(row.get::<i64, _>(0)).expect("a count")
        };
        for (table, number) in [
            ("journal", "last_event"),
            ("journal", "last_log"),
            ("audit_events", "seq"),
        ] {
            world
                .damage(&format!(
                    "SET session_replication_role = replica;
                     UPDATE docg.{table} SET {number} = {place}
                     WHERE {number} = (SELECT max({number}) FROM docg.{table})"
                ))
                .await;
        }
        let (organization_id, execution_id) = (world.organization, id);
        for limit in [1, 2, 100] {
            // (seq, id) of each row, page by page.
            let (mut events, mut logs, mut audit) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..20 {
                let query = EventQuery::of(organization_id, execution_id)
                    .after(events.last().map_or(0, |(seq, _)| *seq))
                    .limit(limit);
                let page = world.store.events(query).await.expect("lists");
                events.extend(page.iter().map(|it| (it.seq, it.event_id)));
                let query = LogQuery::of(organization_id, execution_id)
                    .after(logs.last().map_or(0, |(seq, _)| *seq))
                    .limit(limit);
                let page = world.store.logs(query).await.expect("lists");
                logs.extend(page.items.iter().map(|it| (it.seq, it.id)));
                let query = AuditQuery::of(organization_id, execution_id)
                    .after(audit.last().map_or(0, |(seq, _)| *seq))
                    .limit(limit);
                let page = world.store.audit(query).await.expect("lists");
                audit.extend(page.items.iter().map(|it| (it.seq, it.id)));
            }
            assert_eq!(
                events.len(),
                count(tables[0]).await,
                "{place}, {limit}: {events:?}"
            );
            assert_eq!(
                logs.len(),
                count(tables[1]).await,
                "{place}, {limit}: {logs:?}"
            );
            assert_eq!(
                audit.len(),
                count(tables[2]).await,
                "{place}, {limit}: {audit:?}"
            );
        }
    }
}
