//! Leaves of the expression tree: selectors, and functions of ranges of them.
//!
//! A leaf turns each series on its own into a row of values, one per step. So its series are read
//! one by one, in parallel, and an aggregation around it never holds them all.

use millrace_model::{Labels, is_stale};

use crate::{QueryError, SampleColumns, StoredSeries};

use super::ast::{Edges, Pos};
use super::block::{ABSENT, Block, Grid, is_absent};
use super::budget::{Budget, Lease, Meter};
use super::digest::Digested;
use super::rangefn::{RangeFn, Windows};
use super::source_error;
use super::spans;

/// Where a leaf's series come from.
pub(super) enum Input {
    /// Storage.
    Stored(Vec<Box<dyn StoredSeries>>, Lease),
    /// The steps of a subquery.
    Rows(Block, Grid),
}

impl Input {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored(series, _) => series.len(),
            Self::Rows(block, _) => block.len(),
        }
    }

    pub(super) fn labels(&self, index: usize) -> &Labels {
        match self {
            Self::Stored(series, _) => series[index].labels(),
            Self::Rows(block, _) => &block.series[index].labels,
        }
    }

    pub(super) fn drop_name(&self, index: usize) -> bool {
        match self {
            Self::Stored(..) => false,
            Self::Rows(block, _) => block.series[index].drop_name,
        }
    }

    /// Reads the samples of a series in place of what is in `out`.
    pub(super) fn read(
        &self,
        index: usize,
        out: &mut SampleColumns,
        budget: &Budget,
    ) -> Result<(), QueryError> {
        out.clear();
        match self {
            Self::Stored(series, _) => {
                series[index].read(out).map_err(source_error)?;
                budget.series_read(out.len());
            }
            Self::Rows(block, grid) => {
                for (step, value) in block.row(index).iter().enumerate() {
                    if !is_absent(*value) {
                        out.push(grid.time(step), *value);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Input {
    /// Reads what stands for the samples of a series in place of what is in `out`; whether there is such.
    fn read_digest(
        &self,
        index: usize,
        digested: &Digested,
        out: &mut SampleColumns,
        budget: &Budget,
    ) -> Result<bool, QueryError> {
        let Self::Stored(series, _) = self else {
            return Ok(false);
        };
        out.clear();
        let (grain, digest) = (digested.grain_ms, digested.digest);
        let found = series[index].read_digest(grain, digest, out);
        let found = found.map_err(source_error)?;
        if found {
            budget.series_read(out.len());
        }
        Ok(found)
    }
}

/// Where on the time line a leaf looks at each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) grid: Grid,
    pub(super) at: Option<i64>,
    pub(super) offset: i64,
    pub(super) lookback: i64,
    /// Zero for an instant selector.
    pub(super) range: i64,
    pub(super) edges: Edges,
}

impl View {
    /// The moment that a step looks at.
    #[inline]
    pub(super) fn moment(&self, step: usize) -> i64 {
        self.at
            .unwrap_or_else(|| self.grid.time(step))
            .saturating_sub(self.offset)
    }

    /// The first and last millisecond of which a sample may matter.
    pub(super) fn needs(&self) -> (i64, i64) {
        let (first, last) = (self.moment(0), self.moment(self.grid.steps.max(1) - 1));
        let before = match (self.range, self.edges) {
            (0, _) => self.lookback,
            (range, Edges::Plain) => range,
            (range, _) => range.saturating_add(self.lookback),
        };
        let after = match self.edges {
            Edges::Smoothed => self.lookback,
            Edges::Plain | Edges::Anchored => 0,
        };
        // Left-open: a sample exactly `before` ago does not count.
        let start = first.saturating_sub(before).saturating_add(1);
        (start, last.saturating_add(after))
    }
}

/// What a leaf makes of a series.
pub(super) enum Kernel {
    /// The newest sample within the lookback; its time in seconds instead of its value, if asked.
    Instant { timestamps: bool },
    /// The value on the line between the samples before and after.
    Smoothed,
    /// A function of the samples in a window.
    Range(RangeFn),
}

/// A leaf, ready to be read.
pub(super) struct Leaf {
    pub(super) input: Input,
    pub(super) view: View,
    pub(super) kernel: Kernel,
    /// The values no longer mean what the metric's name says.
    pub(super) drops_name: bool,
    /// Where to say that a metric of which there are values might not be a counter.
    pub(super) counter: Option<Pos>,
    /// How to ask for what stands for samples, where that will do.
    pub(super) digested: Option<Digested>,
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) columns: SampleColumns,
    pub(super) windows: Windows,
}

impl Leaf {
    /// Computes the row of a series.
    pub(super) fn row(
        &self,
        index: usize,
        buffers: &mut Buffers,
        row: &mut [f64],
        budget: &Budget,
        meter: &mut Meter<'_>,
    ) -> Result<(), QueryError> {
        if let (Kernel::Range(function), Some(digested)) = (&self.kernel, &self.digested)
            && self
                .input
                .read_digest(index, digested, &mut buffers.columns, budget)?
        {
            meter.add(buffers.columns.len() + row.len())?;
            drop_stale(&mut buffers.columns);
            let function = digested.function.as_ref().unwrap_or(function);
            return function.run(&self.view, false, buffers, row, meter);
        }
        self.input.read(index, &mut buffers.columns, budget)?;
        meter.add(buffers.columns.len() + row.len())?;
        match &self.kernel {
            Kernel::Instant { timestamps } => {
                instant(&self.view, &buffers.columns, row, *timestamps);
                if let Some(counts) = &budget.counts {
                    counts.row(row);
                }
                Ok(())
            }
            Kernel::Smoothed => {
                drop_stale(&mut buffers.columns);
                smoothed(&self.view, &buffers.columns, row);
                if let Some(counts) = &budget.counts {
                    counts.row(row);
                }
                Ok(())
            }
            Kernel::Range(function) => {
                drop_stale(&mut buffers.columns);
                if let Some(counts) = &budget.counts {
                    counts.windows(&self.view, &buffers.columns.timestamps);
                }
                // The steps of a subquery may tell one delta several times.
                let stored = matches!(self.input, Input::Stored(..));
                let deltas = stored && self.input.labels(index).is_delta();
                function.run(&self.view, deltas, buffers, row, meter)
            }
        }
    }
}

/// Removes staleness markers: ranges do not see them.
pub(super) fn drop_stale(columns: &mut SampleColumns) {
    // Without a way out in the middle, so that several are compared at once.
    let found = |values: &[f64]| values.iter().fold(false, |found, v| found | is_stale(*v));
    if !columns.values.chunks(256).any(found) {
        return;
    }
    let mut kept = 0;
    for index in 0..columns.len() {
        if !is_stale(columns.values[index]) {
            columns.values[kept] = columns.values[index];
            columns.timestamps[kept] = columns.timestamps[index];
            kept += 1;
        }
    }
    columns.values.truncate(kept);
    columns.timestamps.truncate(kept);
}

fn instant(view: &View, columns: &SampleColumns, row: &mut [f64], timestamps: bool) {
    let (times, values) = (&columns.timestamps[..], &columns.values[..]);
    let mut next = 0;
    for (step, out) in row.iter_mut().enumerate() {
        let moment = view.moment(step);
        next = spans::behind(times, next, moment);
        *out = ABSENT;
        if next == 0 {
            continue;
        }
        let (time, value) = (times[next - 1], values[next - 1]);
        if time > moment.saturating_sub(view.lookback) && !is_stale(value) {
            *out = if timestamps {
                time as f64 / 1000.0
            } else {
                value
            };
        }
    }
}

fn smoothed(view: &View, columns: &SampleColumns, row: &mut [f64]) {
    let (times, values) = (&columns.timestamps[..], &columns.values[..]);
    let mut next = 0;
    for (step, out) in row.iter_mut().enumerate() {
        let moment = view.moment(step);
        while next < times.len() && times[next] <= moment {
            next += 1;
        }
        *out = ABSENT;
        let before = next
            .checked_sub(1)
            .filter(|i| times[*i] > moment.saturating_sub(view.lookback));
        let Some(before) = before else {
            continue;
        };
        let after = (next < times.len() && times[next] <= moment.saturating_add(view.lookback))
            .then_some(next);
        *out = match after {
            Some(after) if times[before] < moment => {
                let share = (moment - times[before]) as f64 / (times[after] - times[before]) as f64;
                values[before] + (values[after] - values[before]) * share
            }
            _ => values[before],
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_model::stale_nan;

    fn columns(samples: &[(i64, f64)]) -> SampleColumns {
        let mut columns = SampleColumns::default();
        for (time, value) in samples {
            columns.push(*time, *value);
        }
        columns
    }

    fn view(start: i64, step: i64, steps: usize) -> View {
        View {
            grid: Grid { start, step, steps },
            at: None,
            offset: 0,
            lookback: 300,
            range: 0,
            edges: Edges::Plain,
        }
    }

    fn check(samples: &[(i64, f64)], view: View, expect: &[Option<f64>]) {
        let mut row = vec![0.0; view.grid.steps];
        instant(&view, &columns(samples), &mut row, false);
        let got: Vec<_> = row.iter().map(|v| (!is_absent(*v)).then_some(*v)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn lookback_is_left_open() {
        check(&[(0, 1.0)], view(299, 1, 2), &[Some(1.0), None]);
        assert_eq!(view(299, 1, 2).needs(), (0, 300));
    }

    #[test]
    fn a_staleness_marker_ends_a_series_until_the_next_sample() {
        let samples = [(0, 1.0), (10, stale_nan()), (20, 2.0)];
        check(
            &samples,
            view(0, 5, 5),
            &[Some(1.0), Some(1.0), None, None, Some(2.0)],
        );
    }

    #[test]
    fn ranges_do_not_see_staleness_markers() {
        let mut with = columns(&[(0, 1.0), (10, stale_nan()), (20, f64::NAN)]);
        drop_stale(&mut with);
        assert_eq!(with.timestamps, [0, 20]);
    }

    #[test]
    fn smoothed_values_lie_between_samples() {
        let mut row = [0.0; 4];
        smoothed(&view(0, 5, 4), &columns(&[(0, 0.0), (10, 10.0)]), &mut row);
        assert_eq!(row, [0.0, 5.0, 10.0, 10.0]);
    }
}
