//! Classic histograms: series whose label `le` says up to where they count.

use hashbrown::HashMap;
use millrace_model::Labels;

use crate::QueryError;

use super::ast::{Expr, Pos};
use super::block::{Block, Grid, Meta, is_absent};
use super::eval::Evaluator;
use super::labels::Scratch;
use super::notes::Forced;
use super::text::format_open_metrics;

type Result<T> = std::result::Result<T, QueryError>;

const BUCKET_LABEL: &str = "le";

/// Relative difference between neighbouring buckets that counts as an artefact of floating point.
const SMALL_DELTA: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// The series of one histogram: bounds and rows.
struct Histogram {
    meta: Meta,
    metric: String,
    buckets: Vec<(f64, usize)>,
}

impl Evaluator<'_> {
    fn histograms(&self, block: &Block, pos: Pos) -> Vec<Histogram> {
        let mut scratch = Scratch::default();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut found: Vec<Histogram> = Vec::new();
        for (row, meta) in block.series.iter().enumerate() {
            // Where names are not removed at the end, they count as removed here already.
            let metric = match self.options.delayed_name_removal {
                true => meta.labels.metric_name().unwrap_or_default(),
                false => "",
            };
            let le = meta.labels.get(BUCKET_LABEL).unwrap_or_default();
            let Ok(upper) = le.parse::<f64>() else {
                self.notes.bad_bucket_label(pos, metric, le);
                continue;
            };
            let labels = scratch.without_one(&meta.labels, BUCKET_LABEL);
            let at = *index.entry(labels.clone()).or_insert_with(|| {
                found.push(Histogram {
                    meta: Meta {
                        labels,
                        drop_name: meta.drop_name,
                    },
                    metric: metric.to_owned(),
                    buckets: Vec::new(),
                });
                found.len() - 1
            });
            found[at].buckets.push((upper, row));
        }
        found
    }

    /// One row per histogram, out of its buckets at each step.
    fn per_histogram(
        &self,
        block: &Block,
        histograms: &[Histogram],
        mut f: impl FnMut(&Histogram, usize, &mut Vec<Bucket>) -> f64,
    ) -> Result<Block> {
        let mut out = Block::new(block.steps, self.budget);
        out.reserve(histograms.len())?;
        let mut buckets = Vec::new();
        for histogram in histograms {
            self.budget.check()?;
            let target = out.push_absent(histogram.meta.clone());
            for step in 0..block.steps {
                buckets.clear();
                for (upper, row) in &histogram.buckets {
                    let count = block.row(*row)[step];
                    if !is_absent(count) {
                        buckets.push(Bucket {
                            upper: *upper,
                            count,
                        });
                    }
                }
                if !buckets.is_empty() {
                    out.row_mut(target)[step] = f(histogram, step, &mut buckets);
                }
            }
        }
        Ok(out)
    }

    /// The quantile of each histogram, with the annotations that it deserves.
    fn quantiles_of(
        &self,
        block: &Block,
        histograms: &[Histogram],
        quantiles: &[f64],
        pos: Pos,
        grid: Grid,
    ) -> Result<Block> {
        self.per_histogram(block, histograms, |histogram, step, buckets| {
            let (value, forced) = bucket_quantile(quantiles[step], buckets);
            if let Some(forced) = forced {
                let time = grid.time(step);
                let forced = Forced {
                    first_ms: time,
                    last_ms: time,
                    ..forced
                };
                self.notes
                    .forced_monotonicity(pos, &histogram.metric, forced);
            }
            value
        })
    }

    fn note_quantiles(&self, quantiles: &[f64], pos: Pos) {
        for q in quantiles {
            if !(0.0..=1.0).contains(q) {
                self.notes.invalid_quantile(pos, *q);
            }
        }
    }

    pub(super) fn histogram_quantile(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let quantiles = self.scalar(&args[0], grid)?;
        self.note_quantiles(&quantiles, args[0].bare().pos);
        let pos = args[1].bare().pos;
        let block = self.vector(&args[1], grid)?;
        let histograms = self.histograms(&block, pos);
        let mut out = self.quantiles_of(&block, &histograms, &quantiles, pos, grid)?;
        out.drop_names(self.options.delayed_name_removal)?;
        Ok(out)
    }

    pub(super) fn histogram_quantiles(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let label = self.string(&args[1])?;
        let Some(label) = label.label_name() else {
            return Err(QueryError::Execution(format!(
                "invalid label name {}",
                label.quoted()
            )));
        };
        let pos = args[0].bare().pos;
        let block = self.vector(&args[0], grid)?;
        let histograms = self.histograms(&block, pos);
        let mut scratch = Scratch::default();
        let mut out = Block::new(grid.steps, self.budget);
        for arg in &args[2..] {
            let quantiles = self.scalar(arg, grid)?;
            self.note_quantiles(&quantiles, arg.bare().pos);
            let rows = self.quantiles_of(&block, &histograms, &quantiles, pos, grid)?;
            out.reserve(rows.len().saturating_mul(distinct(&quantiles)))?;
            for (meta, row) in rows.rows() {
                // The quantile may differ from step to step, and is part of the labels.
                let mut done: Vec<u64> = Vec::new();
                for q in &quantiles {
                    if done.contains(&q.to_bits()) {
                        continue;
                    }
                    done.push(q.to_bits());
                    let labels = scratch.with(&meta.labels, label, &format_open_metrics(*q));
                    let target = out.push_absent(Meta {
                        labels,
                        drop_name: meta.drop_name,
                    });
                    for (step, value) in row.iter().enumerate() {
                        if quantiles[step].to_bits() == q.to_bits() {
                            out.row_mut(target)[step] = *value;
                        }
                    }
                }
            }
        }
        out.merge_equal()?;
        out.compact();
        out.drop_names(self.options.delayed_name_removal)?;
        Ok(out)
    }

    pub(super) fn histogram_fraction(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let lower = self.scalar(&args[0], grid)?;
        let upper = self.scalar(&args[1], grid)?;
        let block = self.vector(&args[2], grid)?;
        let histograms = self.histograms(&block, args[2].bare().pos);
        let mut out = self.per_histogram(&block, &histograms, |_, step, buckets| {
            bucket_fraction(lower[step], upper[step], buckets)
        })?;
        out.drop_names(self.options.delayed_name_removal)?;
        Ok(out)
    }
}

