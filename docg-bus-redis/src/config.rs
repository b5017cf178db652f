//! The configuration: the address of Redis, and a bound for everything that grows.

use std::{fmt, num::NonZeroU64, time::Duration};

use redis::{ConnectionInfo, IntoConnectionInfo};

/// The address of Redis, and how much the bus keeps there.
///
/// ```
/// # fn main() -> Result<(), docg_bus_redis::ConfigError> {
/// use docg_bus_redis::RedisConfig;
///
/// let config = RedisConfig::new("redis://docg:secret@127.0.0.1:6379/0")?.stream_maxlen(500);
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisConfig {
    pub(crate) nodes: Vec<ConnectionInfo>,
    pub(crate) is_cluster: bool,
    pub(crate) prefix: String,
    pub(crate) stream_maxlen: NonZeroU64,
    pub(crate) stream_ttl: Duration,
    pub(crate) firehose_maxlen: NonZeroU64,
    pub(crate) subscriber_buffer: usize,
    pub(crate) wake_buffer: usize,
    pub(crate) timeout: Duration,
    pub(crate) block: Duration,
    #[cfg(feature = "tls")]
    pub(crate) certificates: crate::connect::Certificates,
}

/// The reason why a configuration is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL is not valid. The error does not repeat it, because it may contain a password.
    #[error("the Redis URL {0}")]
    Url(&'static str),
    /// The URL needs a feature that this program was built without.
    #[error(
        "the Redis URL begins with {scheme}, which needs docg-bus-redis with the feature `{feature}`"
    )]
    Feature {
        /// The URL's scheme.
        scheme: &'static str,
        /// The missing feature.
        feature: &'static str,
    },
    /// Another setting is not valid.
    #[error("{name} {problem}")]
    Setting {
        /// The name of the setting.
        name: &'static str,
        /// The problem, and the values that would be valid.
        problem: &'static str,
    },
}

const NO_URL: ConfigError = ConfigError::Url(
    "cannot be read; right would be redis://[user:password@]host[:port][/database], rediss://… \
     for TLS, or redis+cluster://host:port,host:port",
);
const NO_COUNT: &str = "must be a whole number from 1";

