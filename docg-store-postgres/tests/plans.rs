//! Every statement that the store sends is served by an index. The statements are not listed by hand: the
//! test calls everything, then reads the plans of the session's prepared statements.

use std::{collections::BTreeMap, sync::Arc};

use docg_core::{
    conformance::fixtures::{self, CommitFixture, RunFixture, at, workflow},
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkerId, WorkflowId},
    observe::LogLevel,
    ports::{
        ClaimRequest, ClaimWhat, ExecutionReader, ExecutionStore, FirstClaim, TtlEntry, TtlKey,
        TtlStore, WorkflowStore,
    },
    query::{
        AuditQuery, AwaitingQuery, EventQuery, ExecutionFilter, ExecutionQuery, ExecutionSort,
        LogQuery, Search, WorkflowQuery,
    },
    run::{Status, WaitKind},
    time::Timestamp,
};
use docg_store_postgres::{AuditTrust, CheckpointKey, PgStore, PgStoreConfig};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, PgPool, Row,
    postgres::{PgPoolOptions, PgRow},
};

#[path = "support/plan.rs"]
mod plan;
mod support;

/// SQL that adds ten thousand executions of a hundred organizations, each with some rows of each kind.
const FILL: &str = "
    INSERT INTO docg.node_type_sets (node_types) VALUES ('{extract,render}');
    INSERT INTO docg.definitions (hash, definition)
    SELECT sha256(n::text::bytea), '{}' FROM generate_series(1, 3000) n;
    CREATE TEMPORARY TABLE filled AS
    SELECT gen_random_uuid() AS id, n, ('00000000-0000-0000-0000-' || lpad((n % 100)::text, 12, '0'))::uuid
        AS organization_id FROM generate_series(1, 10000) n;
    INSERT INTO docg.executions (id, organization_id, workflow_id, workflow_version, status, progress,
        delivery_state, signature_state, phase_metrics, correlation_id, trigger_type, dry_run,
        attempt, version, created_at, completed_at, updated_at, preflight_due, delivery_confirmed,
        priority, event_seq, log_seq, audit_seq, audit_hash, type_set, worker_id, lease_until,
        expires_at, due_at, published, checkpointed)
    SELECT id, organization_id, organization_id, 1,
        CASE WHEN n % 10 = 0 THEN 'running' WHEN n % 10 = 1 THEN 'queued' ELSE 'completed' END, 0,
        'pending', 'pending', '{}', 'c', 'manual', false, 1, 1,
        timestamptz '2026-01-01' + n * interval '1 s',
        CASE WHEN n % 10 > 1 THEN timestamptz '2026-01-02' + n * interval '1 s' END,
        timestamptz '2026-01-02', false, false, 0, 5, 5, 5, sha256('x'), 1,
        CASE WHEN n % 10 = 0 THEN gen_random_uuid() END,
        CASE WHEN n % 10 = 0 THEN timestamptz '2027-01-01' END,
        CASE WHEN n % 10 = 0 THEN timestamptz '2027-01-01' END,
        CASE WHEN n % 10 = 1 THEN timestamptz '2026-01-02' END,
        CASE WHEN n % 10 = 0 THEN 0 ELSE 5 END, CASE WHEN n % 20 = 0 THEN 0 ELSE 5 END
    FROM filled;
    INSERT INTO docg.execution_data (execution_id, definition_hash, trigger_data, node_overrides,
        created_by, traceparent, title, search)
    SELECT id, sha256((n % 3000 + 1)::text::bytea), json_build_object('text', repeat('x', 1500)), '{}', '{}', NULL, 'title', array_to_tsvector(ARRAY[
        replace(organization_id::text, '-', '') || ':title', replace(organization_id::text, '-', '') || '~c' || n])
    FROM filled;
    INSERT INTO docg.execution_steps (execution_id, position, id, node_id, node_type, label, phase,
        status, activity, attempt, attempts_before, takeovers)
    SELECT id, p, gen_random_uuid(), 'n' || p, 'render', 'l', 'render', 'success', 'idle', 1, 0, 0
    FROM filled, generate_series(0, 4) p;
    INSERT INTO docg.journal SELECT id, p, p, '[{}]', '[{}]' FROM filled, generate_series(1, 5) p;
    INSERT INTO docg.audit_events (execution_id, seq, id, organization_id, timestamp, actor_type,
        action, target_type, target_id, commitment, prev_hash, hash)
    SELECT id, p, gen_random_uuid(), organization_id, now(), 'user', 'a', 't', 'i', sha256('x'),
        sha256('x'), sha256('x')
    FROM filled, generate_series(1, 5) p;
    INSERT INTO docg.audit_heads
    SELECT gen_random_uuid(), organization_id, 5, sha256('x'), timestamptz '2025-01-01' + n * interval '1 s'
    FROM filled;
    INSERT INTO docg.audit_purges SELECT execution_id, organization_id, now() FROM docg.audit_heads
    ORDER BY execution_id LIMIT 9000;
    INSERT INTO docg.audit_unsigned SELECT organization_id, execution_id FROM docg.audit_purges;
    INSERT INTO docg.audit_checkpoints
    SELECT organization_id, row_number() OVER (PARTITION BY organization_id), now(), sha256('x'),
        sha256('x'), sha256('x'), sha256('x'), sha512('x') FROM filled;
    INSERT INTO docg.audit_checkpoint_heads
    SELECT organization_id, seq, gen_random_uuid(), 1, sha256('x') FROM docg.audit_checkpoints;
    INSERT INTO docg.signals (id, execution_id, organization_id, kind, signal, received_at)
    SELECT gen_random_uuid(), id, organization_id, 'pause', '{}', now() FROM filled;
    INSERT INTO docg.signature_requests (id, execution_id, organization_id, node_id, provider,
        envelope_id, status, signers, file, created_at)
    SELECT gen_random_uuid(), id, organization_id, 'n', 'builtin', id::text, 'signed', '[]', 'null', now()
    FROM filled;
    INSERT INTO docg.approvals (id, execution_id, organization_id, node_id, approvers, token_hashes,
        quorum, created_at, on_expiry)
    SELECT gen_random_uuid(), id, organization_id, 'n', '[]', ARRAY[sha256(id::text::bytea)], 1, now(), 'fail'
    FROM filled;
    INSERT INTO docg.held_back SELECT id FROM filled;
    INSERT INTO docg.idempotency_keys SELECT organization_id, id::text, sha256('x'), id FROM filled;
    UPDATE docg.executions SET completed_at = timestamptz '1970-01-01', signals_pending = 1,
        signaled_at = timestamptz '1970-01-01'
    WHERE id = (SELECT id FROM filled WHERE n = 2);
    UPDATE docg.signals SET received_at = timestamptz '1970-01-01'
    WHERE execution_id = (SELECT id FROM filled WHERE n = 2);
    INSERT INTO docg.workflows
    SELECT organization_id, gen_random_uuid(), 1, 'w', '{}', '{}', '[]', now() + n * interval '1 s', now(), false
    FROM filled;
    INSERT INTO docg.memos
    SELECT organization_id, 'k', id::text, '{}', timestamptz '2030-01-01' + n * interval '1 s' FROM filled;
    ANALYZE;";

