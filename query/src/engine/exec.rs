//! Leaves read in parallel.

use std::time::{Duration, Instant};

use millrace_model::Labels;
use rayon::prelude::*;

use crate::QueryError;

use super::ast::Pos;
use super::block::{Block, Meta, is_absent};
use super::budget::Meter;
use super::eval::Evaluator;
use super::labels::{Scratch, is_counter_name};
use super::leaf::{Buffers, Leaf};

/// Series per piece of work. Fixed, so that sums come out the same whatever the threads: pieces
/// are joined in order.
const CHUNK: usize = 128;

/// Most series that a thread reads at a time where there are too few for whole pieces.
const GROUP_MAX: usize = 8;

/// Groups for each thread, if there are as many series.
const GROUPS_PER_THREAD: usize = 4;

/// Values that are held until all threads have read theirs, where there are too few series for whole pieces: 1 MiB.
const HELD_VALUES: usize = 1 << 17;

/// Pieces per thread that are in flight at once: enough to keep threads busy, few enough that
/// unjoined pieces do not count.
const WAVE_PER_THREAD: usize = 4;

/// What is done in this time is done before other threads are awake.
const ALONE: Duration = Duration::from_micros(200);

/// A row of a leaf, with what its labels are to become.
#[derive(Clone, Copy)]
pub(super) struct Row<'r> {
    pub(super) labels: &'r Labels,
    /// The metric's name and the like are gone already.
    pub(super) nameless: bool,
    /// They are to be removed at the end.
    pub(super) drop_name: bool,
    pub(super) values: &'r [f64],
}

