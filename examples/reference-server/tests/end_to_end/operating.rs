//! The server as an operator sees it: refused starts, and faults that it survives.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use docg_test_servers::postgres::Database;
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    process::{Server, output, program, text},
    program::DEADLINE,
};

/// The messages of a server that refuses to start with these arguments.
fn refused(data: &Path, arguments: &[&str]) -> String {
    let data = data.to_string_lossy().into_owned();
    let whole = [&["--bind", "127.0.0.1:0", "--data-dir", &data], arguments].concat();
    let ended = output(&whole);
    let said = text(&ended.stderr);
    assert!(!ended.status.success(), "{arguments:?}: {said}");
    assert!(
        ended.stdout.is_empty(),
        "{arguments:?}: it does not claim to listen"
    );
    said
}

#[test]
fn a_public_url_or_an_address_that_cannot_be_used_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (option, values) in [
        (
            "--public-url",
            &[
                "https://example.com/?a=b",
                "https://example.com/#a",
                "https://u:hidden@example.com",
                "example.com",
                "ftp://example.com",
                "",
            ][..],
        ),
        (
            "--bind",
            &["127.0.0.1", "::1", "localhost", "nowhere.invalid:80", ""][..],
        ),
        (
            "--lease-ms",
            &["0", "1", "NaN", "1e400", "-1", "18446744073709551616"][..],
        ),
        ("--heartbeat-ms", &["0", "-1", "inf"][..]),
    ] {
        for value in values {
            let given = format!("{option}={value}");
            let ended = output(&["--data-dir", &folder.path().to_string_lossy(), &given]);
            let said = text(&ended.stderr);
            assert!(
                !ended.status.success() && said.contains(option),
                "{given}: {said}"
            );
            assert!(!said.contains("hidden@"), "{given}: {said}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0);
}

#[test]
fn a_key_that_is_wrong_missing_or_known_to_others_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("signature.key");
    let write = |content: &str, mode| {
        fs::write(&key, content).expect("written");
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("set");
    };
    write("abcd", 0o600);
    assert!(refused(folder.path(), &[]).contains("64 hexadecimal digits"));
    write(&"ab".repeat(32), 0o644);
    assert!(refused(folder.path(), &[]).contains("chmod 600"));
    fs::remove_file(&key).expect("removed");
    let documents = folder.path().join("files/documents/o/e/n");
    fs::create_dir_all(&documents).expect("made");
    fs::write(documents.join("contract.pdf"), "x").expect("written");
    let said = refused(folder.path(), &[]);
    assert!(
        said.contains("signature.key is missing") && said.contains("backup"),
        "{said}"
    );
    assert!(!key.exists(), "no new key is made");
}

#[test]
fn an_auth_file_that_anybody_could_use_is_refused_by_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("auth.json");
    let named = path.to_string_lossy().into_owned();
    let organization = uuid::Uuid::new_v4();
    let entry = |token: &str, scopes: &[&str]| json!({"token": token, "actor": "a", "organizations": [organization], "scopes": scopes});
    let long = "a-token-that-is-long-enough";
    for (file, told) in [
        (
            json!({"tokens": [entry("x", &[])]}).to_string(),
            "tokens[0].token",
        ),
        (
            json!({"tokens": [entry(long, &[]), entry(long, &[])]}).to_string(),
            "tokens[1].token",
        ),
        (
            json!({"tokens": [entry(long, &["all"])]}).to_string(),
            "tokens[0].scopes[0]",
        ),
        (json!({"tokens": []}).to_string(), "tokens"),
        (json!({"tokens": [], "more": 1}).to_string(), "more"),
        ("{\"tokens\": [".to_owned(), "auth.json"),
    ] {
        fs::write(&path, &file).expect("written");
        let said = refused(&folder.path().join("data"), &["--auth-file", &named]);
        assert!(
            said.contains(told) && !said.contains(long),
            "{file}: {said}"
        );
    }
    for actor in ["a\0b", "a\nb", &"a".repeat(501)] {
        let mut entry = entry(long, &[]);
        entry["actor"] = json!(actor);
        fs::write(&path, json!({"tokens": [entry]}).to_string()).expect("written");
        let said = refused(&folder.path().join("data"), &["--auth-file", &named]);
        assert!(said.contains("tokens[0].actor"), "{said}");
    }
    let folder_name = folder.path().to_string_lossy().into_owned();
    let said = refused(&folder.path().join("data"), &["--auth-file", &folder_name]);
    assert!(said.contains("is a folder"), "{said}");
    let said = refused(&folder.path().join("data"), &["--auth-file", "/dev/zero"]);
    assert!(said.contains("larger than"), "{said}");
}

