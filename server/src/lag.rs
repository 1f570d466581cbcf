//! How far the store is behind the queue, by partition: in records, samples and seconds.
//!
//! - *Records* are offsets: the queue's end less what is applied.
//! - *Samples* are an estimate: those records times the samples that a record has had on average since
//!   the start. The queue is not read twice to count them.
//! - *Seconds* are the age of the oldest record that is not applied. It was appended after the one
//!   that was applied last, and after the last moment at which all of it was seen applied; the later of
//!   the two is taken for its time, so the figure is never too small, and too large by no more than
//!   the time between two looks while somebody looks.

use std::collections::{BTreeMap, VecDeque};

use millrace_model::{Offset, PartitionId, TimestampMs};
use millrace_store::shard::ShardStatus;
use parking_lot::Mutex;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use crate::queue::Bounds;

/// Remembered looks at one partition. One a second makes over an hour of lag; then every second one
/// is forgotten, which makes the seconds coarser.
const LOOKS_MAX: usize = 4096;

/// How far one partition is behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Records that are not applied.
    pub records: u64,
    /// About so many samples; unknown before the first record since the start was applied.
    pub samples: Option<u64>,
    /// Age of the oldest of them, in seconds; unknown as long.
    pub seconds: Option<f64>,
}

/// The queue's end at a moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    end: Offset,
    at: TimestampMs,
}

#[derive(Debug, Default)]
struct History {
    /// Ends that are not applied yet, oldest first.
    ahead: VecDeque<Look>,
    /// The last moment at which everything that there was is applied by now.
    covered_at: Option<TimestampMs>,
}