impl Evaluator<'_> {
    /// Feeds the rows of a leaf, chunk by chunk, to accumulators made by `make`; finished ones go
    /// to `take` in order. Rows without a value are left out.
    pub(super) fn fold<T: Send>(
        &self,
        leaf: &Leaf,
        make: impl Fn() -> T + Sync,
        add: impl Fn(&mut T, Row<'_>) -> Result<(), QueryError> + Sync,
        mut take: impl FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let total = leaf.input.len();
        let steps = leaf.view.grid.steps;
        let chunks = total.div_ceil(CHUNK);
        let threads = self.pool.current_num_threads();
        if threads > 1 && steps > 0 && chunks < 2 * threads && total * steps <= HELD_VALUES {
            return self.fold_few(leaf, make, add, take);
        }
        let run = |chunk: usize| -> Result<T, QueryError> {
            let mut accumulator = make();
            let mut buffers = Buffers::default();
            let mut meter = Meter::new(self.budget);
            let mut row = vec![0.0; steps];
            let mut non_counter = String::new();
            for index in chunk * CHUNK..((chunk + 1) * CHUNK).min(total) {
                leaf.row(index, &mut buffers, &mut row, self.budget, &mut meter)?;
                if let Some(row) = self.as_row(leaf, index, &row, &mut non_counter) {
                    add(&mut accumulator, row)?;
                }
            }
            Ok(accumulator)
        };
        let begun = Instant::now();
        let mut next = 0;
        while next < chunks && (threads == 1 || next + 1 == chunks || begun.elapsed() < ALONE) {
            take(run(next)?)?;
            next += 1;
        }
        let wave = threads * WAVE_PER_THREAD;
        for first in (next..chunks).step_by(wave) {
            let wave = first..(first + wave).min(chunks);
            let done: Vec<_> = self
                .pool
                .install(|| wave.into_par_iter().map(run).collect());
            for accumulator in done {
                take(accumulator?)?;
            }
            self.budget.check()?;
        }
        Ok(())
    }

    /// As [`fold`](Self::fold) of so few series that whole pieces would leave threads without work. Threads read
    /// groups of them; what was read is added in the same order, to accumulators of the same pieces.
    fn fold_few<T>(
        &self,
        leaf: &Leaf,
        make: impl Fn() -> T,
        add: impl Fn(&mut T, Row<'_>) -> Result<(), QueryError>,
        mut take: impl FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let total = leaf.input.len();
        let steps = leaf.view.grid.steps;
        let threads = self.pool.current_num_threads();
        let group_len = total
            .div_ceil(GROUPS_PER_THREAD * threads)
            .clamp(1, GROUP_MAX);
        let groups = total.div_ceil(group_len);
        let read = |buffers: &mut Buffers, group: usize| -> Result<Vec<f64>, QueryError> {
            let series = group * group_len..((group + 1) * group_len).min(total);
            let mut values = vec![0.0; series.len() * steps];
            let mut meter = Meter::new(self.budget);
            for (index, row) in series.zip(values.chunks_exact_mut(steps)) {
                leaf.row(index, buffers, row, self.budget, &mut meter)?;
            }
            Ok(values)
        };
        let mut accumulator = make();
        let mut non_counter = String::new();
        let mut join = |group: usize, values: Vec<f64>| -> Result<(), QueryError> {
            for (index, values) in (group * group_len..).zip(values.chunks_exact(steps)) {
                if let Some(row) = self.as_row(leaf, index, values, &mut non_counter) {
                    add(&mut accumulator, row)?;
                }
                if (index + 1) % CHUNK == 0 || index + 1 == total {
                    take(std::mem::replace(&mut accumulator, make()))?;
                }
            }
            Ok(())
        };
        let begun = Instant::now();
        let mut buffers = Buffers::default();
        let mut next = 0;
        while next < groups && (next + 1 == groups || begun.elapsed() < ALONE) {
            join(next, read(&mut buffers, next)?)?;
            next += 1;
        }
        if next == groups {
            return Ok(());
        }
        let left = next..groups;
        let done: Vec<_> = self.pool.install(|| {
            let left = left.into_par_iter();
            left.map_init(Buffers::default, read).collect()
        });
        for (group, values) in (next..).zip(done) {
            join(group, values?)?;
        }
        self.budget.check()
    }

    /// A series with the values that were read of it; none if it has none.
    fn as_row<'r>(
        &self,
        leaf: &'r Leaf,
        index: usize,
        values: &'r [f64],
        non_counter: &mut String,
    ) -> Option<Row<'r>> {
        if values.iter().all(|v| is_absent(*v)) {
            return None;
        }
        if let Some(pos) = leaf.counter {
            self.check_counter_name(leaf, index, pos, non_counter);
        }
        let drop_name = leaf.input.drop_name(index) || leaf.drops_name;
        let delayed = self.options.delayed_name_removal;
        Some(Row {
            labels: leaf.input.labels(index),
            nameless: drop_name && !delayed,
            drop_name: drop_name && delayed,
            values,
        })
    }

    /// Says that a metric might not be a counter. `last` is the last one of which it was said:
    /// neighbours mostly are of one metric.
    fn check_counter_name(&self, leaf: &Leaf, index: usize, pos: Pos, last: &mut String) {
        let name = leaf.input.labels(index).metric_name().unwrap_or_default();
        if !name.is_empty() && name != last && !is_counter_name(name) {
            self.notes.possible_non_counter(pos, name);
            name.clone_into(last);
        }
    }

    /// The whole of a leaf.
    pub(super) fn collect(&self, leaf: &Leaf) -> Result<Block, QueryError> {
        let mut block = Block::new(leaf.view.grid.steps, self.budget);
        self.fold(
            leaf,
            || (Vec::new(), Vec::new(), Scratch::default()),
            |(series, values, scratch), row| {
                series.push(Meta {
                    labels: match row.nameless {
                        true => scratch.without_metadata(row.labels),
                        false => row.labels.clone(),
                    },
                    drop_name: row.drop_name,
                });
                values.extend_from_slice(row.values);
                Ok(())
            },
            |(series, values, _)| block.extend(series, &values),
        )?;
        if leaf.drops_name && !self.options.delayed_name_removal {
            block.merge_equal()?;
        }
        Ok(block)
    }
}