/// Each filter of executions, alone and with others.
fn filters() -> Vec<ExecutionFilter> {
    let mut filters = vec![ExecutionFilter::default(); 8];
    filters[1].statuses = vec![Status::Running, Status::Queued];
    filters[2].waiting_for = vec![WaitKind::Review];
    filters[3].waiting_for = vec![WaitKind::Review, WaitKind::Signature];
    filters[3].statuses = vec![Status::NeedsReview, Status::Signing];
    filters[4].created_from = Some(at(0));
    filters[5].search = Some(Search::of("a title"));
    filters[6].correlation_id = Some("c".to_owned());
    filters[7].workflow_id = Some(WorkflowId::new());
    filters[7].statuses = vec![Status::Running, Status::Queued];
    filters
}

async fn call_everything(store: &PgStore) {
    let organization = OrganizationId::new();
    let run = RunFixture::of(organization).key("k", 1).build();
    let id = run.state.execution.id;
    store.create(run.clone()).await.expect("stores");
    store.create(run).await.expect("is known");
    let claim = |what| ClaimRequest {
        worker_id: WorkerId::new(),
        what,
        now: at(0),
        lease_until: at(60_000),
    };
    let due = ClaimWhat::Due {
        limit: 8,
        per_organization: 2,
        node_types: ["extract", "render"].map(Arc::from).into(),
    };
    let one = claim(ClaimWhat::One(id));
    let claimed = store.claim(one).await.expect("claims").claimed.remove(0);
    let signal = fixtures::signal(organization, id, at(0));
    store.signal(signal.clone()).await.expect("signals");
    store.signals(id).await.expect("reads");
    store
        .renew(&[claimed.lease], at(90_000))
        .await
        .expect("renews");
    let execution = &claimed.state.execution;
    let commit = CommitFixture::on(&claimed)
        .status(Status::Completed)
        .events(2)
        .audit("execution.completed")
        .signature(fixtures::signature_request(execution, "envelope"))
        .approval(fixtures::approval(execution, &[[1; 32]]))
        .settle(&[signal])
        .build();
    store.commit(commit.clone()).await.expect("commits");
    store.commit(commit).await.expect_err("is stale");
    store
        .release(&[claimed.lease], at(1))
        .await
        .expect("is no error");
    let new = FirstClaim {
        worker_id: WorkerId::new(),
        lease_until: at(60_000),
        per_organization: 2,
    };
    let new = RunFixture::of(organization).claim(new).build();
    store.create(new).await.expect("stores");
    let claimed = store.claim(claim(due)).await.expect("claims").claimed;
    assert!(claimed.is_empty(), "what was filled in cannot be read");
    let known = ["extract", "render"].map(Arc::from).into();
    store.unserved(known, at(1)).await.expect("reads");
    store.unpublished(at(1), None, 10).await.expect("reads");
    store.mark_published(&[(id, 1)]).await.expect("marks");

    store.execution(organization, id).await.expect("reads");
    for (workflow_id, status) in [
        (None, None),
        (Some(WorkflowId::new()), None),
        (None, Some(Status::Running)),
        (Some(WorkflowId::new()), Some(Status::Running)),
    ] {
        let query = ExecutionQuery::of(organization)
            .workflow_id(workflow_id)
            .status(status)
            .limit(20);
        store.executions(query).await.expect("reads");
    }
    // Few of a large organization's executions are found, so reading all of them would cost more.
    let filled: OrganizationId = "00000000-0000-0000-0000-000000000077"
        .parse()
        .expect("an id");
    for filter in filters() {
        let searched = filter.correlation_id.is_some();
        let organization = if searched { filled } else { organization };
        let counts = store.execution_counts(organization, &filter).await;
        counts.expect("counts");
        for sort in ExecutionSort::ALL {
            let query = ExecutionQuery::of(organization).filter(filter.clone());
            store
                .executions(query.sort(sort).limit(20))
                .await
                .expect("reads");
        }
    }
    store.steps(organization, id).await.expect("reads");
    let awaiting = AwaitingQuery::new(organization, "paid", "7", 20);
    store.awaiting(awaiting).await.expect("reads");
    store.snapshot(organization, id).await.expect("reads");
    let (organization_id, execution_id, after, limit) = (organization, id, 0, 20);
    store
        .events(
            EventQuery::of(organization_id, execution_id)
                .after(after)
                .limit(limit),
        )
        .await
        .expect("reads");
    store
        .audit(
            AuditQuery::of(organization_id, execution_id)
                .after(after)
                .limit(limit),
        )
        .await
        .expect("reads");
    let logs = LogQuery::of(organization_id, execution_id)
        .level(LogLevel::Ok)
        .after(after)
        .limit(limit);
    store.logs(logs).await.expect("reads");
    store
        .signature_request(organization, SignatureRequestId::new())
        .await
        .expect("reads");
    store
        .signature_by_envelope("builtin", "envelope")
        .await
        .expect("reads");
    store.approval_by_token([1; 32]).await.expect("reads");

    let stored = workflow(organization, &["extract"]);
    store.put_workflow(stored.clone()).await.expect("stores");
    store
        .workflow(organization, stored.id)
        .await
        .expect("reads");
    for after in [None, Some((at(0), stored.id))] {
        let query = WorkflowQuery::of(organization_id).after(after).limit(limit);
        store.workflows(query).await.expect("reads");
    }
    store
        .latest_version(organization, stored.id)
        .await
        .expect("reads");
    store
        .delete_workflow(organization, stored.id)
        .await
        .expect("deletes");
    let entry = TtlEntry {
        key: TtlKey {
            organization_id: None,
            kind: "k",
            key: "k".to_owned(),
        },
        value: fixtures::fact(),
        expires_at: at(100),
    };
    store
        .remember(entry.clone(), at(0))
        .await
        .expect("remembers");
    store.recall(&entry.key, at(0)).await.expect("recalls");
    store.replace(entry).await.expect("replaces");

    let key = CheckpointKey::from_seed([1; 32]);
    store
        .checkpoint_audit(organization, &key, at(5))
        .await
        .expect("signs");
    store
        .verify_audit(organization, None, &AuditTrust::default())
        .await
        .expect("reads");
    store
        .verify_audit(
            organization,
            Some(ExecutionId::new()),
            &AuditTrust::default(),
        )
        .await
        .expect("reads");
    store.audited_organizations().await.expect("reads");
    store.audited_organization(id).await.expect("reads");
    store.erase_audit(organization, id).await.expect("erases");
    let purged = store.purge(Timestamp::from_millis(1), 10).await;
    assert_eq!(purged.expect("purges"), 1, "it cannot be read");
    store.purge(at(1_000), 10).await.expect("purges");
    store
        .purge_audit(at(1_000), 10, &key, at(2_000))
        .await
        .expect("purges");
}