impl RedisConfig {
    /// Configures the server at a URL, with the defaults. Redis keeps a thousand events of each execution,
    /// for a day after its last event, and ten thousand events of all executions together. A reader may be
    /// 256 events behind, a listener for wake-ups 4096 wake-ups.
    ///
    /// A URL is `redis://[user:password@]host[:port][/database]`, or `rediss://…` with TLS (feature `tls`).
    /// For a cluster it is `redis+cluster://host:port,host:port` or `rediss+cluster://…`, with some of the
    /// cluster's nodes (feature `cluster`).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Url`] if the URL is not valid; [`ConfigError::Feature`] if it needs a missing feature.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let (nodes, is_cluster) = nodes(url)?;
        Ok(Self {
            nodes,
            is_cluster,
            prefix: "docg:".to_owned(),
            stream_maxlen: const { NonZeroU64::new(1_000).expect("is not zero") },
            stream_ttl: Duration::from_secs(86_400),
            firehose_maxlen: const { NonZeroU64::new(10_000).expect("is not zero") },
            subscriber_buffer: 256,
            wake_buffer: 4_096,
            timeout: Duration::from_millis(250),
            block: Duration::from_millis(500),
            #[cfg(feature = "tls")]
            certificates: crate::connect::Certificates::default(),
        })
    }

    /// Applies the variables `REDIS_STREAM_MAXLEN` (events) and `REDIS_STREAM_TTL` (seconds), if they are
    /// set. Pass `|name| std::env::var(name).ok()` to read the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] if a value is not a whole number from 1.
    pub fn vars(mut self, get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let count = |name: &'static str| match get(name).map(|value| value.trim().parse()) {
            None => Ok(None),
            Some(Ok(count)) => Ok(Some(count)),
            Some(Err(_)) => Err(ConfigError::Setting {
                name,
                problem: NO_COUNT,
            }),
        };
        if let Some(events) = count("REDIS_STREAM_MAXLEN")? {
            self.stream_maxlen = events;
        }
        if let Some(seconds) = count("REDIS_STREAM_TTL")? {
            let seconds: NonZeroU64 = seconds;
            self.stream_ttl = Duration::from_secs(seconds.get());
        }
        Ok(self)
    }

    /// Sets the prefix of all keys; `docg:` by default. Deployments that share a server need different
    /// prefixes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Setting`] if the prefix contains anything but ASCII letters, digits and `: . _ -`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Result<Self, ConfigError> {
        self.prefix = prefix.into();
        let is_fine = |c: char| c.is_ascii_alphanumeric() || ":._-".contains(c);
        if self.prefix.chars().all(is_fine) {
            Ok(self)
        } else {
            Err(ConfigError::Setting {
                name: "the prefix of Redis keys",
                problem: "may only have ASCII letters, digits and : . _ -",
            })
        }
    }

    /// Sets how many events of an execution are kept; at least one. Redis keeps up to about a hundred more,
    /// because exact trimming costs more.
    #[must_use]
    pub fn stream_maxlen(mut self, events: u64) -> Self {
        self.stream_maxlen = at_least_one(events);
        self
    }

    /// Sets how long an execution's events are kept after the last of them, in whole seconds.
    #[must_use]
    pub fn stream_ttl(mut self, ttl: Duration) -> Self {
        self.stream_ttl = Duration::from_secs(ttl.as_secs().max(1));
        self
    }

    /// Sets how many events of all executions together are kept, for readers of organization streams that
    /// reconnect.
    #[must_use]
    pub fn firehose_maxlen(mut self, events: u64) -> Self {
        self.firehose_maxlen = at_least_one(events);
        self
    }

    /// Sets how many events a live reader may be behind before it is cut off.
    #[must_use]
    pub fn subscriber_buffer(mut self, events: usize) -> Self {
        self.subscriber_buffer = events.max(1);
        self
    }

    /// Sets how many wake-ups a listener may be behind before it misses some.
    #[must_use]
    pub fn wake_buffer(mut self, wakes: usize) -> Self {
        self.wake_buffer = wakes.max(1);
        self
    }

    /// Sets how long an answer of Redis may take; 250 ms by default. After that the bus treats Redis as down,
    /// and calls fail at once until Redis answers again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sets how long the reading connection waits for new entries before it checks the server; 500 ms by
    /// default. A server that hangs is noticed after this time plus the timeout.
    #[must_use]
    pub fn block(mut self, block: Duration) -> Self {
        // Zero would mean to wait forever.
        self.block = block.max(Duration::from_millis(1));
        self
    }

    /// Sets the only certificate authorities that the client trusts for the server, as PEM; by default it
    /// trusts the system's.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.root = Some(pem.into());
        self
    }

    /// Sets the certificate and key, as PEM, with which this client authenticates to the server.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.client = Some((certificate.into(), key.into()));
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.addr().to_string())
            .collect();
        f.debug_struct("RedisConfig")
            .field("nodes", &nodes)
            .field("is_cluster", &self.is_cluster)
            .field("prefix", &self.prefix)
            .field("stream_maxlen", &self.stream_maxlen)
            .field("stream_ttl", &self.stream_ttl)
            .field("firehose_maxlen", &self.firehose_maxlen)
            .field("subscriber_buffer", &self.subscriber_buffer)
            .field("wake_buffer", &self.wake_buffer)
            .field("timeout", &self.timeout)
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

fn at_least_one(count: u64) -> NonZeroU64 {
    NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN)
}

