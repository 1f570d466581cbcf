//! Evaluation of expression trees.

use std::sync::Arc;

use millrace_model::{METRIC_NAME, MatchOp, Matcher, TenantId, TimeRange, TimestampMs};
use rayon::ThreadPool;

use crate::{
    MatrixSeries, QueryError, QueryTime, QueryValue, ReadContext, SampleColumns, Select,
    SeriesSource, VectorSample,
};

use super::ast::{
    AggregateOp, Edges, Expr, ExprKind, MatrixSelector, Selector, Subquery, TimeShift, ValueType,
};
use super::block::{Block, Grid, is_absent};
use super::budget::Budget;
use super::leaf::{Input, Kernel, Leaf, View, drop_stale};
use super::notes::Notes;
use super::options::EngineOptions;
use super::rate::{Window, extended_samples};
use super::resolve::QueryTimes;
use super::source_error;
use super::text::Text;

/// One query's evaluation.
pub(super) struct Evaluator<'q> {
    pub(super) source: &'q dyn SeriesSource,
    pub(super) context: &'q Arc<ReadContext>,
    pub(super) tenant: &'q TenantId,
    pub(super) options: &'q EngineOptions,
    pub(super) budget: &'q Arc<Budget>,
    pub(super) notes: &'q Notes,
    pub(super) times: QueryTimes,
    /// In ms.
    pub(super) lookback: i64,
    /// Reads series. Work given to it never waits for other such work, so that no query can end up
    /// on top of another one's stack.
    pub(super) pool: &'q ThreadPool,
}

/// A node's value at all steps.
#[derive(Debug)]
pub(super) enum Value {
    Scalar(Vec<f64>),
    String(Text),
    Vector(Block),
}

type Result<T> = std::result::Result<T, QueryError>;

