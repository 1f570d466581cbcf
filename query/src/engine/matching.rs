//! Vector matching.
//!
//! Series of both sides are put into groups by their matching labels, once. Which series of a
//! group meet may differ from step to step, so the rules of cardinality hold per step.

use hashbrown::HashMap;
use millrace_model::Labels;

use crate::QueryError;

use super::ast::{Binary, BinaryOp, Cardinality, Matching};
use super::binary::element;
use super::block::{ABSENT, Block, Meta, is_absent, same_labelset};
use super::eval::Evaluator;
use super::labels::Scratch;
use super::text::quote;

type Result<T> = std::result::Result<T, QueryError>;

fn execution<T>(message: impl Into<String>) -> Result<T> {
    Err(QueryError::Execution(message.into()))
}

/// The labels by which series match.
fn signature(matching: &Matching, labels: &Labels, scratch: &mut Scratch) -> Labels {
    if matching.on {
        scratch.only(labels, &matching.labels)
    } else {
        scratch.without(labels, &matching.labels)
    }
}

/// Rows of either side with equal matching labels.
#[derive(Debug, Default)]
struct Group {
    left: Vec<usize>,
    right: Vec<usize>,
}

fn groups(matching: &Matching, left: &Block, right: &Block) -> Vec<(Labels, Group)> {
    let mut scratch = Scratch::default();
    let mut index: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<(Labels, Group)> = Vec::new();
    for (block, is_left) in [(left, true), (right, false)] {
        for (row, meta) in block.series.iter().enumerate() {
            let labels = signature(matching, &meta.labels, &mut scratch);
            let group = *index.entry(labels.clone()).or_insert_with(|| {
                groups.push((labels, Group::default()));
                groups.len() - 1
            });
            let group = &mut groups[group].1;
            if is_left {
                &mut group.left
            } else {
                &mut group.right
            }
            .push(row);
        }
    }
    groups
}

/// At which steps any of the rows has a value.
fn any_present(block: &Block, rows: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut present = vec![false; block.steps];
    for row in rows {
        for (seen, value) in present.iter_mut().zip(block.row(row)) {
            *seen |= !is_absent(*value);
        }
    }
    present
}

fn erase(row: &mut [f64], gone: impl Iterator<Item = bool>) {
    for (value, gone) in row.iter_mut().zip(gone) {
        if gone {
            *value = ABSENT;
        }
    }
}

impl Evaluator<'_> {
    /// `and`, `or`, `unless`.
    pub(super) fn set_operation(
        &self,
        binary: &Binary,
        mut left: Block,
        mut right: Block,
    ) -> Result<Block> {
        for (_, group) in groups(&binary.matching, &left, &right) {
            match binary.op {
                BinaryOp::Or => {
                    let present = any_present(&left, group.left.iter().copied());
                    for row in group.right {
                        erase(right.row_mut(row), present.iter().copied());
                    }
                }
                op => {
                    let unless = op == BinaryOp::Unless;
                    let present = any_present(&right, group.right.iter().copied());
                    for row in group.left {
                        erase(left.row_mut(row), present.iter().map(|p| *p == unless));
                    }
                }
            }
        }
        if binary.op == BinaryOp::Or {
            right.compact();
            left.reserve(right.len())?;
            for (meta, row) in right.rows() {
                left.push(meta.clone(), row);
            }
            left.merge_equal()?;
        }
        left.compact();
        Ok(left)
    }

    /// Arithmetic and comparisons between vectors.
    pub(super) fn match_vectors(
        &self,
        binary: &Binary,
        left: &Block,
        right: &Block,
    ) -> Result<Block> {
        let matching = &binary.matching;
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped {
            (right, left)
        } else {
            (left, right)
        };
        let mut join = Join {
            binary,
            many,
            one,
            swapped,
            delayed: self.options.delayed_name_removal,
            // Named for the sides as written, but applied after they were swapped, as Prometheus
            // does.
            fill_many: matching.fill_left,
            fill_one: matching.fill_right,
            out: Block::new(left.steps, self.budget),
            rows: HashMap::new(),
            moment: 0,
            given: Vec::new(),
            scratch: Scratch::default(),
        };
        let many_present = any_present(many, 0..many.len());
        let one_present = any_present(one, 0..one.len());
        let active: Vec<bool> = many_present
            .iter()
            .zip(&one_present)
            .map(|(many, one)| match (join.fill_many, join.fill_one) {
                (None, None) => *many && *one,
                _ => *many || *one,
            })
            .collect();
        let groups = groups(matching, left, right);
        let sides = |group: &'_ Group| match swapped {
            true => (group.right.clone(), group.left.clone()),
            false => (group.left.clone(), group.right.clone()),
        };
        // An ambiguous "one" side is an error even where nothing matches it, and comes first.
        for (labels, group) in &groups {
            let (_, one) = sides(group);
            if one.len() > 1 {
                for (step, _) in active.iter().enumerate().filter(|(_, active)| **active) {
                    join.single(labels, &one, step)?;
                }
            }
        }
        for (labels, group) in groups {
            self.budget.check()?;
            let (many, one) = sides(&group);
            let (many, one) = (&many, &one);
            join.group(&labels, many, one, &active)?;
        }
        join.out.compact();
        Ok(join.out)
    }
}

