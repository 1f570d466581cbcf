//! The thread that merges blocks, brings deletes to their end and lets old data go: for all shards, one
//! job at a time.
//!
//! Invariants:
//! - It reads what the shards share and writes files of its own. What it makes becomes true by one
//!   edit, which the shard's own thread commits between two polls of the queue.
//! - It writes no faster than its [`Pace`], and halts while that is paused.
//! - What fails is abandoned: another try writes other files. A failure here stops no shard, unless
//!   the manifest's edit itself fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use millrace_log::fs::Fs;
use millrace_model::{PartitionId, TimestampMs};
use parking_lot::Mutex;

use crate::backup::ShardSnapshot;
use crate::compact::{CompactJob, Keep, Pace, PacedFs};
use crate::error::StoreError;
use crate::metrics::as_gauge;
use crate::options::StoreOptions;
use crate::retain::{Decision, RetentionClock, RetentionPart, Unexpired, decide, retention_time};
use crate::retain_bound::HourlyBound;
use crate::shard::{Change, CleanStep, Upkeep};

/// How often it is looked whether there is something to do.
const TICK: Duration = Duration::from_secs(5);
/// Pause behind a failure; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How often retention looks for what has had its time.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How often the time that it believes is written down, in that time.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(600);

/// What a shard's thread is asked to commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) change: Change,
    /// Told when it is durable; closed if the shard has stopped.
    pub(crate) done: Sender<()>,
}

/// What a shard's thread is asked to do between two polls of the queue.
#[derive(Debug)]
pub(crate) enum Errand {
    Commit(Commit),
    /// Whether with the WAL, and where the snapshot goes; closed if the shard has stopped.
    Snapshot(bool, Sender<Result<ShardSnapshot, StoreError>>),
}

/// What the thread is asked to do at once.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Merge all that can be merged.
    Compact,
    /// Bring deletes to their end, as far as they have come.
    Clean,
    /// Let go what has had its time: however much it is, or as much as may go in an hour.
    Retain { confirmed: bool },
}

/// A wish, and where it is told that it came true; closed if it did not.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wish: Wish,
    pub(crate) done: Sender<Result<(), StoreError>>,
}

/// One shard and the way to its thread.
#[derive(Debug)]
pub(crate) struct Tended {
    pub(crate) upkeep: Upkeep,
    pub(crate) errands: Sender<Errand>,
    pub(crate) failures: u32,
    pub(crate) not_before: Option<Instant>,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Maintainer {
    shards: Vec<Tended>,
    pace: Arc<Pace>,
    requests: Receiver<Request>,
    options: StoreOptions,
    clock: Arc<Mutex<RetentionClock>>,
    /// What retention let go in the last hour.
    bound: HourlyBound,
    /// Whether that was not all that has had its time.
    is_waiting: bool,
    /// When retention was looked at last.
    retained_at: Option<Instant>,
    /// The time that the manifests have.
    kept_time: Option<TimestampMs>,
}

impl Tended {
    pub(crate) fn new(upkeep: Upkeep, errands: Sender<Errand>) -> Self {
        Self {
            upkeep,
            errands,
            failures: 0,
            not_before: None,
        }
    }

    /// Commits a change on the shard's own thread.
    fn commit(&self, change: Change) -> Result<(), StoreError> {
        let partition = self.upkeep.shared.partition;
        let stopped = || StoreError::Stopped {
            partition,
            reason: "its thread has ended".to_owned(),
        };
        let (done, committed) = bounded(1);
        let sent = self.errands.send(Errand::Commit(Commit { change, done }));
        sent.map_err(|_| stopped())?;
        committed.recv().map_err(|_| stopped())
    }

    fn run(&self, job: CompactJob) -> Result<(), StoreError> {
        let clock = &self.upkeep.context.clock;
        let started = clock.monotonic();
        let compacted = job.run().inspect_err(|_| job.discard())?;
        let inputs = job.inputs.len();
        // The inputs are free to go, as far as this thread is concerned.
        drop(job);
        let metrics = &self.upkeep.shared.metrics;
        metrics.compaction_read_bytes.inc_by(compacted.read_bytes);
        metrics
            .compaction_written_bytes
            .inc_by(compacted.written_bytes);
        tracing::info!(
            partition = self.upkeep.shared.partition.0,
            inputs,
            outputs = compacted.outputs.len(),
            read_bytes = compacted.read_bytes,
            written_bytes = compacted.written_bytes,
            seconds = clock.monotonic().saturating_sub(started).as_secs_f64(),
            "blocks merged"
        );
        self.commit(compacted.into_change())?;
        metrics.compactions.inc();
        self.upkeep.remove_obsolete()?;
        Ok(())
    }

