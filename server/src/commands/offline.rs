//! Data directories that no server has open, and the queues that feed them, for commands that look at
//! them or change them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::{PartitionId, ShardKey, TimestampMs};
use millrace_queue::{EmbeddedQueue, Producer, QueueIdentity, RecordSource};
use millrace_store::{Store, StoreOptions};
use prometheus::Registry;

use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;
use crate::lock::DirLock;
use crate::options;

/// Held as long as a command works on it.
#[derive(Debug)]
pub struct Offline {
    /// Where the files are.
    pub fs: Arc<dyn Fs>,
    /// The store's directory.
    pub store: PathBuf,
    _lock: DirLock,
}

impl Offline {
    /// Takes the lock of the configured data directory.
    ///
    /// # Errors
    ///
    /// A server has the directory.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        Self::open_dir(&config.top.data_dir)
    }

    /// Takes the lock of a data directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// A server has the directory.
    pub fn open_dir(data_dir: &Path) -> Result<Self, Failure> {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let holder = format!("pid {}, a command\n", std::process::id());
        let lock = DirLock::take(&fs, data_dir, &holder)?;
        Ok(Self {
            store: data_dir.join("store"),
            fs,
            _lock: lock,
        })
    }

    /// Opens the shards of some partitions of the store.
    ///
    /// # Errors
    ///
    /// A store of another queue, or one that is damaged.
    pub fn open_store(
        &self,
        options: StoreOptions,
        identity: &QueueIdentity,
        partitions: &[PartitionId],
    ) -> Result<Store, Failure> {
        Store::open_partitions(
            Arc::clone(&self.fs),
            Arc::new(SystemClock),
            &self.store,
            options,
            identity,
            partitions,
            &Registry::new(),
        )
        .map_err(data)
    }

    /// Opens the store as it stands there, whatever its queue is.
    ///
    /// # Errors
    ///
    /// There is none, or it is damaged.
    pub fn whole_store(&self, options: StoreOptions) -> Result<Store, Failure> {
        let identity = Store::stored_identity(&*self.fs, &self.store, ShardKey::default());
        let identity = identity
            .map_err(data)?
            .ok_or_else(|| data(format!("there is no store in {:?}", self.store)))?;
        self.open_store(options, &identity, &self.partitions()?)
    }

    /// The partitions that the store has directories of.
    ///
    /// # Errors
    ///
    /// There is no store.
    pub fn partitions(&self) -> Result<Vec<PartitionId>, Failure> {
        let unreadable = |source| Failure::DataDir {
            path: self.store.clone(),
            source,
        };
        let entries = self.fs.list(&self.store).map_err(unreadable)?;
        let numbers = entries.iter().filter_map(|entry| entry.name.parse().ok());
        let mut found: Vec<_> = numbers.map(PartitionId).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// What time it is.
    #[must_use]
    pub fn now() -> TimestampMs {
        millrace_model::Clock::now(&SystemClock)
    }
}

/// All partitions of a queue.
#[must_use]
pub fn all(identity: &QueueIdentity) -> Vec<PartitionId> {
    (0..identity.partitions).map(PartitionId).collect()
}

/// What is wrong with data.
#[must_use]
pub fn data(error: impl std::fmt::Display) -> Failure {
    Failure::Data(error.to_string())
}

/// The configured queue, to look at and to write to. An embedded one is that of the data directory,
/// whose lock the caller holds.
///
/// # Errors
///
/// There is none, or it does not open, or its brokers do not answer.
pub fn queue(config: &Config) -> Result<Handles, Failure> {
    match config.queue.backend {
        QueueBackend::Embedded => {
            let queue = embedded_queue(config, &config.top.data_dir)?;
            Ok(Handles {
                producer: queue.producer(),
                records: Arc::new(queue),
            })
        }
        #[cfg(feature = "kafka")]
        QueueBackend::Kafka => {
            use millrace_queue::kafka::{KafkaError, KafkaQueue};
            let refused = |error: KafkaError| Failure::Refused(error.to_string());
            let options = crate::queue::kafka::options(&OsFs, config)?;
            let queue = KafkaQueue::open(options).map_err(refused)?;
            let producer = queue.producer().map_err(refused)?;
            Ok(Handles {
                records: Arc::new(queue),
                producer,
            })
        }
        #[cfg(not(feature = "kafka"))]
        QueueBackend::Kafka => Err(data("this millrace was built without Kafka")),
    }
}

/// The embedded queue of a data directory, whose lock the caller holds.
///
/// # Errors
///
/// There is none, or it does not open.
pub fn embedded_queue(config: &Config, data_dir: &Path) -> Result<EmbeddedQueue, Failure> {
    let none = || {
        Failure::Data(format!(
            "there is no queue in {data_dir:?}; name another directory with --data-dir, or a \
             running server with --url"
        ))
    };
    held_queue(config, data_dir)?.ok_or_else(none)
}

/// The same, if there is one.
///
/// # Errors
///
/// It does not open.
pub fn held_queue(config: &Config, data_dir: &Path) -> Result<Option<EmbeddedQueue>, Failure> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let dir = data_dir.join("queue");
    let identity = EmbeddedQueue::stored_identity(&*fs, &dir).map_err(data)?;
    let Some(identity) = identity else {
        return Ok(None);
    };
    let mut wanted = options::queue(config, Some(identity.partitions), 1);
    // What the directory says goes before what the configuration would create.
    wanted.partitions = identity.partitions;
    wanted.shard_key = identity.shard_key;
    EmbeddedQueue::open(fs, Arc::new(SystemClock), &dir, wanted, &Registry::new())
        .map(Some)
        .map_err(data)
}

/// Both sides of a queue.
#[derive(Debug)]
pub struct Handles {
    /// To look at it.
    pub records: Arc<dyn RecordSource>,
    /// To write to it.
    pub producer: Arc<dyn Producer>,
}
