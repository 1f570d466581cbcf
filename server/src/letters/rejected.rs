//! What ingest refused for a limit, kept as dead letters (`ingest.keep_rejected`), to be queued once the limit is
//! raised.
//!
//! Invariants:
//! - Letters take no more bytes of the disk than the setting says; what comes beyond is dropped and counted. It
//!   was refused with an answer that says so, so nothing acknowledged is lost.
//! - A decode thread never waits for the disk: a thread of its own writes, behind a bounded queue.
//! - What is queued again is what was refused, under no limit: that is decided by whoever queues it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use millrace_ingest::{KeepRejected, RejectedBatch};
use millrace_log::fs::{Fs, create_dir_durable};
use millrace_model::{Clock, QueueId};
use millrace_store::{DeadLetterBox, StoreError};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tracing::{error, info};

/// The directory, in the data directory.
pub const DIRECTORY: &str = "rejected";

/// Batches that may wait to be written.
const WAITING: usize = 256;
/// Bytes of them.
const WAITING_BYTES: u64 = 16 << 20;
/// What a letter takes on the disk beside its batch, with room to spare.
const BESIDE_BATCH: u64 = 1 << 10;

/// Opens the letters of refused samples.
///
/// # Errors
///
/// In words, letters that are damaged or cannot be read.
pub fn open(fs: &Arc<dyn Fs>, data_dir: &Path) -> Result<DeadLetterBox, String> {
    let dir = data_dir.join(DIRECTORY);
    create_dir_durable(&**fs, &dir).map_err(|error| error.to_string())?;
    DeadLetterBox::open_rejected(fs, &dir).map_err(|error| error.to_string())
}

/// The same, if there ever were such letters.
///
/// # Errors
///
/// As [`open`].
pub fn open_existing(fs: &Arc<dyn Fs>, data_dir: &Path) -> Result<Option<DeadLetterBox>, String> {
    let exists = fs.exists(&data_dir.join(DIRECTORY));
    match exists.map_err(|error| error.to_string())? {
        true => open(fs, data_dir).map(Some),
        false => Ok(None),
    }
}

/// Keeps refused samples. Its thread ends with it.
#[derive(Debug)]
pub struct Keeper {
    batches: Mutex<Option<SyncSender<RejectedBatch>>>,
    waiting: Arc<AtomicU64>,
    dropped: IntCounter,
}

struct Writer {
    letters: DeadLetterBox,
    queue: QueueId,
    clock: Arc<dyn Clock>,
    max_bytes: u64,
    waiting: Arc<AtomicU64>,
    kept: IntCounter,
    dropped: IntCounter,
    gauge: IntGauge,
}

impl Keeper {
    /// Starts its thread.
    ///
    /// # Errors
    ///
    /// In words: letters that cannot be read, figures that are registered already, no thread.
    pub fn start(
        letters: DeadLetterBox,
        queue: QueueId,
        clock: Arc<dyn Clock>,
        max_bytes: u64,
        registry: &Registry,
    ) -> Result<Self, String> {
        let words = |error: prometheus::Error| error.to_string();
        let counter = |name: &str, help: &str| -> Result<IntCounter, String> {
            let counter = IntCounter::new(name, help).map_err(words)?;
            registry
                .register(Box::new(counter.clone()))
                .map_err(words)?;
            Ok(counter)
        };
        let kept = counter(
            "millrace_ingest_rejected_kept_samples_total",
            "Refused samples that were kept as dead letters",
        )?;
        let dropped = counter(
            "millrace_ingest_rejected_dropped_samples_total",
            "Refused samples that there was no room to keep",
        )?;
        let gauge = IntGauge::new(
            "millrace_ingest_rejected_kept_bytes",
            "Bytes on disk of dead letters of refused samples",
        );
        let gauge = gauge.map_err(words)?;
        registry.register(Box::new(gauge.clone())).map_err(words)?;
        let waiting = Arc::new(AtomicU64::new(0));
        if !letters.is_empty() {
            info!(
                letters = letters.len(),
                bytes = letters.bytes_on_disk(),
                "refused samples are kept"
            );
        }
        let writer = Writer {
            letters,
            queue,
            clock,
            max_bytes,
            waiting: Arc::clone(&waiting),
            kept,
            dropped: dropped.clone(),
            gauge,
        };
        writer.show();
        let (batches, received) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("keep-rejected".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            batches: Mutex::new(Some(batches)),
            waiting,
            dropped,
        })
    }
}

