//! Appending to Kafka.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Offset, PartitionId};
use parking_lot::{Condvar, Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::statistics::Statistics;
use tracing::{error, warn};

use super::bounds::watermarks;
use super::topic::RECORD_OVERHEAD_BYTES;
use super::watch::TopicWatch;
use super::{KafkaError, KafkaMetrics, KafkaOptions, settings};
use crate::traits::{AppendDone, AppendError, Durability, Producer, QueueIdentity};

/// How long the poll thread waits for events: bounds how late it notices that it should stop. The
/// client library counts in whole milliseconds and spins for the last one, so short waits cost.
const POLL: Duration = Duration::from_millis(500);
/// How long an append waits for room before it looks again.
const RETRY: Duration = Duration::from_millis(50);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(5);
/// So long after the last failed append that is still told as trouble: whoever takes a process out
/// of service because of it sends it no more appends that could show the end of it.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);

/// A producer, its poll thread, and the means to replace both after a fatal error.
///
/// Order within a partition holds because each partition is appended to by one thread, because
/// there is no retry but librdkafka's own, and because that one is idempotent.
pub(super) struct KafkaProducer {
    options: KafkaOptions,
    identity: QueueIdentity,
    durability: Durability,
    metrics: Option<KafkaMetrics>,
    budget: Arc<Budget>,
    current: RwLock<Generation>,
    closed: AtomicBool,
    tips: Arc<Tips>,
}

/// Where this process's appends ended up, by partition: the offsets that a partition gives only grow.
#[derive(Debug)]
struct Tips {
    watch: Arc<TopicWatch>,
    /// Behind the newest record that was acknowledged.
    next: Vec<AtomicU64>,
    /// Why the last record was not acknowledged, and when; none if it was.
    trouble: Mutex<Option<(String, Instant)>>,
    /// What [`refused`](Self::refused) tells.
    delivery_timeout: Duration,
    max_batch_bytes: usize,
}

impl Tips {
    /// Takes the offset of a delivered record. A smaller one than an earlier record's means that
    /// the topic has lost that record, or is another topic: then nobody is told that anything is
    /// stored before the brokers have said which it is.
    fn deliver(&self, partition: PartitionId, offset: Offset) -> Result<(), String> {
        let behind = offset.0.saturating_add(1);
        let next = self.next.get(partition.index());
        let before = next.map_or(0, |next| next.swap(behind, Ordering::SeqCst));
        if offset.0 < before {
            self.watch.doubt();
            return Err(format!(
                "the topic gave offset {offset} after {}: it has lost records, or is another one",
                before - 1
            ));
        }
        if self.watch.doubted() {
            return Err("the topic may be another one, the brokers were asked".to_owned());
        }
        *self.trouble.lock() = None;
        Ok(())
    }

    /// Notes that a record was not acknowledged; why, in words that say what to look at.
    fn refused(&self, error: &ClientError) -> String {
        let code = error.rdkafka_error_code();
        let reason = match code {
            Some(RDKafkaErrorCode::MessageTimedOut) => format!(
                "no acknowledgement within {:?} (queue.kafka.delivery_timeout): brokers are away or \
                 stalled, or fewer replicas are in sync than the topic's min.insync.replicas",
                self.delivery_timeout
            ),
            Some(
                RDKafkaErrorCode::NotEnoughReplicas
                | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            ) => "fewer replicas are in sync than the topic's min.insync.replicas".to_owned(),
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge,
            ) => format!(
                "the brokers refuse a record by its length: the topic's max.message.bytes must be at \
                 least {}, or queue.kafka.max_batch_bytes (now {}) smaller, which takes a restart: {error}",
                self.max_batch_bytes + RECORD_OVERHEAD_BYTES,
                self.max_batch_bytes
            ),
            _ => error.to_string(),
        };
        *self.trouble.lock() = Some((reason.clone(), Instant::now()));
        reason
    }

    /// Why nothing may be appended any more, if that is so.
    fn refusal(&self) -> Option<String> {
        let found = self.watch.replaced_by()?;
        Some(format!(
            "the topic was deleted and made again: it was queue {} and is now {found}; \
             nothing is written to it before a restart (docs/kafka.md, recreated)",
            self.watch.expected()
        ))
    }
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProducer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Bytes on their way to the brokers.
#[derive(Debug, Default)]
struct Budget {
    in_flight: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    /// Takes `bytes`, waiting until they fit or nothing else is in flight. `false` at the deadline.
    fn take(&self, bytes: usize, limit: usize, deadline: Instant) -> bool {
        let mut in_flight = self.in_flight.lock();
        while *in_flight > 0 && *in_flight + bytes > limit {
            if self.freed.wait_until(&mut in_flight, deadline).timed_out() {
                return false;
            }
        }
        *in_flight += bytes;
        true
    }

    fn give(&self, bytes: usize) {
        *self.in_flight.lock() -= bytes;
        self.freed.notify_all();
    }

    /// Waits for anything to be delivered, or for `at_most`.
    fn wait_freed(&self, at_most: Duration) {
        let mut in_flight = self.in_flight.lock();
        let _timed_out = self.freed.wait_for(&mut in_flight, at_most);
    }
}

/// One append: several records, one answer.
struct Append {
    partition: PartitionId,
    state: Mutex<AppendState>,
}

struct AppendState {
    remaining: usize,
    offsets: Option<(Offset, Offset)>,
    /// A record was delivered, and the broker did not say where (a repeated sequence).
    offset_unknown: bool,
    failure: Option<String>,
    done: Option<AppendDone>,
}

impl Append {
    /// Notes the end of one record. Returns the append itself when it was the last and the offset
    /// must still be asked for.
    fn finish_one(self: &Arc<Self>, outcome: Result<Option<Offset>, String>) -> Option<Arc<Self>> {
        let mut state = self.state.lock();
        match outcome {
            Ok(Some(offset)) => {
                let (low, high) = state.offsets.unwrap_or((offset, offset));
                state.offsets = Some((low.min(offset), high.max(offset)));
            }
            Ok(None) => state.offset_unknown = true,
            Err(reason) => {
                state.failure.get_or_insert(reason);
            }
        }
        state.remaining -= 1;
        if state.remaining > 0 {
            return None;
        }
        if state.failure.is_none() && state.offset_unknown {
            return Some(Arc::clone(self));
        }
        let failure = state.failure.take();
        let offsets = state.offsets;
        let done = state.done.take();
        drop(state);
        let result = match (failure, offsets) {
            (Some(reason), _) => Err(AppendError::Failed {
                partition: self.partition,
                reason,
            }),
            (None, Some((low, high))) => Ok(low..high.advanced(1)),
            (None, None) => Ok(Offset::ZERO..Offset::ZERO),
        };
        if let Some(done) = done {
            done(result);
        }
        None
    }

    /// Answers with the partition's end, which is behind every record of this append.
    fn finish_at(&self, end: Result<Offset, ClientError>) {
        let Some(done) = self.state.lock().done.take() else {
            return;
        };
        done(
            end.map(|end| end..end)
                .map_err(|error| AppendError::Failed {
                    partition: self.partition,
                    reason: format!("delivered, but its offset could not be asked for: {error}"),
                }),
        );
    }
}

/// What a record carries through librdkafka.
struct InFlight {
    append: Arc<Append>,
    bytes: usize,
}

struct Context {
    budget: Arc<Budget>,
    metrics: Option<KafkaMetrics>,
    tips: Arc<Tips>,
    fatal: AtomicBool,
    /// Appends that were delivered without being told where.
    unresolved: Mutex<Vec<Arc<Append>>>,
}

impl ClientContext for Context {
    fn error(&self, error: ClientError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            error!(%error, reason, "the kafka producer has failed for good and is replaced");
            self.fatal.store(true, Ordering::SeqCst);
        } else {
            warn!(%error, reason, "kafka producer");
        }
        self.tips.watch.suspect();
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(metrics) = &self.metrics {
            metrics.note(&statistics);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        self.budget.give(in_flight.bytes);
        let outcome = match result {
            Ok(message) => match u64::try_from(message.offset()).ok().map(Offset) {
                Some(offset) => {
                    let delivered = self.tips.deliver(in_flight.append.partition, offset);
                    delivered.map(|()| Some(offset))
                }
                None => Ok(None),
            },
            Err((error, _)) => {
                self.tips.watch.suspect();
                Err(self.tips.refused(error))
            }
        };
        if let Some(append) = in_flight.append.finish_one(outcome) {
            self.unresolved.lock().push(append);
        }
    }
}

/// One librdkafka producer with its poll thread.
struct Generation {
    producer: Arc<BaseProducer<Context>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Generation {
    fn start(
        options: &KafkaOptions,
        budget: Arc<Budget>,
        tips: Arc<Tips>,
        metrics: Option<KafkaMetrics>,
    ) -> Result<Self, KafkaError> {
        let context = Context {
            budget,
            metrics,
            tips,
            fatal: AtomicBool::new(false),
            unresolved: Mutex::new(Vec::new()),
        };
        let producer: BaseProducer<Context> = settings::producer(options)
            .create_with_context(context)
            .map_err(KafkaError::creating("creating a producer"))?;
        let producer = Arc::new(producer);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (producer, stop, topic) = (
                Arc::clone(&producer),
                Arc::clone(&stop),
                options.topic.clone(),
            );
            std::thread::Builder::new()
                .name("kafka-producer".into())
                .spawn(move || poll_loop(&producer, &stop, &topic))
                .map_err(|error| KafkaError::Refused {
                    doing: "starting the producer's thread",
                    reason: error.to_string(),
                })?
        };
        Ok(Self {
            producer,
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the poll thread once nothing is in flight any more; what is still there at the
    /// deadline is failed as unknown.
    fn end(&mut self, patience: Duration) {
        // An error here means that the deadline passed, which the purge below deals with.
        let flushed = self.producer.flush(patience);
        if let Err(error) = flushed {
            warn!(%error, "kafka producer: appends are given up, their outcome is unknown");
            self.producer
                .purge(PurgeConfig::default().queue().inflight());
        }
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the kafka producer's thread panicked");
        }
    }
}

fn poll_loop(producer: &BaseProducer<Context>, stop: &AtomicBool, topic: &str) {
    loop {
        let stopping = stop.load(Ordering::SeqCst);
        producer.poll(POLL);
        // What it finds, the next append meets.
        producer.context().tips.watch.look(producer.client());
        let unresolved = std::mem::take(&mut *producer.context().unresolved.lock());
        for append in unresolved {
            let partition = i32::try_from(append.partition.0).unwrap_or(i32::MAX);
            let held = watermarks(producer.client(), topic, partition, WATERMARK_TIMEOUT);
            append.finish_at(held.map(|held| held.end));
        }
        if stopping && producer.in_flight_count() == 0 {
            return;
        }
    }
}

impl KafkaProducer {
    pub(super) fn start(
        options: KafkaOptions,
        identity: QueueIdentity,
        durability: Durability,
        watch: Arc<TopicWatch>,
        metrics: Option<KafkaMetrics>,
    ) -> Result<Self, KafkaError> {
        let budget = Arc::new(Budget::default());
        let next = (0..identity.partitions).map(|_| AtomicU64::new(0));
        let tips = Arc::new(Tips {
            watch,
            next: next.collect(),
            trouble: Mutex::default(),
            delivery_timeout: options.delivery_timeout,
            max_batch_bytes: options.max_batch_bytes,
        });
        let first = Generation::start(
            &options,
            Arc::clone(&budget),
            Arc::clone(&tips),
            metrics.clone(),
        )?;
        let current = RwLock::new(first);
        let closed = AtomicBool::new(false);
        Ok(Self {
            options,
            identity,
            durability,
            metrics,
            budget,
            current,
            closed,
            tips,
        })
    }

    /// The producer to use now; a new one if the last has failed for good.
    fn producer(&self) -> Result<Arc<BaseProducer<Context>>, KafkaError> {
        {
            let current = self.current.read();
            if !current.producer.context().fatal.load(Ordering::SeqCst) {
                return Ok(Arc::clone(&current.producer));
            }
        }
        let mut current = self.current.write();
        if current.producer.context().fatal.load(Ordering::SeqCst) {
            let (budget, tips) = (Arc::clone(&self.budget), Arc::clone(&self.tips));
            let next = Generation::start(&self.options, budget, tips, self.metrics.clone())?;
            let mut dead = std::mem::replace(&mut *current, next);
            // A dead producer delivers nothing more, so there is nothing to be patient for.
            dead.end(Duration::ZERO);
        }
        Ok(Arc::clone(&current.producer))
    }

    fn send(&self, append: &Arc<Append>, payload: &Bytes) -> Result<(), String> {
        let deadline = Instant::now() + self.options.delivery_timeout;
        if !self
            .budget
            .take(payload.len(), self.options.max_in_flight_bytes, deadline)
        {
            return Err("too many bytes in flight, and no broker acknowledges any".to_owned());
        }
        let give_back = |reason: String| {
            self.budget.give(payload.len());
            reason
        };
        let producer = self
            .producer()
            .map_err(|error| give_back(error.to_string()))?;
        let partition = i32::try_from(append.partition.0).unwrap_or(i32::MAX);
        let in_flight = InFlight {
            append: Arc::clone(append),
            bytes: payload.len(),
        };
        let mut record: BaseRecord<'_, (), [u8], Box<InFlight>> =
            BaseRecord::with_opaque_to(&self.options.topic, Box::new(in_flight))
                .partition(partition)
                .payload(payload);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && Instant::now() < deadline =>
                {
                    // The same record again, by the same thread: nothing can overtake it.
                    record = back;
                    self.budget.wait_freed(RETRY);
                }
                Err((error, _)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                        // Whether or not its event has come: the next append gets another one.
                        producer.context().fatal.store(true, Ordering::SeqCst);
                    }
                    return Err(give_back(self.tips.refused(&error)));
                }
            }
        }
    }
}

