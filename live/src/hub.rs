//! What all subscribers and all threads of the feed share.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use millrace_model::PartitionId;
use millrace_queue::{Position, RecordSource};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, watch};

use crate::applied::Applied;
use crate::filter::{Filter, Filters, Numbered};
use crate::http::StillAllowed;
use crate::metrics::LiveMetrics;
use crate::options::LiveOptions;
use crate::ring::Ring;
use crate::subscriber::Subscriber;
use crate::tail;

/// The feed. Cloning gives another handle to it.
#[derive(Clone, Debug)]
pub struct Live(pub(crate) Arc<Hub>);

/// A partition's part of the feed.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) partition: PartitionId,
    pub(crate) ring: Ring,
}

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) options: LiveOptions,
    pub(crate) records: Arc<dyn RecordSource>,
    pub(crate) applied: Arc<dyn Applied>,
    pub(crate) metrics: LiveMetrics,
    /// In order of their partitions.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) filters: Filters,
    /// Counts up whenever a ring has grown.
    pub(crate) published: watch::Sender<u64>,
    /// Whether the server stops.
    pub(crate) closing: watch::Sender<bool>,
    /// Who may read the queue itself.
    pub(crate) catch_up: Semaphore,
    subscribers: AtomicUsize,
    sleep: Mutex<Sleep>,
    woken: Condvar,
    seed: RandomState,
    told: AtomicU64,
}

/// What the threads wait for.
#[derive(Debug, Default)]
struct Sleep {
    started: bool,
    closed: bool,
}

/// As many subscribers as may be are there.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{limit} subscribers are there, and no more may be")]
pub(crate) struct Full {
    limit: usize,
}

impl Live {
    /// A feed of what `applied` applies of the records of `records`. Its threads start with the first
    /// subscriber.
    #[must_use]
    pub fn new(
        options: LiveOptions,
        records: Arc<dyn RecordSource>,
        applied: Arc<dyn Applied>,
        metrics: LiveMetrics,
    ) -> Self {
        let partitions: Vec<_> = applied.position().next.into_keys().collect();
        let share = options.ring_bytes / partitions.len().max(1);
        let lane = |partition| Lane {
            partition,
            ring: Ring::new(share),
        };
        Self(Arc::new(Hub {
            catch_up: Semaphore::new(options.catch_up_readers.max(1)),
            lanes: partitions.into_iter().map(lane).collect(),
            options,
            records,
            applied,
            metrics,
            filters: Filters::default(),
            published: watch::channel(0).0,
            closing: watch::channel(false).0,
            subscribers: AtomicUsize::new(0),
            sleep: Mutex::default(),
            woken: Condvar::new(),
            seed: RandomState::new(),
            told: AtomicU64::new(0),
        }))
    }

    /// Says goodbye to all subscribers, takes no more, and ends the threads. What is on its way to a
    /// subscriber is still sent.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
        self.0.sleep.lock().closed = true;
        self.0.woken.notify_all();
    }

    /// Waits until all subscribers have gone, for `timeout` at most. How many are left.
    pub async fn drained(&self, timeout: Duration) -> usize {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let gone = async {
            while self.0.has_subscribers() {
                ticks.tick().await;
            }
        };
        match tokio::time::timeout(timeout, gone).await {
            Ok(()) => 0,
            Err(_) => self.0.subscribers.load(Ordering::SeqCst),
        }
    }

    /// A subscriber from `from` on; `None` is the moment of the call.
    pub(crate) fn subscribe(
        &self,
        filter: Filter,
        from: Option<Position>,
        allowed: Option<StillAllowed>,
    ) -> Result<Subscriber, Full> {
        let hub = &self.0;
        let limit = hub.options.max_subscribers;
        let entered = hub
            .subscribers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |there| {
                (there < limit).then_some(there + 1)
            });
        if entered.is_err() {
            hub.metrics.refused.inc();
            return Err(Full { limit });
        }
        hub.metrics.subscribers.inc();
        hub.metrics.subscriptions.inc();
        let place = Place {
            filter: hub.filters.enter(filter),
            hub: Arc::clone(hub),
        };
        hub.start();
        Ok(Subscriber::new(place, from, allowed))
    }
}

/// A subscriber's place: given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) hub: Arc<Hub>,
    pub(crate) filter: Arc<Numbered>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.filters.leave(&self.filter);
        self.hub.metrics.subscribers.dec();
        self.hub.subscribers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hub {
    pub(crate) fn has_subscribers(&self) -> bool {
        self.subscribers.load(Ordering::SeqCst) > 0
    }

    /// Starts the threads, or wakes them.
    fn start(self: &Arc<Self>) {
        let mut sleep = self.sleep.lock();
        if sleep.closed {
            return;
        }
        if !sleep.started {
            sleep.started = true;
            for lane in 0..self.lanes.len() {
                tail::spawn(self, lane);
            }
        }
        drop(sleep);
        self.woken.notify_all();
    }

    /// Blocks until there are subscribers; whether there are, and the feed is not closed.
    pub(crate) fn wait_for_subscribers(&self) -> bool {
        let mut sleep = self.sleep.lock();
        while !sleep.closed && !self.has_subscribers() {
            self.woken.wait(&mut sleep);
        }
        !sleep.closed
    }

    /// Blocks for so long, or until the feed is closed.
    pub(crate) fn pause(&self, duration: Duration) {
        let deadline = std::time::Instant::now() + duration;
        let mut sleep = self.sleep.lock();
        while !sleep.closed && !self.woken.wait_until(&mut sleep, deadline).timed_out() {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    /// When a subscriber that loses its connection now should be back: each is told another moment.
    pub(crate) fn reconnect(&self) -> Duration {
        let base = u64::try_from(self.options.reconnect.as_millis()).unwrap_or(u64::MAX);
        let told = self.told.fetch_add(1, Ordering::Relaxed);
        let more = self.seed.hash_one(told) % base.max(1);
        Duration::from_millis(base.saturating_add(more))
    }
}
