//! One question to all partitions: which store is asked for which, what happens when one fails, and
//! what an answer with a hole is.
//!
//! Invariants:
//! - No partition is in two of the answers that are used.
//! - An answer is used only if it came to its end. One that was cut is thrown away, and the whole
//!   of its partitions is asked again elsewhere.
//! - What nobody answers for is an error, or a warning where the request allows that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use millrace_model::{Offset, PartitionId, TenantId};
use millrace_query::{ReadContext, ReadStats, SourceError};
use millrace_queue::{Position, QueueIdentity};

use crate::answer::{Answer, Charge, ReadMemory};
use crate::client::{CallError, left, millis};
use crate::fleet::Fleet;
use crate::wire::frame::{ErrorCode, Hello};
use crate::wire::messages::{Ask, ReadRequest, numbers};

/// How often it is looked whether somebody still waits.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// What one store answered.
#[derive(Debug)]
pub(crate) struct Part<A> {
    pub(crate) store: String,
    pub(crate) partitions: Vec<PartitionId>,
    pub(crate) answer: A,
}

/// Something that was waited for has ended.
enum Event<A> {
    Answered {
        store: String,
        partitions: Vec<PartitionId>,
        result: Result<((Hello, Vec<String>), A), CallError>,
    },
    /// All stores have been looked at again.
    Polled,
}

struct Gather<'a> {
    fleet: &'a Fleet,
    tenant: &'a TenantId,
    ask: Ask,
    context: &'a Arc<ReadContext>,
    identity: QueueIdentity,
    least: BTreeMap<PartitionId, Offset>,
    memory: Arc<ReadMemory>,
    deadline: Instant,
}

/// What came of stores so far.
#[derive(Default)]
struct Tries {
    /// Times that each was asked in vain, and the last reason.
    failed: BTreeMap<String, (u32, String)>,
    damaged: bool,
    /// How often each may be asked in vain: once more after all were looked at again.
    allowed: u32,
}

impl Fleet {
    /// Asks all partitions. Blocks: not to be called on a thread of the runtime.
    pub(crate) fn gather<A: Answer + 'static>(
        &self,
        tenant: &TenantId,
        ask: Ask,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<Part<A>>, SourceError> {
        let begun = Instant::now();
        let longest = begun + self.options.read_timeout;
        let deadline = context.deadline.map_or(longest, |d| d.min(longest));
        let gathered = self.runtime.block_on(async {
            let gathering = async {
                let identity = match self.identity() {
                    Some(identity) => identity,
                    None => {
                        self.poll().await;
                        match self.identity() {
                            Some(identity) => identity,
                            None => return self.nobody(context),
                        }
                    }
                };
                let gather = Gather {
                    fleet: self,
                    tenant,
                    ask,
                    context,
                    least: least(context, &identity)?,
                    identity,
                    memory: ReadMemory::new(self.memory.clone(), self.options.max_read_bytes),
                    deadline,
                };
                gather.run().await
            };
            tokio::select! {
                gathered = gathering => gathered,
                () = cancelled(context) => Err(SourceError::NotReady {
                    reason: "nobody waits for the answer any more".to_owned(),
                }),
                () = tokio::time::sleep_until(deadline.into()) => Err(SourceError::NotReady {
                    reason: "the stores did not answer in time".to_owned(),
                }),
            }
        });
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        ReadStats::add(&context.stats.select_nanos, nanos);
        gathered
    }

    /// No store has ever answered, so it is not known which partitions there are.
    fn nobody<A>(&self, context: &ReadContext) -> Result<Vec<Part<A>>, SourceError> {
        let replicas = self.replicas.lock();
        let why = replicas.why_missing(PartitionId(0)).join("; ");
        let reason = match why.is_empty() {
            true => "no store is known".to_owned(),
            false => format!("no store has answered yet: {why}"),
        };
        self.metrics.incomplete();
        if context.partial {
            context.warn(format!("all series are missing: {reason}"));
            return Ok(Vec::new());
        }
        Err(SourceError::NotReady { reason })
    }
}

/// Returns once nobody waits for the answer.
async fn cancelled(context: &ReadContext) {
    let mut ticks = tokio::time::interval(CANCEL_INTERVAL);
    while !context.cancel.is_cancelled() {
        ticks.tick().await;
    }
}

/// What the answers must include.
fn least(
    context: &ReadContext,
    identity: &QueueIdentity,
) -> Result<BTreeMap<PartitionId, Offset>, SourceError> {
    let Some(text) = context.point.required() else {
        return Ok(BTreeMap::new());
    };
    // It was checked when it was waited for; what comes here without that is refused as well.
    let position: Result<Position, _> = text.parse();
    match position {
        Ok(position) if position.queue == identity.id => Ok(position.next),
        _ => Err(SourceError::NotReady {
            reason: format!("{text:?} is no position of queue {}", identity.id),
        }),
    }
}

