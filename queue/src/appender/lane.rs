//! The lane: one thread, one partition, one append after another.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use millrace_model::batch::{EncodedSection, encode_batch};
use millrace_model::{Offset, PartitionId, TenantId};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::pending::Ticket;
use super::{BATCH_OVERHEAD_BYTES, Core, SECTION_OVERHEAD_BYTES};
use crate::metrics::LaneMetrics;
use crate::{AppendError, FairQueue};

/// One append takes at most so many full batches, so that one long queue of submissions does not
/// become one long write.
const BATCHES_PER_APPEND: usize = 4;

/// One section on its way.
pub(super) struct Submission {
    tenant: TenantId,
    section: EncodedSection,
    ticket: Arc<Ticket>,
}

impl Submission {
    pub(super) fn new(tenant: TenantId, section: EncodedSection, ticket: Arc<Ticket>) -> Self {
        Self {
            tenant,
            section,
            ticket,
        }
    }

    /// What it takes of the budget, and of a batch.
    pub(super) fn bytes(&self) -> usize {
        self.section.bytes_len() + SECTION_OVERHEAD_BYTES
    }
}

/// Where submissions of one partition wait.
pub(super) struct Lane {
    partition: PartitionId,
    state: Mutex<State>,
    changed: Condvar,
    closed: AtomicBool,
    metrics: LaneMetrics,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Submission>,
    waiting_bytes: usize,
    in_flight: usize,
    closed: bool,
}

impl Lane {
    pub(super) fn new(partition: PartitionId, metrics: LaneMetrics) -> Self {
        Self {
            partition,
            state: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether it takes no more submissions, without waiting for its lock.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Gives the submission back if the lane is closed.
    pub(super) fn push(&self, submission: Submission) -> Result<(), Submission> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(submission);
        }
        let bytes = submission.bytes();
        state.waiting_bytes += bytes;
        let tenant = submission.tenant.clone();
        state.waiting.push(&tenant, bytes, submission);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.closed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn append_ended(&self) {
        self.state.lock().in_flight -= 1;
        self.changed.notify_all();
    }
}

/// The lane's thread: until it is closed and nothing is left.
pub(super) fn run(core: &Arc<Core>, index: usize) {
    let lane = &core.lanes[index];
    let _guard = PanicGuard { core, lane };
    let mut taken = Vec::new();
    while next_round(core, lane, &mut taken) {
        append(core, index, &mut taken);
    }
}

/// A lane that panics, which is a bug of ours or of the backend, leaves no one waiting for ever.
struct PanicGuard<'a> {
    core: &'a Core,
    lane: &'a Lane,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.lane.close();
        let mut state = self.lane.state.lock();
        state.waiting_bytes = 0;
        let mut waiting = std::mem::take(&mut state.waiting);
        drop(state);
        while let Some(submission) = waiting.pop() {
            self.core.budget.give_back(submission.bytes());
            let failed = AppendError::Failed {
                partition: self.lane.partition,
                reason: "its append lane panicked".to_owned(),
            };
            submission.ticket.resolve(self.lane.partition, Err(failed));
        }
    }
}

/// Waits for submissions and takes those of the next append; false when the lane is done.
fn next_round(core: &Core, lane: &Lane, taken: &mut Vec<Submission>) -> bool {
    let mut state = lane.state.lock();
    loop {
        if state.in_flight >= core.max_in_flight {
            lane.changed.wait(&mut state);
        } else if !state.waiting.is_empty() {
            break;
        } else if state.closed && state.in_flight == 0 {
            return false;
        } else {
            lane.changed.wait(&mut state);
        }
    }
    if !core.linger.is_zero() {
        linger(core, lane, &mut state);
    }
    let most = core.max_batch_bytes.saturating_mul(BATCHES_PER_APPEND);
    let mut bytes = 0;
    while let Some(next) = state.waiting.next_cost() {
        if bytes > 0 && bytes + next > most {
            break;
        }
        bytes += next;
        taken.extend(state.waiting.pop());
    }
    state.waiting_bytes -= bytes;
    state.in_flight += 1;
    true
}

