//! The threads that decode.
//!
//! A fixed number of them with a bounded queue in front, in which tenants take turns by the bytes of
//! their bodies: decoding is pure CPU work, so it must
//! not run on the runtime's workers (one large body would hold up every connection), and more
//! threads than cores would only add waiting. Each thread keeps its [`Scratch`], so that a
//! request of known series allocates next to nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_model::TenantId;
use millrace_queue::FairQueue;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::IngestError;
use crate::memory::is_fair;
use crate::series::Scratch;

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// The pool. Its threads end when it is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct DecodePool {
    shared: Arc<Shared>,
}

struct Shared {
    /// As many may wait.
    max: usize,
    /// Whether tenants have to share.
    several: Arc<AtomicBool>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    jobs: FairQueue<Job>,
    closed: bool,
}

impl DecodePool {
    /// A job costs this much besides its body's bytes, so that many empty ones count too.
    const JOB_COST: usize = 4 << 10;

    /// Starts `threads` threads with room for `queue` waiting jobs, which tenants share if there are
    /// `several`.
    ///
    /// # Panics
    ///
    /// If the operating system gives no thread: a server that cannot start its threads cannot
    /// start.
    pub(crate) fn start(threads: usize, queue: usize, several: Arc<AtomicBool>) -> Self {
        let shared = Arc::new(Shared {
            max: queue.max(1),
            several,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        for i in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("ingest-decode-{i}"))
                .spawn(move || work(&shared))
                .expect("the operating system refuses threads at start");
        }
        Self { shared }
    }

    /// Runs `job`, which is about so many bytes of a tenant, on a thread of the pool and waits for its
    /// result. The job runs to its end even if the returned future is dropped.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if too many jobs wait, [`IngestError::Panicked`] if the job did.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        bytes: usize,
        job: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<T, IngestError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |scratch| {
            // Nobody may be left to hear the result; the job's effect does not depend on it.
            drop(done.send(job(scratch)));
        });
        self.push(tenant, bytes, job)?;
        result.await.map_err(|_| IngestError::Panicked)
    }

    fn push(&self, tenant: &TenantId, bytes: usize, job: Job) -> Result<(), IngestError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let waiting = state.jobs.len();
        if waiting >= shared.max {
            return Err(IngestError::Overloaded {
                what: "too many requests wait to be decoded (ingest.decode_queue)",
            });
        }
        let several = shared.several.load(Ordering::Relaxed);
        if several && !is_fair(state.jobs.len_of(tenant), 1, waiting, shared.max) {
            return Err(IngestError::Overloaded {
                what: "too many requests of this tenant wait to be decoded, and others need their turn \
                       (ingest.decode_queue)",
            });
        }
        state.jobs.push(tenant, bytes + Self::JOB_COST, job);
        drop(state);
        shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for DecodePool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// The next job; none when it is over.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}

fn work(shared: &Shared) {
    let mut scratch = Scratch::default();
    while let Some(job) = shared.next() {
        // A panic is a bug in a decoder. It costs one request (its sender is dropped, which
        // answers 500), not the thread; the half-filled scratch goes with it.
        if catch_unwind(AssertUnwindSafe(|| job(&mut scratch))).is_err() {
            tracing::error!("decoding a request panicked");
            scratch = Scratch::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn start(threads: usize, queue: usize, several: bool) -> DecodePool {
        DecodePool::start(threads, queue, Arc::new(AtomicBool::new(several)))
    }

    fn anonymous() -> TenantId {
        TenantId::anonymous()
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_panic_costs_one_job_and_no_thread() {
        let pool = start(1, 4, false);
        let tenant = anonymous();
        let panicked = pool.run(&tenant, 0, |_| -> u8 { panic!("planted") });
        assert!(matches!(block_on(panicked), Err(IngestError::Panicked)));
        assert_eq!(block_on(pool.run(&tenant, 0, |_| 7)).unwrap(), 7);
    }

    /// Keeps the only thread of a pool busy until the sender is used or dropped.
    fn occupied(pool: &DecodePool) -> crossbeam_channel::Sender<()> {
        let (started, running) = bounded::<()>(1);
        let (release, gate) = bounded::<()>(1);
        let job = move |_: &mut Scratch| {
            started.send(()).unwrap();
            // Dropped is released too.
            let _released = gate.recv();
        };
        pool.push(&anonymous(), 0, Box::new(job)).unwrap();
        running.recv().unwrap();
        release
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let pool = start(1, 1, false);
        let release = occupied(&pool);
        let tenant = anonymous();
        block_on(async {
            let mut second = Box::pin(pool.run(&tenant, 0, |_| ()));
            assert!(poll(&mut second).is_pending());
            let third = pool.run(&tenant, 0, |_| ()).await;
            assert!(matches!(third, Err(IngestError::Overloaded { .. })));
            drop(release);
            second.await.unwrap();
        });
    }

    #[test]
    fn one_that_floods_is_refused_while_another_is_next() {
        let pool = start(1, 100, true);
        let release = occupied(&pool);
        let (flood, quiet): (TenantId, TenantId) =
            ("flood".parse().unwrap(), "quiet".parse().unwrap());
        let (done, order) = bounded::<&'static str>(1000);
        let push = |tenant: &TenantId, name: &'static str, done: &crossbeam_channel::Sender<_>| {
            let done = done.clone();
            let job = move |_: &mut Scratch| done.send(name).unwrap();
            pool.push(tenant, 300 << 10, Box::new(job))
        };
        let taken = (0..1000).filter(|_| push(&flood, "flood", &done).is_ok());
        let taken = taken.count();
        assert!((75..=80).contains(&taken), "{taken}");
        push(&quiet, "quiet", &done).unwrap();
        assert!(push(&flood, "flood", &done).is_err());
        drop((release, done, pool));
        let order: Vec<&str> = order.iter().collect();
        let at = order.iter().position(|name| *name == "quiet").unwrap();
        assert!(at <= 2, "behind {at} of {taken} others");
        assert_eq!(
            order.len(),
            taken + 1,
            "what was taken is done, though nobody asks any more"
        );
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(future).poll(&mut context)
    }
}
