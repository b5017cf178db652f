//! Tests of the limits of [`docg_http::serve`], over real connections.

use std::{net::SocketAddr, time::Duration};

use docg_http::{Metrics, ServeOptions, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::interval,
};

use crate::{
    sse::{stream_of, within},
    support::{Call, World},
};

/// A time limit for tests: short enough to wait for, and several times as long as an answer takes.
const SHORT: Duration = Duration::from_millis(300);

struct Served {
    world: World,
    address: SocketAddr,
    metrics: Metrics,
}

impl Served {
    async fn with(set: impl FnOnce(&mut ServeOptions)) -> Self {
        let heartbeat = Duration::from_millis(20);
        let world = World::with(|options| options.heartbeat = heartbeat).await;
        let mut options = ServeOptions::keeping_files(64);
        set(&mut options);
        let metrics = options.metrics.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, world.router.clone(), options));
        Self {
            world,
            address,
            metrics,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// Sends bytes over a new connection, and reads until the server closes the connection.
    async fn exchange(&self, sent: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(sent).await.expect("it listens");
        rest_of(&mut client).await
    }

    fn closed_for(&self, reason: &str) -> bool {
        let counted = format!("docg_http_connections_closed_total{{reason=\"{reason}\"}} ");
        self.metrics.render().contains(&counted)
    }
}

/// Reads until the connection is closed.
async fn rest_of(client: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // Read to the connection's end, and ignore errors: a reset is an end too.
    let _ = within(client.read_to_end(&mut rest)).await;
    String::from_utf8_lossy(&rest).into_owned()
}

/// Sends `first`, then a byte every 30 ms until the server closes the connection. Returns the whole answer.
async fn trickle(client: TcpStream, first: &str) -> String {
    let (mut read, mut write) = client.into_split();
    let first = first.to_owned();
    let writing = tokio::spawn(async move {
        let mut pace = interval(SHORT / 10);
        write.write_all(first.as_bytes()).await?;
        loop {
            pace.tick().await;
            write.write_all(b"x").await?;
        }
        #[allow(unreachable_code, reason = "the type of the block")]
        Ok::<_, std::io::Error>(())
    });
    let mut rest = Vec::new();
    let _ = within(read.read_to_end(&mut rest)).await;
    writing.abort();
    String::from_utf8_lossy(&rest).into_owned()
}

fn short(options: &mut ServeOptions) {
    options.head_timeout = SHORT;
    options.idle_timeout = SHORT;
    options.body_timeout = SHORT;
    options.slow_reader = SHORT;
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_client_that_keeps_the_server_waiting_loses_its_connection() {
    let served = Served::with(short).await;
    // A client that sends nothing at all.
    assert_eq!(served.exchange(b"").await, "");
    assert!(served.closed_for("head"));
    // A client that sends half a head, and a client whose head never ends.
    assert_eq!(served.exchange(b"GET /healthz HTT").await, "");
    let head = "GET /healthz HTTP/1.1\r\nhost: x\r\nx: ";
    assert_eq!(trickle(served.connect().await, head).await, "");
    // A client that sends one request, and then nothing.
    let answer = served.exchange(HEALTH.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(served.closed_for("idle"));
    // A client that opens HTTP/2 and sends only pings.
    let ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping";
    let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], ping].concat();
    served.exchange(&preface).await;
    // A client whose body never ends.
    let path = format!("/api/v1/workflows/{}/executions", served.world.workflow.0);
    let post = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer user\r\n\
         content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"
    );
    let answer = trickle(served.connect().await, &post).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:docg:problem:timeout"), "{answer}");
}

#[tokio::test]
async fn a_stream_outlives_every_limit() {
    let served = Served::with(short).await;
    let path = served
        .world
        .start(json!([{"id": "n", "type": "gated"}]))
        .await;
    let mut client = served.connect().await;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer user\r\n\r\n",
        stream_of(&path)
    );
    client.write_all(head.as_bytes()).await.expect("it listens");
    let mut lines = BufReader::new(client).lines();
    let heard = async {
        let mut heartbeats = 0;
        // Read 45 heartbeats, which takes three times as long as any limit.
        while heartbeats < 45 {
            let line = lines.next_line().await.expect("readable");
            heartbeats += u32::from(line.expect("it goes on") == "event: heartbeat");
        }
    };
    within(heard).await;
}

#[tokio::test]
async fn for_a_new_connection_the_one_that_is_idle_longest_is_closed() {
    let served = Served::with(|options| options.connections = 3).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = served.connect().await;
        client
            .write_all(HEALTH.as_bytes())
            .await
            .expect("it listens");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("it answers");
        idle.push(client);
    }
    let mut new = served.connect().await;
    let asked = format!(
        "{}connection: close\r\n\r\n",
        HEALTH.trim_end_matches("\r\n").to_owned() + "\r\n"
    );
    new.write_all(asked.as_bytes()).await.expect("it listens");
    let answer = rest_of(&mut new).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    rest_of(&mut idle[0]).await;
    assert!(served.closed_for("room"));
    // The server closed one idle connection. The two other connections are still served.
    for client in &mut idle[1..] {
        client
            .write_all(asked.as_bytes())
            .await
            .expect("it listens");
        let answers = rest_of(client).await;
        assert!(answers.contains("HTTP/1.1 200"), "{answers}");
    }
}

