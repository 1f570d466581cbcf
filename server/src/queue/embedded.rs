//! The queue inside the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_model::{PartitionId, TimestampMs};
use millrace_queue::{
    Consumer, Durability, EmbeddedQueue, HeldQueue, Producer, QueueError, QueueIdentity,
    RecordSource,
};
use millrace_store::Store;

use super::{Bounds, DurabilityReport, Queue};
use crate::app::App;
use crate::config::Config;
use crate::failure::Failure;
use crate::letters::{Letters, Standing};
use crate::options;

/// Opens it in the data directory, or creates it there.
pub(super) fn open(
    app: &App,
    fs: &Arc<dyn Fs>,
    config: &Config,
) -> Result<Arc<dyn Queue>, Failure> {
    let data = |error: QueueError| Failure::Data(error.to_string());
    let dir = config.top.data_dir.join("queue");
    let existing = EmbeddedQueue::stored_identity(&**fs, &dir).map_err(data)?;
    let options = options::queue(
        config,
        existing.map(|identity| identity.partitions),
        processors(),
    );
    let clock = app.clock.clone();
    let queue =
        EmbeddedQueue::open(fs.clone(), clock, &dir, options, &app.registry).map_err(data)?;
    Ok(Arc::new(Embedded(queue)))
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[derive(Debug)]
struct Embedded(EmbeddedQueue);

impl Queue for Embedded {
    fn identity(&self) -> &QueueIdentity {
        self.0.identity()
    }

    fn producer(&self) -> Result<Arc<dyn Producer>, Failure> {
        Ok(self.0.producer())
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn Consumer>, Failure> {
        Ok(self.0.reader(partition))
    }

    fn records(&self) -> Arc<dyn RecordSource> {
        Arc::new(self.0.clone())
    }

    fn bounds(&self, partitions: &[PartitionId]) -> Result<BTreeMap<PartitionId, Bounds>, String> {
        let bounds = |partition: &PartitionId| {
            let held = self
                .0
                .bounds(*partition)
                .map_err(|error| error.to_string())?;
            let bounds = Bounds {
                first: held.start,
                end: held.end,
            };
            Ok((*partition, bounds))
        };
        partitions.iter().map(bounds).collect()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn durability(&self) -> DurabilityReport {
        DurabilityReport {
            backend: "embedded",
            queue: self.0.identity().id.to_string(),
            partitions: self.0.identity().partitions,
            level: Durability::Disk.as_str(),
            minimum: Durability::Disk.as_str(),
            topic: None,
            dead_letters: None,
            short: Vec::new(),
        }
    }

    fn trouble(&self) -> Option<String> {
        // Its failures last until a restart, and its metric tells them.
        None
    }

    fn look_again(&self) -> Result<(), String> {
        Ok(())
    }

    fn retain(&self, now: TimestampMs) -> Result<(), String> {
        self.0
            .enforce_retention(now)
            .map_err(|error| error.to_string())
    }

    fn letters(&self) -> Option<Arc<dyn Letters>> {
        None
    }

    fn forward_letters(&self, _: &Store, _: &App) -> Result<(), Failure> {
        Ok(())
    }

    fn letters_standing(&self) -> Standing {
        Standing::default()
    }

    fn hold_behind(&self, first: &mut dyn FnMut()) -> Result<Option<HeldQueue>, String> {
        let held = self.0.hold_behind(first);
        held.map(|((), queue)| Some(queue))
            .map_err(|error| error.to_string())
    }

    fn close(&self) {
        self.0.close();
    }
}
