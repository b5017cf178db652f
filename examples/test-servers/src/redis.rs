//! Redis: a key prefix for each test, and servers that a test may break.

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

/// The file with a server's extra settings, in its directory.
const SETTINGS: &str = "more.conf";
/// The settings that make a server a cluster node.
const CLUSTER: &str = "cluster-enabled yes\ncluster-announce-ip 127.0.0.1\n";
const SLOTS: u16 = 16_384;
/// The time limit for the start of a cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that all tests share. Its grace period bridges the moments in which no process uses it.
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

/// A key prefix that only one test uses. Its keys disappear when their TTL expires or when the server ends.
#[derive(Debug, Clone)]
pub struct Keyspace {
    url: String,
    prefix: String,
}

impl Keyspace {
    /// A fresh prefix, on the server of `REDIS_URL`, or else on a server that all test processes share and
    /// that stops by itself.
    #[must_use]
    pub fn fresh() -> Self {
        let url = env::var("REDIS_URL").ok().filter(|url| !url.is_empty());
        Self::fresh_in(url.unwrap_or_else(shared))
    }

    /// A fresh prefix in a cluster of one server. All test processes share the cluster, and it stops by
    /// itself.
    #[must_use]
    pub fn in_cluster() -> Self {
        // Keep the server's lock until this process ends: it shows that the server is in use.
        static SERVER: OnceLock<Running> = OnceLock::new();
        let server = SERVER.get_or_init(|| {
            let dir = home("redis-cluster");
            // Several processes may write at once; they write the same text.
            fs::write(dir.join(SETTINGS), CLUSTER).expect("the directory is ours");
            let server = Running::join(dir, &SHARED);
            // Ignore the answer: the slots may already be assigned.
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

    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The prefix of the test's keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// A server for one test, which may break it. It stores nothing on disk, and ends when this value is dropped.
#[derive(Debug)]
pub struct PrivateServer(Running);

impl PrivateServer {
    /// Starts a server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// Starts a server with more settings: lines as in `redis.conf`, which `settings` makes for the server's
    /// directory. `{port}` stands for the server's port, `{tls-port}` for another free port.
    #[must_use]
    pub fn start_with(settings: impl FnOnce(&Path) -> String) -> Self {
        let dir = home(&format!("redis-{}", Uuid::new_v4().simple()));
        fs::write(dir.join(SETTINGS), settings(&dir)).expect("the directory is ours");
        Self(Running::join(dir, &PRIVATE))
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The port for TLS, if the settings have a second port for it.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        port_of(&self.0.dir, "tls-port ")
    }

    /// The URL without TLS.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.0.port)
    }

    /// Kills the server, as a crash would.
    pub fn kill(&self) {
        self.0.end("KILL");
    }

    /// Deletes all data, like an operator's `FLUSHALL`.
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

    /// Makes this server a replica of `primary`. Returns once the replica has the primary's data.
    pub fn follow(&self, primary: &Self) {
        let follow = format!("REPLICAOF 127.0.0.1 {}", primary.port());
        assert_eq!(ask(self.port(), &follow), "+OK");
        primary.wait_for_a_replica();
    }

    /// Makes this server a primary again, with the data that it has.
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

    /// Suspends the server: connections stay open, but get no answer.
    pub fn pause(&self) {
        self.0.signal("STOP");
    }

    /// Resumes the suspended server.
    pub fn resume(&self) {
        self.0.signal("CONT");
    }

    /// Restarts the server, empty and on the same port.
    pub fn start_again(&self) {
        self.0.start_again(&PRIVATE);
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // A suspended server reacts to no signal but `KILL`.
        self.0.end("KILL");
        self.0.remove();
    }
}

/// A cluster for one test, which may break it. It ends when this value is dropped.
#[derive(Debug)]
pub struct PrivateCluster(Vec<PrivateServer>);

impl PrivateCluster {
    /// Starts a cluster of this many servers, each with an equal share of the slots.
    #[must_use]
    pub fn start(servers: u16) -> Self {
        Self::start_with(servers, |_| String::new())
    }

    /// Starts a cluster whose servers have more settings, as in [`PrivateServer::start_with`].
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

    /// Starts a replica of `primary`, a server of the cluster. Returns once the replica has the primary's
    /// data.
    #[must_use]
    pub fn replica_of(&self, primary: &PrivateServer) -> PrivateServer {
        let replica = PrivateServer::start_with(|_| CLUSTER.to_owned());
        self.0.iter().for_each(|server| replica.meet(server));
        // Wait until the replica knows the other servers and their slots.
        wait_for_cluster(replica.port());
        let id = ask(primary.port(), "CLUSTER MYID");
        let follow = format!("CLUSTER REPLICATE {id}");
        assert_eq!(ask(replica.port(), &follow), "+OK");
        primary.wait_for_a_replica();
        replica
    }

    /// The servers of the cluster.
    #[must_use]
    pub fn servers(&self) -> &[PrivateServer] {
        &self.0
    }

    /// The URL of the cluster, by its first server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.0[0].port())
    }
}

fn shared() -> String {
    // Keep the server's lock until this process ends: it shows that the server is in use.
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
        // Choose the port of the cluster bus: the default is the port plus 10000, which may not be a valid
        // port.
        settings.push_str(&format!("cluster-port {}\n", ports::reserve()));
    }
    let more = more
        .replace("{port}", &port.to_string())
        .replace("{tls-port}", &ports::reserve().to_string());
    // Later lines override earlier ones.
    settings.push_str(&more);
    let file = dir.join("redis.conf");
    fs::write(&file, settings).expect("the directory is ours");
    vec![program().into(), file.into()]
}

/// Reads a port from a server's settings.
fn port_of(dir: &Path, name: &str) -> u16 {
    let settings = fs::read_to_string(dir.join("redis.conf")).expect("was written");
    let port = settings.lines().find_map(|line| line.strip_prefix(name));
    port.and_then(|port| port.parse().ok())
        .expect("its settings have it")
}

/// Waits until the cluster is up. Its servers report it as down until all slots are served, and for a moment
/// longer.
fn wait_for_cluster(port: u16) {
    let patience = Instant::now() + PATIENCE;
    while ask(port, "SET docg-test:cluster up EX 60").starts_with("-CLUSTERDOWN") {
        assert!(Instant::now() < patience, "the cluster does not come up");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a command to a server. Returns the first line of the answer, without the length line that may
/// precede it.
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