#[tokio::test]
async fn if_no_connection_is_idle_a_new_one_is_told_so() {
    let served = Served::with(|options| options.connections = 1).await;
    let path = served
        .world
        .start(json!([{"id": "n", "type": "gated"}]))
        .await;
    let mut stream = served.connect().await;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer user\r\n\r\n",
        stream_of(&path)
    );
    stream.write_all(head.as_bytes()).await.expect("it listens");
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next_line().await.expect("readable");
    assert_eq!(status.as_deref(), Some("HTTP/1.1 200 OK"));
    let refused = served.exchange(b"").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.contains("urn:docg:problem:service_unavailable"),
        "{refused}"
    );
    assert!(
        lines
            .next_line()
            .await
            .expect("the stream goes on")
            .is_some()
    );
}

#[tokio::test]
async fn whatever_is_no_request_of_the_api_is_refused_with_a_problem() {
    let served = Served::with(|_| {}).await;
    let close = "host: x\r\nconnection: close\r\n\r\n";
    let long = "x".repeat(10_000);
    let endless = "x".repeat(80_000);
    for (head, statuses) in [
        (
            format!("GET /api/v1/executions/%FF HTTP/1.1\r\nauthorization: Bearer user\r\n{close}"),
            "404",
        ),
        (
            format!(
                "GET /api/v1/executions/a%00b HTTP/1.1\r\nauthorization: Bearer user\r\n{close}"
            ),
            "404",
        ),
        (
            format!(
                "GET /api/v1/executions?cursor=%FF HTTP/1.1\r\nauthorization: Bearer user\r\n{close}"
            ),
            "400 422",
        ),
        (
            format!("GET /api/v1/approvals/%FF HTTP/1.1\r\n{close}"),
            "404",
        ),
        (format!("GET //api//v1 HTTP/1.1\r\n{close}"), "404"),
        (format!("GET /api/v1/../../etc HTTP/1.1\r\n{close}"), "404"),
        (format!("GET /{long} HTTP/1.1\r\n{close}"), "404"),
        (format!("GET /{endless} HTTP/1.1\r\n{close}"), "414 431 400"),
        (format!("GET / HTTP/1.1\r\nx: {endless}\r\n{close}"), "431"),
        (format!("GET http://x/nowhere HTTP/1.1\r\n{close}"), "404"),
        (format!("CONNECT x:443 HTTP/1.1\r\n{close}"), "404 405 400"),
        (format!("OPTIONS * HTTP/1.1\r\n{close}"), "404 405 400"),
        (format!("TRACE /healthz HTTP/1.1\r\n{close}"), "405"),
        (format!("DELETE /healthz HTTP/1.1\r\n{close}"), "405"),
        (
            "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: y\r\n{close}"),
            "400",
        ),
        ("GET /nowhere HTTP/1.0\r\n\r\n".to_owned(), "404"),
        ("GET /healthz\r\n\r\n".to_owned(), "400"),
        ("\u{1}\u{2}\u{3}nothing\r\n\r\n".to_owned(), "400"),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400 505"),
        (format!("GET / HTTP/1.1\r\nbad header: x\r\n{close}"), "400"),
    ] {
        let answer = served.exchange(head.as_bytes()).await;
        let shown = head.chars().take(80).collect::<String>();
        let status = answer.get(9..12).unwrap_or_default();
        assert!(
            !status.is_empty() && statuses.contains(status),
            "{shown:?}: {answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains("application/problem+json"),
            "{shown:?}: {answer}"
        );
        let problem: Value =
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{shown:?}: {e}: {answer}"));
        assert_eq!(problem["status"].to_string(), status, "{shown:?}");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_at_once_and_health_is_not() {
    // The memory for all request bodies together (8 KiB) is smaller than the first body.
    let world = World::with(|options| options.body_memory = 8 * 1024).await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow.0);
    let post = |bytes: usize| {
        let body = json!({"trigger_data": {"text": "x".repeat(bytes)}});
        world.send(Call::new("POST", path.clone()).token("user").json(body))
    };
    post(10_000).await.problem(503, "service_unavailable");
    // Each of five requests frees its memory again.
    for _ in 0..5 {
        assert_eq!(post(4_000).await.status.as_u16(), 201);
    }
    let world = World::with(|options| options.requests = 0).await;
    let refused = world.get("/api/v1/workflows").await;
    refused.problem(503, "service_unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(world.get("/healthz").await.status.as_u16(), 200);
}