impl KeepRejected for Keeper {
    fn keep(&self, rejected: RejectedBatch) -> bool {
        let (bytes, samples) = (rejected.payload.len() as u64, rejected.samples);
        let batches = self.batches.lock();
        let room = self.waiting.load(Ordering::Relaxed) + bytes <= WAITING_BYTES;
        let taken = room
            && batches.as_ref().is_some_and(|batches| {
                self.waiting.fetch_add(bytes, Ordering::Relaxed);
                let sent = batches.try_send(rejected).is_ok();
                if !sent {
                    self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
                sent
            });
        if !taken {
            self.dropped.inc_by(samples);
        }
        taken
    }
}

impl Writer {
    fn run(self, batches: &Receiver<RejectedBatch>) {
        for batch in batches {
            let (bytes, samples) = (batch.payload.len() as u64, batch.samples);
            let written = self.write(batch);
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            match written {
                Ok(true) => self.kept.inc_by(samples),
                Ok(false) => self.dropped.inc_by(samples),
                Err(error) => {
                    // The first failed write ends a log.
                    error!(
                        %error,
                        "refused samples are not kept any more, until a restart"
                    );
                    let lost = batches.try_iter().map(|batch| batch.samples);
                    self.dropped.inc_by(samples + lost.sum::<u64>());
                    return;
                }
            }
        }
    }

    /// Whether there was room.
    fn write(&self, batch: RejectedBatch) -> Result<bool, StoreError> {
        let bytes = batch.payload.len() as u64 + BESIDE_BATCH;
        let room = self.letters.bytes_on_disk() + bytes <= self.max_bytes;
        if room {
            let place = (self.queue, batch.partition);
            let now = self.clock.now();
            self.letters
                .keep_rejected(place, batch.payload, &batch.reason, now)?;
        }
        self.show();
        Ok(room)
    }

    fn show(&self) {
        let bytes = self.letters.bytes_on_disk();
        self.gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use millrace_log::SystemClock;
    use millrace_log::fs::OsFs;
    use millrace_model::PartitionId;

    fn writer(dir: &tempfile::TempDir, max_bytes: u64) -> Writer {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        Writer {
            letters: open(&fs, dir.path()).unwrap(),
            queue: QueueId(7),
            clock: Arc::new(SystemClock),
            max_bytes,
            waiting: Arc::new(AtomicU64::new(u64::MAX / 2)),
            kept: IntCounter::new("kept", "kept").unwrap(),
            dropped: IntCounter::new("dropped", "dropped").unwrap(),
            gauge: IntGauge::new("bytes", "bytes").unwrap(),
        }
    }

    fn batch(bytes: usize) -> RejectedBatch {
        RejectedBatch {
            partition: PartitionId(0),
            payload: Bytes::from(vec![0; bytes]),
            reason: "tenant a: too many".to_owned(),
            samples: 10,
        }
    }

    #[test]
    fn there_is_room_again_as_soon_as_letters_are_purged_and_never_more_than_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let max = 64 << 10;
        let writer = writer(&dir, max);
        for _ in 0..2 {
            let mut kept = 0;
            while writer.write(batch(8 << 10)).unwrap() {
                kept += 1;
            }
            assert!((6..8).contains(&kept), "{kept}");
            assert!(writer.letters.bytes_on_disk() <= max);
            let all = writer.letters.origins();
            writer.letters.purge(&all, writer.clock.now()).unwrap();
        }
    }

    #[test]
    fn what_waits_behind_a_failed_write_is_counted_as_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir, u64::MAX);
        let (kept, dropped) = (writer.kept.clone(), writer.dropped.clone());
        let (batches, received) = sync_channel(4);
        // The second is longer than a record may be.
        for bytes in [10, 200 << 20, 10, 10] {
            batches.send(batch(bytes)).unwrap();
        }
        writer.run(&received);
        assert_eq!((kept.get(), dropped.get()), (10, 30));
    }
}
