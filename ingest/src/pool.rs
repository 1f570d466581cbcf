//! The threads that decode.
//!
//! A fixed number of them with a bounded queue in front: decoding is pure CPU work, so it must
//! not run on the runtime's workers (one large body would hold up every connection), and more
//! threads than cores would only add waiting. Each thread keeps its [`Scratch`], so that a
//! request of known series allocates next to nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use crate::IngestError;
use crate::series::Scratch;

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// The pool. Its threads end when it is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct DecodePool {
    jobs: Sender<Job>,
}

impl DecodePool {
    /// Starts `threads` threads with room for `queue` waiting jobs.
    ///
    /// # Panics
    ///
    /// If the operating system gives no thread: a server that cannot start its threads cannot
    /// start.
    pub(crate) fn start(threads: usize, queue: usize) -> Self {
        let (jobs, waiting) = crossbeam_channel::bounded(queue.max(1));
        for i in 0..threads.max(1) {
            let waiting = waiting.clone();
            std::thread::Builder::new()
                .name(format!("ingest-decode-{i}"))
                .spawn(move || work(&waiting))
                .expect("the operating system refuses threads at start");
        }
        Self { jobs }
    }

    /// Runs `job` on a thread of the pool and waits for its result. The job runs to its end even
    /// if the returned future is dropped.
    ///
    /// # Errors
    ///
    /// [`IngestError::Overloaded`] if too many jobs wait, [`IngestError::Panicked`] if the job did.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<T, IngestError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |scratch| {
            // Nobody may be left to hear the result; the job's effect does not depend on it.
            drop(done.send(job(scratch)));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => IngestError::Overloaded {
                what: "too many requests wait to be decoded (ingest.decode_queue)",
            },
            TrySendError::Disconnected(_) => IngestError::Closed,
        })?;
        result.await.map_err(|_| IngestError::Panicked)
    }
}

fn work(waiting: &Receiver<Job>) {
    let mut scratch = Scratch::default();
    for job in waiting {
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

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_panic_costs_one_job_and_no_thread() {
        let pool = DecodePool::start(1, 4);
        let panicked = block_on(pool.run(|_| -> u8 { panic!("planted") }));
        assert!(matches!(panicked, Err(IngestError::Panicked)));
        assert_eq!(block_on(pool.run(|_| 7)).unwrap(), 7);
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let pool = DecodePool::start(1, 1);
        let (started, running) = bounded::<()>(1);
        let (release, gate) = bounded::<()>(0);
        block_on(async {
            let mut first = Box::pin(pool.run(move |_| {
                started.send(()).unwrap();
                gate.recv().unwrap();
            }));
            let poll = futures_poll(&mut first);
            assert!(poll.is_pending());
            running.recv().unwrap();
            let mut second = Box::pin(pool.run(|_| ()));
            assert!(futures_poll(&mut second).is_pending());
            let third = pool.run(|_| ()).await;
            assert!(matches!(third, Err(IngestError::Overloaded { .. })));
            release.send(()).unwrap();
            first.await.unwrap();
            second.await.unwrap();
        });
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(future).poll(&mut context)
    }
}