impl History {
    fn look(&mut self, end: Offset, applied: Offset, now: TimestampMs) {
        match self.ahead.back_mut() {
            // The same end, later: what comes is later still.
            Some(last) if last.end == end => last.at = now,
            _ => self.ahead.push_back(Look { end, at: now }),
        }
        while let Some(first) = self.ahead.front().filter(|look| look.end <= applied) {
            self.covered_at = Some(first.at);
            self.ahead.pop_front();
        }
        if self.ahead.len() > LOOKS_MAX {
            let mut odd = false;
            self.ahead.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }
}

/// Looks at the lag now and then, and remembers enough to tell its age.
#[derive(Debug)]
pub struct LagWatch {
    histories: Mutex<BTreeMap<PartitionId, History>>,
    records: IntGaugeVec,
    samples: IntGaugeVec,
    seconds: GaugeVec,
    /// Why the queue did not tell, when it was asked last.
    problem: Mutex<Option<String>>,
    first: Option<IntGaugeVec>,
    end: Option<IntGaugeVec>,
}

impl LagWatch {
    /// Registers the metrics. A remote queue's bounds are told as well: an embedded one tells them
    /// itself.
    ///
    /// # Errors
    ///
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry, remote: bool) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["partition"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let seconds = GaugeVec::new(
            Opts::new(
                "millrace_pipeline_lag_seconds",
                "Age of the oldest record that is not applied; 0 if there is none.",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let bound = |name: &str, help: &str| remote.then(|| gauges(name, help)).transpose();
        Ok(Self {
            histories: Mutex::default(),
            problem: Mutex::default(),
            records: gauges(
                "millrace_pipeline_lag_records",
                "Records of the queue that are not applied.",
            )?,
            samples: gauges(
                "millrace_pipeline_lag_samples",
                "About so many samples are in them: records times the average since the start.",
            )?,
            seconds,
            first: bound(
                "millrace_queue_first_offset",
                "Offset of the oldest record that is kept.",
            )?,
            end: bound(
                "millrace_queue_end_offset",
                "Offset that the next durable record will have.",
            )?,
        })
    }

    /// Notes why the queue does not tell, or that it does.
    pub fn note_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// Why the queue did not tell, when it was asked last.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Notes what the queue holds, where no shard is here to be behind.
    pub fn note_bounds(&self, bounds: &BTreeMap<PartitionId, Bounds>) {
        let offset = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
        for (partition, bounds) in bounds {
            let name = partition.to_string();
            if let Some(first) = &self.first {
                first.with_label_values(&[&name]).set(offset(bounds.first));
            }
            if let Some(end) = &self.end {
                end.with_label_values(&[&name]).set(offset(bounds.end));
            }
        }
    }

    /// Notes how far one shard is, and tells how far behind that is.
    pub fn look(&self, shard: &ShardStatus, end: Offset, now: TimestampMs) -> Lag {
        // Applied and end are read one after the other, so the store may seem ahead for a moment.
        let end = end.max(shard.applied);
        let mut histories = self.histories.lock();
        let history = histories.entry(shard.partition).or_default();
        history.look(end, shard.applied, now);
        let covered_at = history.covered_at;
        drop(histories);
        let lag = lag(shard, end, covered_at, now);
        let name = shard.partition.to_string();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.records
            .with_label_values(&[&name])
            .set(gauge(lag.records));
        if let Some(samples) = lag.samples {
            self.samples.with_label_values(&[&name]).set(gauge(samples));
        }
        if let Some(seconds) = lag.seconds {
            self.seconds.with_label_values(&[&name]).set(seconds);
        }
        lag
    }
}

fn lag(shard: &ShardStatus, end: Offset, covered_at: Option<TimestampMs>, now: TimestampMs) -> Lag {
    let records = end.0 - shard.applied.0;
    if records == 0 {
        return Lag {
            records,
            samples: Some(0),
            seconds: Some(0.0),
        };
    }
    let samples = (shard.applied_batches > 0).then(|| {
        let each = shard.applied_samples as f64 / shard.applied_batches as f64;
        (records as f64 * each).round() as u64
    });
    let since = covered_at.max(shard.applied_appended_at);
    let seconds = since.map(|since| now.0.saturating_sub(since.0).max(0) as f64 / 1000.0);
    Lag {
        records,
        samples,
        seconds,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_store::shard::ShardState;

    use super::*;

    fn shard(applied: u64, appended_at: Option<i64>) -> ShardStatus {
        ShardStatus {
            partition: PartitionId(0),
            state: ShardState::Running,
            applied: Offset(applied),
            sealed: Offset::ZERO,
            queue: millrace_model::QueueId(1),
            gaps: Vec::new(),
            lag_records: 0,
            tombstones: 0,
            applied_appended_at: appended_at.map(TimestampMs),
            applied_batches: appended_at.map_or(0, |_| 10),
            applied_samples: appended_at.map_or(0, |_| 25),
            unreadable: None,
            memtable_bytes: 0,
            memtable_series: 0,
            memtable_samples: 0,
            wal_bytes: 0,
            blocks: 0,
            block_bytes: 0,
            recovery: Duration::ZERO,
            replayed_records: 0,
        }
    }

    fn watch() -> LagWatch {
        LagWatch::register(&Registry::new(), true).unwrap()
    }

    #[test]
    fn what_is_behind_is_told_in_records_samples_and_seconds() {
        let watch = watch();
        let at = |now: i64, applied: u64, appended: Option<i64>, end: u64| {
            watch.look(&shard(applied, appended), Offset(end), TimestampMs(now))
        };
        let nothing_known = Lag {
            records: 5,
            samples: None,
            seconds: None,
        };
        assert_eq!(at(1_000, 0, None, 5), nothing_known);
        // The last one applied was appended at 400: the oldest one left is no older.
        let lag = at(2_000, 2, Some(400), 5);
        assert_eq!((lag.records, lag.samples), (3, Some(8)));
        assert_eq!(lag.seconds, Some(1.6));
        let caught_up = Lag {
            records: 0,
            samples: Some(0),
            seconds: Some(0.0),
        };
        assert_eq!(at(3_000, 5, Some(900), 5), caught_up);
        // An hour of silence does not make the next record an hour old.
        assert_eq!(at(3_600_000, 5, Some(900), 5), caught_up);
        assert_eq!(at(3_601_000, 5, Some(900), 6).seconds, Some(1.0));
        assert_eq!(at(3_605_000, 5, Some(900), 9).seconds, Some(5.0));
        // 6 was the end at 3,601 s; it is applied, so what is left came later.
        assert_eq!(at(3_606_000, 6, Some(900), 9).seconds, Some(5.0));
        assert_eq!(watch.records.with_label_values(&["0"]).get(), 3);
        assert_eq!(watch.seconds.with_label_values(&["0"]).get(), 5.0);
    }

    #[test]
    fn a_store_that_seems_ahead_is_not_behind() {
        let lag = watch().look(&shard(7, Some(1)), Offset(6), TimestampMs(9));
        assert_eq!(lag.records, 0);
    }

    #[test]
    fn a_long_lag_keeps_a_bounded_memory() {
        let mut history = History::default();
        for n in 0..100_000u32 {
            history.look(
                Offset(u64::from(n) + 1),
                Offset::ZERO,
                TimestampMs(i64::from(n)),
            );
        }
        assert!(history.ahead.len() <= LOOKS_MAX);
        history.look(Offset(100_001), Offset(100_000), TimestampMs(100_000));
        assert_eq!(history.covered_at.map(|at| at.0 > 90_000), Some(true));
    }
}