fn distinct(values: &[f64]) -> usize {
    let mut bits: Vec<u64> = values.iter().map(|v| v.to_bits()).collect();
    bits.sort_unstable();
    bits.dedup();
    bits.len()
}

/// Sorts by bound and joins equal ones. Whether the last bound is infinite.
fn prepare(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets
        .last()
        .is_none_or(|last| last.upper != f64::INFINITY)
    {
        return false;
    }
    buckets.dedup_by(|later, earlier| {
        let same = later.upper == earlier.upper;
        if same {
            earlier.count += later.count;
        }
        same
    });
    true
}

/// Whether two counts differ by less than rounding explains.
fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA
}

/// Makes counts grow: small differences are ignored, falls are filled up and reported.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count) {
            bucket.count = previous;
            continue;
        }
        if count < previous {
            let difference = previous - count;
            bucket.count = previous;
            let found = forced.get_or_insert(Forced {
                min_bucket: bucket.upper,
                max_bucket: bucket.upper,
                max_diff: 0.0,
                first_ms: 0,
                last_ms: 0,
                samples: 1,
            });
            found.max_bucket = bucket.upper;
            found.max_diff = found.max_diff.max(difference);
            continue;
        }
        previous = count;
    }
    forced
}

fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let forced = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, None);
    }
    let mut rank = q * observations;
    let at = buckets[..last]
        .iter()
        .position(|bucket| bucket.count >= rank)
        .unwrap_or(last);
    if at == last {
        return (buckets[last - 1].upper, forced);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[at].upper, buckets[at].count);
    if at > 0 {
        let before = buckets[at - 1];
        start = before.upper;
        count -= before.count;
        rank -= before.count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The share of observations between two bounds.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |bound: f64| -> f64 { rank_of(bound, buckets).min(count) };
    (below(upper) - below(lower)) / count
}

/// How many observations are at or below a bound, by linear interpolation inside its bucket. In a
/// bucket without a finite lower bound, or without an upper one, nothing can be interpolated:
/// there, the rank is that of the bucket's lower bound.
fn rank_of(bound: f64, buckets: &[Bucket]) -> f64 {
    if bound == f64::NEG_INFINITY {
        return 0.0;
    }
    let mut lower = if buckets[0].upper > 0.0 {
        0.0
    } else {
        f64::NEG_INFINITY
    };
    let mut rank = 0.0;
    for bucket in buckets {
        if bound <= lower {
            return rank;
        }
        if bound < bucket.upper {
            if bucket.upper.is_infinite() {
                return rank;
            }
            if lower.is_infinite() {
                return bucket.count;
            }
            return rank + (bucket.count - rank) * (bound - lower) / (bucket.upper - lower);
        }
        rank = bucket.count;
        lower = bucket.upper;
    }
    rank
}