    /// Whether a job may use that much of the disk.
    fn has_room_for(&self, fs: &Arc<dyn Fs>, job: &CompactJob) -> Result<bool, StoreError> {
        let bytes: u64 = job.inputs.iter().map(|b| b.entry.bytes).sum();
        let root = self.upkeep.dir.root();
        let space = fs.space(root).map_err(|source| StoreError::Io {
            what: "measure",
            path: root.to_owned(),
            source,
        })?;
        let fits = bytes <= space.available_bytes / 4;
        if !fits {
            let partition = self.upkeep.shared.partition.0;
            let available = space.available_bytes;
            tracing::warn!(partition, bytes, available, "no room to merge blocks");
        }
        Ok(fits)
    }
}

impl Maintainer {
    pub(crate) fn new(
        shards: Vec<Tended>,
        pace: Arc<Pace>,
        requests: Receiver<Request>,
        options: StoreOptions,
        clock: Arc<Mutex<RetentionClock>>,
    ) -> Self {
        Self {
            shards,
            pace,
            requests,
            options,
            clock,
            bound: HourlyBound::default(),
            is_waiting: false,
            retained_at: None,
            kept_time: None,
        }
    }

    /// Until the requests' other end is gone.
    pub(crate) fn run(mut self) {
        loop {
            match self.requests.recv_timeout(TICK) {
                Ok(request) => {
                    let done = self.fulfil(&request.wish);
                    if request.done.send(done).is_err() {
                        tracing::debug!("nobody waits for the end of a compaction any more");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.tend_all();
                    self.maybe_retain();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn fulfil(&mut self, wish: &Wish) -> Result<(), StoreError> {
        if let Wish::Retain { confirmed } = *wish {
            let bound = self.options.retention.hourly_percent;
            return self.retain(if confirmed { 100 } else { bound });
        }
        for shard in &self.shards {
            self.clean(shard)?;
            match wish {
                Wish::Compact => self.merge(shard, true)?,
                Wish::Clean | Wish::Retain { .. } => {}
            }
        }
        Ok(())
    }

    fn tend_all(&mut self) {
        for at in 0..self.shards.len() {
            let shard = &self.shards[at];
            if self.pace.is_stopped() {
                return;
            }
            if shard.not_before.is_some_and(|then| Instant::now() < then) {
                continue;
            }
            let result = self.tend(shard);
            self.note(at, result);
        }
    }

    /// Lets go what has had its time, from time to time.
    fn maybe_retain(&mut self) {
        let fresh = |at: Instant| at.elapsed() < RETAIN_EVERY;
        if self.retained_at.is_some_and(fresh) || self.pace.is_paused() {
            return;
        }
        self.retained_at = Some(Instant::now());
        if let Err(error) = self.retain(self.options.retention.hourly_percent)
            && !self.pace.is_stopped()
        {
            tracing::error!(%error, "retention failed; it is tried again");
        }
    }

    /// Lets go what has had its time, up to `percent` of all bytes within an hour.
    fn retain(&mut self, percent: u8) -> Result<(), StoreError> {
        let Some(first) = self.shards.first() else {
            return Ok(());
        };
        let clock = Arc::clone(&first.upkeep.context.clock);
        let options = &self.options.retention;
        let (believed, frozen) = {
            let mut retention_clock = self.clock.lock();
            let believed = retention_clock.observe(clock.now(), clock.monotonic(), options);
            (believed, retention_clock.is_frozen())
        };
        if frozen {
            tracing::warn!(
                wall_ms = clock.now().0,
                believed_ms = believed.0,
                "the clock has jumped ahead: retention does not believe it"
            );
        }
        let views: Vec<_> = self
            .shards
            .iter()
            .map(|s| (s.upkeep.shared.partition, s.upkeep.shared.view()))
            .collect();
        if let Some(now) = retention_time(believed, &views) {
            let coarsest = self.options.coarsest_rollup_ms();
            let decisions = decide(options, &views, now, coarsest)?;
            let blocks = views.iter().flat_map(|(_, view)| &view.blocks);
            let there: u64 = blocks.map(|block| block.entry.bytes).sum();
            drop(views);
            self.bound.look(there, clock.monotonic());
            let mut waiting = Vec::new();
            for decision in decisions {
                let bytes = decision.item.bytes;
                // The oldest first: what waits holds back what is younger.
                if !waiting.is_empty() || !self.bound.admits(bytes, percent) {
                    waiting.push((decision.item.partition, bytes));
                    continue;
                }
                self.let_go(decision, now, believed)?;
                self.bound.note(bytes);
            }
            if percent >= 100 {
                self.bound.forget();
            }
            self.note_waiting(&waiting, percent);
        }
        self.keep_time(believed)
    }

    /// Shows what is too much for this hour, and says so when that begins.
    fn note_waiting(&mut self, waiting: &[(PartitionId, u64)], percent: u8) {
        if !waiting.is_empty() && !self.is_waiting {
            tracing::warn!(
                blocks = waiting.len(),
                bytes = waiting.iter().map(|(_, bytes)| bytes).sum::<u64>(),
                percent,
                "retention would let go more than this share of all blocks in an hour: the rest waits, unless \
                 `millrace retention --now` lets it go"
            );
        }
        self.is_waiting = !waiting.is_empty();
        for shard in &self.shards {
            let shared = &shard.upkeep.shared;
            let its = waiting.iter().filter(|(of, _)| *of == shared.partition);
            let bytes: u64 = its.map(|(_, bytes)| bytes).sum();
            shared.metrics.retention_waiting_bytes.set(as_gauge(bytes));
        }
    }

    fn let_go(
        &self,
        decision: Decision,
        now: TimestampMs,
        believed: TimestampMs,
    ) -> Result<(), StoreError> {
        let Decision {
            item,
            live,
            thinner,
        } = decision;
        let of = |s: &&Tended| s.upkeep.shared.partition == item.partition;
        let Some(shard) = self.shards.iter().find(of) else {
            return Ok(());
        };
        tracing::info!(
            partition = item.partition.0,
            block = %item.block,
            what = item.what.as_str(),
            series = item.series,
            samples = item.samples,
            bytes = item.bytes,
            reason = item.reason.as_str(),
            "retention lets go"
        );
        let keep = (thinner.is_none() && item.what != RetentionPart::Block)
            .then(|| Arc::new(Unexpired::of(&self.options.retention, &live, now)));
        let keeps = keep.as_deref().map(|keep| keep as &dyn Keep);
        shard.upkeep.freeze_views(&self.fs(shard), &live, keeps)?;
        if let Some(options) = thinner {
            let job = shard
                .upkeep
                .rewrite_as(&self.fs(shard), &live, None, options);
            drop(live);
            shard.run(job)?;
        } else if item.what == RetentionPart::Block {
            drop(live);
            shard.commit(Change {
                removed: vec![item.block],
                high_water: Some(believed),
                ..Change::default()
            })?;
            shard.upkeep.remove_obsolete()?;
        } else {
            let keep = keep.map(|keep| keep as Arc<dyn Keep>);
            let job = shard.upkeep.rewrite(&self.fs(shard), &live, keep);
            drop(live);
            shard.run(job)?;
        }
        let metrics = &shard.upkeep.shared.metrics;
        metrics.retention_removed_bytes.inc_by(item.bytes);
        Ok(())
    }

    /// Writes down the time that was believed, now and then: a restart goes on from there.
    fn keep_time(&mut self, believed: TimestampMs) -> Result<(), StoreError> {
        let fresh = |kept: TimestampMs| believed < kept.saturating_add(KEEP_TIME_EVERY);
        if self.kept_time.is_some_and(fresh) {
            return Ok(());
        }
        for shard in &self.shards {
            shard.commit(Change {
                high_water: Some(believed),
                ..Change::default()
            })?;
        }
        self.kept_time = Some(believed);
        Ok(())
    }

    fn tend(&self, shard: &Tended) -> Result<(), StoreError> {
        shard.upkeep.remove_obsolete()?;
        if self.pace.is_paused() {
            return Ok(());
        }
        self.clean(shard)?;
        if self.options.compaction.enabled {
            self.merge(shard, false)?;
        }
        Ok(())
    }

    fn note(&mut self, at: usize, result: Result<(), StoreError>) {
        let stopped = self.pace.is_stopped();
        let shard = &mut self.shards[at];
        match result {
            Ok(()) => (shard.failures, shard.not_before) = (0, None),
            // Whatever it was doing was cut off.
            Err(_) if stopped => {}
            Err(error) => {
                let wait = BACKOFF_MIN
                    .saturating_mul(1 << shard.failures.min(16))
                    .min(BACKOFF_MAX);
                shard.failures += 1;
                shard.not_before = Instant::now().checked_add(wait);
                shard.upkeep.shared.metrics.compaction_failures.inc();
                let partition = shard.upkeep.shared.partition.0;
                tracing::error!(partition, %error, ?wait, "upkeep of a shard failed; it is tried again");
            }
        }
    }

    fn clean(&self, shard: &Tended) -> Result<(), StoreError> {
        let fs = self.fs(shard);
        loop {
            match shard.upkeep.next_clean(&fs)? {
                CleanStep::Rewrite(job) => shard.run(*job)?,
                CleanStep::Note(change) => shard.commit(change)?,
                CleanStep::Done => return Ok(()),
            }
        }
    }

    fn merge(&self, shard: &Tended, force: bool) -> Result<(), StoreError> {
        let fs = self.fs(shard);
        while let Some(job) = shard.upkeep.next_merge(&fs, force) {
            if !shard.has_room_for(&fs, &job)? {
                return Ok(());
            }
            shard.run(job)?;
        }
        Ok(())
    }

    fn fs(&self, shard: &Tended) -> Arc<dyn Fs> {
        let fs = Arc::clone(&shard.upkeep.context.fs);
        Arc::new(PacedFs::new(fs, Arc::clone(&self.pace)))
    }
}