impl Producer for KafkaProducer {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn append(&self, partition: PartitionId, batches: Vec<Bytes>, done: AppendDone) {
        if self.closed.load(Ordering::SeqCst) {
            return done(Err(AppendError::Closed));
        }
        if batches.is_empty() {
            return done(Ok(Offset::ZERO..Offset::ZERO));
        }
        if let Some(reason) = self.tips.refusal() {
            return done(Err(AppendError::Failed { partition, reason }));
        }
        let state = AppendState {
            remaining: batches.len(),
            offsets: None,
            offset_unknown: false,
            failure: None,
            done: Some(done),
        };
        let append = Arc::new(Append {
            partition,
            state: Mutex::new(state),
        });
        let mut failure = None;
        for batch in &batches {
            // After a record that could not be handed over the rest stays behind, so that the
            // order holds; all of them are answered as unknown.
            if failure.is_none() {
                failure = self.send(&append, batch).err();
                if failure.is_none() {
                    continue;
                }
            }
            let reason = failure.clone().unwrap_or_default();
            self.resolve(append.finish_one(Err(reason)));
        }
    }

    fn max_batch_bytes(&self) -> usize {
        self.options.max_batch_bytes
    }

    fn trouble(&self) -> Option<String> {
        let recent = |(reason, at): &(String, Instant)| {
            (at.elapsed() < TROUBLE_LASTS).then(|| format!("appends fail: {reason}"))
        };
        let refusal = self.tips.refusal();
        refusal.or_else(|| self.tips.trouble.lock().as_ref().and_then(recent))
    }
}

impl KafkaProducer {
    fn resolve(&self, unresolved: Option<Arc<Append>>) {
        if let Some(append) = unresolved {
            self.current
                .read()
                .producer
                .context()
                .unresolved
                .lock()
                .push(append);
        }
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.current.get_mut().end(self.options.delivery_timeout);
    }
}
