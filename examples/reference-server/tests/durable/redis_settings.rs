//! Settings for Redis that come from environment variables.

use docg_test_servers::{postgres::Database, redis::PrivateServer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    server::{Server, delay},
    site::Site,
};

/// Sends a command to Redis that answers with a number.
async fn ask(redis: &PrivateServer, question: &str) -> i64 {
    let address = ("127.0.0.1", redis.port());
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    let question = format!("{question}\r\nQUIT\r\n");
    let asked = connection.write_all(question.as_bytes()).await;
    asked.expect("it listens");
    let mut answer = String::new();
    let reading = connection.read_to_string(&mut answer);
    reading.await.expect("it says goodbye");
    let number = answer
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(':'));
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{question}: {answer}"))
}

#[tokio::test]
async fn streams_are_as_long_and_live_as_long_as_the_environment_says() {
    let (database, redis) = (Database::empty().await, PrivateServer::start());
    let site = Site::new(database.url(), Some(&redis.url()), &["--enable-test-nodes"])
        .variable("REDIS_STREAM_MAXLEN", "20")
        .variable("REDIS_STREAM_TTL", "600");
    let server = Server::start(&site, "server", &[]);
    let nodes: Vec<_> = (0..40).map(|n| delay(&format!("n{n}"), json!(0))).collect();
    let id = server.start_nodes(json!(nodes)).await;
    let ended = server.until(&id, &["completed"]).await;
    let events = server.stream(&id, None).await.len();
    assert!(events > 100, "{events} events of {ended}");
    let length = ask(&redis, &format!("XLEN docg:exec:{id}")).await;
    // Redis trims a stream by whole nodes of several entries, so more entries than the setting allows remain.
    assert!((20..60).contains(&length), "{length} of {events}");
    let left = ask(&redis, &format!("TTL docg:exec:{id}")).await;
    assert!((540..=600).contains(&left), "{left}");
}