impl Evaluator<'_> {
    /// The answer to a query.
    pub(super) fn answer(&self, expr: &Expr, grid: Grid, time: QueryTime) -> Result<QueryValue> {
        if expr.value_type() == ValueType::Matrix {
            return self.range_vector(expr.bare(), grid);
        }
        let timestamp = TimestampMs(grid.start);
        let instant = matches!(time, QueryTime::Instant(_));
        match self.eval(expr, grid)? {
            Value::String(value) => Ok(QueryValue::String {
                timestamp,
                value: value.lossy(),
            }),
            Value::Scalar(values) if instant => Ok(QueryValue::Scalar {
                timestamp,
                value: values[0],
            }),
            Value::Scalar(values) => Ok(QueryValue::Matrix(vec![MatrixSeries {
                labels: millrace_model::Labels::empty(),
                timestamps: (0..grid.steps).map(|step| grid.time(step)).collect(),
                values,
            }])),
            Value::Vector(mut block) => {
                block.drop_marked()?;
                if instant {
                    if !is_ordered(expr) {
                        self.budget.sorting(|| block.sort_by_labels());
                    }
                    return Ok(QueryValue::Vector(vector_samples(&block, timestamp)));
                }
                self.budget.sorting(|| block.sort_by_labels());
                Ok(QueryValue::Matrix(matrix_series(&block, grid)))
            }
        }
    }

    /// Evaluates a scalar, a string or an instant vector.
    pub(super) fn eval(&self, expr: &Expr, grid: Grid) -> Result<Value> {
        if grid.steps > 1 && expr.is_step_invariant() {
            let once = Grid::instant(grid.start);
            let _counting = self.budget.once_for_all();
            return Ok(match self.eval_varying(expr, once)? {
                Value::Scalar(values) => Value::Scalar(vec![values[0]; grid.steps]),
                Value::String(value) => Value::String(value),
                Value::Vector(block) => Value::Vector(block.broadcast(grid.steps, self.budget)?),
            });
        }
        self.eval_varying(expr, grid)
    }

    fn eval_varying(&self, expr: &Expr, grid: Grid) -> Result<Value> {
        self.budget.check()?;
        match &expr.kind {
            ExprKind::Number(value) => Ok(Value::Scalar(vec![*value; grid.steps])),
            ExprKind::String(value) => Ok(Value::String(value.clone())),
            ExprKind::Paren(inner) | ExprKind::Plus(inner) => self.eval(inner, grid),
            ExprKind::Negate(inner) => self.negate(inner, grid),
            ExprKind::Vector(selector) => {
                let leaf = self.instant_leaf(selector, grid, false)?;
                Ok(Value::Vector(self.collect(&leaf)?))
            }
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => Err(QueryError::Internal(
                "a range vector where none can be".to_owned(),
            )),
            ExprKind::Call(call) => self.call(call, expr.pos, grid),
            ExprKind::Aggregate(aggregate) => Ok(Value::Vector(self.aggregate(aggregate, grid)?)),
            ExprKind::Binary(_) => self.binary_chain(expr, grid),
        }
    }

    pub(super) fn scalar(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>> {
        match self.eval(expr, grid)? {
            Value::Scalar(values) => Ok(values),
            Value::String(_) | Value::Vector(_) => {
                Err(QueryError::Internal("not a scalar".to_owned()))
            }
        }
    }

    pub(super) fn vector(&self, expr: &Expr, grid: Grid) -> Result<Block> {
        match self.eval(expr, grid)? {
            Value::Vector(block) => Ok(block),
            Value::Scalar(_) | Value::String(_) => {
                Err(QueryError::Internal("not an instant vector".to_owned()))
            }
        }
    }

    fn negate(&self, inner: &Expr, grid: Grid) -> Result<Value> {
        match self.eval(inner, grid)? {
            Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|v| -v).collect())),
            Value::Vector(mut block) => {
                block.map(|_, v| -v);
                block.drop_names(self.options.delayed_name_removal)?;
                Ok(Value::Vector(block))
            }
            Value::String(_) => Err(QueryError::Internal("a negative string".to_owned())),
        }
    }

    fn view(&self, time: &TimeShift, grid: Grid) -> View {
        View {
            grid,
            at: time.at_ms,
            offset: time.offset_ms,
            lookback: self.lookback,
            range: 0,
            edges: Edges::Plain,
        }
    }

    pub(super) fn select(&self, matchers: &[Matcher], view: &View) -> Result<Input> {
        let (start, end) = view.needs();
        let request = Select {
            tenant: self.tenant,
            matchers,
            range: TimeRange::new(start, end),
            context: self.context,
        };
        let series = self.source.select(&request).map_err(source_error)?;
        // They are there already, but what is built on them is not begun if they are too many.
        let lease = self.budget.lease(series.len(), 0)?;
        Ok(Input::Stored(series, lease))
    }

    /// A selector; with `timestamps`, the times of samples instead of their values.
    pub(super) fn instant_leaf(
        &self,
        selector: &Selector,
        grid: Grid,
        timestamps: bool,
    ) -> Result<Leaf> {
        let mut view = self.view(&selector.time, grid);
        view.edges = selector.edges;
        let kernel = match selector.edges {
            Edges::Smoothed if !timestamps => Kernel::Smoothed,
            Edges::Plain | Edges::Anchored | Edges::Smoothed => Kernel::Instant { timestamps },
        };
        Ok(Leaf {
            input: self.select(&selector.matchers, &view)?,
            view,
            kernel,
            drops_name: timestamps,
            counter: None,
            digested: None,
        })
    }

    /// The series of a range vector and the view on them.
    pub(super) fn range_input(&self, expr: &Expr, grid: Grid) -> Result<(Input, View)> {
        match &expr.bare().kind {
            ExprKind::Matrix(matrix) => {
                let view = self.matrix_view(matrix, grid);
                Ok((self.select(&matrix.selector.matchers, &view)?, view))
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, grid),
            _ => Err(QueryError::Internal("not a range vector".to_owned())),
        }
    }

    fn matrix_view(&self, matrix: &MatrixSelector, grid: Grid) -> View {
        let mut view = self.view(&matrix.selector.time, grid);
        view.range = matrix.range_ms;
        view.edges = matrix.selector.edges;
        view
    }

    fn subquery(&self, subquery: &Subquery, grid: Grid) -> Result<(Input, View)> {
        let mut view = self.view(&subquery.time, grid);
        view.range = subquery.range_ms;
        let default = self.options.default_subquery_step.as_millis();
        let step = match subquery.step_ms {
            0 => i64::try_from(default).unwrap_or(i64::MAX).max(1),
            step => step,
        };
        let after = view.moment(0).saturating_sub(subquery.range_ms);
        let end = view.moment(grid.steps - 1);
        // Steps are multiples of the step's length, the first one behind the left edge.
        let start = after
            .div_euclid(step)
            .saturating_add(1)
            .saturating_mul(step);
        let steps = match end.checked_sub(start) {
            Some(length) if length >= 0 => usize::try_from(length / step)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
            _ => 0,
        };
        let inner = Grid { start, step, steps };
        if steps == 0 {
            return Ok((Input::Rows(Block::new(0, self.budget), inner), view));
        }
        // One row has to fit at least, before anything is allocated for it.
        drop(self.budget.lease(1, steps)?);
        let _counting = self.budget.in_subquery();
        let block = self.vector(&subquery.expr, inner)?;
        Ok((Input::Rows(block, inner), view))
    }

    /// A range vector as the answer of an instant query.
    fn range_vector(&self, expr: &Expr, grid: Grid) -> Result<QueryValue> {
        let (input, view) = self.range_input(expr, grid)?;
        let end = view.moment(0);
        let begin = end.saturating_sub(view.range);
        let mut columns = SampleColumns::default();
        let mut series = Vec::new();
        let mut lease = self.budget.lease(0, 0)?;
        let mut scratch = super::labels::Scratch::default();
        for index in 0..input.len() {
            self.budget.check()?;
            input.read(index, &mut columns, self.budget)?;
            drop_stale(&mut columns);
            if let Some(counts) = &self.budget.counts {
                counts.windows(&view, &columns.timestamps);
            }
            let window = Window {
                times: &columns.timestamps,
                values: &columns.values,
                begin,
                end,
            };
            let samples: Vec<(i64, f64)> = match view.edges {
                Edges::Plain => columns
                    .timestamps
                    .iter()
                    .copied()
                    .zip(columns.values.iter().copied())
                    .filter(|(time, _)| begin < *time && *time <= end)
                    .collect(),
                Edges::Anchored | Edges::Smoothed => extended_samples(&window, view.edges),
            };
            if samples.is_empty() {
                continue;
            }
            // Two columns.
            lease.grow(1, samples.len().saturating_mul(2))?;
            let labels = match input.drop_name(index) {
                true => scratch.without_metadata(input.labels(index)),
                false => input.labels(index).clone(),
            };
            let (timestamps, values) = samples.into_iter().unzip();
            series.push(MatrixSeries {
                labels,
                timestamps,
                values,
            });
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        if series
            .windows(2)
            .any(|pair| pair[0].labels == pair[1].labels)
        {
            return Err(super::block::same_labelset());
        }
        Ok(QueryValue::Matrix(series))
    }
}

