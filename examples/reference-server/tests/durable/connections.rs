//! A thousand readers of one server share a few connections to Redis.

use std::process::Command;

use docg_test_servers::{postgres::Database, redis};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::Client,
    program::DEADLINE,
    server::{Server, cancel, hang},
    site::{Site, TENANTS},
};

const READERS: usize = 1_000;
/// The number of streams opened at once. It is low, because the test is about open streams, not about
/// opening.
const AT_ONCE: usize = 32;

/// Raises the limit of open files for this process and its children, so that all readers can connect.
fn allow_many_files() {
    let allowed = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--nofile=4096"])
        .status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "this test needs the program prlimit (of util-linux), and a hard limit of 4096 open files"
    );
}

/// An event stream of a server, read over a plain TCP connection.
struct Stream {
    connection: TcpStream,
    text: String,
}

impl Stream {
    async fn open(server: &Client, id: &str, token: &str) -> Self {
        let host = server.url.strip_prefix("http://").expect("it is a URL");
        let mut connection = TcpStream::connect(host).await.expect("it listens");
        let request = format!(
            "GET /api/v1/sse/executions/{id}/stream HTTP/1.1\r\nhost: {host}\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        connection
            .write_all(request.as_bytes())
            .await
            .expect("it listens");
        let mut stream = Self {
            connection,
            text: String::new(),
        };
        stream.until("event: connected").await;
        assert!(
            stream.text.starts_with("HTTP/1.1 200 OK"),
            "{}",
            stream.text
        );
        stream
    }

    /// Reads until the stream has contained this text.
    async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            let mut bytes = [0; 4_096];
            let reading = timeout(DEADLINE, self.connection.read(&mut bytes)).await;
            let read = reading.ok().and_then(Result::ok).unwrap_or(0);
            assert!(read > 0, "no {text:?} in {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }
}

/// Redis's list of its clients, one per line, without the connection that asks for the list.
async fn clients_of(redis: &redis::PrivateServer) -> Vec<String> {
    let address = ("127.0.0.1", redis.port());
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    connection
        .write_all(b"CLIENT LIST\r\nQUIT\r\n")
        .await
        .expect("it listens");
    let mut answer = String::new();
    let reading = connection.read_to_string(&mut answer);
    reading.await.expect("it says goodbye");
    let lines = answer.lines().filter(|line| line.starts_with("id="));
    let others = lines.filter(|line| !line.contains("cmd=client|list"));
    others.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_open_streams_share_two_connections_to_redis_and_all_hear_of_an_event() {
    allow_many_files();
    let (database, redis) = (Database::empty().await, redis::PrivateServer::start());
    let site = Site::new(database.url(), Some(&redis.url()), &["--enable-test-nodes"]);
    let server = Server::start(&site, "server", &[]);
    let id = server.start_nodes(json!([hang("hang", false)])).await;
    server.until(&id, &["running"]).await;
    let open = || async {
        let mut stream = Stream::open(&server, &id, TENANTS[0].0).await;
        stream.until("event: step.started").await;
        stream
    };
    let opening = stream::iter((0..READERS).map(|_| open())).buffer_unordered(AT_ONCE);
    let mut streams: Vec<Stream> = opening.collect().await;
    let clients = clients_of(&redis).await;
    assert!(
        (1..=3).contains(&clients.len()),
        "{} clients: {clients:#?}",
        clients.len()
    );
    cancel(&server, &id).await;
    for stream in &mut streams {
        stream.until("event: execution.canceled").await;
    }
    let clients = clients_of(&redis).await;
    assert!(clients.len() <= 3, "{clients:#?}");
}
