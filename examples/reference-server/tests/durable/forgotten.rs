//! Events that an operator has removed: the stream reports the gap, and readers do not wait for these events.

use docg_test_servers::postgres::Database;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    server::{Server, delay},
    site::Site,
};

/// The names and data of all frames of a stream.
async fn frames(server: &Server, id: &str, after: Option<&str>) -> Vec<(String, Value)> {
    let path = format!("/api/v1/sse/executions/{id}/stream");
    let mut request = server.request(Method::GET, &path);
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let whole = request.send().await.expect("it answers").text().await;
    let whole = whole.expect("it ends with the execution");
    let frame = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let data = serde_json::from_str(field("data: ")?).expect("JSON");
        Some((field("event: ")?.to_owned(), data))
    };
    whole.split("\n\n").filter_map(frame).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_events_are_gone_is_told_and_reads_on_from_what_is_left() {
    let database = Database::empty().await;
    let site = Site::new(database.url(), None, &["--enable-test-nodes"]);
    let server = Server::start(&site, "only", &[]);
    let id = server.start_nodes(json!([delay("n", json!(0))])).await;
    server.until(&id, &["completed"]).await;
    let latest = frames(&server, &id, None).await.len() - 1;
    let mut owner = sqlx::PgConnection::connect(database.url())
        .await
        .expect("it answers");
    for (up_to, earliest, left) in [(3, json!("4-0"), latest - 3), (latest, json!(null), 0)] {
        sqlx::query("DELETE FROM docg.execution_events WHERE seq <= $1")
            .bind(i64::try_from(up_to).expect("few"))
            .execute(&mut owner)
            .await
            .expect("it is the owner's");
        let read = frames(&server, &id, Some("1-0")).await;
        assert_eq!(
            (read[0].0.as_str(), read[1].0.as_str()),
            ("connected", "gap")
        );
        let gap = &read[1].1;
        assert_eq!(
            (&gap["reason"], &gap["earliest"], &gap["latest"]),
            (&json!("too_old"), &earliest, &json!(format!("{latest}-0")))
        );
        assert_eq!(gap["state"]["status"], "completed");
        assert_eq!(read.len() - 2, left, "then what is left: {read:?}");
        let from_the_start = frames(&server, &id, None).await;
        let is_event =
            |(name, _): &&(String, Value)| !["connected", "gap"].contains(&name.as_str());
        assert_eq!(from_the_start.iter().filter(is_event).count(), left);
    }
}
