//! Appending to the queue beside the lanes of ingest: what is queued again, and restored.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use millrace_model::{Offset, PartitionId};
use millrace_queue::Producer;
use parking_lot::Mutex;

use crate::failure::Failure;
use crate::queue::Queue;

/// How long an append may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The writing side of a process's queue, opened when it is first needed.
#[derive(Debug)]
pub struct LazyProducer {
    queue: Arc<dyn Queue>,
    open: Mutex<Option<Arc<dyn Producer>>>,
}

impl LazyProducer {
    /// Of this queue.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self {
            queue,
            open: Mutex::new(None),
        }
    }

    /// The producer; the same one for everybody.
    ///
    /// # Errors
    ///
    /// If there cannot be one.
    pub fn get(&self) -> Result<Arc<dyn Producer>, Failure> {
        let mut open = self.open.lock();
        if let Some(producer) = &*open {
            return Ok(Arc::clone(producer));
        }
        let producer = self.queue.producer()?;
        *open = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Lets go of it: what is on its way is waited for by whoever holds it last.
    pub fn close(&self) {
        self.open.lock().take();
    }
}

/// Appends batches and waits until they are durable. Their offsets.
///
/// # Errors
///
/// In words, why it is not known that they are.
pub fn append(
    producer: &dyn Producer,
    partition: PartitionId,
    batches: Vec<Bytes>,
) -> Result<Range<Offset>, String> {
    let (done, outcome) = mpsc::channel();
    let tell = move |result| {
        // Whoever asked may have lost its patience.
        if done.send(result).is_err() {
            tracing::debug!("an append ended after its patience");
        }
    };
    producer.append(partition, batches, Box::new(tell));
    match outcome.recv_timeout(PATIENCE) {
        Ok(Ok(range)) => Ok(range),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the queue does not acknowledge the record".to_owned()),
    }
}
