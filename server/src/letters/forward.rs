//! From a store's directory into the topic of dead letters.
//!
//! Invariants:
//! - A letter is durable in the store's directory before the shard's position passes its record, and is
//!   removed from there only after the brokers have acknowledged it. Whoever loses the directory loses
//!   the position with it, and meets the record again. So none is ever dropped, and no shard waits for
//!   the topic.
//! - A letter may be sent several times (by each replica, and after a restart): it is one letter all the
//!   same, see `docs/formats/dead-letters.md`.
//! - It stays in the directory for as long as it counts towards `store.dead_letters_max`, so that a
//!   restart does not forget how many there were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_model::{Clock, PartitionId, TimestampMs};
use millrace_queue::Origin;
use millrace_store::{DEAD_LETTER_WINDOW, DeadLetterBox};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tracing::{info, warn};

use super::{Standing, TopicLetters};
use crate::failure::Failure;

/// How often it is looked for new letters.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two tries to write to a topic that did not take the last letter.
const RETRY: Duration = Duration::from_secs(5);

/// What the forwarder tells.
#[derive(Clone, Debug)]
pub struct ForwardMetrics {
    sent: IntCounter,
    unsent: IntGauge,
}

impl ForwardMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// Names that are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let sent = IntCounter::new(
            "millrace_dead_letters_sent_total",
            "Dead letters that the topic has acknowledged; one that was sent twice counts twice.",
        )?;
        let unsent = IntGauge::new(
            "millrace_dead_letters_unsent",
            "Dead letters in this store's directory that the topic has not acknowledged yet.",
        )?;
        registry.register(Box::new(sent.clone()))?;
        registry.register(Box::new(unsent.clone()))?;
        Ok(Self { sent, unsent })
    }
}

/// The thread that does it, until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    standing: Arc<Mutex<Standing>>,
}

impl Forwarder {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// No more threads.
    pub fn start(
        boxes: Vec<(PartitionId, DeadLetterBox)>,
        topic: Arc<TopicLetters>,
        clock: Arc<dyn Clock>,
        metrics: ForwardMetrics,
    ) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let standing = Arc::new(Mutex::new(Standing::default()));
        let worker = Worker {
            boxes,
            topic,
            clock,
            metrics,
            sent: BTreeMap::new(),
            failed: BTreeSet::new(),
            standing: Arc::clone(&standing),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("dead-letters".into())
            .spawn(move || worker.run())
            .map_err(|source| Failure::System {
                what: "the thread of the dead letters cannot be started",
                source,
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
            standing,
        })
    }

    /// How far it is.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Ends it; what is not sent is sent after the next start. A second call does nothing.
    pub fn close(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                warn!("the thread of the dead letters panicked");
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker {
    boxes: Vec<(PartitionId, DeadLetterBox)>,
    topic: Arc<TopicLetters>,
    clock: Arc<dyn Clock>,
    metrics: ForwardMetrics,
    /// Acknowledged by the topic, and still in the directory; when each was kept.
    sent: BTreeMap<Origin, TimestampMs>,
    /// Tried and not taken.
    failed: BTreeSet<Origin>,
    standing: Arc<Mutex<Standing>>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::SeqCst) {
            let pause = match self.look() {
                Ok(()) => {
                    self.note(None);
                    LOOK_EVERY
                }
                Err(problem) => {
                    self.note(Some(problem));
                    RETRY
                }
            };
            std::thread::park_timeout(pause);
        }
    }

    /// Sends what is not sent, until the topic does not take one; and removes what is sent and counts no
    /// more.
    fn look(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        let mut unsent = Vec::new();
        for (_, letters) in &self.boxes {
            for origin in letters.origins() {
                match self.sent.get(&origin) {
                    None => unsent.push((origin, letters.clone())),
                    Some(kept_at) if *kept_at < now.saturating_sub(DEAD_LETTER_WINDOW) => {
                        letters
                            .purge(&[origin], now)
                            .map_err(|error| error.to_string())?;
                        self.sent.remove(&origin);
                    }
                    Some(_) => {}
                }
            }
        }
        // One that the topic will never take, because it is too long, keeps no other.
        unsent.sort_by_key(|(origin, _)| (self.failed.contains(origin), *origin));
        for (origin, letters) in unsent {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            match send(&self.topic, &letters, origin) {
                Ok(kept_at) => {
                    info!(letter = %origin, "dead letter sent to its topic");
                    self.metrics.sent.inc();
                    self.sent.insert(origin, kept_at);
                    self.failed.remove(&origin);
                }
                Err(error) => {
                    self.failed.insert(origin);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn note(&self, problem: Option<String>) {
        let mut unsent = BTreeMap::new();
        for (partition, letters) in &self.boxes {
            let origins = letters.origins();
            let left = origins.iter().filter(|of| !self.sent.contains_key(of));
            let left = left.count() as u64;
            if left > 0 {
                unsent.insert(*partition, left);
            }
        }
        let total: u64 = unsent.values().sum();
        self.metrics
            .unsent
            .set(i64::try_from(total).unwrap_or(i64::MAX));
        let mut standing = self.standing.lock();
        if problem != standing.problem {
            match &problem {
                Some(problem) => warn!(
                    problem,
                    "dead letters stay in the store's directory: their topic does not take them"
                ),
                None => info!("the topic of the dead letters takes them again"),
            }
        }
        *standing = Standing { unsent, problem };
    }
}

/// Sends one letter. When it was kept.
fn send(
    topic: &TopicLetters,
    letters: &DeadLetterBox,
    origin: Origin,
) -> Result<TimestampMs, String> {
    let letter = letters.read(origin).map_err(|error| error.to_string())?;
    let letter = letter.ok_or_else(|| format!("{origin} is not in the store's directory"))?;
    topic.enter(std::slice::from_ref(&letter))?;
    Ok(letter.kept_at)
}
