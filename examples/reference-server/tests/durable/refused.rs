//! Servers that refuse to start, or start with a warning. The log advises the operator.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use docg_test_servers::{postgres::Database, redis::PrivateServer};
use url::Url;

use crate::{server::Server, site::Site};

const BIND: [&str; 2] = ["--bind", "127.0.0.1:0"];

/// The messages of a server that refuses to start.
fn refusal(site: &Site, arguments: &[&str]) -> String {
    let ended = site.output(&[&BIND, arguments].concat());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn the_servers_of_a_database_have_one_key_until_an_operator_accepts_a_new_one() {
    let database = Database::empty().await;
    let [one, other] = [(); 2].map(|()| Site::new(database.url(), None, &[]));
    let first = Server::start(&one, "first", &[]);
    let said = refusal(&other, &[]);
    for word in ["signature.key", "--accept-new-key", "copy"] {
        assert!(said.contains(word), "{said}");
    }
    let key = std::fs::read_to_string(other.data().join("signature.key")).expect("a key");
    assert!(!said.contains(key.trim()), "{said}");
    drop(first);
    drop(Server::start(&one, "again", &[]));
    drop(Server::start(&other, "accepted", &["--accept-new-key"]));
    drop(Server::start(&other, "kept", &[]));
    assert!(refusal(&one, &[]).contains("--accept-new-key"));
    let file = |site: &Site| site.data().join("signature.key");
    std::fs::copy(file(&other), file(&one)).expect("copies");
    drop(Server::start(&one, "copied", &[]));
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_is_refused_with_what_to_do() {
    let database = Database::empty().await;
    let url = |change: fn(&mut Url)| {
        let mut url: Url = database.url().parse().expect("a URL");
        change(&mut url);
        url.to_string()
    };
    for (url, to_do) in [
        (
            url(|url| url.set_username("nobody_at_all").expect("has a user")),
            "create the role",
        ),
        (url(|url| url.set_path("/no_such_database")), "createdb"),
    ] {
        let said = refusal(&Site::new(&url, None, &[]), &[]);
        assert!(
            said.contains("--database-url") && said.contains(to_do),
            "{said}"
        );
        assert!(!said.contains("hidden"), "{said}");
    }
}

#[tokio::test]
async fn a_redis_that_wants_a_password_is_warned_of_with_what_to_do() {
    let database = Database::empty().await;
    let redis = PrivateServer::start();
    let mut connection = TcpStream::connect(("127.0.0.1", redis.port())).expect("it listens");
    let asked = connection.write_all(b"CONFIG SET requirepass right-one\r\nQUIT\r\n");
    asked.expect("it listens");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("+OK"), "{answer}");
    let wrong = redis.url().replace("redis://", "redis://:hidden@");
    for (name, url) in [("missing", redis.url()), ("wrong", wrong)] {
        let site = Site::new(database.url(), Some(&url), &[]);
        let server = Server::start(&site, name, &["--accept-new-key"]);
        let log = server.running.log();
        let line = log.lines().find(|line| line.contains("--redis-url"));
        let line = line.unwrap_or_else(|| panic!("{name}: {log}"));
        assert!(line.contains("password"), "{line}");
        assert!(line.contains("redis://user:password@host"), "{line}");
        assert!(
            !log.contains("hidden") && !log.contains("right-one"),
            "{log}"
        );
    }
}
