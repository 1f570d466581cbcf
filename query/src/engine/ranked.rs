//! Aggregations with a parameter: `topk`, `bottomk`, `quantile`, `count_values`, `limitk`,
//! `limit_ratio`.

use hashbrown::HashMap;
use millrace_model::Labels;
use xxhash_rust::xxh64::xxh64;

use crate::QueryError;

use super::aggregate::group_of;
use super::ast::{Aggregate, AggregateOp, Expr};
use super::block::{ABSENT, Block, Grid, Meta, is_absent};
use super::eval::Evaluator;
use super::labelfn::by_value;
use super::labels::Scratch;
use super::math;
use super::text::{format_f, format_g};

type Result<T> = std::result::Result<T, QueryError>;

fn execution<T>(message: impl Into<String>) -> Result<T> {
    Err(QueryError::Execution(message.into()))
}

impl Evaluator<'_> {
    pub(super) fn ranked(&self, aggregate: &Aggregate, grid: Grid) -> Result<Block> {
        let Some(param) = &aggregate.param else {
            return Err(QueryError::Internal("no parameter".to_owned()));
        };
        match aggregate.op {
            AggregateOp::CountValues => self.count_values(aggregate, param, grid),
            AggregateOp::Quantile => self.quantile(aggregate, param, grid),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                let params = self.scalar(param, grid)?;
                let block = self.vector(&aggregate.expr, grid)?;
                let counts = counts(&params)?;
                self.pick(aggregate, &counts, block)
            }
            AggregateOp::LimitRatio => self.limit_ratio(aggregate, param, grid),
            AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Count
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Group
            | AggregateOp::Stddev
            | AggregateOp::Stdvar => Err(QueryError::Internal("a stray parameter".to_owned())),
        }
    }

    /// The rows of each group, groups in order of their first row.
    fn groups(&self, aggregate: &Aggregate, block: &Block) -> Vec<(Meta, Vec<usize>)> {
        let mut scratch = Scratch::default();
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut groups: Vec<(Meta, Vec<usize>)> = Vec::new();
        for (row, meta) in block.series.iter().enumerate() {
            let labels = group_of(&aggregate.grouping, &meta.labels, &mut scratch);
            let group = *index.entry(labels.clone()).or_insert_with(|| {
                groups.push((
                    Meta {
                        labels,
                        drop_name: false,
                    },
                    Vec::new(),
                ));
                groups.len() - 1
            });
            groups[group].0.drop_name |= meta.drop_name;
            groups[group].1.push(row);
        }
        groups
    }

    fn quantile(&self, aggregate: &Aggregate, param: &Expr, grid: Grid) -> Result<Block> {
        let quantiles = self.scalar(param, grid)?;
        if quantiles.iter().any(|q| q.is_nan()) {
            self.notes.invalid_quantile(param.bare().pos, f64::NAN);
        }
        let (least, greatest) = extremes(&quantiles);
        if greatest > 1.0 {
            self.notes.invalid_quantile(param.bare().pos, greatest);
        }
        if least < 0.0 {
            self.notes.invalid_quantile(param.bare().pos, least);
        }
        let inner = self.vector(&aggregate.expr, grid)?;
        let groups = self.groups(aggregate, &inner);
        let mut block = Block::new(grid.steps, self.budget);
        block.reserve(groups.len())?;
        let mut values = Vec::new();
        for (meta, rows) in groups {
            self.budget.check()?;
            let target = block.push_absent(meta);
            for (step, q) in quantiles.iter().enumerate() {
                values.clear();
                let cells = rows.iter().map(|row| inner.row(*row)[step]);
                values.extend(cells.filter(|v| !is_absent(*v)));
                if !values.is_empty() {
                    block.row_mut(target)[step] = math::quantile(*q, &mut values);
                }
            }
        }
        Ok(block)
    }

    fn count_values(&self, aggregate: &Aggregate, param: &Expr, grid: Grid) -> Result<Block> {
        let name = self.string(param)?;
        let Some(label) = name.label_name() else {
            return execution(format!("invalid label name {}", name.quoted()));
        };
        let inner = self.vector(&aggregate.expr, grid)?;
        // The value's label is not part of the group that it overrides.
        let mut scratch = Scratch::default();
        let mut rows: HashMap<(Labels, u64), usize> = HashMap::new();
        let mut targets: HashMap<Labels, usize> = HashMap::new();
        let mut block = Block::new(grid.steps, self.budget);
        for (meta, row) in inner.rows() {
            self.budget.check()?;
            let group = group_of(&aggregate.grouping, &meta.labels, &mut scratch);
            for (step, value) in row.iter().enumerate() {
                if is_absent(*value) {
                    continue;
                }
                let key = (group.clone(), value.to_bits());
                let target = match rows.get(&key) {
                    Some(target) => *target,
                    None => {
                        let labels = scratch.with(&group, label, &format_f(*value));
                        let target = match targets.get(&labels) {
                            Some(target) => *target,
                            None => {
                                block.reserve(1)?;
                                let meta = Meta {
                                    labels: labels.clone(),
                                    drop_name: false,
                                };
                                let target = block.push_absent(meta);
                                targets.insert(labels, target);
                                target
                            }
                        };
                        rows.insert(key, target);
                        target
                    }
                };
                let cell = &mut block.row_mut(target)[step];
                *cell = if is_absent(*cell) { 1.0 } else { *cell + 1.0 };
            }
        }
        Ok(block)
    }

    /// Keeps so many values of each group at each step: the first ones, or the best.
    fn pick(&self, aggregate: &Aggregate, counts: &[usize], mut block: Block) -> Result<Block> {
        // So that ties and first ones do not depend on the source's order.
        block.sort_by_labels();
        let groups = self.groups(aggregate, &block);
        let descending = aggregate.op == AggregateOp::Topk;
        let mut order = Vec::new();
        let mut candidates: Vec<(f64, usize)> = Vec::new();
        for (_, rows) in &groups {
            self.budget.check()?;
            for (step, count) in counts.iter().enumerate() {
                candidates.clear();
                let cells = rows.iter().map(|row| (block.row(*row)[step], *row));
                candidates.extend(cells.filter(|(value, _)| !is_absent(*value)));
                if aggregate.op != AggregateOp::Limitk {
                    candidates.sort_by(|a, b| by_value(a.0, b.0, descending));
                }
                for (_, row) in candidates.iter().skip(*count) {
                    block.row_mut(*row)[step] = ABSENT;
                }
                if counts.len() == 1 {
                    order.extend(candidates.iter().take(*count).map(|(_, row)| *row));
                }
            }
        }
        if counts.len() == 1 {
            block.permute(&order);
        } else {
            block.compact();
        }
        Ok(block)
    }

    fn limit_ratio(&self, aggregate: &Aggregate, param: &Expr, grid: Grid) -> Result<Block> {
        let mut ratios = self.scalar(param, grid)?;
        if ratios.iter().any(|ratio| ratio.is_nan()) {
            return execution("Ratio value is NaN");
        }
        let (least, greatest) = extremes(&ratios);
        for (ratio, capped) in [(greatest, 1.0), (least, -1.0)] {
            if ratio.abs() > 1.0 && ratio.signum() == capped {
                let message = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_g(ratio),
                    format_g(capped)
                );
                self.notes.warn(param.bare().pos, message);
            }
        }
        for ratio in &mut ratios {
            *ratio = ratio.clamp(-1.0, 1.0);
        }
        let mut block = self.vector(&aggregate.expr, grid)?;
        for index in 0..block.len() {
            let place = place_of(&block.series[index].labels);
            for (value, ratio) in block.row_mut(index).iter_mut().zip(&ratios) {
                let kept =
                    (*ratio >= 0.0 && place < *ratio) || (*ratio < 0.0 && place >= 1.0 + *ratio);
                if !kept {
                    *value = ABSENT;
                }
            }
        }
        block.compact();
        Ok(block)
    }
}

/// The least and the greatest number; NaN does not count.
fn extremes(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::NAN, f64::min);
    (least, values.iter().copied().fold(f64::NAN, f64::max))
}

/// Where in [0, 1) a series lies; the same place as in Prometheus (whose label hash is XXH64 of
/// the same bytes, for labels shorter than 128 bytes).
fn place_of(labels: &Labels) -> f64 {
    xxh64(labels.canonical(), 0) as f64 / u64::MAX as f64
}

/// Parameters as numbers of series.
fn counts(params: &[f64]) -> Result<Vec<usize>> {
    params
        .iter()
        .map(|param| {
            if param.is_nan() {
                return execution("Parameter value is NaN");
            }
            if *param <= i64::MIN as f64 {
                return execution(format!(
                    "Scalar value {} underflows int64",
                    format_g(*param)
                ));
            }
            if *param >= i64::MAX as f64 {
                return execution(format!("Scalar value {} overflows int64", format_g(*param)));
            }
            Ok(usize::try_from(*param as i64).unwrap_or(0))
        })
        .collect()
}
