//! Few samples that stand for many: what some functions of a window need, from rollups instead of samples.
//!
//! A window of a query is left-open, `(t − w, t]`, and a bucket right-open, `[k·r, (k+1)·r)`. Where `t` and `w`
//! are multiples of `r`, a bucket lies in one window but for a sample at exactly `k·r`, which belongs to the window
//! before. That one is the bucket's first, so a rollup has it, and a bucket is told as two samples at the
//! most: the one on the border, and one that stands for all behind it.
//!
//! Invariants:
//! - In any window whose ends are multiples of the grain, the function of what is told is that of the samples,
//!   bit for bit: no addition of floats is done in another order, because none is done. So sums, averages and
//!   rates are not here.
//! - A rollup is of the samples of one block. It is used only where no other place has samples of the series in its
//!   buckets, and no delete hides any; elsewhere samples are told as they are.
//! - Where a rollup cannot say what is behind the border, the samples of that bucket are read.

use std::sync::Arc;

use millrace_model::{TimeRange, TimestampMs, is_stale};

use crate::block::{Left, RollupColumns};
use crate::error::StoreError;
use crate::merge::Merger;
use crate::read::{Place, Source, StoreSeries};
use crate::shard::LiveBlock;

/// Which function of a window is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// The last value, or whether there is one.
    Last,
    /// The lowest value.
    Min,
    /// The highest value.
    Max,
    /// How many samples there are: values that are told are counts, to be added up. They are whole numbers, so
    /// the order does not matter.
    Count,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Bytes of rollups and blocks that were decoded.
    pub bytes: u64,
    /// The width of the widest buckets that were used, in ms.
    pub resolution_ms: i64,
}

/// A block whose buckets stand alone, and which of its resolutions is taken.
struct Chosen {
    block: Arc<LiveBlock>,
    number: u32,
    resolution_ms: i64,
    columns: RollupColumns,
}

/// Of so many buckets one may need its samples; otherwise all samples are read rather at once.
const BUCKETS_PER_DOUBT: usize = 8;

/// What stands for the samples of a bucket behind its border.
enum Behind {
    Nothing,
    Value(f64),
    /// The rollup does not say.
    Unknown,
}

