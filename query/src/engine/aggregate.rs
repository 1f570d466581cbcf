//! Aggregations.
//!
//! Those that need one value per series at a time (`sum`, `avg`, …) accumulate while rows stream
//! out of a leaf; the others ([`super::ranked`]) hold the whole inner vector.

use hashbrown::HashMap;
use millrace_model::Labels;

use crate::QueryError;

use super::ast::{Aggregate, AggregateOp, Expr, ExprKind, Grouping};
use super::block::{ABSENT, Block, Grid, Meta, is_absent};
use super::eval::Evaluator;
use super::exec::Row;
use super::labels::{Scratch, group_key};
use super::leaf::Leaf;
use super::math::{Mean, kahan_add};
use super::rangefn::Op;

type Result<T> = std::result::Result<T, QueryError>;

impl Evaluator<'_> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate, grid: Grid) -> Result<Block> {
        if aggregate.param.is_some() {
            return self.ranked(aggregate, grid);
        }
        let steps = grid.steps;
        let new = || Groups::new(aggregate.op, steps);
        let mut total = new();
        let mut lease = self.budget.lease(0, 0)?;
        let mut grown = 0;
        let mut take = |chunk: Groups| {
            total.merge(chunk);
            let series = total.series.len() - grown;
            grown = total.series.len();
            lease.grow(series, series * steps * Groups::COLUMNS)
        };
        match self.leaf(&aggregate.expr, grid)? {
            Some((leaf, call)) => {
                self.fold(
                    &leaf,
                    new,
                    |groups, row| {
                        groups.add(&aggregate.grouping, row);
                        Ok(())
                    },
                    take,
                )?;
                if let Some(call) = call {
                    self.annotate(call, &leaf);
                }
            }
            None => {
                let block = self.vector(&aggregate.expr, grid)?;
                let mut groups = new();
                for (meta, values) in block.rows() {
                    let row = Row {
                        labels: &meta.labels,
                        nameless: false,
                        drop_name: meta.drop_name,
                        values,
                    };
                    groups.add(&aggregate.grouping, row);
                }
                take(groups)?;
            }
        }
        total.finish(self)
    }

    /// The expression as a leaf whose rows can be aggregated as they come, if it is one.
    fn leaf<'e>(
        &self,
        expr: &'e Expr,
        grid: Grid,
    ) -> Result<Option<(Leaf, Option<&'e super::ast::Call>)>> {
        if grid.steps > 1 && expr.is_step_invariant() {
            return Ok(None);
        }
        match &expr.bare().kind {
            ExprKind::Vector(selector) => {
                Ok(Some((self.instant_leaf(selector, grid, false)?, None)))
            }
            ExprKind::Call(call) => {
                let streams = match Op::from_function(call.function.name) {
                    None => false,
                    Some(op) => op.keeps_name() || self.range_is_distinct(call),
                };
                if !streams || call.function.name == "absent_over_time" {
                    return Ok(None);
                }
                Ok(Some((self.range_leaf(call, grid)?, Some(call))))
            }
            _ => Ok(None),
        }
    }

    fn range_is_distinct(&self, call: &super::ast::Call) -> bool {
        call.args
            .iter()
            .filter(|arg| arg.value_type() == super::ast::ValueType::Matrix)
            .all(|arg| self.rows_are_distinct(arg))
    }
}

/// The labels of the group that a series belongs to.
pub(super) fn group_of(grouping: &Grouping, labels: &Labels, scratch: &mut Scratch) -> Labels {
    if grouping.without {
        scratch.without(labels, &grouping.labels)
    } else {
        scratch.only(labels, &grouping.labels)
    }
}

/// Accumulators per group and step.
struct Groups {
    op: AggregateOp,
    steps: usize,
    /// By the canonical bytes of their labels, so that a series that belongs to a group that is
    /// there costs no label set.
    index: HashMap<Box<[u8]>, usize>,
    series: Vec<Meta>,
    cells: Cells,
    key: Vec<u8>,
    /// The group of the row before: neighbours mostly are of one group.
    last: usize,
}

