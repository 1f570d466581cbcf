//! What ingest refused for a limit, kept as dead letters (`ingest.keep_rejected`), to be queued once the limit is
//! raised.
//!
//! Invariants:
//! - Letters take no more bytes than the setting says; what comes beyond is dropped and counted. It was
//!   refused with an answer that says so, so nothing acknowledged is lost.
//! - A decode thread never waits for the disk: a thread of its own writes, behind a bounded queue.
//! - What is queued again is what was refused, under no limit: that is decided by whoever queues it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use millrace_ingest::{KeepRejected, RejectedBatch};
use millrace_log::fs::{Fs, create_dir_durable};
use millrace_model::{Clock, QueueId};
use millrace_store::DeadLetterBox;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tracing::{error, info};

/// The directory, in the data directory.
pub const DIRECTORY: &str = "rejected";

/// Batches that may wait to be written.
const WAITING: usize = 256;
/// Bytes of them.
const WAITING_BYTES: u64 = 16 << 20;
/// A full directory is looked at again after this time: letters may have been queued or purged.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

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
    /// What the letters take, as far as is known.
    bytes: u64,
    /// When that was counted last.
    counted: Duration,
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
            "Bytes of dead letters of refused samples",
        );
        let gauge = gauge.map_err(words)?;
        registry.register(Box::new(gauge.clone())).map_err(words)?;
        let waiting = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            letters,
            queue,
            counted: clock.monotonic(),
            clock,
            max_bytes,
            waiting: Arc::clone(&waiting),
            bytes: 0,
            kept,
            dropped: dropped.clone(),
            gauge,
        };
        writer.count()?;
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
    fn run(mut self, batches: &Receiver<RejectedBatch>) {
        for batch in batches {
            let bytes = batch.payload.len() as u64;
            let written = self.write(batch);
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            if let Err(reason) = written {
                // The first failed write ends a log.
                error!(
                    reason,
                    "refused samples are not kept any more, until a restart"
                );
                return;
            }
        }
    }

    fn write(&mut self, batch: RejectedBatch) -> Result<(), String> {
        let bytes = batch.payload.len() as u64;
        if self.bytes + bytes > self.max_bytes {
            let now = self.clock.monotonic();
            if now.saturating_sub(self.counted) >= LOOK_AGAIN {
                self.counted = now;
                self.count()?;
            }
        }
        if self.bytes + bytes > self.max_bytes {
            self.dropped.inc_by(batch.samples);
            return Ok(());
        }
        let place = (self.queue, batch.partition);
        let now = self.clock.now();
        let kept = self
            .letters
            .keep_rejected(place, batch.payload, &batch.reason, now);
        kept.map_err(|error| error.to_string())?;
        self.bytes += bytes;
        self.kept.inc_by(batch.samples);
        self.show();
        Ok(())
    }

    fn count(&mut self) -> Result<(), String> {
        let letters = self.letters.read_all().map_err(|error| error.to_string())?;
        self.bytes = letters
            .iter()
            .map(|letter| letter.payload.len() as u64)
            .sum();
        if self.bytes > 0 {
            info!(
                letters = letters.len(),
                bytes = self.bytes,
                "refused samples are kept"
            );
        }
        self.show();
        Ok(())
    }

    fn show(&self) {
        self.gauge
            .set(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}
