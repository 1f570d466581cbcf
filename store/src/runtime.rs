//! Threads around the shards: one for each shard that polls, applies and syncs, one for all
//! that writes blocks, and one for all that merges them ([`crate::maintain`]).
//!
//! Invariants:
//! - A shard's thread is the only one that touches the shard. The sealer gets a [`SealJob`] and
//!   gives back a result.
//! - A shard reads on only where the queue is the one that it has read; what is committed for the
//!   queue's own tools is on this machine's disk.
//! - The queue is released up to the *sealed* offset and no further: what only the memtable and the
//!   WAL hold it still has.
//! - A shard that stops does not take its neighbours with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};
use millrace_model::{Offset, PartitionId};
use parking_lot::Mutex;

use millrace_queue::{ConsumeError, Consumer};

use crate::backup::ShardSnapshot;
use crate::compact::Pace;
use crate::error::StoreError;
use crate::maintain::{self, Commit, Errand, Maintainer, Tended};
use crate::manifest::GapCause;
use crate::options::StoreOptions;
use crate::retain::RetentionClock;
use crate::shard::{Retired, SealJob, Sealed, Shard, Shared, StopCode};
use crate::store::first_error;
use crate::views::{Tender, Views};

/// Longest pause between two tries of a queue that cannot be read.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// How long a resume waits for the record that it compares.
const RESUME_PATIENCE: Duration = Duration::from_secs(10);
/// How often the lag is measured.
const LAG_EVERY: Duration = Duration::from_millis(250);
/// A record that the queue has stamped may take this long until it can be polled.
const QUEUE_TIME_SLACK: Duration = Duration::from_secs(60);

/// How long a snapshot waits for a shard's thread, which may be waiting for a seal or for the queue.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);

type SealResult = Result<Sealed, StoreError>;

/// What the sealer is asked to do.
enum Request {
    /// A job, and where its result goes. One result for each job, so the channel has room for it.
    Seal {
        job: Box<SealJob>,
        done: Sender<SealResult>,
    },
    /// To free memory.
    Drop(Retired),
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Runtime {
    stop: Stop,
    lanes: Vec<JoinHandle<Result<(), StoreError>>>,
    sealer: Option<JoinHandle<()>>,
    maintainer: Option<JoinHandle<()>>,
    /// Derives views.
    tender: Option<JoinHandle<()>>,
    /// To each shard's thread.
    errands: Vec<(PartitionId, Sender<Errand>)>,
    /// Asks the maintainer; closed, it ends.
    wishes: Option<Sender<maintain::Request>>,
    pace: Arc<Pace>,
}

/// Tells all threads to end, and wakes those that wait: nothing is ever sent, the channel is
/// closed.
#[derive(Debug)]
struct Stop {
    flag: Arc<AtomicBool>,
    closed: Option<Sender<()>>,
}

impl Runtime {
    pub(crate) fn start(
        lanes: Vec<(Shard, Box<dyn Consumer>)>,
        options: &StoreOptions,
        pace: Arc<Pace>,
        clock: Arc<Mutex<RetentionClock>>,
        views: Arc<Views>,
    ) -> Result<Self, StoreError> {
        let flag = Arc::new(AtomicBool::new(false));
        let (closed, closing) = bounded(0);
        // At most one job for each shard is under way: see `Shard::begin_seal`.
        let (jobs, queue) = unbounded();
        let (wishes, wished) = unbounded();
        let (mut tended, mut derived) = (Vec::new(), Vec::new());
        let mut runtime = Self {
            stop: Stop {
                flag: Arc::clone(&flag),
                closed: Some(closed),
            },
            lanes: Vec::new(),
            sealer: None,
            maintainer: None,
            tender: None,
            errands: Vec::new(),
            wishes: Some(wishes),
            pace: Arc::clone(&pace),
        };
        runtime.sealer = Some(spawn("store-sealer".into(), move || run_sealer(&queue))?);
        for (shard, consumer) in lanes {
            let guard = StopOnPanic(Arc::clone(shard.shared()));
            let name = format!("store-shard-{}", shard.partition());
            let (errands, to_run) = unbounded();
            runtime.errands.push((shard.partition(), errands.clone()));
            derived.push(shard.upkeep());
            tended.push(Tended::new(shard.upkeep(), errands));
            let lane = Lane {
                errands: to_run,
                shard,
                consumer,
                options: options.clone(),
                stop: Arc::clone(&flag),
                closing: closing.clone(),
                jobs: jobs.clone(),
                sealing: None,
                lag_noted: None,
            };
            let run = move || {
                let _guard = guard;
                lane.run()
            };
            runtime.lanes.push(spawn(name, run)?);
        }
        let tender = Tender {
            views: Arc::clone(&views),
            shards: derived,
            pace: Arc::clone(&pace),
            stop: flag,
        };
        let run = move || tender.run();
        runtime.tender = Some(spawn("store-views".into(), run)?);
        views.wake();
        let maintainer = Maintainer::new(tended, pace, wished, options.clone(), clock);
        let run = move || maintainer.run();
        runtime.maintainer = Some(spawn("store-maintainer".into(), run)?);
        Ok(runtime)
    }

