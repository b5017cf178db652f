//! Connections to one server or to a cluster.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    InfoDict, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use crate::{
    config::{ConfigError, RedisConfig},
    error::Error,
    firehose::last_entry,
    history::{info, replication_id},
};

/// The certificate authorities that the client trusts, and the client's own certificate with its key.
#[cfg(feature = "tls")]
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "tls")]
impl From<Certificates> for redis::TlsCertificates {
    fn from(Certificates { root, client }: Certificates) -> Self {
        let client_tls = client.map(|(client_cert, client_key)| redis::ClientTlsConfig {
            client_cert,
            client_key,
        });
        Self {
            client_tls,
            root_cert: root,
        }
    }
}

#[cfg(feature = "tls")]
fn is_tls(node: &ConnectionInfo) -> bool {
    matches!(node.addr(), ConnectionAddr::TcpTls { .. })
}

/// Makes connections to the configured server or cluster.
pub(crate) struct Connector {
    /// The server, or the cluster nodes, that the URL names.
    servers: Vec<Client>,
    #[cfg(feature = "cluster")]
    cluster: Option<redis::cluster::ClusterClient>,
    /// The timeout of a command.
    answer: Duration,
    /// The timeout of connecting. It is longer than that of a command, because connecting takes several
    /// answers and no caller waits for it.
    connect: Duration,
}

/// A connection that many callers may use at once; clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    Server(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Connector {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, ConfigError> {
        let servers: Result<_, _> = config
            .nodes
            .iter()
            .map(|node| client(config, node))
            .collect();
        Ok(Self {
            servers: servers?,
            #[cfg(feature = "cluster")]
            cluster: config.is_cluster.then(|| cluster(config)).transpose()?,
            answer: config.timeout,
            connect: config.timeout * 4,
        })
    }

    /// Connects, and waits until the server answers. Returns the replication id of a single server; a
    /// cluster's connection leads to many servers, so it has none.
    pub(crate) async fn connect(&self) -> Result<(Connection, Option<Arc<str>>), Error> {
        let connect = async {
            let mut connection = self.open().await?;
            let replication_id = match &mut connection {
                Connection::Server(server) => {
                    // Send PING too: a server that loads its data answers INFO, but refuses PING.
                    let mut questions = info();
                    questions.cmd("PING").ignore();
                    let (replication, itself): (InfoDict, InfoDict) =
                        questions.query_async(server).await?;
                    Some(replication_id(&replication, &itself)?)
                }
                #[cfg(feature = "cluster")]
                Connection::Cluster(cluster) => {
                    redis::cmd("PING").query_async::<()>(cluster).await?;
                    None
                }
            };
            Ok((connection, replication_id))
        };
        tokio::time::timeout(self.connect * self.rounds(), connect)
            .await
            .unwrap_or(Err(Error::TimedOut))
    }

    /// The time limit for connecting, as a multiple of the connect timeout. A cluster client connects to the
    /// nodes of the URL at once, then to the nodes that they report. A node that does not answer takes up a
    /// whole timeout.
    fn rounds(&self) -> u32 {
        #[cfg(feature = "cluster")]
        if self.cluster.is_some() {
            return 4;
        }
        1
    }

    async fn open(&self) -> RedisResult<Connection> {
        #[cfg(feature = "cluster")]
        if let Some(client) = &self.cluster {
            let config = redis::cluster::ClusterConfig::new()
                .set_connection_timeout(self.connect)
                .set_response_timeout(self.answer);
            let connection = client.get_async_connection_with_config(config);
            return connection.await.map(Connection::Cluster);
        }
        let connection = self.open_server(&self.servers[0], Duration::ZERO);
        connection.await.map(Connection::Server)
    }

    /// Connects to the one server that owns a key. A cluster client's connection would silently switch to
    /// another server if the key moved. `waits` is the longest time for which a command on this connection
    /// blocks on purpose, as `XREAD` does.
    pub(crate) async fn connect_to_owner(
        &self,
        key: &str,
        waits: Duration,
    ) -> Result<MultiplexedConnection, Error> {
        let mut reason = Error::TimedOut;
        for server in &self.servers {
            let owner = self.open_owner(server, key, waits);
            match tokio::time::timeout(self.connect, owner).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => reason = error.into(),
                Err(_) => reason = Error::TimedOut,
            }
        }
        Err(reason)
    }

    async fn open_owner(
        &self,
        server: &Client,
        key: &str,
        waits: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.open_server(server, waits).await?;
        match last_entry(key).query_async(&mut connection).await {
            Ok(()) => Ok(connection),
            // Follow one redirect only. While the key's slot moves to another server, the second server may
            // refuse the key, too; then the reader of the stream connects again.
            Err(error) => match error.redirect_node() {
                Some((address, _)) => self.open_server(&at(server, address)?, waits).await,
                None => Err(error),
            },
        }
    }

    async fn open_server(
        &self,
        server: &Client,
        waits: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.answer + waits));
        server
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

