//! Function calls.

use std::sync::atomic::Ordering;

use millrace_model::{METRIC_NAME, MatchOp};

use crate::QueryError;

use super::ast::{Call, Edges, Expr, ExprKind, Pos};
use super::block::{Block, Grid, Meta, is_absent};
use super::date::Part;
use super::digest::Digested;
use super::eval::{Evaluator, Value, names_one_metric};
use super::instantfn;
use super::labels::Scratch;
use super::leaf::{Kernel, Leaf};
use super::math;
use super::rangefn::{Op, RangeFn};
use super::text::Text;

type Result<T> = std::result::Result<T, QueryError>;

impl Evaluator<'_> {
    pub(super) fn call(&self, call: &Call, pos: Pos, grid: Grid) -> Result<Value> {
        let args = &call.args[..];
        let name = call.function.name;
        let vector = |block| Ok(Value::Vector(block));
        match name {
            "time" => Ok(self.each_step(grid, |time| time as f64 / 1000.0)),
            "pi" => Ok(self.each_step(grid, |_| std::f64::consts::PI)),
            "step" => Ok(self.each_step(grid, |_| self.times.step as f64 / 1000.0)),
            "range" => {
                let range = (self.times.end - self.times.start) as f64 / 1000.0;
                Ok(self.each_step(grid, |_| range))
            }
            "start" => Ok(self.each_step(grid, |_| self.times.start as f64 / 1000.0)),
            "end" => Ok(self.each_step(grid, |_| self.times.end as f64 / 1000.0)),
            "min_of" => self.scalar_pair(args, grid, math::min),
            "max_of" => self.scalar_pair(args, grid, math::max),
            "scalar" => self.scalar_of_vector(&args[0], grid),
            "vector" => {
                let values = self.scalar(&args[0], grid)?;
                vector(self.single(&values)?)
            }
            "absent" => vector(self.absent(&args[0], grid)?),
            "absent_over_time" => vector(self.absent_over_time(&args[0], grid)?),
            "timestamp" => vector(self.timestamp(&args[0], grid)?),
            "sort" | "sort_desc" => {
                self.note_sort(pos, grid);
                vector(self.sort(&args[0], grid, name == "sort_desc")?)
            }
            "sort_by_label" | "sort_by_label_desc" => {
                self.note_sort(pos, grid);
                vector(self.sort_by_label(args, grid, name == "sort_by_label_desc")?)
            }
            "label_replace" => vector(self.label_replace(args, grid)?),
            "label_join" => vector(self.label_join(args, grid)?),
            "histogram_quantile" => vector(self.histogram_quantile(args, grid)?),
            "histogram_quantiles" => vector(self.histogram_quantiles(args, grid)?),
            "histogram_fraction" => vector(self.histogram_fraction(args, grid)?),
            "histogram_avg" | "histogram_count" | "histogram_stddev" | "histogram_stdvar"
            | "histogram_sum" => {
                // Only native histograms pass these functions; there are none in storage yet.
                self.vector(&args[0], grid)?;
                let message =
                    format!("native histograms are not supported yet, {name}() has no result");
                self.notes.info(pos, message);
                vector(Block::new(grid.steps, self.budget))
            }
            "start_timestamp" => Err(QueryError::Execution(
                "start_timestamp() is not supported yet: start times are not stored".to_owned(),
            )),
            "info" => vector(self.info(args, grid)?),
            _ => {
                if let Some(part) = Part::from_function(name) {
                    return vector(self.date(part, args, grid)?);
                }
                if Op::from_function(name).is_some() {
                    let leaf = self.range_leaf(call, grid)?;
                    let block = self.collect(&leaf)?;
                    self.annotate(call, &leaf);
                    return vector(block);
                }
                vector(self.instant_function(name, args, grid)?)
            }
        }
    }

    fn note_sort(&self, pos: Pos, grid: Grid) {
        if grid.steps > 1 {
            self.notes.warn(
                pos,
                "sort is ineffective for range queries since results are always ordered by labels",
            );
        }
    }

    fn each_step(&self, grid: Grid, f: impl Fn(i64) -> f64) -> Value {
        Value::Scalar((0..grid.steps).map(|step| f(grid.time(step))).collect())
    }

    fn scalar_pair(&self, args: &[Expr], grid: Grid, f: fn(f64, f64) -> f64) -> Result<Value> {
        let (left, right) = (self.scalar(&args[0], grid)?, self.scalar(&args[1], grid)?);
        let values = left.iter().zip(&right).map(|(l, r)| f(*l, *r));
        Ok(Value::Scalar(values.collect()))
    }

    fn scalar_of_vector(&self, arg: &Expr, grid: Grid) -> Result<Value> {
        let block = self.vector(arg, grid)?;
        let mut found = vec![0u8; grid.steps];
        let mut values = vec![f64::NAN; grid.steps];
        for (_, row) in block.rows() {
            for (step, value) in row.iter().enumerate() {
                if is_absent(*value) {
                    continue;
                }
                found[step] = found[step].saturating_add(1);
                values[step] = if found[step] == 1 { *value } else { f64::NAN };
            }
        }
        Ok(Value::Scalar(values))
    }

    /// A vector of one series without labels.
    fn single(&self, values: &[f64]) -> Result<Block> {
        let mut block = Block::new(values.len(), self.budget);
        block.reserve(1)?;
        let labels = millrace_model::Labels::empty();
        block.push(
            Meta {
                labels,
                drop_name: false,
            },
            values,
        );
        block.compact();
        Ok(block)
    }

    /// The leaf of a call of a function of ranges.
    pub(super) fn range_leaf(&self, call: &Call, grid: Grid) -> Result<Leaf> {
        let op = Op::from_function(call.function.name)
            .ok_or_else(|| QueryError::Internal("not a function of ranges".to_owned()))?;
        let mut params = Vec::new();
        let mut range = None;
        for (index, arg) in call.args.iter().enumerate() {
            match call.function.arg_type(index) {
                super::ast::ValueType::Matrix => range = Some(arg),
                _ => params.push(self.scalar(arg, grid)?),
            }
        }
        let range = range.ok_or_else(|| QueryError::Internal("no range vector".to_owned()))?;
        check_edges(call.function.name, range)?;
        let (input, view) = self.range_input(range, grid)?;
        // Who wants to know how many samples there are at each step, wants them counted.
        let of_samples = self.context.point.is_of_samples_alone() || self.budget.counts.is_some();
        let digested = match of_samples {
            true => None,
            false => Digested::of(op, &view),
        };
        Ok(Leaf {
            input,
            view,
            kernel: Kernel::Range(RangeFn::new(op, params, grid.steps)),
            drops_name: !op.keeps_name(),
            counter: matches!(op, Op::Rate | Op::Increase).then_some(range_pos(range)),
            digested,
        })
    }

    /// Adds what there is to say about a function of ranges that was computed.
    pub(super) fn annotate(&self, call: &Call, leaf: &Leaf) {
        let Kernel::Range(function) = &leaf.kernel else {
            return;
        };
        // Only of `quantile_over_time` there are steps seen.
        for (step, seen) in function.seen.iter().enumerate() {
            let q = function.params[0][step];
            if seen.load(Ordering::Relaxed) && !(0.0..=1.0).contains(&q) {
                self.notes.invalid_quantile(call.args[0].bare().pos, q);
            }
        }
    }

    /// Whether the leaf's rows may be aggregated as they come: no two of them can have equal labels
    /// once the metric's name is gone, or the name stays until the end.
    pub(super) fn rows_are_distinct(&self, range: &Expr) -> bool {
        if self.options.delayed_name_removal {
            return true;
        }
        match &range.bare().kind {
            ExprKind::Matrix(matrix) => names_one_metric(&matrix.selector.matchers),
            _ => false,
        }
    }

    fn absent(&self, arg: &Expr, grid: Grid) -> Result<Block> {
        let block = self.vector(arg, grid)?;
        let mut present = vec![false; grid.steps];
        for (_, row) in block.rows() {
            for (seen, value) in present.iter_mut().zip(row) {
                *seen |= !is_absent(*value);
            }
        }
        self.absent_block(arg, &present)
    }

    fn absent_over_time(&self, arg: &Expr, grid: Grid) -> Result<Block> {
        check_edges("absent_over_time", arg)?;
        let (input, view) = self.range_input(arg, grid)?;
        let leaf = Leaf {
            input,
            view,
            kernel: Kernel::Range(RangeFn::new(Op::Present, Vec::new(), grid.steps)),
            drops_name: true,
            counter: None,
            digested: None,
        };
        let mut present = vec![false; grid.steps];
        self.fold(
            &leaf,
            || vec![false; grid.steps],
            |seen, row| {
                for (seen, value) in seen.iter_mut().zip(row.values) {
                    *seen |= !is_absent(*value);
                }
                Ok(())
            },
            |chunk| {
                for (seen, chunk) in present.iter_mut().zip(chunk) {
                    *seen |= chunk;
                }
                Ok(())
            },
        )?;
        self.absent_block(arg, &present)
    }

    fn absent_block(&self, arg: &Expr, present: &[bool]) -> Result<Block> {
        let row: Vec<f64> = present
            .iter()
            .map(|seen| if *seen { super::block::ABSENT } else { 1.0 })
            .collect();
        let mut block = self.single(&row)?;
        for meta in &mut block.series {
            meta.labels = absent_labels(arg);
        }
        Ok(block)
    }

    fn timestamp(&self, arg: &Expr, grid: Grid) -> Result<Block> {
        let bare = arg.bare();
        if let ExprKind::Vector(selector) = &bare.kind
            && selector.edges == Edges::Plain
        {
            let leaf = self.instant_leaf(selector, grid, true)?;
            return self.collect(&leaf);
        }
        let mut block = self.vector(arg, grid)?;
        block.map(|step, _| grid.time(step) as f64 / 1000.0);
        block.drop_names(self.options.delayed_name_removal)?;
        Ok(block)
    }

    fn date(&self, part: Part, args: &[Expr], grid: Grid) -> Result<Block> {
        let Some(arg) = args.first() else {
            let values: Vec<f64> = (0..grid.steps)
                .map(|step| part.of((grid.time(step) / 1000) as f64))
                .collect();
            return self.single(&values);
        };
        let mut block = self.vector(arg, grid)?;
        block.map(|_, v| part.of(v));
        block.drop_names(self.options.delayed_name_removal)?;
        Ok(block)
    }

    fn instant_function(&self, name: &str, args: &[Expr], grid: Grid) -> Result<Block> {
        let function = instantfn::find(name)
            .ok_or_else(|| QueryError::Internal(format!("function {name} is not built")))?;
        let mut block = self.vector(&args[0], grid)?;
        let mut params = Vec::new();
        for arg in &args[1..] {
            params.push(self.scalar(arg, grid)?);
        }
        instantfn::apply(function, &params, &mut block);
        block.compact();
        block.drop_names(self.options.delayed_name_removal)?;
        Ok(block)
    }

    /// The value of a string argument.
    pub(super) fn string(&self, arg: &Expr) -> Result<Text> {
        match &arg.bare().kind {
            ExprKind::String(value) => Ok(value.clone()),
            _ => Err(QueryError::Internal("not a string".to_owned())),
        }
    }
}