/// Whether a selector can only select series of one metric.
pub(super) fn names_one_metric(matchers: &[Matcher]) -> bool {
    matchers
        .iter()
        .any(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && !m.value().is_empty())
}

/// Whether the order of an instant query's result means something.
fn is_ordered(expr: &Expr) -> bool {
    match &expr.bare().kind {
        ExprKind::Call(call) => matches!(
            call.function.name,
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc"
        ),
        ExprKind::Aggregate(aggregate) => {
            matches!(aggregate.op, AggregateOp::Topk | AggregateOp::Bottomk)
        }
        _ => false,
    }
}

fn vector_samples(block: &Block, timestamp: TimestampMs) -> Vec<VectorSample> {
    block
        .rows()
        .filter(|(_, row)| !is_absent(row[0]))
        .map(|(meta, row)| VectorSample {
            labels: meta.labels.clone(),
            timestamp,
            value: row[0],
        })
        .collect()
}

fn matrix_series(block: &Block, grid: Grid) -> Vec<MatrixSeries> {
    let mut out = Vec::with_capacity(block.len());
    for (meta, row) in block.rows() {
        let present = row.iter().enumerate().filter(|(_, v)| !is_absent(**v));
        let (timestamps, values): (Vec<i64>, Vec<f64>) =
            present.map(|(step, v)| (grid.time(step), *v)).unzip();
        if !timestamps.is_empty() {
            out.push(MatrixSeries {
                labels: meta.labels.clone(),
                timestamps,
                values,
            });
        }
    }
    out
}