    /// The way to the thread that merges blocks.
    pub(crate) fn wishes(&self) -> Option<Sender<maintain::Request>> {
        self.wishes.clone()
    }

    /// The shards as they stand, in the order in which they were started.
    pub(crate) fn snapshot(&self, with_wal: bool) -> Result<Vec<ShardSnapshot>, StoreError> {
        let deadline = Instant::now() + SNAPSHOT_PATIENCE;
        // All are asked before one is waited for.
        let asked = self.errands.iter().map(|(partition, errands)| {
            let (done, snapshot) = bounded(1);
            let sent = errands.send(Errand::Snapshot(with_wal, done));
            sent.map(|()| (*partition, snapshot))
                .map_err(|_| StoreError::NotRunning)
        });
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let taken =
            asked.into_iter().map(
                |(partition, snapshot)| match snapshot.recv_deadline(deadline) {
                    Ok(taken) => taken,
                    Err(RecvTimeoutError::Disconnected) => Err(StoreError::NotRunning),
                    Err(RecvTimeoutError::Timeout) => Err(StoreError::SnapshotTimeout {
                        partition,
                        timeout: SNAPSHOT_PATIENCE,
                    }),
                },
            );
        taken.collect()
    }

    /// Ends all threads. The WALs are synced.
    pub(crate) fn stop(mut self) -> Result<(), StoreError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), StoreError> {
        self.stop.flag.store(true, Ordering::SeqCst);
        self.stop.closed = None;
        self.wishes = None;
        self.pace.stop();
        let results: Vec<_> = self
            .lanes
            .drain(..)
            // A panic has stopped the shard (see `StopOnPanic`) and was reported by its hook.
            .map(|lane| lane.join().unwrap_or(Err(StoreError::Panicked)))
            .collect();
        let sealer = self.sealer.take().map(JoinHandle::join);
        let sealer = match sealer {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(StoreError::Panicked),
        };
        let maintainer = match self.maintainer.take().map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(StoreError::Panicked),
        };
        let tender = match self.tender.take().map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(StoreError::Panicked),
        };
        first_error(results.into_iter().chain([sealer, maintainer, tender]))
    }
}

/// Ends the threads of a store that was not closed. Errors were logged where they arose.
impl Drop for Runtime {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error, "a shard ended with an error");
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    let builder = std::thread::Builder::new().name(name.clone());
    builder
        .spawn(run)
        .map_err(|source| StoreError::Thread { name, source })
}

fn run_sealer(queue: &Receiver<Request>) {
    for request in queue {
        match request {
            Request::Seal { job, done } => {
                if done.send(job.run()).is_err() {
                    // The shard has ended meanwhile: the blocks are orphans, and the WAL has the
                    // samples.
                    tracing::info!("a seal ended after its shard");
                }
            }
            Request::Drop(retired) => drop(retired),
        }
    }
}

/// A shard whose thread is gone must not look as if it were running.
struct StopOnPanic(Arc<Shared>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(StopCode::Bug, "its thread panicked");
        }
    }
}

/// One shard's thread.
struct Lane {
    shard: Shard,
    consumer: Box<dyn Consumer>,
    options: StoreOptions,
    stop: Arc<AtomicBool>,
    closing: Receiver<()>,
    jobs: Sender<Request>,
    /// To run between two polls.
    errands: Receiver<Errand>,
    sealing: Option<Receiver<SealResult>>,
    /// When the queue was last asked for its end.
    lag_noted: Option<Instant>,
}