impl StoreSeries {
    /// Appends samples that stand for those in the selected range, as the module says, for windows whose
    /// ends are multiples of `grain_ms`. `None`, and nothing appended, if rollups are of no use: then
    /// [`read`](Self::read) is the way.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read. The columns are then of no use.
    ///
    /// # Panics
    ///
    /// If the grain is not positive.
    pub fn read_digest(
        &self,
        grain_ms: i64,
        digest: Digest,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<Option<Digested>, StoreError> {
        assert!(grain_ms > 0, "a grain of {grain_ms} ms");
        let spans: Result<Vec<TimeRange>, _> = self.sources.iter().map(span).collect();
        let spans = spans?;
        let (mut chosen, mut rest) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for (at, source) in self.sources.iter().enumerate() {
            match self.choose(at, grain_ms, digest, &spans, &mut bytes)? {
                Some(found) => chosen.push(found),
                None => rest.push(source.clone()),
            }
        }
        let Some(resolution_ms) = chosen.iter().map(|c| c.resolution_ms).max() else {
            return Ok(None);
        };
        let mut merger = Merger::default();
        for chosen in &chosen {
            let (mut run, mut of_run) = (Vec::new(), Vec::new());
            bytes += self.tell(chosen, digest, &mut run, &mut of_run)?;
            merger.push(&run, &of_run);
        }
        if !rest.is_empty() {
            let (mut run, mut of_run) = (Vec::new(), Vec::new());
            bytes += self.of_sources(rest).read(&mut run, &mut of_run)?;
            if digest == Digest::Count {
                count_each(&mut run, &mut of_run);
            }
            merger.push(&run, &of_run);
        }
        merger.take(timestamps, values);
        Ok(Some(Digested {
            bytes,
            resolution_ms,
        }))
    }

    /// The source of that number, if its rollups alone say what is asked.
    fn choose(
        &self,
        at: usize,
        grain_ms: i64,
        digest: Digest,
        spans: &[TimeRange],
        bytes: &mut u64,
    ) -> Result<Option<Chosen>, StoreError> {
        let source = &self.sources[at];
        let Place::Block(block, number) = &source.place else {
            return Ok(None);
        };
        if self.labels().is_delta() && block.reader.without_samples() {
            // Of deltas their sums are left, which say something else.
            return Ok(None);
        }
        let resolutions = block.reader.resolutions();
        let fits = resolutions.iter().rposition(|r| grain_ms % r == 0);
        let Some(which) = fits.filter(|_| source.hidden.is_empty()) else {
            return Ok(None);
        };
        let resolution_ms = resolutions[which];
        let own = spans[at];
        let end = own.end.window_start(resolution_ms).0;
        let buckets = TimeRange {
            start: own.start.window_start(resolution_ms),
            end: TimestampMs(end.saturating_add(resolution_ms - 1)),
        };
        let mut others = spans.iter().enumerate().filter(|(other, _)| *other != at);
        if others.any(|(_, other)| other.overlaps(buckets)) {
            return Ok(None);
        }
        let (columns, read) = block.reader.rollup_of_number(*number, which)?;
        *bytes += read;
        let chosen = Chosen {
            block: Arc::clone(block),
            number: *number,
            resolution_ms,
            columns,
        };
        let wanted = self.buckets(&chosen);
        let doubts = wanted
            .clone()
            .filter(|&at| matches!(behind(&chosen.columns, at, digest), Behind::Unknown));
        let doubtful = doubts.count() * BUCKETS_PER_DOUBT > wanted.len();
        // Without samples, what the rollup says is what there is.
        Ok((!doubtful || chosen.block.reader.without_samples()).then_some(chosen))
    }

    /// The buckets that overlap the range.
    fn buckets(&self, chosen: &Chosen) -> std::ops::Range<usize> {
        let starts = &chosen.columns.starts;
        let last = |&start: &i64| start.saturating_add(chosen.resolution_ms - 1);
        let from = starts.partition_point(|start| last(start) < self.range.start.0);
        let to = starts.partition_point(|&start| start <= self.range.end.0);
        from..to.max(from)
    }

    /// Tells the buckets of a block. The bytes of samples that were read for it.
    fn tell(
        &self,
        chosen: &Chosen,
        digest: Digest,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, StoreError> {
        let columns = &chosen.columns;
        let mut bytes = 0;
        for at in self.buckets(chosen) {
            let start = columns.starts[at];
            if columns.first_times[at] == start {
                timestamps.push(start);
                values.push(match digest {
                    Digest::Count => 1.0,
                    Digest::Last | Digest::Min | Digest::Max => columns.firsts[at],
                });
            }
            let value = match behind(columns, at, digest) {
                Behind::Nothing => continue,
                Behind::Value(value) => value,
                Behind::Unknown if chosen.block.reader.without_samples() => match digest {
                    Digest::Min => columns.mins[at],
                    Digest::Max => columns.maxs[at],
                    Digest::Last | Digest::Count => continue,
                },
                Behind::Unknown => {
                    let end = start.saturating_add(chosen.resolution_ms - 1);
                    let range = TimeRange::new(start.saturating_add(1), end);
                    let reader = &chosen.block.reader;
                    bytes +=
                        reader.read_number(chosen.number, Left::Last, range, timestamps, values)?;
                    continue;
                }
            };
            timestamps.push(columns.last_times[at]);
            values.push(value);
        }
        Ok(bytes)
    }
}

/// What stands for the samples of bucket `at` that are not on its border.
fn behind(columns: &RollupColumns, at: usize, digest: Digest) -> Behind {
    let on_border = columns.first_times[at] == columns.starts[at];
    let (count, last) = (columns.counts[at], columns.lasts[at]);
    if on_border && count == 1 {
        return Behind::Nothing;
    }
    let extreme = match digest {
        // Counts are below 2^53: they are exact.
        Digest::Count => return Behind::Value((count - u64::from(on_border)) as f64),
        Digest::Last => return Behind::Value(last),
        Digest::Min => columns.mins[at],
        Digest::Max => columns.maxs[at],
    };
    let first = columns.firsts[at];
    // A first one that is NaN gave way to whatever came next. One that was passed by others says nothing of
    // them; and one that was not is the extreme of all, but whether of the others too only the last can tell.
    let known = !on_border || first.is_nan() || first != extreme;
    if known {
        Behind::Value(extreme)
    } else if last == extreme && extreme != 0.0 {
        Behind::Value(last)
    } else {
        Behind::Unknown
    }
}

/// First and last moment of the series in a source.
fn span(source: &Source) -> Result<TimeRange, StoreError> {
    Ok(match &source.place {
        Place::Block(block, number) => block.reader.range_of(*number)?,
        Place::Table(table, at) => table.rows().range_of(*at),
    })
}

/// Makes counts of samples: of each one, but for staleness markers.
fn count_each(timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
    let mut kept = 0;
    for at in 0..values.len() {
        if !is_stale(values[at]) {
            timestamps[kept] = timestamps[at];
            values[kept] = 1.0;
            kept += 1;
        }
    }
    timestamps.truncate(kept);
    values.truncate(kept);
}
