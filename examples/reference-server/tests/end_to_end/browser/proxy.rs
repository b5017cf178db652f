//! A proxy that breaks connections at chosen places.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A proxy that forwards all bytes, and cuts the connection in which the server sends the first of the given
/// texts. Then it looks for the next text.
pub(super) struct CuttingProxy {
    pub(super) url: String,
    state: Arc<State>,
}

struct State {
    server: String,
    cuts: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<u8>>,
}

impl CuttingProxy {
    pub(super) async fn to(server_url: &str, cuts: &[&'static str]) -> Self {
        let server = server_url.strip_prefix("http://").expect("a plain URL");
        let state = Arc::new(State {
            server: server.to_owned(),
            cuts: Mutex::new(cuts.iter().copied().collect()),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&shared)));
            }
        });
        Self { url, state }
    }

    /// The `Last-Event-ID` of each request for an event stream.
    pub(super) fn asked_after(&self) -> Vec<Option<String>> {
        let asked = self.state.asked.lock().expect("nobody panics with it");
        let asked = String::from_utf8_lossy(&asked).into_owned();
        let heads = asked
            .split("\r\n\r\n")
            .filter(|head| head.contains("/stream?"));
        let id = |head: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            let id = fields.find(|(name, _)| name.eq_ignore_ascii_case("last-event-id"));
            id.map(|(_, id)| id.trim().to_owned())
        };
        heads.map(id).collect()
    }
}

impl State {
    fn note(&self, bytes: &[u8]) {
        let mut asked = self.asked.lock().expect("nobody panics with it");
        asked.extend_from_slice(bytes);
    }
}

async fn pass(client: TcpStream, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(&state.server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // If one direction ends, drop both: dropping the halves closes the connections.
    tokio::select! {
        () = there(from_client, to_server, &state) => {}
        () = back(from_server, to_client, &state) => {}
    }
}

async fn there(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        state.note(bytes);
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut seen, mut sent) = (Vec::new(), 0);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..count]);
        let cut = cut_in(&seen, sent, state);
        let end = cut.unwrap_or(seen.len());
        if to.write_all(&seen[sent..end]).await.is_err() || cut.is_some() {
            return;
        }
        sent = end;
    }
}

/// The position at which to cut the bytes in `seen`. The first `sent` of them were already forwarded.
fn cut_in(seen: &[u8], sent: usize, state: &State) -> Option<usize> {
    let mut cuts = state.cuts.lock().expect("nobody panics with it");
    let text = cuts.front()?.as_bytes();
    let found = seen.windows(text.len()).position(|window| window == text)?;
    cuts.pop_front();
    Some(sent.max(found + text.len()))
}