struct Join<'b> {
    binary: &'b Binary,
    many: &'b Block,
    one: &'b Block,
    swapped: bool,
    delayed: bool,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    out: Block,
    /// Rows of `out` by their labels.
    rows: HashMap<Labels, usize>,
    /// Counts the groups and steps that were begun.
    moment: u64,
    /// By row of `out`: the moment at which it was last given.
    given: Vec<u64>,
    scratch: Scratch,
}

impl Join<'_> {
    fn group(
        &mut self,
        labels: &Labels,
        many: &[usize],
        one: &[usize],
        active: &[bool],
    ) -> Result<()> {
        // Rows of `out` by pair, so that labels are made once per pair. The last place of either
        // side stands for a filled value.
        let width = one.len() + 1;
        let mut targets: Vec<Option<usize>> = vec![None; (many.len() + 1) * width];
        for (step, _) in active.iter().enumerate().filter(|(_, active)| **active) {
            self.moment += 1;
            let single = self.single(labels, one, step)?;
            let single_value = single.map_or(self.fill_one, |at| Some(self.one.row(one[at])[step]));
            let mut matched = 0;
            for (at, row) in many.iter().enumerate() {
                let value = self.many.row(*row)[step];
                if is_absent(value) {
                    continue;
                }
                let Some(single_value) = single_value else {
                    continue;
                };
                matched += 1;
                if matched > 1 && self.binary.matching.cardinality == Cardinality::OneToOne {
                    return execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    );
                }
                let one_row = single.map(|at| one[at]);
                let target = &mut targets[at * width + single.unwrap_or(one.len())];
                self.emit(
                    labels,
                    Some(*row),
                    one_row,
                    target,
                    step,
                    value,
                    single_value,
                )?;
            }
            let (0, Some(at), Some(fill)) = (matched, single, self.fill_many) else {
                continue;
            };
            let single_value = self.one.row(one[at])[step];
            let target = &mut targets[many.len() * width + at];
            self.emit(
                labels,
                None,
                Some(one[at]),
                target,
                step,
                fill,
                single_value,
            )?;
        }
        Ok(())
    }

    /// The place in `one` of the only row with a value at `step`.
    fn single(&self, labels: &Labels, one: &[usize], step: usize) -> Result<Option<usize>> {
        let mut present = (0..one.len()).filter(|at| !is_absent(self.one.row(one[*at])[step]));
        let Some(first) = present.next() else {
            return Ok(None);
        };
        let Some(second) = present.next() else {
            return Ok(Some(first));
        };
        let side = if self.swapped { "left" } else { "right" };
        let mut pair = [first, second].map(|at| self.one.series[one[at]].labels.clone());
        pair.sort();
        execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            braces(labels),
            braces(&pair[0]),
            braces(&pair[1]),
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "one match, spelled out")]
    fn emit(
        &mut self,
        labels: &Labels,
        many: Option<usize>,
        one: Option<usize>,
        target: &mut Option<usize>,
        step: usize,
        many_value: f64,
        one_value: f64,
    ) -> Result<()> {
        let (left, right) = match self.swapped {
            true => (one_value, many_value),
            false => (many_value, one_value),
        };
        let value = element(self.binary, left, right);
        let one_to_one = self.binary.matching.cardinality == Cardinality::OneToOne;
        if value.is_none() && one_to_one {
            return Ok(());
        }
        let row = match *target {
            Some(row) => row,
            None => {
                let row = self.target(labels, many, one)?;
                *target = Some(row);
                row
            }
        };
        // Which labels a group has given at this moment counts whether or not a comparison keeps
        // the sample, so that an ambiguous expression does not work by chance of the values.
        if !one_to_one {
            self.given.resize(self.out.len().max(self.given.len()), 0);
            if self.given[row] == self.moment {
                return execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                );
            }
            self.given[row] = self.moment;
        }
        let Some(value) = value else { return Ok(()) };
        let cell = &mut self.out.row_mut(row)[step];
        if !is_absent(*cell) {
            return Err(same_labelset());
        }
        *cell = value;
        Ok(())
    }

    fn target(
        &mut self,
        labels: &Labels,
        many: Option<usize>,
        one: Option<usize>,
    ) -> Result<usize> {
        let many_meta = many.map(|row| &self.many.series[row]);
        let one_labels = one.map_or(labels, |row| &self.one.series[row].labels);
        let mut result = many_meta.map_or(labels, |meta| &meta.labels).clone();
        let matching = &self.binary.matching;
        if !self.binary.op.is_comparison() || (self.binary.return_bool && !self.delayed) {
            result = self.scratch.without_metadata(&result);
        }
        if matching.cardinality == Cardinality::OneToOne {
            result = match matching.on {
                true => self.scratch.only(&result, &matching.labels),
                false => matching.labels.iter().fold(result, |labels, name| {
                    self.scratch.without_one(&labels, name)
                }),
            };
        }
        for name in &matching.include {
            let value = one_labels.get(name).unwrap_or_default();
            result = self.scratch.with(&result, name, value);
        }
        if let Some(row) = self.rows.get(&result) {
            return Ok(*row);
        }
        self.out.reserve(1)?;
        let row = self.out.push_absent(Meta {
            labels: result.clone(),
            // Arithmetic has removed the name already. A filter gives back even a name that was
            // marked, as Prometheus does.
            drop_name: self.delayed && self.binary.return_bool,
        });
        self.rows.insert(result, row);
        Ok(row)
    }
}

/// All labels in braces, the metric's name among them.
fn braces(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", quote(value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}
