//! Where a command reads a queue's records: from a running server, or from a data directory that
//! no server has open.

mod http;
pub mod show;

use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::OsFs;
use millrace_queue::{EmbeddedQueue, RecordSource};

use crate::commands::offline::{Offline, data, embedded_queue};
use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;

pub use http::HttpQueue;

/// A queue, and what keeps others from it as long as it is read.
#[derive(Debug)]
pub struct Opened {
    /// The queue.
    pub queue: Arc<dyn RecordSource>,
    #[cfg_attr(
        not(feature = "kafka"),
        expect(dead_code, reason = "held; only the migration asks for it")
    )]
    offline: Option<Offline>,
}

#[cfg(feature = "kafka")]
impl Opened {
    /// The data directory that it is in; none of a running server's queue, and of a topic.
    #[must_use]
    pub fn offline(&self) -> Option<&Offline> {
        self.offline.as_ref()
    }
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
        offline: None,
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
        offline: None,
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
    // A directory without a queue is not made one by a look at it.
    let found = EmbeddedQueue::stored_identity(&OsFs, &data_dir.join("queue")).map_err(data)?;
    let offline = found.map(|_| Offline::open_dir(data_dir)).transpose()?;
    Ok(Opened {
        queue: Arc::new(embedded_queue(config, data_dir)?),
        offline,
    })
}
