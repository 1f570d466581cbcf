//! Samples become buckets: each series is read once, for all views that want it.

use std::collections::{BTreeMap, HashMap};

use millrace_model::{Labels, LabelsBuilder, Matcher, TenantId, TimeRange, is_stale};
use millrace_views::{Comparison, Partial, Run, Spans, ValueFilter, ViewDefinition, runs};

use super::sheet::Rows;
use crate::error::StoreError;
use crate::read::StoreSeries;
use crate::shard::View;

/// What one view wants.
pub(super) struct Task<'a> {
    pub(super) view: &'a ViewDefinition,
    /// Whole buckets.
    pub(super) wanted: Spans,
    /// What a series must pass: the view's own tests, and perhaps more.
    pub(super) matchers: Vec<Matcher>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Folded {
    /// Of each task.
    pub(super) rows: Vec<Rows>,
    /// Samples that were read.
    pub(super) samples: u64,
    /// Bytes of blocks that were decoded for it.
    pub(super) bytes: u64,
}

/// Folds what `tasks`, all of `tenant`, want out of `view`. `None` if that is more than `rows_max` buckets
/// of groups.
///
/// # Errors
///
/// A block that is damaged or cannot be read.
pub(super) fn fold(
    view: &View,
    tenant: &TenantId,
    tasks: &[Task<'_>],
    rows_max: usize,
) -> Result<Option<Folded>, StoreError> {
    let mut folded = Folded::default();
    let mut work: Vec<Work> = tasks.iter().map(|_| Work::default()).collect();
    let Some(range) = hull(tasks) else {
        folded.rows = work.into_iter().map(Work::into_rows).collect();
        return Ok(Some(folded));
    };
    let shapes = shapes(tasks);
    let mut builder = LabelsBuilder::new();
    let (mut base, mut filtered, mut found) = (Columns::default(), Columns::default(), Vec::new());
    let mut left = rows_max;
    // In the order of labels: the order of a sum.
    for (labels, (series, of)) in select(view, tenant, tasks, range)? {
        base.clear();
        folded.bytes += series.read(&mut base.times, &mut base.values)?;
        folded.samples += base.times.len() as u64;
        base.keep(|value| !is_stale(value));
        let mut groups: Vec<Option<usize>> = vec![None; tasks.len()];
        for shape in &shapes {
            let columns = match &shape.filter {
                None => &base,
                Some(filter) => {
                    filtered.clone_from(&base);
                    filtered.keep(|value| filter.takes(value));
                    &filtered
                }
            };
            found.clear();
            runs(
                &columns.times,
                &columns.values,
                shape.width_ms,
                &shape.wanted,
                shape.grows,
                &mut found,
            );
            if found.is_empty() {
                continue;
            }
            for &at in shape.tasks.iter().filter(|at| of.contains(at)) {
                let (task, work) = (&tasks[at], &mut work[at]);
                let group = *groups[at].get_or_insert_with(|| {
                    work.group(task.view.grouping.group_of(&labels, &mut builder))
                });
                let label = task
                    .view
                    .distinct
                    .as_deref()
                    .and_then(|name| labels.get(name));
                let parts = task.view.parts();
                let alone = shape.tasks.len() == 1;
                let mut bucket = 0;
                for run in &found {
                    if !alone && !task.wanted.contains(run.end) {
                        continue;
                    }
                    let values = &columns.values[run.samples.clone()];
                    let Some(partial) = work.bucket(group, &mut bucket, run, &mut left) else {
                        return Ok(None);
                    };
                    partial.add(run, values, parts, label);
                }
            }
        }
    }
    folded.rows = work.into_iter().map(Work::into_rows).collect();
    Ok(Some(folded))
}

/// The time whose samples are needed.
fn hull(tasks: &[Task<'_>]) -> Option<TimeRange> {
    let ends = tasks.iter().filter_map(|task| {
        let (first, last) = (task.wanted.first()?, task.wanted.last()?);
        Some((first.from + 1 - task.view.lookback_ms(), last.to))
    });
    let (start, end) = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    Some(TimeRange::new(start, end))
}

/// A series, and the numbers of the tasks that it passes the tests of.
type Selected = (StoreSeries, Vec<usize>);

fn select(
    view: &View,
    tenant: &TenantId,
    tasks: &[Task<'_>],
    range: TimeRange,
) -> Result<BTreeMap<Labels, Selected>, StoreError> {
    // Views mostly differ in their groups, not in their series: each set of tests is looked for once.
    let mut sets: Vec<(&[Matcher], Vec<usize>)> = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        match sets
            .iter_mut()
            .find(|(matchers, _)| *matchers == task.matchers)
        {
            Some((_, of)) => of.push(at),
            None => sets.push((&task.matchers, vec![at])),
        }
    }
    let mut all: BTreeMap<Labels, Selected> = BTreeMap::new();
    for (matchers, of) in sets {
        let mut found = Vec::new();
        view.select(tenant, matchers, range, &mut found)?;
        for series in found {
            let known = all.entry(series.labels().clone());
            known.or_insert_with(|| (series, Vec::new())).1.extend(&of);
        }
    }
    Ok(all)
}

/// Views whose runs are the same.
struct Shape {
    width_ms: i64,
    filter: Option<ValueFilter>,
    grows: bool,
    wanted: Spans,
    tasks: Vec<usize>,
}

fn shapes(tasks: &[Task<'_>]) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        let key = |filter: Option<ValueFilter>| -> Option<(Comparison, u64)> {
            filter.map(|f| (f.comparison, f.value.to_bits()))
        };
        let (width_ms, filter) = (task.view.width_ms, task.view.filter);
        let same = |s: &&mut Shape| s.width_ms == width_ms && key(s.filter) == key(filter);
        let grows = task.view.lookback_ms() > 0;
        match shapes.iter_mut().find(same) {
            Some(shape) => {
                shape.wanted = shape.wanted.or(&task.wanted);
                shape.grows |= grows;
                shape.tasks.push(at);
            }
            None => shapes.push(Shape {
                width_ms,
                filter,
                grows,
                wanted: task.wanted.clone(),
                tasks: vec![at],
            }),
        }
    }
    shapes
}

#[derive(Clone, Default)]
struct Columns {
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Columns {
    fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    /// Drops the samples whose values are not kept.
    fn keep(&mut self, keeps: impl Fn(f64) -> bool) {
        let Some(first) = self.values.iter().position(|&value| !keeps(value)) else {
            return;
        };
        let mut kept = first;
        for at in first..self.values.len() {
            if keeps(self.values[at]) {
                (self.times[kept], self.values[kept]) = (self.times[at], self.values[at]);
                kept += 1;
            }
        }
        self.times.truncate(kept);
        self.values.truncate(kept);
    }
}

/// The groups of one task.
#[derive(Default)]
struct Work {
    numbers: HashMap<Labels, usize>,
    groups: Vec<Vec<(i64, Partial)>>,
}

impl Work {
    fn group(&mut self, labels: Labels) -> usize {
        let next = self.groups.len();
        let number = *self.numbers.entry(labels).or_insert(next);
        if number == next {
            self.groups.push(Vec::new());
        }
        number
    }

    /// The bucket of a run; `guess` is where it is looked for first, and becomes the place behind it. A
    /// new one takes one of those that are left.
    fn bucket(
        &mut self,
        group: usize,
        guess: &mut usize,
        run: &Run,
        left: &mut usize,
    ) -> Option<&mut Partial> {
        let buckets = &mut self.groups[group];
        let mut at = *guess;
        if buckets.get(at).is_none_or(|of| of.0 != run.end) {
            at = buckets.partition_point(|of| of.0 < run.end);
            if buckets.get(at).is_none_or(|of| of.0 != run.end) {
                *left = left.checked_sub(1)?;
                buckets.insert(at, (run.end, Partial::default()));
            }
        }
        *guess = at + 1;
        Some(&mut buckets[at].1)
    }

    fn into_rows(mut self) -> Rows {
        let groups = &mut self.groups;
        let taken = self.numbers.into_iter();
        let taken = taken.map(|(labels, number)| (labels, std::mem::take(&mut groups[number])));
        taken.collect()
    }
}