/// The labels that an absent series would have: those that its selector asks for, by `=`, once.
fn absent_labels(arg: &Expr) -> millrace_model::Labels {
    let mut scratch = Scratch::default();
    let mut labels = millrace_model::Labels::empty();
    let matchers = match &arg.bare().kind {
        ExprKind::Vector(selector) => &selector.matchers,
        ExprKind::Matrix(matrix) => &matrix.selector.matchers,
        _ => return labels,
    };
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            labels = scratch.with(&labels, matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            labels = scratch.without_one(&labels, matcher.name());
        }
    }
    labels
}

/// Where an annotation on a range vector points. That on a subquery points at the beginning of the
/// query, as Prometheus's does.
fn range_pos(range: &Expr) -> Pos {
    match &range.bare().kind {
        ExprKind::Subquery(_) => Pos::default(),
        _ => range.bare().pos,
    }
}

fn check_edges(function: &str, arg: &Expr) -> Result<()> {
    let ExprKind::Matrix(matrix) = &arg.bare().kind else {
        return Ok(());
    };
    let (modifier, allowed): (&str, &[&str]) = match matrix.selector.edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => (
            "anchored",
            &["changes", "delta", "increase", "rate", "resets"],
        ),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    Err(QueryError::Execution(format!(
        "{modifier} modifier can only be used with: {} - not with {function}",
        allowed.join(", ")
    )))
}
