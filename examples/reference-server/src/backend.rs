//! The store and the bus: this process's memory, or Postgres and Redis.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use docg_bus_redis::{ConfigError, RedisBus, RedisConfig};
use docg_core::{
    ports::{EventBus, Store, StoreError, TtlEntry, TtlKey},
    time::Timestamp,
};
use docg_http::{BusProbe, BusState};
use docg_store_memory::{MemoryBus, MemoryStore};
use docg_store_postgres::{CheckpointKey, PgStore, PgStoreConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    builtin_signature::Secret,
    checkpoints::Checkpoints,
    options::{self, Options},
};

/// The interval at which streams in Redis that lack a TTL are given one.
const CLEANUP: Duration = Duration::from_secs(24 * 3600);

/// The reason why the store or the bus cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The database cannot be used.
    #[error("--database-url: {0}")]
    Database(StoreError),
    /// The URL of Redis or one of its settings is wrong.
    #[error("--redis-url: {0}")]
    Redis(ConfigError),
    /// Other servers of the database sign with another key.
    #[error(
        "--data-dir {0}: signature.key is not the key of the other servers of this database, which would \
         refuse the links of this one. Share the data directory, or copy signature.key from theirs. To change \
         the key on purpose, stop all servers and start one with --accept-new-key"
    )]
    OtherKey(String),
}

/// The store and the bus that the options select.
pub struct Backend {
    /// The store of executions.
    pub store: Arc<dyn Store>,
    /// The bus of events.
    pub bus: Arc<dyn EventBus>,
    redis: Option<Arc<RedisBus>>,
    database: Option<Arc<PgStore>>,
    checkpoints: Checkpoints,
}

impl Backend {
    /// Opens the store and the bus that the options name. Unless the options say otherwise, the database
    /// schema is migrated. Redis need not be up.
    ///
    /// # Errors
    ///
    /// [`BackendError`] names the option that is wrong.
    pub async fn open(options: &Options) -> Result<Self, BackendError> {
        let redis = match &options.redis_url {
            Some(url) => Some(Arc::new(
                open_redis(url.expose()).map_err(BackendError::Redis)?,
            )),
            None => None,
        };
        let database = match &options.database_url {
            Some(url) => Some(Arc::new(connect(url.expose(), options).await?)),
            None => None,
        };
        if let Some(database) = database.as_ref().filter(|_| !options.no_migrate) {
            database.migrate().await.map_err(BackendError::Database)?;
        }
        let store: Arc<dyn Store> = match &database {
            Some(database) => Arc::clone(database) as _,
            None => Arc::<MemoryStore>::default(),
        };
        let bus: Arc<dyn EventBus> = match &redis {
            Some(redis) => Arc::clone(redis) as _,
            None => Arc::<MemoryBus>::default(),
        };
        Ok(Self {
            store,
            bus,
            redis,
            database,
            checkpoints: Checkpoints::of(&options.data_dir),
        })
    }

    /// Makes sure that all servers of a database use one key. The first server stores the key's fingerprint
    /// in the database, and later servers must have that key. With `accept_new_key`, the fingerprint of this
    /// server's key replaces the stored one.
    ///
    /// # Errors
    ///
    /// [`BackendError::OtherKey`] if the keys differ; `Database` if the fingerprint cannot be read or stored.
    pub async fn share_key(&self, secret: &Secret, options: &Options) -> Result<(), BackendError> {
        if self.database.is_none() {
            return Ok(());
        }
        let entry = TtlEntry {
            key: TtlKey {
                organization_id: None,
                kind: "installation",
                key: "signature.key".to_owned(),
            },
            value: secret.fingerprint().into(),
            expires_at: Timestamp::MAX,
        };
        if options.accept_new_key {
            let replaced = self.store.replace(entry).await;
            return replaced.map_err(BackendError::Database);
        }
        let noted = self.store.remember(entry.clone(), Timestamp::now()).await;
        match noted.map_err(BackendError::Database)? {
            Some(noted) if noted.value != entry.value => {
                let folder = options.data_dir.display().to_string();
                Err(BackendError::OtherKey(folder))
            }
            _ => Ok(()),
        }
    }

    /// The health probe of the bus. `None` without Redis.
    #[must_use]
    pub fn probe(&self) -> Option<Arc<dyn BusProbe>> {
        let redis = self.redis.clone()?;
        Some(Arc::new(RedisProbe(redis)))
    }

    /// Maintains the store and the bus until `stop` is cancelled: gives streams in Redis their TTL, and signs
    /// checkpoints of audit trails. The returned task ends after the last checkpoint.
    pub fn look_after(&self, secret: &Secret, stop: &CancellationToken) -> JoinHandle<()> {
        if let Some(redis) = self.redis.clone() {
            let work = clean_up(redis);
            tokio::spawn(stop.clone().run_until_cancelled_owned(work));
        }
        let (checkpoints, database) = (self.checkpoints.clone(), self.database.clone());
        let (key, stop) = (checkpoint_key(secret), stop.clone());
        tokio::spawn(async move {
            if let Some(database) = database {
                checkpoints.keep(database, key, stop).await;
            }
        })
    }
}

async fn clean_up(redis: Arc<RedisBus>) {
    loop {
        match redis.cleanup().await {
            Ok(cleaned) => tracing::debug!("Redis was cleaned up: {cleaned:?}"),
            Err(e) => tracing::warn!("Redis will be cleaned up later: {e}"),
        }
        tokio::time::sleep(CLEANUP).await;
    }
}

/// The key with which this installation signs checkpoints.
#[must_use]
pub fn checkpoint_key(secret: &Secret) -> CheckpointKey {
    CheckpointKey::from_seed(secret.checkpoint_seed())
}

/// The maximum number of connections to the database. Commits share transactions, so a few connections
/// serve many executions.
pub(crate) fn connections(options: &Options) -> u32 {
    let enough = (8 + options.concurrency / 8).min(32);
    options.database_connections.unwrap_or(enough)
}

/// Connects to the database with the options' settings.
///
/// # Errors
///
/// [`BackendError::Database`].
pub async fn connect(url: &str, options: &Options) -> Result<PgStore, BackendError> {
    let config = PgStoreConfig::default().max_connections(connections(options));
    PgStore::connect(url, config)
        .await
        .map_err(BackendError::Database)
}

pub(crate) fn open_redis(url: &str) -> Result<RedisBus, ConfigError> {
    let config = RedisConfig::new(url)?.vars(options::variable)?;
    RedisBus::open(config)
}

struct RedisProbe(Arc<RedisBus>);

#[async_trait]
impl BusProbe for RedisProbe {
    async fn state(&self) -> BusState {
        match self.0.check().await {
            Ok(()) => BusState::Connected,
            Err(_) => BusState::Disconnected,
        }
    }
}
