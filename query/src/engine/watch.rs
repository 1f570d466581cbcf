//! What is counted about a query while it runs, beside its answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::block::{Grid, is_absent};
use super::budget::Budget;
use super::leaf::View;
use crate::{ReadContext, SampleCounts};

/// What of a query is counted for its statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatsLevel {
    /// Nothing that costs time.
    #[default]
    None,
    /// How many samples its steps looked at.
    Totals,
    /// The same for each step.
    PerStep,
}

/// Follows one query, also from other threads.
#[derive(Debug, Default)]
pub struct QueryWatch {
    level: StatsLevel,
    running: OnceLock<(Arc<Budget>, Arc<ReadContext>)>,
}

impl QueryWatch {
    /// A watch for one query.
    #[must_use]
    pub fn new(level: StatsLevel) -> Self {
        Self {
            level,
            running: OnceLock::new(),
        }
    }

    pub(super) fn level(&self) -> StatsLevel {
        self.level
    }

    /// The query begins.
    pub(super) fn begin(&self, budget: &Arc<Budget>, context: &Arc<ReadContext>) {
        // A watch that is used twice keeps to the first query.
        let _first = self
            .running
            .get_or_init(|| (Arc::clone(budget), Arc::clone(context)));
    }

    /// Series and samples that were read so far.
    #[must_use]
    pub fn read_so_far(&self) -> (u64, u64) {
        self.running
            .get()
            .map_or((0, 0), |(budget, _)| budget.totals())
    }

    /// What the reads of the query report to; `None` before they begin.
    #[must_use]
    pub fn reads(&self) -> Option<&Arc<ReadContext>> {
        self.running.get().map(|(_, context)| context)
    }
}

/// Samples as Prometheus counts them: each once for every step that looks at it.
#[derive(Debug)]
pub(super) struct StepCounts {
    grid: Grid,
    per_step: bool,
    /// By step, or all in one.
    seen: Vec<AtomicU64>,
    /// Those that no step before has seen.
    fresh: Vec<AtomicU64>,
    /// [`PAUSED`], [`DIRECT`] or [`SAME`]. Changed between leaves alone, by the query's own thread.
    mode: AtomicUsize,
}

/// Inside a subquery: its points count where the range over them is looked at.
const PAUSED: usize = 0;
/// Steps are those of the query.
const DIRECT: usize = 1;
/// One step is evaluated in place of all.
const SAME: usize = 2;

impl StepCounts {
    pub(super) fn new(level: StatsLevel, grid: Grid) -> Option<Self> {
        let per_step = match level {
            StatsLevel::None => return None,
            StatsLevel::Totals => false,
            StatsLevel::PerStep => true,
        };
        let counters = || {
            let count = if per_step { grid.steps } else { 1 };
            (0..count).map(|_| AtomicU64::new(0)).collect()
        };
        Some(Self {
            grid,
            per_step,
            seen: counters(),
            fresh: counters(),
            mode: AtomicUsize::new(DIRECT),
        })
    }

    fn add(&self, step: usize, seen: u64, fresh: u64) {
        let steps = self.grid.steps as u64;
        let mode = self.mode.load(Ordering::Relaxed);
        match mode {
            DIRECT => {
                let at = if self.per_step { step } else { 0 };
                self.seen[at].fetch_add(seen, Ordering::Relaxed);
                self.fresh[at].fetch_add(fresh, Ordering::Relaxed);
            }
            // Every step sees them, and only the first is the one that reads them.
            SAME => {
                let each = if self.per_step { seen } else { seen * steps };
                for counter in &self.seen {
                    counter.fetch_add(each, Ordering::Relaxed);
                }
                self.fresh[0].fetch_add(fresh, Ordering::Relaxed);
            }
            _ => debug_assert_eq!(mode, PAUSED),
        }
    }

    /// A selector's row: each value is one sample.
    pub(super) fn row(&self, row: &[f64]) {
        for (step, _) in row.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            self.add(step, 1, 1);
        }
    }

    /// The samples in the windows of a range.
    pub(super) fn windows(&self, view: &View, timestamps: &[i64]) {
        let (mut from, mut to) = (0, 0);
        for step in 0..view.grid.steps {
            let end = view.moment(step);
            let before = to;
            while to < timestamps.len() && timestamps[to] <= end {
                to += 1;
            }
            let begin = end.saturating_sub(view.range);
            while from < to && timestamps[from] <= begin {
                from += 1;
            }
            self.add(step, (to - from) as u64, (to - from.max(before)) as u64);
        }
    }

    pub(super) fn result(&self) -> SampleCounts {
        let sum = |counters: &[AtomicU64]| counters.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        let steps = |counters: &[AtomicU64]| match self.per_step {
            true => counters
                .iter()
                .enumerate()
                .map(|(step, c)| (self.grid.time(step), c.load(Ordering::Relaxed)))
                .collect(),
            false => Vec::new(),
        };
        SampleCounts {
            seen: sum(&self.seen),
            read: sum(&self.fresh),
            seen_per_step: steps(&self.seen),
            read_per_step: steps(&self.fresh),
        }
    }
}

impl Budget {
    /// Samples do not count until the guard is dropped: they are those of a subquery's steps.
    pub(super) fn in_subquery(&self) -> ModeGuard<'_> {
        self.enter(PAUSED)
    }

    /// What is evaluated once until the guard is dropped counts for every step.
    pub(super) fn once_for_all(&self) -> ModeGuard<'_> {
        self.enter(SAME)
    }

    fn enter(&self, mode: usize) -> ModeGuard<'_> {
        ModeGuard(self.counts.as_ref().map(|counts| {
            let before = counts.mode.load(Ordering::Relaxed);
            // Inside a subquery nothing counts, however it is evaluated.
            let mode = if before == PAUSED { PAUSED } else { mode };
            counts.mode.store(mode, Ordering::Relaxed);
            (counts, before)
        }))
    }
}

/// Sets the way of counting back.
pub(super) struct ModeGuard<'b>(Option<(&'b StepCounts, usize)>);

impl Drop for ModeGuard<'_> {
    fn drop(&mut self) {
        if let Some((counts, before)) = self.0 {
            counts.mode.store(before, Ordering::Relaxed);
        }
    }
}
