//! Commands on a database: without a server, beside a running server, and as a client of a server.

use std::{net::TcpListener, process::Output};

use docg_core::{ids::OrganizationId, time::Timestamp};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::{ports, postgres::Database};
use reference_server::{backend::checkpoint_key, builtin_signature::Secret};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::Connection as _;

use crate::{
    client::Client,
    server::{Server, cancel, delay, hang},
    site::{Site, TENANTS},
};

/// The exit status and the output of a command.
fn ended(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), said)
}

fn sample() -> String {
    let manifest = env!("CARGO_MANIFEST_DIR");
    format!("{manifest}/samples/contract.good.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_migrated_when_it_is_asked_for() {
    let database = Database::empty().await;
    let site = Site::new(database.url(), None, &[]);
    let (code, said) = ended(&site.output(&["--no-migrate", "--bind", "127.0.0.1:0"]));
    assert_eq!(code, Some(1), "there are no tables: {said}");
    assert!(!said.contains("listening on"), "{said}");
    let (code, sql) = ended(&site.output(&["print-migrations"]));
    assert_eq!(code, Some(0));
    assert!(sql.contains("CREATE TABLE docg.executions"), "{sql}");
    let (code, sql) = ended(&site.output(&["print-migrations", "--grants", "app"]));
    assert_eq!(
        (code, sql),
        (Some(0), docg_store_postgres::grants_sql("app"))
    );
    let (code, said) = ended(&site.output(&["migrate"]));
    assert_eq!(code, Some(0), "{said}");
    let server = Server::start(&site, "server", &["--no-migrate"]);
    server.get("/api/v1/executions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_and_watch_take_the_options_of_the_server_they_stand_beside() {
    let database = Database::empty().await;
    // The port is taken, as it is beside a running server.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address").to_string();
    let site = Site::new(database.url(), None, &[]);
    let (data, beside) = (sample(), ["--bind", &taken]);
    let arguments = ["run", "service-contract", "--data", &data, "--dry-run"];
    let (code, said) = ended(&site.output(&[&arguments[..], &beside].concat()));
    assert_eq!(code, Some(0), "{said}");

    let server = Server::start(&site, "server", &[]);
    let executions = server.get("/api/v1/executions").await;
    let execution = &executions["executions"][0];
    assert_eq!(execution["organization_id"], TENANTS[0].1);
    assert_eq!(execution["dry_run"], true);
    let id = execution["id"].as_str().expect("an id");
    let (code, said) = ended(&site.output(&["watch", id, "--public-url", &server.url]));
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_without_a_server_ends_and_one_that_loses_it_goes_on() {
    let database = Database::empty().await;
    let port = ports::reserve().to_string();
    let bind = format!("127.0.0.1:{port}");
    let site = Site::new(
        database.url(),
        None,
        &["--enable-test-nodes", "--bind", &bind],
    );
    let server = || Server::of_site(site.spawn("server", &[]));
    let mut first = server();
    let id = first.start_nodes(json!([hang("n", false)])).await;
    let mut watching = site.spawn("watch", &["watch", &id]);
    watching.until_logged("running").await;
    first.running.kill();
    watching
        .until_logged("the server is waited for: nothing answers at")
        .await;

    let url = format!("http://{bind}");
    let at = ["--url", &url, "--token", TENANTS[0].0];
    let data = sample();
    let run = [&["run", "service-contract", "--data", &data][..], &at].concat();
    let watch = [&["watch", &id][..], &at].concat();
    for command in [
        &run[..],
        &watch,
        &["watch", &id],
        &[
            "audit",
            "verify",
            "--execution",
            &id,
            at[0],
            at[1],
            at[2],
            at[3],
        ],
    ] {
        let (code, said) = ended(&site.output(command));
        assert_eq!(code, Some(2), "{command:?}: {said}");
        assert!(
            said.contains(&format!("nothing answers at {url}")),
            "{command:?}: {said}"
        );
    }

    let second = server();
    watching.until_logged("the server answers again").await;
    cancel(&second, &id).await;
    assert_eq!(watching.wait().code(), Some(1), "{}", watching.log());
}

/// For each tenant, runs an execution to its end and signs a checkpoint. Returns the executions' ids.
async fn audited(site: &Site, server: &Client, database_url: &str) -> [String; 2] {
    let config = PgStoreConfig::default().max_connections(2);
    let store = PgStore::connect(database_url, config)
        .await
        .expect("it is up");
    let secret = Secret::load(&site.data().join("signature.key")).expect("it was made");
    let key = checkpoint_key(&secret);
    let mut ids = Vec::new();
    for (token, organization) in TENANTS {
        let tenant = Client::new(server.url.clone(), token.to_owned());
        let id = tenant.start_nodes(json!([delay("n", json!(1))])).await;
        tenant.until(&id, &["completed"]).await;
        ids.push(id);
        let organization: OrganizationId = organization.parse().expect("an id");
        let made = store.checkpoint_audit(organization, &key, Timestamp::now());
        // If the server signed a checkpoint first, nothing is left to sign.
        made.await.expect("it signs");
    }
    ids.try_into().expect("two")
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_trails_verify_in_the_database_and_out_of_it() {
    let database = Database::empty().await;
    let site = Site::new(database.url(), None, &["--enable-test-nodes"]);
    let server = Server::start(&site, "server", &[]);
    let [first, second] = audited(&site, &server, database.url()).await;
    let verify = |more: &[&str]| ended(&site.output(&[&["audit", "verify"], more].concat()));
    let (code, said) = verify(&[]);
    assert!(code == Some(0) && said.contains("2 executions"), "{said}");
    let (code, said) = verify(&["--execution", &second]);
    assert!(code == Some(0) && said.contains("1 executions"), "{said}");
    let unknown = uuid::Uuid::new_v4().to_string();
    assert_eq!(verify(&["--execution", &unknown]).0, Some(2));

    let exported = site.output(&["audit", "export"]);
    assert!(exported.status.success());
    let file = site.data().join("audit.jsonl");
    std::fs::write(&file, &exported.stdout).expect("the folder is ours");
    let path = file.display().to_string();
    let (code, said) = verify(&["--export", &path]);
    assert!(code == Some(0) && said.contains("2 executions"), "{said}");
    let of_first = ["--export", &path, "--execution", &first];
    let at = ["--url", &server.url, "--token", TENANTS[0].0];
    let (code, said) = verify(&[&of_first[..], &at].concat());
    assert!(code == Some(0) && said.contains("1 executions"), "{said}");
    assert_eq!(
        verify(&["--export", &path, "--execution", &unknown]).0,
        Some(2)
    );

    // Without the signing key, the command cannot tell whether a trail is valid.
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let elsewhere = elsewhere.path().display().to_string();
    let (code, said) = verify(&["--data-dir", &elsewhere]);
    assert!(code == Some(2) && said.contains("--data-dir"), "{said}");
    let changed = String::from_utf8(exported.stdout).expect("text");
    let changed = changed.replacen("execution.completed", "execution.canceled", 1);
    std::fs::write(&file, changed).expect("the folder is ours");
    assert_eq!(verify(&["--export", &path]).0, Some(1));
    assert_eq!(
        verify(&["--export", &path, "--data-dir", &elsewhere]).0,
        Some(1)
    );
    let one = site.output(&["audit", "export", "--execution", &second]);
    std::fs::write(&file, one.stdout).expect("the folder is ours");
    let of_second = ["--export", &path, "--execution", &second];
    let (code, said) = verify(&of_second);
    assert!(code == Some(0) && said.contains("1 executions"), "{said}");
    assert_eq!(verify(&["--export", &path]).0, Some(2), "of which?");
    assert_eq!(
        verify(&["--export", &path, "--execution", &first]).0,
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_leaves_no_audit_row_without_a_checkpoint() {
    let database = Database::empty().await;
    let site = Site::new(database.url(), None, &["--enable-test-nodes"]);
    let mut server = Server::start(&site, "server", &[]);
    let id = server.start_nodes(json!([delay("n", json!(1))])).await;
    server.until(&id, &["completed"]).await;
    server.running.signal("TERM");
    assert!(server.running.wait().success(), "{}", server.running.log());
    let (code, said) = ended(&site.output(&["audit", "verify"]));
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
    assert!(!said.contains(" 0 checkpoints"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_executions_are_gone_and_their_audit_trails_are_not() {
    let database = Database::empty().await;
    let site = Site::new(database.url(), None, &["--enable-test-nodes"]);
    let server = Server::start(&site, "server", &[]);
    let [first, _] = audited(&site, &server, database.url()).await;
    let (code, said) = ended(&site.output(&["purge"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("removed 0 executions"),
        "they are young: {said}"
    );
    let (code, said) = ended(&site.output(&["purge", "--older-than-days", "0"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("removed 2 executions and 0 audit trails"),
        "{said}"
    );
    let path = format!("/api/v1/executions/{first}");
    let gone = server.request(Method::GET, &path).send().await;
    assert_eq!(gone.expect("it answers").status(), StatusCode::NOT_FOUND);
    let verify = |more: &[&str]| ended(&site.output(&[&["audit", "verify"], more].concat()));
    let (code, said) = verify(&[]);
    assert!(code == Some(0) && said.contains("2 executions"), "{said}");

    let erase = |id: &str| ended(&site.output(&["audit", "erase", "--execution", id]));
    let (code, said) = erase(&first);
    assert!(code == Some(0) && !said.contains("erased what 0"), "{said}");
    assert_eq!(verify(&[]).0, Some(0));
    let unknown = uuid::Uuid::new_v4().to_string();
    let (code, said) = erase(&unknown);
    assert!(code == Some(1) && said.contains(&unknown), "{said}");

    let purge = ["purge", "--audit-older-than-days", "0"];
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let elsewhere = elsewhere.path().display().to_string();
    let (code, said) = ended(&site.output(&[&purge[..], &["--data-dir", &elsewhere]].concat()));
    assert!(code == Some(1) && said.contains("--data-dir"), "{said}");
    let (code, said) = ended(&site.output(&purge));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("removed 0 executions and 2 audit trails"),
        "{said}"
    );
    let (code, said) = verify(&[]);
    assert!(code == Some(0) && said.contains(" 0 rows"), "{said}");

    // The notes that the server keeps beside its key show that checkpoints were removed.
    let mut owner = sqlx::PgConnection::connect(database.url())
        .await
        .expect("connects");
    let cut = "SET session_replication_role = replica; DELETE FROM docg.audit_checkpoints;
        DELETE FROM docg.audit_checkpoint_heads; DELETE FROM docg.audit_heads;
        DELETE FROM docg.audit_purges";
    sqlx::raw_sql(cut).execute(&mut owner).await.expect("cuts");
    let (code, said) = verify(&[]);
    assert!(
        code == Some(1) && said.matches("was made, and is not there").count() == 2,
        "{said}"
    );
}
