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
        let run = |chunk: usize| -> Result<T, QueryError> {
            let mut accumulator = make();
            let mut buffers = Buffers::default();
            let mut meter = Meter::new(self.budget);
            let mut row = vec![0.0; steps];
            let mut non_counter = String::new();
            for index in chunk * CHUNK..((chunk + 1) * CHUNK).min(total) {
                leaf.row(index, &mut buffers, &mut row, self.budget, &mut meter)?;
                if row.iter().all(|v| is_absent(*v)) {
                    continue;
                }
                if let Some(pos) = leaf.counter {
                    self.check_counter_name(leaf, index, pos, &mut non_counter);
                }
                let drop_name = leaf.input.drop_name(index) || leaf.drops_name;
                let delayed = self.options.delayed_name_removal;
                let row = Row {
                    labels: leaf.input.labels(index),
                    nameless: drop_name && !delayed,
                    drop_name: drop_name && delayed,
                    values: &row,
                };
                add(&mut accumulator, row)?;
            }
            Ok(accumulator)
        };
        let chunks = total.div_ceil(CHUNK);
        let threads = self.pool.current_num_threads();
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