/// The number of scans of each index that only serves reads. Unique indexes are left out.
async fn index_scans(pool: &PgPool) -> BTreeMap<String, i64> {
    let rows = sqlx::query(
        "SELECT s.indexrelname::text, s.idx_scan
         FROM pg_stat_user_indexes s JOIN pg_index i USING (indexrelid)
         WHERE s.schemaname = 'docg' AND NOT i.indisunique",
    )
    .fetch_all(pool)
    .await
    .expect("reads");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn sequential_scans(pool: &PgPool) -> BTreeMap<String, i64> {
    // PostgreSQL may delay a session's counters, so write them now.
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(pool)
        .await
        .expect("flushes");
    sqlx::query("SELECT pg_stat_clear_snapshot()")
        .execute(pool)
        .await
        .expect("clears");
    let rows = sqlx::query(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'docg'",
    )
    .fetch_all(pool)
    .await
    .expect("reads");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Tables whose size does not grow with the number of executions.
const SMALL: [&str; 2] = ["migrations", "node_type_sets"];

/// The plans of prepared statements.
async fn plans(pool: &PgPool, statements: &[PgRow]) -> Vec<(String, Value)> {
    let mut plans = Vec::new();
    for row in statements {
        let (name, statement): (String, String) = (row.get(0), row.get(1));
        let parameters = vec!["NULL"; usize::try_from(row.get::<i32, _>(2)).expect("is a count")];
        let parameters = match parameters.len() {
            0 => String::new(),
            _ => format!("({})", parameters.join(", ")),
        };
        let call = format!("EXPLAIN (FORMAT JSON) EXECUTE \"{name}\" {parameters}");
        let plan = sqlx::raw_sql(AssertSqlSafe(call)).fetch_one(pool).await;
        let plan = plan.expect("explains");
        let plan: &str = plan.try_get_unchecked(0).expect("is text");
        plans.push((statement, serde_json::from_str(plan).expect("is JSON")));
    }
    plans
}

/// Allowed sorts below a limit. They sort few rows: approvals with one token, ended executions that still have
/// signals, and leased executions.
const SORTED: [&str; 3] = ["a.arrival DESC", "random()", "e_2.updated_at"];

#[tokio::test]
async fn every_statement_reads_what_it_needs_by_an_index() {
    let database = support::migrated().await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(database.url())
        .await
        .expect("connects");
    sqlx::raw_sql(FILL).execute(&pool).await.expect("fills");
    let before = sequential_scans(&pool).await;
    let unused = index_scans(&pool).await;
    let store = PgStore::new(pool.clone(), PgStoreConfig::default());
    call_everything(&store).await;

    // The reads that the calls have caused, including those within functions.
    let after = sequential_scans(&pool).await;
    for (table, scans) in &after {
        let grown = scans - before.get(table).copied().unwrap_or(0);
        assert!(
            grown == 0 || SMALL.contains(&table.as_str()),
            "{table} was read from end to end {grown} times"
        );
    }

    let unused: Vec<_> = index_scans(&pool)
        .await
        .into_iter()
        .filter(|(index, scans)| unused.get(index) == Some(scans))
        .map(|(index, _)| index)
        .collect();
    assert!(unused.is_empty(), "nothing has used {unused:?}");

    // Check the generic plans: PostgreSQL soon uses them instead of plans for given parameters.
    let statements = sqlx::query(
        "SELECT name, statement, coalesce(array_length(parameter_types, 1), 0)
         FROM pg_prepared_statements WHERE statement ~ 'docg\\.'",
    )
    .fetch_all(&pool)
    .await
    .expect("reads");
    assert!(
        statements.len() > 40,
        "only {} statements were seen",
        statements.len()
    );
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan")
        .execute(&pool)
        .await
        .expect("sets");
    let mut wrong = Vec::new();
    let is_small = |table: &str| SMALL.contains(&table);
    for (statement, plan) in plans(&pool, &statements).await {
        let reads = plan::faults(&plan, is_small).reads;
        wrong.extend(
            reads
                .iter()
                .map(|it| format!("{it}:\n{statement}\n{plan:#}")),
        );
    }
    // Sorting the few rows of this test is cheap, so PostgreSQL may prefer it to an index. With sorting
    // disabled, a plan sorts only if no index delivers the order.
    sqlx::raw_sql("SET enable_sort = off; SET enable_bitmapscan = off; DISCARD PLANS")
        .execute(&pool)
        .await
        .expect("sets");
    for (statement, plan) in plans(&pool, &statements).await {
        let mut sorts = plan::faults(&plan, is_small).sorts;
        sorts.retain(|sort| !SORTED.iter().any(|known| sort.contains(known)));
        // A search finds executions in no order, and few of them.
        if statement.contains("@@") {
            sorts.clear();
        }
        wrong.extend(
            sorts
                .iter()
                .map(|it| format!("{it}:\n{statement}\n{plan:#}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} statements:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}