/// A signal ends a server even if its start waits for a file that nobody writes.
#[test]
fn a_signal_ends_a_start_that_hangs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("auth.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).expect("made");
    let data = folder.path().join("data");
    let mut child = program(&["--bind", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(&data)
        .arg("--auth-file")
        .arg(&pipe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Once the folder exists, the server listens for signals and is about to lock the folder.
    let began = Instant::now();
    while !data.is_dir() {
        assert!(began.elapsed() < DEADLINE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("is there");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn printed_migrations_that_could_not_be_written_are_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = program(&["print-migrations"]);
    let status = command.stdout(full.expect("is there")).status();
    assert!(!status.expect("it starts").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmigrated_database_is_refused_if_it_is_not_to_be_migrated() {
    let (database, folder) = (
        Database::empty().await,
        tempfile::tempdir().expect("a folder"),
    );
    let said = refused(
        folder.path(),
        &["--database-url", database.url(), "--no-migrate"],
    );
    assert!(
        said.contains("--database-url") && said.contains("migrate"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_without_a_shared_database_do_not_use_one_folder() {
    let server = Server::start(&[]);
    let said = refused(&server.data(), &[]);
    assert!(said.contains("another server uses this folder"), "{said}");
    assert!(
        server.get("/readyz").await["status"] == "ready",
        "the first goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_are_unknown_or_empty_are_warned_of() {
    let server = Server::start_in(
        &[
            ("DATABASE_URL", ""),
            ("DOCG_AUTH_FILE", ""),
            ("DOCG_PUBLIC_ULR", "https://x.test"),
        ],
        &[],
    );
    let log = server.log();
    for told in [
        "DATABASE_URL is set and empty",
        "DOCG_AUTH_FILE is set and empty",
        "DOCG_PUBLIC_URL may be meant",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seventy_silent_connections_do_not_silence_a_server_with_64_open_files() {
    let server = Server::start_with_few_files(64, &[]);
    assert!(server.log().contains("ulimit -n"), "{}", server.log());
    let address = server
        .url
        .strip_prefix("http://")
        .expect("a URL")
        .to_owned();
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect(&address).await.expect("connects"));
    }
    for _ in 0..3 {
        let (status, page) = server.browse(&format!("{}/healthz", server.url)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
    }
    assert!(
        server.log().contains("connections are in use"),
        "{}",
        server.log()
    );
}

/// Sends the head of a request unchanged, and reads the whole answer.
async fn exchange(server: &Server, head: &str) -> String {
    let address = server.url.strip_prefix("http://").expect("a URL");
    let mut client = TcpStream::connect(address).await.expect("connects");
    client.write_all(head.as_bytes()).await.expect("it listens");
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, client.read_to_end(&mut answer)).await;
    read.expect("it ends").expect("readable");
    text(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_below_the_path_of_a_page_is_a_page() {
    let server = Server::start(&[]);
    let (long, accept) = ("x".repeat(10_000), "accept: text/html\r\n");
    for (line, expected) in [
        ("GET /sign/%FF", "404"),
        ("GET /sign/a/decline", "405"),
        ("POST /sign/%FF", "404"),
        ("GET /approvals/%FF", "404"),
        ("POST /approvals/%FF/approve", "404"),
        ("GET /approvals/%FF/document.pdf", "404"),
        ("GET /sign/a%00b", "404"),
        ("GET /sign", "404"),
        ("GET /sign/", "404"),
        ("GET /sign/a/b/c/d", "404"),
        ("GET /approvals//", "404"),
        ("DELETE /sign/a", "405"),
        ("TRACE /approvals/a", "405"),
        (&format!("GET /sign/{long}"), "404"),
    ] {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{accept}content-length: 0\r\n\r\n"
        );
        let answer = exchange(&server, &head).await;
        let shown: String = line.chars().take(60).collect();
        assert_eq!(answer.get(9..12), Some(expected), "{shown}: {answer}");
        assert!(
            answer.contains("content-type: text/html"),
            "{shown}: {answer}"
        );
        assert!(answer.contains("<h1>"), "{shown}: {answer}");
    }
    let files = "GET /api/v1/executions/%FF/files/%FF HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let answer = exchange(
        &server,
        &format!("{files}authorization: Bearer {}\r\n\r\n", server.token),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("problem+json"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_stops_it_in_order() {
    let mut server = Server::start(&[]);
    server.signal("HUP");
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("stopped"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_though_nobody_reads_what_it_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let data = folder.path().to_string_lossy().into_owned();
    let mut child = program(&["--bind", &address, "--data-dir", &data])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Close both outputs, as `reference-server | head -0` does, or a log whose reader has ended.
    drop((child.stdout.take(), child.stderr.take()));
    let health = async {
        loop {
            if let Ok(mut client) = TcpStream::connect(&address).await {
                let asked = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                let mut answer = String::new();
                let sent = client.write_all(asked).await;
                if sent.is_ok()
                    && client.read_to_string(&mut answer).await.is_ok()
                    && answer.contains("200 OK")
                {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answered = timeout(DEADLINE, health).await;
    let is_alive = child.try_wait().expect("it is ours").is_none();
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    answered.expect("it answers");
    assert!(is_alive);
}