impl Lane {
    fn run(mut self) -> Result<(), StoreError> {
        if let Err(error) = self.resume().and_then(|()| self.consume()) {
            // The reason is in the shard's state, where `status` and the metric show it.
            self.shard.stop(StopCode::from(&error), &error.to_string());
            tracing::error!(partition = self.shard.partition().0, %error, "consuming ended");
            self.commit();
            return Err(error);
        }
        self.shard.close()
    }

    /// Goes on where the shard stands, if the queue is still the one that it has read.
    fn resume(&mut self) -> Result<(), StoreError> {
        let mut backoff = BACKOFF_MIN;
        while !self.stop.load(Ordering::SeqCst) {
            self.run_errands()?;
            let point = self.shard.resume_point();
            match point.check(&mut *self.consumer, RESUME_PATIENCE) {
                Ok(()) => {
                    self.release();
                    return Ok(());
                }
                Err(ConsumeError::Closed) => return Ok(()),
                Err(ConsumeError::Unavailable { reason, .. }) => {
                    if self.wait_for_queue(&reason, &mut backoff) {
                        return Ok(());
                    }
                }
                // Nothing was read, so nothing can have changed.
                Err(ConsumeError::TooOld { first, .. }) if self.shard.is_fresh() => {
                    self.shard
                        .set_position((point.queue, first), GapCause::Fresh)?;
                }
                Err(ConsumeError::AnotherQueue { found, .. }) if self.shard.is_fresh() => {
                    self.shard
                        .set_position((found, Offset::ZERO), GapCause::Fresh)?;
                }
                Err(
                    error @ (ConsumeError::AnotherQueue { .. }
                    | ConsumeError::TooOld { .. }
                    | ConsumeError::BeyondEnd { .. }
                    | ConsumeError::Diverged { .. }
                    | ConsumeError::Damaged { .. }),
                ) => return Err(StoreError::Queue(error)),
            }
        }
        Ok(())
    }

    /// Waits a while, longer each time. Whether the store is to stop.
    fn wait_for_queue(&self, reason: &str, backoff: &mut Duration) -> bool {
        let partition = self.shard.partition().0;
        tracing::warn!(partition, reason, ?backoff, "queue unavailable");
        self.shard.shared().set_unreadable(Some(reason));
        let stop = self.pause(*backoff);
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
        stop
    }