impl Gather<'_> {
    async fn run<A: Answer + 'static>(&self) -> Result<Vec<Part<A>>, SourceError> {
        let mut open: BTreeSet<_> = (0..self.identity.partitions).map(PartitionId).collect();
        let mut tries = Tries {
            allowed: 1,
            ..Tries::default()
        };
        let mut running: FuturesUnordered<BoxFuture<'_, Event<A>>> = FuturesUnordered::new();
        let mut parts = Vec::new();
        loop {
            if !open.is_empty() {
                self.send(&mut open, &tries, &running);
            }
            // What nobody answers for is tried once more, after a look at all stores.
            if !open.is_empty() && tries.allowed == 1 {
                tries.allowed = 2;
                let polling = async {
                    self.fleet.poll().await;
                    Event::Polled
                };
                running.push(polling.boxed());
            }
            match running.next().await {
                None => break,
                Some(Event::Polled) => {}
                Some(Event::Answered {
                    store,
                    partitions,
                    result: Ok(((hello, warnings), answer)),
                }) => {
                    for warning in warnings {
                        self.context.warn(warning);
                    }
                    for (partition, applied) in &hello.applied.next {
                        self.context.point.included_up_to(*partition, *applied);
                    }
                    parts.push(Part {
                        store,
                        partitions,
                        answer,
                    });
                }
                Some(Event::Answered {
                    store,
                    partitions,
                    result: Err(error),
                }) => {
                    self.note(&store, error, &mut tries)?;
                    open.extend(partitions);
                }
            }
        }
        if !open.is_empty() {
            self.missing(open.into_iter().collect(), &tries)?;
        }
        parts.sort_by(|a, b| a.partitions.cmp(&b.partitions));
        Ok(parts)
    }

    /// Asks for the open partitions those who have them.
    fn send<'b, A: Answer + 'static>(
        &'b self,
        open: &mut BTreeSet<PartitionId>,
        tries: &Tries,
        running: &FuturesUnordered<BoxFuture<'b, Event<A>>>,
    ) {
        let switch = self.fleet.options.switch_records;
        let refused = |store: &str| {
            let failed = tries.failed.get(store);
            failed.is_some_and(|(times, _)| *times >= tries.allowed)
        };
        let wanted: Vec<_> = open.iter().copied().collect();
        let mut replicas = self.fleet.replicas.lock();
        let plan = replicas.plan(wanted, &self.least, switch, refused);
        drop(replicas);
        for ((store, _), partitions) in plan.groups {
            for partition in &partitions {
                open.remove(partition);
            }
            if !tries.failed.is_empty() {
                self.fleet.metrics.failover();
            }
            running.push(self.call(store, partitions).boxed());
        }
    }

    async fn call<A: Answer + 'static>(
        &self,
        store: String,
        partitions: Vec<PartitionId>,
    ) -> Event<A> {
        let begun = Instant::now();
        let at_least = self.least.iter().filter(|(p, _)| partitions.contains(p));
        let request = ReadRequest {
            queue: self.identity.id.to_string(),
            partitions: numbers(&partitions),
            at_least: at_least.map(|(p, offset)| (p.0, offset.0)).collect(),
            tenant: self.tenant.as_str().to_owned(),
            timeout_ms: millis(left(self.deadline)),
            ask: self.ask.clone(),
        };
        let stats = &self.context.stats;
        ReadStats::add(&stats.remote_calls, 1);
        let mut answer = A::new(Charge::new(self.memory.clone()));
        let mut received = 0;
        let caller = &self.fleet.caller;
        let read = caller
            .read(&store, &request, &mut answer, &mut received)
            .await;
        let metrics = &self.fleet.metrics;
        metrics.called(&store, begun.elapsed());
        metrics.received(&store, received);
        Event::Answered {
            result: read.map(|hello| (hello, answer)),
            store,
            partitions,
        }
    }

    /// Takes note of a failure.
    ///
    /// # Errors
    ///
    /// One that no other store could mend.
    fn note(&self, store: &str, error: CallError, tries: &mut Tries) -> Result<(), SourceError> {
        self.fleet.metrics.failed(store, error.word());
        match &error {
            CallError::Memory { limit, all: false } => {
                return Err(SourceError::Limit {
                    what: "bytes of series from stores",
                    limit: *limit,
                });
            }
            CallError::Memory { limit, all: true } => {
                return Err(SourceError::NotReady {
                    reason: format!(
                        "the queries that run fill the {limit} bytes for answers of stores"
                    ),
                });
            }
            CallError::Stream(error) if error.code == ErrorCode::DataUnavailable => {
                tries.damaged = true;
            }
            _ => {}
        }
        let reason = error.to_string();
        tracing::warn!(store, reason, "a read of a store failed");
        if error.blames_store() {
            let mut replicas = self.fleet.replicas.lock();
            replicas.failed_read(store, reason.clone());
        }
        let entry = tries.failed.entry(store.to_owned()).or_default();
        *entry = (entry.0 + 1, reason);
        Ok(())
    }

    /// Nobody answers for these.
    fn missing(&self, partitions: Vec<PartitionId>, tries: &Tries) -> Result<(), SourceError> {
        let mut reasons: BTreeSet<String> = tries
            .failed
            .iter()
            .map(|(store, (_, reason))| format!("{store}: {reason}"))
            .collect();
        let replicas = self.fleet.replicas.lock();
        for partition in &partitions {
            let why = replicas.why_missing(*partition);
            let told = |why: &String| {
                let store = why.split(": ").next().unwrap_or_default();
                !tries.failed.contains_key(store)
            };
            reasons.extend(why.into_iter().filter(told));
        }
        drop(replicas);
        let reasons: Vec<String> = reasons.into_iter().collect();
        let tried = match reasons.is_empty() {
            true => "no store has them".to_owned(),
            false => reasons.join("; "),
        };
        self.fleet.metrics.incomplete();
        // Damage is no absence: it stays an error, so that somebody looks at it.
        if tries.damaged {
            return Err(SourceError::DataUnavailable { reason: tried });
        }
        let error = SourceError::Unreachable { partitions, tried };
        if self.context.partial {
            self.context.warn(format!("series are missing: {error}"));
            return Ok(());
        }
        Err(error)
    }
}
