//! What keeps executions and carries their events: this process's memory, or Postgres and Redis.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use docg_bus_redis::{ConfigError, RedisBus, RedisConfig};
use docg_core::ports::{EventBus, Store, StoreError};
use docg_http::{BusProbe, BusState};
use docg_store_memory::{MemoryBus, MemoryStore};
use docg_store_postgres::{PgStore, PgStoreConfig};
use tokio_util::sync::CancellationToken;

use crate::options::Options;

/// How often what was left behind in Redis is given an end.
const CLEANUP: Duration = Duration::from_secs(24 * 3600);

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The database cannot be used.
    #[error("--database-url: {0}")]
    Database(StoreError),
    /// The URL of Redis, or a setting, is wrong.
    #[error("--redis-url: {0}")]
    Redis(ConfigError),
}

/// The adapters that the options ask for.
pub struct Backend {
    /// Keeps executions.
    pub store: Arc<dyn Store>,
    /// Carries events.
    pub bus: Arc<dyn EventBus>,
    redis: Option<Arc<RedisBus>>,
}

impl Backend {
    /// Opens what the options name. The database is brought up to date unless they say otherwise.
    /// Redis need not be up.
    ///
    /// # Errors
    ///
    /// [`BackendError`], each by its option.
    pub async fn open(options: &Options) -> Result<Self, BackendError> {
        let redis = match &options.redis_url {
            Some(url) => Some(Arc::new(open_redis(url).map_err(BackendError::Redis)?)),
            None => None,
        };
        let store: Arc<dyn Store> = match &options.database_url {
            Some(url) => {
                let store = connect(url, options).await?;
                if !options.no_migrate {
                    store.migrate().await.map_err(BackendError::Database)?;
                }
                Arc::new(store)
            }
            None => Arc::<MemoryStore>::default(),
        };
        let bus: Arc<dyn EventBus> = match &redis {
            Some(redis) => Arc::clone(redis) as _,
            None => Arc::<MemoryBus>::default(),
        };
        Ok(Self { store, bus, redis })
    }

    /// How the bus is.
    #[must_use]
    pub fn probe(&self) -> Option<Arc<dyn BusProbe>> {
        let redis = self.redis.clone()?;
        Some(Arc::new(RedisProbe(redis)))
    }

    /// Looks after the bus until it is told to stop.
    pub fn look_after(&self, stop: CancellationToken) {
        let Some(redis) = self.redis.clone() else {
            return;
        };
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                match redis.cleanup().await {
                    Ok(cleaned) => tracing::debug!("Redis was cleaned up: {cleaned:?}"),
                    Err(e) => tracing::warn!("Redis will be cleaned up later: {e}"),
                }
                tokio::time::sleep(CLEANUP).await;
            }
        }));
    }
}

/// Connects to the database of the options.
///
/// # Errors
///
/// [`BackendError::Database`].
pub async fn connect(url: &str, options: &Options) -> Result<PgStore, BackendError> {
    // Commits go together, so a few connections serve many executions.
    let connections = (8 + options.concurrency / 8).min(32);
    let config = PgStoreConfig::default().max_connections(connections);
    PgStore::connect(url, config)
        .await
        .map_err(BackendError::Database)
}

fn open_redis(url: &str) -> Result<RedisBus, ConfigError> {
    let config = RedisConfig::new(url)?.vars(|name| std::env::var(name).ok())?;
    RedisBus::open(config)
}

struct RedisProbe(Arc<RedisBus>);

#[async_trait]
impl BusProbe for RedisProbe {
    async fn state(&self) -> BusState {
        match self.0.ping().await {
            Ok(()) => BusState::Connected,
            Err(_) => BusState::Disconnected,
        }
    }
}
