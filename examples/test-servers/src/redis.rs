//! Redis: a part of a server for each test, and servers that a test may break.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use uuid::Uuid;

use crate::process::{Program, Running, home, in_path};

/// Settings beyond those that every server gets, in its directory.
const SETTINGS: &str = "redis.conf";

/// Between two tests of nextest there may be no process that uses it.
const SHARED: Program = Program {
    stop: "TERM",
    command,
    prepare,
    is_private: false,
    grace_seconds: 10,
};

const PRIVATE: Program = Program {
    is_private: true,
    grace_seconds: 2,
    ..SHARED
};

/// A part of a server that one test has for itself: all keys that begin with its prefix. What is
/// left in it ends with the server, or when its time to live is over.
#[derive(Debug, Clone)]
pub struct Keyspace {
    url: String,
    prefix: String,
}

impl Keyspace {
    /// A fresh one, on the server of `REDIS_URL`, else on one that is shared by all test processes
    /// and stops by itself.
    #[must_use]
    pub fn fresh() -> Self {
        let url = env::var("REDIS_URL").ok().filter(|url| !url.is_empty());
        Self {
            url: url.unwrap_or_else(shared),
            prefix: format!("docg-test:{}:", Uuid::new_v4().simple()),
        }
    }

    /// How to connect to the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the test's keys begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// A server of one test's own, which it may break. It keeps nothing on disk, and is gone with this
/// value.
#[derive(Debug)]
pub struct PrivateServer(Running);

impl PrivateServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// Starts one with more settings, lines as in `redis.conf`, given its directory.
    #[must_use]
    pub fn start_with(settings: impl FnOnce(&Path) -> String) -> Self {
        let dir = home(&format!("redis-{}", Uuid::new_v4().simple()));
        fs::write(dir.join(SETTINGS), settings(&dir)).expect("the directory is ours");
        Self(Running::join(dir, &PRIVATE))
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// How to connect to it, without TLS.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.0.port)
    }

    /// Kills it, as a crash does.
    pub fn kill(&self) {
        self.0.end("KILL");
    }

    /// Makes it hang: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.0.signal("STOP");
    }

    /// Ends the pause.
    pub fn resume(&self) {
        self.0.signal("CONT");
    }

    /// Starts it again, empty and on the same port.
    pub fn start_again(&self) {
        self.0.start_again(&PRIVATE);
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // One that hangs hears no other signal.
        self.0.end("KILL");
        self.0.remove();
    }
}

fn shared() -> String {
    // Held until the process ends: that is what says that somebody uses the server.
    static SERVER: OnceLock<Running> = OnceLock::new();
    let server = SERVER.get_or_init(|| Running::join(home("redis"), &SHARED));
    url(server.port)
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("data")).expect("the directory is ours");
}

fn command(dir: &Path, port: u16) -> Vec<OsString> {
    let mut command = vec![OsString::from(program())];
    let settings = dir.join(SETTINGS);
    if settings.exists() {
        command.push(settings.into());
    }
    let port = port.to_string();
    for argument in [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxclients",
        "2000",
        "--dir",
    ] {
        command.push(argument.into());
    }
    command.push(dir.join("data").into());
    command
}

fn program() -> PathBuf {
    let find = |name: &str| in_path(name).map(|dir| dir.join(name));
    find("redis-server")
        .or_else(|| find("valkey-server"))
        .expect(
            "these tests need a Redis server, version 6.2 or later: install it (on Debian the \
             package redis-server), or give one in REDIS_URL",
        )
}