    fn consume(&mut self) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut backoff = BACKOFF_MIN;
        while !self.stop.load(Ordering::SeqCst) {
            self.collect_seal()?;
            self.run_errands()?;
            if self.shard.must_wait_for_seal() {
                self.wait_for_seal()?;
                continue;
            }
            records.clear();
            let wait = self.poll_wait()?;
            match self
                .consumer
                .poll(self.options.poll_bytes, wait, &mut records)
            {
                Ok(()) => {
                    backoff = BACKOFF_MIN;
                    self.shard.shared().set_unreadable(None);
                }
                Err(ConsumeError::Closed) => {
                    self.drain_seal()?;
                    return Ok(());
                }
                Err(ConsumeError::Unavailable { reason, .. }) => {
                    if self.wait_for_queue(&reason, &mut backoff) {
                        break;
                    }
                    continue;
                }
                Err(
                    error @ (ConsumeError::AnotherQueue { .. }
                    | ConsumeError::TooOld { .. }
                    | ConsumeError::BeyondEnd { .. }
                    | ConsumeError::Diverged { .. }
                    | ConsumeError::Damaged { .. }),
                ) => {
                    // What the queue has not got any more must not be lost here as well.
                    self.shard.sync_wal()?;
                    return Err(StoreError::Queue(error));
                }
            }
            self.shard.apply(&records)?;
            self.note_lag();
            self.maybe_seal()?;
        }
        self.drain_seal()
    }

    /// Commits what the maintainer has made ready, and shows how the shard stands to whoever asks.
    fn run_errands(&mut self) -> Result<(), StoreError> {
        while let Ok(errand) = self.errands.try_recv() {
            match errand {
                Errand::Commit(Commit { change, done }) => {
                    self.shard.commit_change(change)?;
                    if done.send(()).is_err() {
                        tracing::debug!("a change was committed after its maintainer was gone");
                    }
                }
                Errand::Snapshot(with_wal, done) => {
                    if done.send(self.shard.snapshot(with_wal)).is_err() {
                        tracing::debug!("a snapshot came after nobody waited for it any more");
                    }
                }
            }
        }
        Ok(())
    }

    /// How long a poll may wait: not beyond the WAL's next sync, and not long while a seal runs.
    fn poll_wait(&mut self) -> Result<Duration, StoreError> {
        let sync_in = self.shard.maybe_sync_wal()?;
        self.commit();
        let wait = sync_in.map_or(self.options.poll_wait, |d| d.min(self.options.poll_wait));
        Ok(wait)
    }

    /// Waits without polling. Whether the store is to stop.
    fn pause(&self, pause: Duration) -> bool {
        matches!(
            self.closing.recv_timeout(pause),
            Err(RecvTimeoutError::Disconnected)
        )
    }

    /// Asks the queue, which may be far away, now and then.
    fn note_lag(&mut self) {
        let fresh = |noted: Instant| noted.elapsed() < LAG_EVERY;
        if self.lag_noted.is_some_and(fresh) {
            return;
        }
        self.lag_noted = Some(Instant::now());
        let next = self.shard.applied();
        let asked_at = self.shard.now();
        match self.consumer.end() {
            Ok(end) => {
                self.shard.shared().set_lag(end.0.saturating_sub(next.0));
                if end <= next {
                    let settled = asked_at.saturating_sub(QUEUE_TIME_SLACK);
                    self.shard.shared().note_queue_time(settled);
                }
            }
            // The next poll will meet it, and say so.
            Err(error) => tracing::debug!(%error, "end of the queue unknown"),
        }
    }

    fn maybe_seal(&mut self) -> Result<(), StoreError> {
        let Some(reason) = self.shard.seal_due() else {
            return Ok(());
        };
        let Some(job) = self.shard.begin_seal()? else {
            return Ok(());
        };
        tracing::debug!(partition = self.shard.partition().0, ?reason, "seal begun");
        let (done, result) = bounded(1);
        self.sealing = Some(result);
        self.jobs
            .send(Request::Seal {
                job: Box::new(job),
                done,
            })
            .map_err(|_| StoreError::SealerGone)
    }

    /// Commits the seal that runs, if it is done.
    fn collect_seal(&mut self) -> Result<(), StoreError> {
        let result = match self.sealing.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return Ok(()),
            Some(Ok(result)) => result,
            Some(Err(TryRecvError::Disconnected)) => Err(StoreError::SealerGone),
        };
        self.commit_seal(result)
    }

    fn wait_for_seal(&mut self) -> Result<(), StoreError> {
        // In steps, so that a stop is noticed.
        match self
            .sealing
            .as_ref()
            .map(|s| s.recv_timeout(self.options.poll_wait))
        {
            None | Some(Err(RecvTimeoutError::Timeout)) => Ok(()),
            Some(Ok(result)) => self.commit_seal(result),
            Some(Err(RecvTimeoutError::Disconnected)) => {
                self.commit_seal(Err(StoreError::SealerGone))
            }
        }
    }

    /// At the end: a seal that has begun is committed, rather than done again after the next open.
    fn drain_seal(&mut self) -> Result<(), StoreError> {
        match self.sealing.as_ref().map(Receiver::recv) {
            None => Ok(()),
            Some(result) => self.commit_seal(result.unwrap_or(Err(StoreError::SealerGone))),
        }
    }

    fn commit_seal(&mut self, result: SealResult) -> Result<(), StoreError> {
        self.sealing = None;
        let retired = self.shard.finish_seal(result)?;
        self.jobs
            .send(Request::Drop(retired))
            .map_err(|_| StoreError::SealerGone)?;
        self.shard.wake_views();
        self.release();
        Ok(())
    }

    /// Tells the queue's own tools how far the shard is.
    fn commit(&mut self) {
        if let Err(error) = self.consumer.commit(self.shard.durable()) {
            // Harmless: nothing of millrace reads it again.
            tracing::debug!(partition = self.shard.partition().0, %error, "position not committed");
        }
    }

    fn release(&mut self) {
        if let Err(error) = self.consumer.release(self.shard.releasable()) {
            // Harmless: retention then keeps more.
            tracing::warn!(partition = self.shard.partition().0, %error, "queue not released");
        }
    }
}
