//! Connections to one server or to a cluster.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use crate::{
    config::{ConfigError, RedisConfig},
    error::Error,
};

/// Whom to trust, and who one is.
#[cfg(feature = "tls")]
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Makes connections.
pub(crate) struct Connector {
    target: Target,
    /// How long an answer may take.
    answer: Duration,
    /// How long connecting may take. It takes several answers, and nobody waits for it.
    connect: Duration,
}

#[allow(clippy::large_enum_variant, reason = "there are two in a process")]
enum Target {
    Server(Client),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster::ClusterClient),
}

/// A connection that many may use at once; a clone is the same connection.
#[derive(Clone)]
pub(crate) enum Connection {
    Server(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Connector {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            target: target(config)?,
            answer: config.timeout,
            connect: config.timeout * 4,
        })
    }

    /// Connects, and has the server answer. `waits` is how long commands on this connection may
    /// block on purpose.
    pub(crate) async fn connect(&self, waits: Duration) -> Result<Connection, Error> {
        let answer = self.answer + waits;
        let connect = async {
            let mut connection = match &self.target {
                Target::Server(client) => {
                    let config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(self.connect))
                        .set_response_timeout(Some(answer));
                    Connection::Server(
                        client
                            .get_multiplexed_async_connection_with_config(&config)
                            .await?,
                    )
                }
                #[cfg(feature = "cluster")]
                Target::Cluster(client) => {
                    let config = redis::cluster::ClusterConfig::new()
                        .set_connection_timeout(self.connect)
                        .set_response_timeout(answer);
                    Connection::Cluster(client.get_async_connection_with_config(config).await?)
                }
            };
            redis::cmd("PING")
                .query_async::<()>(&mut connection)
                .await?;
            Ok(connection)
        };
        tokio::time::timeout(self.connect, connect)
            .await
            .unwrap_or(Err(Error::TimedOut))
    }
}

#[cfg(not(feature = "tls"))]
fn target(config: &RedisConfig) -> Result<Target, ConfigError> {
    #[cfg(feature = "cluster")]
    if config.is_cluster {
        return cluster(redis::cluster::ClusterClient::builder(config.nodes.clone()));
    }
    Client::open(config.nodes[0].clone())
        .map(Target::Server)
        .map_err(|_| UNUSABLE)
}

#[cfg(feature = "tls")]
fn target(config: &RedisConfig) -> Result<Target, ConfigError> {
    let is_tls = matches!(config.nodes[0].addr(), redis::ConnectionAddr::TcpTls { .. });
    if is_tls && rustls::crypto::CryptoProvider::get_default().is_none() {
        // The driver takes the process's provider. An error means that another thread was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let certificates = redis::TlsCertificates {
        client_tls: config
            .certificates
            .client
            .clone()
            .map(|(client_cert, client_key)| redis::ClientTlsConfig {
                client_cert,
                client_key,
            }),
        root_cert: config.certificates.root.clone(),
    };
    #[cfg(feature = "cluster")]
    if config.is_cluster {
        let builder = redis::cluster::ClusterClient::builder(config.nodes.clone());
        return cluster(if is_tls {
            builder.certs(certificates)
        } else {
            builder
        });
    }
    let node = config.nodes[0].clone();
    if is_tls {
        Client::build_with_tls(node, certificates).map_err(|_| ConfigError::Setting {
            name: "the certificates for Redis",
            problem: "cannot be used; they and the key must be PEM",
        })
    } else {
        Client::open(node).map_err(|_| UNUSABLE)
    }
    .map(Target::Server)
}

const UNUSABLE: ConfigError = ConfigError::Url("cannot be used");

#[cfg(feature = "cluster")]
fn cluster(builder: redis::cluster::ClusterClientBuilder) -> Result<Target, ConfigError> {
    // More attempts would take longer than anybody waits.
    builder
        .retries(2)
        .tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true))
        .overall_response_timeout(None)
        .build()
        .map(Target::Cluster)
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

/// A server that holds keys of its own.
pub(crate) enum Node {
    /// There is only one.
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
            // Of each range of slots: its ends, then its primary and that one's replicas; of each of
            // these its host, its port and more.
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
    /// Asks one server some questions about its own keys.
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