/// The servers that a URL names, and true if they are a cluster's nodes.
fn nodes(url: &str) -> Result<(Vec<ConnectionInfo>, bool), ConfigError> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(NO_URL)?;
    let (scheme, is_cluster) = match scheme {
        "redis" | "unix" => (scheme, false),
        "rediss" if cfg!(feature = "tls") => (scheme, false),
        "redis+cluster" if cfg!(feature = "cluster") => ("redis", true),
        "rediss+cluster" if cfg!(all(feature = "cluster", feature = "tls")) => ("rediss", true),
        "rediss" => return Err(missing("rediss://", "tls")),
        "redis+cluster" => return Err(missing("redis+cluster://", "cluster")),
        "rediss+cluster" => return Err(missing("rediss+cluster://", "cluster` and `tls")),
        _ => return Err(NO_URL),
    };
    let node = |url: &str| {
        let info = url.into_connection_info().map_err(|_| NO_URL)?;
        Ok(info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true)))
    };
    if !is_cluster {
        return Ok((vec![node(&format!("{scheme}://{rest}"))?], false));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = authority
        .rfind('@')
        .map_or(("", authority), |at| authority.split_at(at + 1));
    let nodes: Result<Vec<_>, _> = hosts
        .split(',')
        .map(|host| node(&format!("{scheme}://{user}{host}{path}")))
        .collect();
    let nodes = nodes?;
    if nodes.iter().any(|node| node.redis_settings().db() != 0) {
        return Err(ConfigError::Url("names a database; a cluster has only 0"));
    }
    Ok((nodes, true))
}

fn missing(scheme: &'static str, feature: &'static str) -> ConfigError {
    ConfigError::Feature { scheme, feature }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_redis_url_is_refused_and_not_repeated() {
        for url in [
            "",
            "localhost:6379",
            "http://:secret@localhost",
            "redis://:secret@localhost:port",
            "redis://:secret@localhost/database",
        ] {
            let error = RedisConfig::new(url).expect_err(url).to_string();
            assert!(error.starts_with("the Redis URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        let config =
            RedisConfig::new("redis+cluster://docg:p%40ss@one:7000,two:7001").expect("is a URL");
        let nodes: Vec<_> = config
            .nodes
            .iter()
            .map(|node| (node.addr().to_string(), node.redis_settings().password()))
            .collect();
        let password = Some("p@ss");
        assert_eq!(
            nodes,
            [
                ("one:7000".to_owned(), password),
                ("two:7001".to_owned(), password)
            ]
        );
        assert!(config.is_cluster);
        assert!(!format!("{config:?}").contains("p@ss"));
        assert!(RedisConfig::new("redis+cluster://one:7000/2").is_err());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_missing_feature_is_named() {
        let error = RedisConfig::new("rediss://localhost").expect_err("has no TLS");
        assert_eq!(error, missing("rediss://", "tls"));
    }

    #[test]
    fn variables_set_the_bounds_and_wrong_ones_are_named() {
        let config = || RedisConfig::new("redis://localhost").expect("is a URL");
        let set = config()
            .vars(|name| Some(if name.ends_with("TTL") { "60" } else { " 20 " }.to_owned()))
            .expect("are numbers");
        assert_eq!(set.stream_maxlen.get(), 20);
        assert_eq!(set.stream_ttl, Duration::from_secs(60));
        let unset = config().vars(|_| None).expect("none is fine");
        assert_eq!(unset.stream_maxlen.get(), 1_000);
        for value in ["0", "-1", "many", ""] {
            let error = config()
                .vars(|name| name.ends_with("MAXLEN").then(|| value.to_owned()))
                .expect_err(value);
            assert_eq!(
                error.to_string(),
                "REDIS_STREAM_MAXLEN must be a whole number from 1"
            );
        }
    }

    #[test]
    fn a_prefix_has_no_characters_with_a_meaning() {
        let config = RedisConfig::new("redis://localhost").expect("is a URL");
        assert!(config.clone().prefix("app-1:docg:").is_ok());
        for prefix in ["{a}", "a*", "a b", "ä"] {
            assert!(config.clone().prefix(prefix).is_err(), "{prefix}");
        }
    }
}
