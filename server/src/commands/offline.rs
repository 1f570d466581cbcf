//! A data directory that no server has open, and the queue that feeds it, for commands that change
//! them.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::{PartitionId, TimestampMs};
use millrace_queue::{EmbeddedQueue, Producer, RecordSource};
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
    /// Takes the data directory's lock.
    ///
    /// # Errors
    ///
    /// A server has the directory.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let holder = format!("pid {}, a command\n", std::process::id());
        let lock = DirLock::take(&fs, &config.top.data_dir, &holder)?;
        Ok(Self {
            store: config.top.data_dir.join("store"),
            fs,
            _lock: lock,
        })
    }

    /// The queue, to look at and to write to.
    ///
    /// # Errors
    ///
    /// There is none, or it does not open, or its brokers do not answer.
    pub fn queue(&self, config: &Config) -> Result<Handles, Failure> {
        match config.queue.backend {
            QueueBackend::Embedded => self.embedded(config),
            #[cfg(feature = "kafka")]
            QueueBackend::Kafka => {
                use millrace_queue::kafka::{KafkaError, KafkaQueue};
                let refused = |error: KafkaError| Failure::Refused(error.to_string());
                let options = crate::queue::kafka::options(&*self.fs, config)?;
                let queue = KafkaQueue::open(options).map_err(refused)?;
                let producer = queue.producer().map_err(refused)?;
                Ok(Handles {
                    records: Arc::new(queue),
                    producer,
                })
            }
            #[cfg(not(feature = "kafka"))]
            QueueBackend::Kafka => Err(Failure::Data(
                "this millrace was built without Kafka".to_owned(),
            )),
        }
    }

    fn embedded(&self, config: &Config) -> Result<Handles, Failure> {
        let queue = self.embedded_queue(config)?.ok_or_else(|| {
            Failure::Data(format!("there is no queue in {:?}", config.top.data_dir))
        })?;
        Ok(Handles {
            producer: queue.producer(),
            records: Arc::new(queue),
        })
    }

    /// The embedded queue, if the directory has one.
    ///
    /// # Errors
    ///
    /// It does not open.
    pub fn embedded_queue(&self, config: &Config) -> Result<Option<EmbeddedQueue>, Failure> {
        let data = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
        let dir = config.top.data_dir.join("queue");
        let identity =
            EmbeddedQueue::stored_identity(&*self.fs, &dir).map_err(|error| data(&error))?;
        let Some(identity) = identity else {
            return Ok(None);
        };
        let mut wanted = options::queue(config, Some(identity.partitions), 1);
        wanted.partitions = identity.partitions;
        wanted.shard_key = identity.shard_key;
        let (clock, registry) = (Arc::new(SystemClock), Registry::new());
        EmbeddedQueue::open(Arc::clone(&self.fs), clock, &dir, wanted, &registry)
            .map(Some)
            .map_err(|error| data(&error))
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

/// Both sides of a queue.
#[derive(Debug)]
pub struct Handles {
    /// To look at it.
    pub records: Arc<dyn RecordSource>,
    /// To write to it.
    pub producer: Arc<dyn Producer>,
}
