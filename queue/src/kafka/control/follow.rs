//! Following the control topic: what it says now, without asking.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

use super::records::Announcement;
use super::table::Table;
use super::topic::{ControlTopic, Reader, from_the_beginning, identity, take};
use crate::kafka::KafkaError;
use crate::kafka::bounds::watermarks;
use crate::traits::QueueIdentity;

/// Bounds how late the thread notices that it should stop.
const POLL: Duration = Duration::from_millis(200);
/// How often it is asked whether the topic can be read at all.
const LOOK: Duration = Duration::from_secs(1);

/// Reads what comes, on a thread of its own, until it is dropped.
pub struct ControlFollower {
    table: Arc<Mutex<Table>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for ControlFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlFollower").finish_non_exhaustive()
    }
}

impl ControlTopic {
    /// Follows the topic from here on.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn follow(self) -> Result<ControlFollower, KafkaError> {
        let (table, stop) = (
            Arc::new(Mutex::new(self.table)),
            Arc::<AtomicBool>::default(),
        );
        let follow = Follow {
            topic: self.name,
            consumer: self.consumer,
            table: Arc::clone(&table),
            stop: Arc::clone(&stop),
            looked: Instant::now(),
            in_contact: true,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-control".to_owned())
            .spawn(move || follow.run())
            .map_err(|error| KafkaError::Refused {
                doing: "starting the thread that follows the control topic",
                reason: error.to_string(),
            })?;
        Ok(ControlFollower {
            table,
            stop,
            thread: Some(thread),
        })
    }
}

impl ControlFollower {
    /// The queue that was claimed first. See [`ControlTopic::identity`].
    #[must_use]
    pub fn identity(&self) -> Option<QueueIdentity> {
        identity(&self.table.lock())
    }

    /// The stores whose announcements hold.
    #[must_use]
    pub fn announced(&self) -> Vec<Announcement> {
        self.table.lock().stores().cloned().collect()
    }
}

impl Drop for ControlFollower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread that follows the control topic panicked");
        }
    }
}

struct Follow {
    topic: String,
    consumer: Reader,
    table: Arc<Mutex<Table>>,
    stop: Arc<AtomicBool>,
    /// When it was last asked whether the topic can be read.
    looked: Instant,
    in_contact: bool,
}

impl Follow {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.consumer.poll(POLL) {
                None | Some(Err(ClientError::PartitionEOF(_))) => {}
                Some(Ok(message)) => take(&message, &mut self.table.lock()),
                Some(Err(error)) => self.failed(&error),
            }
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
        }
    }

    fn failed(&self, error: &ClientError) {
        debug!(%error, topic = self.topic, "the control topic cannot be read");
        let lost = [
            RDKafkaErrorCode::AutoOffsetReset,
            RDKafkaErrorCode::OffsetOutOfRange,
        ];
        // It was made again. Records are small and few: to read all of them costs nothing.
        if error
            .rdkafka_error_code()
            .is_some_and(|code| lost.contains(&code))
            && let Err(error) = from_the_beginning(&self.consumer, &self.topic)
        {
            warn!(%error, topic = self.topic, "the control topic cannot be read again");
        }
    }

    /// Announcements grow older only while it could be known that they are repeated.
    fn look(&mut self) {
        let since = self.looked.elapsed();
        self.looked = Instant::now();
        let asked = watermarks(self.consumer.client(), &self.topic, 0, LOOK);
        match (asked, self.in_contact) {
            (Ok(_), true) => self.table.lock().advance(since.min(2 * LOOK)),
            (Ok(_), false) => {
                info!(topic = self.topic, "the control topic can be read again");
                self.in_contact = true;
            }
            (Err(error), true) => {
                warn!(%error, topic = self.topic, "the control topic cannot be read; the stores \
                       that are known stay known");
                self.in_contact = false;
            }
            (Err(_), false) => {}
        }
    }
}