/// Columns of accumulators, row by row as in a [`Block`].
enum Cells {
    /// Sum and compensation; absent while there is no value.
    Sum(Vec<f64>, Vec<f64>),
    Mean(Vec<Mean>),
    /// Values seen.
    Count(Vec<f64>),
    /// The least or greatest so far.
    Extreme(Vec<f64>),
    /// Count, mean, and sum of squared distances from it.
    Spread(Vec<[f64; 3]>),
}

impl Groups {
    /// Columns that a group takes, about.
    const COLUMNS: usize = 3;

    fn new(op: AggregateOp, steps: usize) -> Self {
        let cells = match op {
            AggregateOp::Sum => Cells::Sum(Vec::new(), Vec::new()),
            AggregateOp::Avg => Cells::Mean(Vec::new()),
            AggregateOp::Min | AggregateOp::Max => Cells::Extreme(Vec::new()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Cells::Spread(Vec::new()),
            AggregateOp::Count
            | AggregateOp::Group
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Quantile
            | AggregateOp::CountValues
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => Cells::Count(Vec::new()),
        };
        Self {
            op,
            steps,
            index: HashMap::new(),
            series: Vec::new(),
            cells,
            key: Vec::new(),
            last: 0,
        }
    }

    /// The group whose labels have the bytes in `key`.
    fn group(&mut self, drop_name: bool) -> usize {
        if let Some(last) = self.series.get_mut(self.last)
            && last.labels.canonical() == self.key
        {
            last.drop_name |= drop_name;
            return self.last;
        }
        if let Some(&index) = self.index.get(&self.key[..]) {
            self.series[index].drop_name |= drop_name;
            self.last = index;
            return index;
        }
        let index = self.series.len();
        self.index.insert(self.key.as_slice().into(), index);
        self.series.push(Meta {
            labels: Labels::from_canonical(&self.key).expect("pairs of a label set, in its order"),
            drop_name,
        });
        self.last = index;
        let len = self.series.len() * self.steps;
        match &mut self.cells {
            Cells::Sum(sums, compensations) => {
                sums.resize(len, ABSENT);
                compensations.resize(len, 0.0);
            }
            Cells::Mean(means) => means.resize(len, Mean::default()),
            Cells::Count(counts) => counts.resize(len, 0.0),
            Cells::Extreme(values) => values.resize(len, ABSENT),
            Cells::Spread(cells) => cells.resize(len, [0.0; 3]),
        }
        index
    }

    fn add(&mut self, grouping: &Grouping, row: Row<'_>) {
        group_key(grouping, row.labels, row.nameless, &mut self.key);
        let index = self.group(row.drop_name);
        let row = row.values;
        let range = index * self.steps..(index + 1) * self.steps;
        debug_assert_eq!(row.len(), self.steps);
        let op = self.op;
        match &mut self.cells {
            Cells::Sum(sums, compensations) => {
                let cells = sums[range.clone()]
                    .iter_mut()
                    .zip(&mut compensations[range]);
                for ((sum, compensation), value) in cells.zip(row) {
                    add_to_sum(sum, compensation, *value);
                }
            }
            Cells::Mean(means) => {
                for (mean, value) in means[range].iter_mut().zip(row) {
                    if !is_absent(*value) {
                        mean.add(*value);
                    }
                }
            }
            Cells::Count(counts) => {
                for (count, value) in counts[range].iter_mut().zip(row) {
                    if !is_absent(*value) {
                        *count += 1.0;
                    }
                }
            }
            Cells::Extreme(values) => {
                for (best, value) in values[range].iter_mut().zip(row) {
                    keep_extreme(best, *value, op == AggregateOp::Max);
                }
            }
            Cells::Spread(cells) => {
                for (cell, value) in cells[range].iter_mut().zip(row) {
                    if !is_absent(*value) {
                        let [count, mean, squares] = cell;
                        *count += 1.0;
                        let delta = value - *mean;
                        *mean += delta / *count;
                        *squares += delta * (value - *mean);
                    }
                }
            }
        }
    }

    /// Adds what another accumulator, of later series, has seen.
    fn merge(&mut self, other: Self) {
        if self.series.is_empty() {
            *self = other;
            return;
        }
        let steps = self.steps;
        for (from, meta) in other.series.into_iter().enumerate() {
            self.key.clear();
            self.key.extend_from_slice(meta.labels.canonical());
            let to = self.group(meta.drop_name);
            let (from, to) = (
                from * steps..(from + 1) * steps,
                to * steps..(to + 1) * steps,
            );
            match (&mut self.cells, &other.cells) {
                (Cells::Sum(sums, compensations), Cells::Sum(more, lost)) => {
                    let ours = sums[to.clone()].iter_mut().zip(&mut compensations[to]);
                    let theirs = more[from.clone()].iter().zip(&lost[from]);
                    for ((sum, compensation), (value, lost)) in ours.zip(theirs) {
                        if is_absent(*value) {
                            continue;
                        }
                        if is_absent(*sum) {
                            *sum = 0.0;
                        }
                        (*sum, *compensation) = kahan_add(*value, *sum, *compensation);
                        if sum.is_finite() {
                            *compensation += lost;
                        }
                    }
                }
                (Cells::Mean(ours), Cells::Mean(theirs)) => {
                    for (ours, theirs) in ours[to].iter_mut().zip(&theirs[from]) {
                        ours.merge(theirs);
                    }
                }
                (Cells::Count(ours), Cells::Count(theirs)) => {
                    for (ours, theirs) in ours[to].iter_mut().zip(&theirs[from]) {
                        *ours += theirs;
                    }
                }
                (Cells::Extreme(ours), Cells::Extreme(theirs)) => {
                    for (ours, theirs) in ours[to].iter_mut().zip(&theirs[from]) {
                        keep_extreme(ours, *theirs, self.op == AggregateOp::Max);
                    }
                }
                (Cells::Spread(ours), Cells::Spread(theirs)) => {
                    for (ours, theirs) in ours[to].iter_mut().zip(&theirs[from]) {
                        merge_spread(ours, theirs);
                    }
                }
                _ => unreachable!("both were made for the same operation"),
            }
        }
    }

    fn finish(self, evaluator: &Evaluator<'_>) -> Result<Block> {
        let op = self.op;
        let values: Vec<f64> = match self.cells {
            Cells::Sum(sums, compensations) => sums
                .iter()
                .zip(&compensations)
                .map(|(sum, c)| if is_absent(*sum) { ABSENT } else { sum + c })
                .collect(),
            Cells::Mean(means) => means
                .iter()
                .map(|mean| {
                    if mean.count == 0.0 {
                        ABSENT
                    } else {
                        mean.mean()
                    }
                })
                .collect(),
            Cells::Count(counts) => counts
                .iter()
                .map(|count| match op {
                    _ if *count == 0.0 => ABSENT,
                    AggregateOp::Group => 1.0,
                    _ => *count,
                })
                .collect(),
            Cells::Extreme(values) => values,
            Cells::Spread(cells) => cells
                .iter()
                .map(|[count, _, squares]| match op {
                    _ if *count == 0.0 => ABSENT,
                    AggregateOp::Stddev => (squares / count).sqrt(),
                    _ => squares / count,
                })
                .collect(),
        };
        let mut block = Block::new(self.steps, evaluator.budget);
        block.extend(self.series, &values)?;
        Ok(block)
    }
}

/// Without a branch: half of the values may be absent in no order at all.
#[inline]
fn add_to_sum(sum: &mut f64, compensation: &mut f64, value: f64) {
    let before = if is_absent(*sum) { 0.0 } else { *sum };
    let (total, kept) = kahan_add(value, before, *compensation);
    let absent = is_absent(value);
    *sum = if absent { *sum } else { total };
    *compensation = if absent { *compensation } else { kept };
}

/// NaN gives way to any number.
#[inline]
fn keep_extreme(best: &mut f64, value: f64, greatest: bool) {
    if is_absent(value) {
        return;
    }
    let better = if greatest {
        *best < value
    } else {
        *best > value
    };
    // The mark of an absent value is a NaN too.
    if better || best.is_nan() {
        *best = value;
    }
}

fn merge_spread(ours: &mut [f64; 3], theirs: &[f64; 3]) {
    if theirs[0] == 0.0 {
        return;
    }
    if ours[0] == 0.0 {
        *ours = *theirs;
        return;
    }
    let count = ours[0] + theirs[0];
    let delta = theirs[1] - ours[1];
    *ours = [
        count,
        ours[1] + delta * (theirs[0] / count),
        ours[2] + theirs[2] + delta * delta * (ours[0] * theirs[0] / count),
    ];
}
