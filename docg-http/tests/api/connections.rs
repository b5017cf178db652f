//! Tests over real connections, for behavior that a router without a socket cannot show.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use docg_http::{Metrics, WriteTimeout};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    sse::{stream_of, within},
    support::World,
};

/// The size of socket buffers in bytes, so small that an unread stream soon fills them.
const BUFFER: u32 = 4 * 1024;

fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Accepted connections inherit the listener's buffer size.
    socket.set_send_buffer_size(BUFFER).expect("set");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(any).expect("a port");
    socket.listen(16).expect("listens")
}

/// A client that has asked for a stream and read nothing yet.
async fn asked(address: SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(BUFFER).expect("set");
    let mut client = socket.connect(address).await.expect("connects");
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer user\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("asks");
    client
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_others_go_on() {
    let world = World::with(|options| options.heartbeat = Duration::from_millis(1)).await;
    let metrics = Metrics::default();
    let listener = WriteTimeout::new(listen(), Duration::from_millis(100), metrics.clone());
    let address = axum::serve::Listener::local_addr(&listener).expect("an address");
    let router = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    let stream = stream_of(&path);
    let mut silent = asked(address, &stream).await;
    let mut reading = BufReader::new(asked(address, &stream).await).lines();
    let closed = async {
        let mut heartbeats_since = 0;
        while heartbeats_since < 10 {
            let line = reading.next_line().await.expect("readable");
            let line = line.expect("the other stream goes on");
            let closed = metrics
                .render()
                .contains("docg_http_connections_closed_slow_total 1");
            heartbeats_since += u32::from(closed && line == "event: heartbeat");
        }
    };
    within(closed).await;
    let mut rest = Vec::new();
    // Read to the connection's end, and ignore errors: a reset is an end too.
    let _ = within(silent.read_to_end(&mut rest)).await;
    let streams = world.get("/metrics").await.text;
    assert!(
        streams.contains("docg_sse_streams{kind=\"execution\"} 1"),
        "{streams}"
    );
}
