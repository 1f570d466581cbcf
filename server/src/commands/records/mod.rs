//! Where a command reads a queue's records: from a running server, or from a data directory that
//! no server has open.

mod http;
pub mod show;

use std::path::Path;
use std::sync::Arc;

use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_queue::{EmbeddedQueue, RecordSource};
use prometheus::Registry;

use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;
use crate::lock::DirLock;
use crate::options;

pub use http::HttpQueue;

/// A queue, and what keeps others from it as long as it is read.
#[derive(Debug)]
pub struct Opened {
    /// The queue.
    pub queue: Arc<dyn RecordSource>,
    _lock: Option<DirLock>,
}

/// Opens the queue of a running server, if `url` is given, or else that of the configuration.
///
/// # Errors
///
/// The server does not answer; another process has the data directory; there is no queue in it.
pub fn open(config: &Config, url: Option<&str>) -> Result<Opened, Failure> {
    match (url, config.queue.backend) {
        (Some(url), _) => running(url),
        (None, QueueBackend::Embedded) => embedded(config, &config.top.data_dir),
        (None, QueueBackend::Kafka) => topic(config),
    }
}

/// The queue of a running server.
///
/// # Errors
///
/// It does not answer.
pub fn running(url: &str) -> Result<Opened, Failure> {
    Ok(Opened {
        queue: Arc::new(HttpQueue::connect(url)?),
        _lock: None,
    })
}

/// The topic of the configuration.
#[cfg(feature = "kafka")]
fn topic(config: &Config) -> Result<Opened, Failure> {
    let mut options = crate::queue::kafka::options(&OsFs, config)?;
    // Whoever only looks asks for no promise.
    options.minimum_durability = millrace_queue::Durability::Process;
    let queue = millrace_queue::kafka::KafkaQueue::open(options)
        .map_err(|error| Failure::Client(error.to_string()))?;
    Ok(Opened {
        queue: Arc::new(queue),
        _lock: None,
    })
}

#[cfg(not(feature = "kafka"))]
fn topic(_: &Config) -> Result<Opened, Failure> {
    Err(Failure::Client(
        "this millrace was built without Kafka; name a running server with --url".to_owned(),
    ))
}

/// The embedded queue of a data directory that no server has open.
///
/// # Errors
///
/// As [`open`].
pub fn embedded(config: &Config, data_dir: &Path) -> Result<Opened, Failure> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let data = |error: &dyn std::fmt::Display| Failure::Data(error.to_string());
    let dir = data_dir.join("queue");
    let identity = EmbeddedQueue::stored_identity(&*fs, &dir).map_err(|error| data(&error))?;
    let Some(identity) = identity else {
        return Err(Failure::Data(format!(
            "there is no queue in {data_dir:?}; name another directory with --data-dir, or a \
             running server with --url"
        )));
    };
    let lock = DirLock::take(
        &fs,
        data_dir,
        &format!("pid {}, a command\n", std::process::id()),
    )?;
    let mut queue_options = options::queue(config, Some(identity.partitions), 1);
    // What the directory says goes before what the configuration would create.
    queue_options.partitions = identity.partitions;
    queue_options.shard_key = identity.shard_key;
    let clock = Arc::new(SystemClock);
    let queue = EmbeddedQueue::open(fs, clock, &dir, queue_options, &Registry::new())
        .map_err(|error| data(&error))?;
    Ok(Opened {
        queue: Arc::new(queue),
        _lock: Some(lock),
    })
}