/// A client with the settings of `server`, for another address in its cluster. If the address has no host,
/// because a node does not know its own, the host of `server` is used.
fn at(server: &Client, address: &str) -> RedisResult<Client> {
    let unreadable = || RedisError::from((ErrorKind::Parse, "an address that cannot be read"));
    let (to, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
    let port = port.parse().map_err(|_| unreadable())?;
    let named = |host: String| if to.is_empty() { host } else { to.to_owned() };
    let info = server.get_connection_info().clone();
    let addr = match info.addr().clone() {
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(named(host), port),
        ConnectionAddr::TcpTls {
            host,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: named(host),
            port,
            insecure,
            tls_params,
        },
        _ => return Err(unreadable()),
    };
    Client::open(info.set_addr(addr))
}

const UNUSABLE: ConfigError = ConfigError::Url("cannot be used");

#[cfg(not(feature = "tls"))]
fn client(_: &RedisConfig, node: &ConnectionInfo) -> Result<Client, ConfigError> {
    Client::open(node.clone()).map_err(|_| UNUSABLE)
}

#[cfg(feature = "tls")]
fn client(config: &RedisConfig, node: &ConnectionInfo) -> Result<Client, ConfigError> {
    if !is_tls(node) {
        return Client::open(node.clone()).map_err(|_| UNUSABLE);
    }
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The Redis client uses the process's default provider of cryptography. An error means that another
        // thread set a provider first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let certificates = config.certificates.clone().into();
    Client::build_with_tls(node.clone(), certificates).map_err(|_| ConfigError::Setting {
        name: "the certificates for Redis",
        problem: "cannot be used; they and the key must be PEM",
    })
}

#[cfg(feature = "cluster")]
fn cluster(config: &RedisConfig) -> Result<redis::cluster::ClusterClient, ConfigError> {
    let builder = redis::cluster::ClusterClient::builder(config.nodes.clone());
    #[cfg(feature = "tls")]
    let builder = if is_tls(&config.nodes[0]) {
        builder.certs(config.certificates.clone().into())
    } else {
        builder
    };
    // More retries would take longer than any caller waits.
    builder
        .retries(2)
        .tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true))
        .overall_response_timeout(None)
        .build()
        .map_err(|_| UNUSABLE)
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(cmd),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A server that holds a part of the keys.
pub(crate) enum Node {
    /// The only server, which holds all keys.
    Only,
    #[cfg(feature = "cluster")]
    At { host: String, port: u16 },
}

/// The servers that together hold all keys.
pub(crate) async fn primaries(connection: Connection) -> RedisResult<Vec<Node>> {
    match connection {
        Connection::Server(_) => Ok(vec![Node::Only]),
        #[cfg(feature = "cluster")]
        Connection::Cluster(mut connection) => {
            // Each range of slots is a list: first slot, last slot, primary, replicas. Each server in the
            // list is a list too: host, port, and more.
            let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER")
                .arg("SLOTS")
                .query_async(&mut connection)
                .await?;
            let mut primaries = Vec::new();
            for primary in ranges
                .into_iter()
                .filter_map(|range| range.into_iter().nth(2))
            {
                let mut primary: Vec<Value> = redis::from_redis_value(primary)?;
                primary.truncate(2);
                let address: (String, u16) = redis::from_redis_value(Value::Array(primary))?;
                primaries.push(address);
            }
            primaries.sort();
            primaries.dedup();
            let node = |(host, port)| Node::At { host, port };
            Ok(primaries.into_iter().map(node).collect())
        }
    }
}

impl Connection {
    /// Sends commands to one server, about keys that this server holds.
    pub(crate) async fn ask_node<T: FromRedisValue>(
        &mut self,
        node: &Node,
        pipeline: Pipeline,
    ) -> RedisResult<T> {
        match (self, node) {
            #[cfg(feature = "cluster")]
            (Self::Cluster(connection), Node::At { host, port }) => {
                use redis::cluster_routing::SingleNodeRoutingInfo;
                let count = pipeline.len();
                let route = SingleNodeRoutingInfo::ByAddress {
                    host: host.clone(),
                    port: *port,
                };
                let answers = connection.route_pipeline(pipeline, 0, count, route).await?;
                Ok(redis::from_redis_value(Value::Array(answers))?)
            }
            (connection, _) => pipeline.query_async(connection).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use docg_test_servers::redis::PrivateServer;

    use super::*;

    #[tokio::test]
    async fn a_server_that_is_loading_its_data_is_not_there_yet() {
        let slow = "key-load-delay 10000\nloading-process-events-interval-bytes 1024\n";
        let server = PrivateServer::start_with(|_| format!("{slow}rdbcompression no\n"));
        let client = Client::open(server.url()).expect("is a URL");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("connects");
        let fill = "for key = 1, 1000 do redis.call('SET', key, string.rep('x', 1000)) end";
        let mut fill_and_save = redis::pipe();
        fill_and_save.cmd("EVAL").arg(fill).arg(0).cmd("SAVE");
        let filled: RedisResult<()> = fill_and_save.query_async(&mut connection).await;
        filled.expect("fills it");
        server.kill();
        server.start_again();
        let config = RedisConfig::new(&server.url()).expect("is a URL");
        let config = config.timeout(Duration::from_secs(5));
        let connector = Connector::new(&config).expect("is a configuration");
        let reason = connector
            .connect()
            .await
            .err()
            .map(|error| error.to_string());
        assert_eq!(reason.as_deref(), Some("Redis refuses: LOADING"));
    }
}
