//! The threads on which queries run.
//!
//! **Invariants**
//! - As many pieces of work run at once as there are threads; a bounded number waits, for a bounded
//!   time; what is over is refused at once. So queries can slow down queries, and nothing else.
//! - Writing the next piece of an answer goes before starting a query: what has begun is finished
//!   first, and its memory freed.
//! - Work that panics costs its own request, not a thread.
//! - Dropping the pool lets its threads end once they have done what was handed to them.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::metrics::ApiMetrics;
use crate::nice::be_nice;

type Job = Box<dyn FnOnce() + Send>;

/// Threads for work that blocks.
pub(super) struct Pool {
    queue: Arc<Queue>,
    threads: usize,
    /// One permit per thread; its waiters are the waiting room.
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
    metrics: Option<ApiMetrics>,
}

/// Why the pool did not do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("too many queries: {running} running and {waiting} waiting; try again")]
    Full { running: usize, waiting: usize },
    #[error("too many queries: no thread of {running} was free within {waited:?}; try again")]
    WaitedTooLong { running: usize, waited: Duration },
    #[error("the query failed inside the server; the server's log says how")]
    Panicked,
}

impl Pool {
    /// Starts the threads, as nice to others as `nice` says.
    ///
    /// # Panics
    ///
    /// If the system refuses a thread.
    pub(super) fn start(
        name: &str,
        threads: usize,
        max_waiting: usize,
        max_wait: Duration,
        stack_bytes: usize,
        nice: i32,
        metrics: Option<ApiMetrics>,
    ) -> Self {
        let threads = threads.max(1);
        let queue = Arc::new(Queue::default());
        for i in 0..threads {
            let queue = queue.clone();
            thread::Builder::new()
                .name(format!("{name}-{i}"))
                .stack_size(stack_bytes)
                .spawn(move || {
                    be_nice(nice);
                    queue.work();
                })
                .unwrap_or_else(|error| panic!("no thread {name}-{i}: {error}"));
        }
        Self {
            queue,
            threads,
            running: Arc::new(Semaphore::new(threads)),
            waiting: AtomicUsize::new(0),
            max_waiting,
            max_wait,
            metrics,
        }
    }

    /// Does `work` on a thread of the pool. Dropped while it waits, it leaves its place; dropped
    /// while the work runs, the work goes on and its result is thrown away.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Refused>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = self.enter().await?;
        let (job, result) = job(move || {
            let result = work();
            drop(permit);
            result
        });
        // Never closed: the pool itself is here.
        self.queue.push(job, false);
        result.await.map_err(|_| Refused::Panicked)
    }

    /// Where work that has begun can be continued.
    pub(super) fn continuation(&self) -> Continuation {
        Continuation(self.queue.clone())
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _place = WaitingPlace(&self.waiting);
        if before >= self.max_waiting {
            self.count_refused("full");
            return Err(Refused::Full {
                running: self.threads,
                waiting: self.max_waiting,
            });
        }
        let _counted = self.metrics.as_ref().map(ApiMetrics::wait);
        let acquire = self.running.clone().acquire_owned();
        match tokio::time::timeout(self.max_wait, acquire).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                self.count_refused("waited");
                Err(Refused::WaitedTooLong {
                    running: self.threads,
                    waited: self.max_wait,
                })
            }
        }
    }

    fn count_refused(&self, reason: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.refused(reason);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut jobs = self.queue.jobs.lock();
        jobs.closed = true;
        for idle in jobs.idle.drain(..) {
            idle.notify_one();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// Gives a place in the waiting room back.
struct WaitingPlace<'a>(&'a AtomicUsize);

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`Pool::continuation`].
#[derive(Clone)]
pub(super) struct Continuation(Arc<Queue>);

impl Continuation {
    /// Does `work` before anything that has not begun yet. The receiver fails if it panics, or if
    /// the pool is gone.
    pub(super) fn run<T, F>(&self, work: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, result) = job(work);
        self.0.push(job, true);
        result
    }
}

fn job<T, F>(work: F) -> (Job, oneshot::Receiver<T>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let job = Box::new(move || {
        // The receiver may be gone: the client left. Then nobody wants the result.
        drop(sender.send(work()));
    });
    (job, receiver)
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    /// Continuations: at most one for each answer that is being sent.
    urgent: VecDeque<Job>,
    /// Beginnings: at most one for each permit.
    ordinary: VecDeque<Job>,
    /// Threads that wait for a job. The one that worked last is woken first: the caches still have
    /// what it worked with.
    idle: Vec<Arc<Condvar>>,
    closed: bool,
}

impl Queue {
    fn push(&self, job: Job, urgent: bool) {
        let mut jobs = self.jobs.lock();
        if jobs.closed {
            return;
        }
        if urgent {
            jobs.urgent.push_back(job);
        } else {
            jobs.ordinary.push_back(job);
        }
        let idle = jobs.idle.pop();
        drop(jobs);
        if let Some(idle) = idle {
            idle.notify_one();
        }
    }

    /// The next job for the thread that is woken by `own`; `None` once there will be none.
    fn next(&self, own: &Arc<Condvar>) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.urgent.pop_front() {
                return Some(job);
            }
            if let Some(job) = jobs.ordinary.pop_front() {
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs.idle.push(own.clone());
            own.wait(&mut jobs);
        }
    }

    fn work(&self) {
        let own = Arc::new(Condvar::new());
        while let Some(job) = self.next(&own) {
            // The job's own state is dropped with it, and nothing else is shared with it but what
            // its callees guard themselves.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a query panicked; its client is answered with 500");
            }
        }
    }
}
