//! Redis: a part of a server for each test, and servers that a test may break.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    ports,
    process::{Program, Running, home, in_path},
};

/// Settings beyond those that every server gets, in its directory.
const SETTINGS: &str = "more.conf";
/// What makes a server a cluster of its own.
const CLUSTER: &str = "cluster-enabled yes\ncluster-announce-ip 127.0.0.1\n";
const SLOTS: u16 = 16_384;
/// How long a cluster may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

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
        Self::fresh_in(url.unwrap_or_else(shared))
    }

    /// A fresh one in a cluster of one server, which is shared by all test processes and stops by
    /// itself.
    #[must_use]
    pub fn in_cluster() -> Self {
        // Held until the process ends: that is what says that somebody uses the server.
        static SERVER: OnceLock<Running> = OnceLock::new();
        let server = SERVER.get_or_init(|| {
            let dir = home("redis-cluster");
            // Processes may come at once: what they write is the same.
            fs::write(dir.join(SETTINGS), CLUSTER).expect("the directory is ours");
            let server = Running::join(dir, &SHARED);
            // An answer that they are taken is as good.
            ask(server.port, "CLUSTER ADDSLOTSRANGE 0 16383");
            wait_for_cluster(server.port);
            server
        });
        Self::fresh_in(format!("redis+cluster://127.0.0.1:{}", server.port))
    }

    fn fresh_in(url: String) -> Self {
        let prefix = format!("docg-test:{}:", Uuid::new_v4().simple());
        Self { url, prefix }
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

    /// Starts one with more settings, lines as in `redis.conf`, given its directory; `{port}` stands
    /// for its port, `{tls-port}` for another one that is free.
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

    /// Where it listens for TLS, if its settings have a port for that beside the other one.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        port_of(&self.0.dir, "tls-port ")
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

    /// Empties it, as an operator's `FLUSHALL` does.
    pub fn flush(&self) {
        let mut connection =
            TcpStream::connect(("127.0.0.1", self.0.port)).expect("the server listens");
        let mut answer = [0; 5];
        connection
            .write_all(b"FLUSHALL\r\n")
            .and_then(|()| connection.read_exact(&mut answer))
            .expect("the server answers");
        assert_eq!(&answer, b"+OK\r\n");
    }

    /// Makes it a replica of another one, and returns once it has what that one has.
    pub fn follow(&self, primary: &Self) {
        let follow = format!("REPLICAOF 127.0.0.1 {}", primary.port());
        assert_eq!(ask(self.port(), &follow), "+OK");
        primary.wait_for_a_replica();
    }

    /// Makes it a primary again, with what it has.
    pub fn promote(&self) {
        assert_eq!(ask(self.port(), "REPLICAOF NO ONE"), "+OK");
    }

    fn meet(&self, other: &Self) {
        let bus = port_of(&other.0.dir, "cluster-port ");
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port());
        ask(self.port(), &meet);
    }

    fn wait_for_a_replica(&self) {
        let wait = format!("WAIT 1 {}", PATIENCE.as_millis());
        assert_eq!(ask(self.port(), &wait), ":1", "no replica comes");
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

/// A cluster of one test's own, which it may break. It is gone with this value.
#[derive(Debug)]
pub struct PrivateCluster(Vec<PrivateServer>);

impl PrivateCluster {
    /// Starts one of so many servers, each with its share of the slots.
    #[must_use]
    pub fn start(servers: u16) -> Self {
        Self::start_with(servers, |_| String::new())
    }

    /// Starts one of servers with more settings, as [`PrivateServer::start_with`] takes them.
    #[must_use]
    pub fn start_with(servers: u16, settings: impl Fn(&Path) -> String) -> Self {
        let start = |_| PrivateServer::start_with(|dir| format!("{CLUSTER}{}", settings(dir)));
        let nodes: Vec<_> = (0..servers).map(start).collect();
        let share = SLOTS.div_ceil(servers);
        for (node, first) in nodes.iter().zip((0..SLOTS).step_by(share.into())) {
            let last = SLOTS.min(first + share) - 1;
            ask(
                node.port(),
                &format!("CLUSTER ADDSLOTSRANGE {first} {last}"),
            );
            node.meet(&nodes[0]);
        }
        nodes.iter().for_each(|node| wait_for_cluster(node.port()));
        Self(nodes)
    }

    /// Starts a replica of one of its servers, which has what that one has.
    #[must_use]
    pub fn replica_of(&self, primary: &PrivateServer) -> PrivateServer {
        let replica = PrivateServer::start_with(|_| CLUSTER.to_owned());
        self.0.iter().for_each(|server| replica.meet(server));
        // It knows them, and which slots are whose.
        wait_for_cluster(replica.port());
        let id = ask(primary.port(), "CLUSTER MYID");
        let follow = format!("CLUSTER REPLICATE {id}");
        assert_eq!(ask(replica.port(), &follow), "+OK");
        primary.wait_for_a_replica();
        replica
    }

    /// Its servers.
    #[must_use]
    pub fn servers(&self) -> &[PrivateServer] {
        &self.0
    }

    /// How to connect to it, by its first server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.0[0].port())
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
    let data = dir.join("data");
    let mut settings = format!(
        "port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\nmaxclients 2000\n\
         repl-diskless-sync-delay 0\ndir {}\n",
        data.display()
    );
    let more = fs::read_to_string(dir.join(SETTINGS)).unwrap_or_default();
    if more.contains("cluster-enabled") {
        // By itself it takes one that is 10000 higher, which may not exist.
        settings.push_str(&format!("cluster-port {}\n", ports::reserve()));
    }
    let more = more
        .replace("{port}", &port.to_string())
        .replace("{tls-port}", &ports::reserve().to_string());
    // Later lines win.
    settings.push_str(&more);
    let file = dir.join("redis.conf");
    fs::write(&file, settings).expect("the directory is ours");
    vec![program().into(), file.into()]
}

/// A port that a server's settings name.
fn port_of(dir: &Path, name: &str) -> u16 {
    let settings = fs::read_to_string(dir.join("redis.conf")).expect("was written");
    let port = settings.lines().find_map(|line| line.strip_prefix(name));
    port.and_then(|port| port.parse().ok())
        .expect("its settings have it")
}

/// Servers say that the cluster is down until all slots are served, and for a moment after.
fn wait_for_cluster(port: u16) {
    let patience = Instant::now() + PATIENCE;
    while ask(port, "SET docg-test:cluster up EX 60").starts_with("-CLUSTERDOWN") {
        assert!(Instant::now() < patience, "the cluster does not come up");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The first line of what a server answers, after its length if it has one.
fn ask(port: u16, question: &str) -> String {
    let answer = || {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        writeln!(connection, "{question}\r")?;
        let mut answers = BufReader::new(connection);
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        if answer.starts_with('$') {
            answer.clear();
            answers.read_line(&mut answer)?;
        }
        Ok::<_, std::io::Error>(answer.trim().to_owned())
    };
    answer().expect("the server answers")
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