/// Gives others the time to join, unless a batch is full or the lane closes.
fn linger(core: &Core, lane: &Lane, state: &mut MutexGuard<'_, State>) {
    let deadline = Instant::now() + core.linger;
    while state.waiting_bytes < core.max_batch_bytes && !state.closed {
        if lane.changed.wait_until(state, deadline).timed_out() {
            return;
        }
    }
}

/// Joins what was taken into batches and hands them to the backend.
fn append(core: &Arc<Core>, index: usize, taken: &mut Vec<Submission>) {
    // Stable, so that a tenant's sections stay in order.
    taken.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    // First, so that whatever happens now, the round ends.
    let mut round = Round {
        core: Arc::clone(core),
        index,
        pending_bytes: taken.iter().map(Submission::bytes).sum(),
        samples: taken.iter().map(|s| u64::from(s.section.samples())).sum(),
        tickets: taken.iter().map(|s| Arc::clone(&s.ticket)).collect(),
        batches: 0,
        batch_bytes: 0,
        started: Instant::now(),
    };
    let batches = join(taken, core.max_batch_bytes);
    taken.clear();
    round.batches = batches.len();
    round.batch_bytes = batches.iter().map(Bytes::len).sum();
    round.started = Instant::now();
    let done = Box::new(move |outcome| round.end(outcome));
    core.producer
        .append(core.lanes[index].partition, batches, done);
}

/// Batches of `sorted` submissions: one tenant each, none longer than `max_batch_bytes`.
fn join(sorted: &[Submission], max_batch_bytes: usize) -> Vec<Bytes> {
    let mut batches = Vec::new();
    for of_tenant in sorted.chunk_by(|a, b| a.tenant == b.tenant) {
        let mut rest = of_tenant;
        while let Some(first) = rest.first() {
            let mut bytes = BATCH_OVERHEAD_BYTES;
            let fits = rest.iter().take_while(|next| {
                bytes += next.bytes();
                bytes <= max_batch_bytes
            });
            // A section that fits in no batch was refused when it was submitted.
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let sections = now.iter().map(|submission| &submission.section);
            batches.push(Bytes::from(encode_batch(&first.tenant, None, sections)));
        }
    }
    batches
}

/// An append in flight. However it ends, even if the backend forgets it, its submitters are told
/// and its bytes given back.
struct Round {
    core: Arc<Core>,
    index: usize,
    pending_bytes: usize,
    batches: usize,
    batch_bytes: usize,
    samples: u64,
    started: Instant,
    tickets: Vec<Arc<Ticket>>,
}

impl Round {
    fn end(mut self, outcome: Result<Range<Offset>, AppendError>) {
        let metrics = &self.core.metrics;
        let lane = &self.core.lanes[self.index];
        match &outcome {
            Ok(_) => {
                metrics.appends.inc();
                metrics
                    .append_seconds
                    .observe(self.started.elapsed().as_secs_f64());
                lane.metrics.batches.inc_by(self.batches as u64);
                lane.metrics.bytes.inc_by(self.batch_bytes as u64);
                lane.metrics.samples.inc_by(self.samples);
            }
            Err(_) => metrics.failures.inc(),
        }
        // Everything of a round becomes visible together, so the end of all is the position of
        // each.
        self.settle(outcome.map(|offsets| offsets.end));
    }

    fn settle(&mut self, outcome: Result<Offset, AppendError>) {
        let lane = &self.core.lanes[self.index];
        // Before the tickets: who waited for one may submit again at once.
        self.core.budget.give_back(self.pending_bytes);
        for ticket in self.tickets.drain(..) {
            ticket.resolve(lane.partition, outcome.clone());
        }
        self.pending_bytes = 0;
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let lane = &self.core.lanes[self.index];
        if !self.tickets.is_empty() {
            self.core.metrics.failures.inc();
            self.settle(Err(AppendError::Failed {
                partition: lane.partition,
                reason: "the backend ended without telling how the append did".to_owned(),
            }));
        }
        self.core.lanes[self.index].append_ended();
    }
}
