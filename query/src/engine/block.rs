//! The value of an instant vector at all steps at once.
//!
//! A [`Block`] is a table: one row per series, one column per step. A step at which a series has
//! no value holds [`ABSENT`], the staleness marker: no present value can have its bits, since
//! selectors drop stale samples.

use std::sync::Arc;

use hashbrown::HashMap;
use millrace_model::{Labels, STALE_NAN_BITS};

use crate::QueryError;

use super::budget::{Budget, Lease};
use super::labels::Scratch;

/// Stands where a series has no value.
pub(super) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

#[inline]
pub(super) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The moments of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) start: i64,
    /// At least 1.
    pub(super) step: i64,
    pub(super) steps: usize,
}

impl Grid {
    pub(super) fn instant(at: i64) -> Self {
        Self {
            start: at,
            step: 1,
            steps: 1,
        }
    }

    #[inline]
    pub(super) fn time(&self, step: usize) -> i64 {
        self.start + self.step * step as i64
    }
}

/// A series' labels.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) labels: Labels,
    /// The metric's name is to be removed at the end (delayed name removal only).
    pub(super) drop_name: bool,
}

/// An instant vector at every step.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) steps: usize,
    pub(super) series: Vec<Meta>,
    /// Row by row.
    values: Vec<f64>,
    lease: Lease,
}

impl Block {
    pub(super) fn new(steps: usize, budget: &Arc<Budget>) -> Self {
        Self {
            steps,
            series: Vec::new(),
            values: Vec::new(),
            lease: budget.lease(0, 0).expect("nothing fits into any budget"),
        }
    }

    /// Takes room for so many more series.
    pub(super) fn reserve(&mut self, series: usize) -> Result<(), QueryError> {
        self.lease.grow(series, series.saturating_mul(self.steps))?;
        self.series.reserve(series);
        self.values.reserve(series * self.steps);
        Ok(())
    }

    /// Adds a row of which room was [reserved](Self::reserve).
    pub(super) fn push(&mut self, meta: Meta, row: &[f64]) {
        debug_assert_eq!(row.len(), self.steps);
        self.series.push(meta);
        self.values.extend_from_slice(row);
    }

    /// Adds an empty row of which room was reserved, and returns its index.
    pub(super) fn push_absent(&mut self, meta: Meta) -> usize {
        self.series.push(meta);
        self.values.resize(self.values.len() + self.steps, ABSENT);
        self.series.len() - 1
    }

    pub(super) fn extend(&mut self, series: Vec<Meta>, values: &[f64]) -> Result<(), QueryError> {
        debug_assert_eq!(series.len() * self.steps, values.len());
        self.lease.grow(series.len(), values.len())?;
        self.series.extend(series);
        self.values.extend_from_slice(values);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    pub(super) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.steps..(index + 1) * self.steps]
    }

    pub(super) fn row_mut(&mut self, index: usize) -> &mut [f64] {
        &mut self.values[index * self.steps..(index + 1) * self.steps]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Meta, &[f64])> {
        self.series
            .iter()
            .zip(self.values.chunks_exact(self.steps.max(1)))
    }

    /// Replaces every present value; `map` gets the step and the value.
    pub(super) fn map(&mut self, map: impl Fn(usize, f64) -> f64) {
        for row in self.values.chunks_exact_mut(self.steps.max(1)) {
            for (step, value) in row.iter_mut().enumerate() {
                if !is_absent(*value) {
                    *value = map(step, *value);
                }
            }
        }
    }

    /// Removes series that have no value at any step.
    pub(super) fn compact(&mut self) {
        let steps = self.steps.max(1);
        let present = |row: &[f64]| row.iter().any(|v| !is_absent(*v));
        if self.values.chunks_exact(steps).all(present) {
            return;
        }
        let mut kept = 0;
        for index in 0..self.series.len() {
            let range = index * steps..(index + 1) * steps;
            if present(&self.values[range.clone()]) {
                self.values.copy_within(range, kept * steps);
                self.series.swap(kept, index);
                kept += 1;
            }
        }
        self.series.truncate(kept);
        self.values.truncate(kept * steps);
    }

    /// The rows in another order, or some of them.
    pub(super) fn permute(&mut self, order: &[usize]) {
        let mut series = Vec::with_capacity(order.len());
        let mut values = Vec::with_capacity(order.len() * self.steps);
        for &index in order {
            series.push(self.series[index].clone());
            values.extend_from_slice(self.row(index));
        }
        self.series = series;
        self.values = values;
    }

    /// Sorts the rows by their labels.
    pub(super) fn sort_by_labels(&mut self) {
        if self.series.is_sorted_by(|a, b| a.labels <= b.labels) {
            return;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|a, b| self.series[*a].labels.cmp(&self.series[*b].labels));
        self.permute(&order);
    }

    /// The only row of a one-step block, at every step of a longer one.
    pub(super) fn broadcast(
        mut self,
        steps: usize,
        budget: &Arc<Budget>,
    ) -> Result<Self, QueryError> {
        let mut wide = Self::new(steps, budget);
        wide.reserve(self.len())?;
        for value in &self.values {
            wide.values.resize(wide.values.len() + steps, *value);
        }
        wide.series = std::mem::take(&mut self.series);
        Ok(wide)
    }

    /// Marks the metric's name of every series as gone, or removes it at once where removal is not
    /// delayed.
    pub(super) fn drop_names(&mut self, delayed: bool) -> Result<(), QueryError> {
        if delayed {
            for meta in &mut self.series {
                meta.drop_name = true;
            }
            return Ok(());
        }
        let mut scratch = Scratch::default();
        for meta in &mut self.series {
            meta.labels = scratch.without_metadata(&meta.labels);
        }
        self.merge_equal()
    }

    /// Removes the names that were marked.
    pub(super) fn drop_marked(&mut self) -> Result<(), QueryError> {
        if !self.series.iter().any(|m| m.drop_name) {
            return self.merge_equal();
        }
        let mut scratch = Scratch::default();
        for meta in &mut self.series {
            if std::mem::take(&mut meta.drop_name) {
                meta.labels = scratch.without_metadata(&meta.labels);
            }
        }
        self.merge_equal()
    }

    /// Joins series that have the same labels now.
    ///
    /// # Errors
    ///
    /// Two of them have a value at the same step.
    pub(super) fn merge_equal(&mut self) -> Result<(), QueryError> {
        let mut first: HashMap<&Labels, usize> = HashMap::with_capacity(self.len());
        let mut into = Vec::new();
        for (index, meta) in self.series.iter().enumerate() {
            if let Some(&earlier) = first.get(&meta.labels) {
                into.push((index, earlier));
            } else {
                first.insert(&meta.labels, index);
            }
        }
        drop(first);
        if into.is_empty() {
            return Ok(());
        }
        for &(from, to) in &into {
            for step in 0..self.steps {
                let value = self.values[from * self.steps + step];
                if is_absent(value) {
                    continue;
                }
                let target = &mut self.values[to * self.steps + step];
                if !is_absent(*target) {
                    return Err(same_labelset());
                }
                *target = value;
            }
            self.row_mut(from).fill(ABSENT);
        }
        let mut gone = into.iter().map(|(from, _)| *from).peekable();
        let order: Vec<usize> = (0..self.len())
            .filter(|index| gone.next_if_eq(index).is_none())
            .collect();
        self.permute(&order);
        Ok(())
    }
}

pub(super) fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}
