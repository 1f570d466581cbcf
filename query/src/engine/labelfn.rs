//! Functions that look at labels: `label_replace`, `label_join`, and the sorts.

use std::cmp::Ordering;

use millrace_model::{METRIC_NAME, Matcher};
use regex::RegexBuilder;

use crate::QueryError;

use super::ast::Expr;
use super::block::{Block, Grid, is_absent};
use super::eval::Evaluator;
use super::labels::Scratch;
use super::math::nan_first;
use super::text::Text;

type Result<T> = std::result::Result<T, QueryError>;

fn execution<T>(message: String) -> Result<T> {
    Err(QueryError::Execution(message))
}

fn label_name<'t>(text: &'t Text, what: &str) -> Result<&'t str> {
    match text.label_name() {
        Some(name) => Ok(name),
        None => execution(format!("invalid {what}: {}", text.lossy())),
    }
}

impl Evaluator<'_> {
    pub(super) fn label_replace(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let [dst, replacement, src, pattern] = [1, 2, 3, 4].map(|i| self.string(&args[i]));
        let (dst, replacement, src, pattern) = (dst?, replacement?, src?, pattern?);
        let pattern = pattern.lossy();
        let invalid = || format!("invalid regular expression in label_replace(): {pattern}");
        if pattern.len() > Matcher::MAX_PATTERN_BYTES {
            return execution(format!(
                "{} (longer than {} bytes)",
                invalid(),
                Matcher::MAX_PATTERN_BYTES
            ));
        }
        let regex = RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(Matcher::MAX_PROGRAM_BYTES)
            .dfa_size_limit(Matcher::MAX_PROGRAM_BYTES)
            .build()
            .map_err(|_| QueryError::Execution(invalid()))?;
        let dst = label_name(&dst, "destination label name in label_replace()")?;
        let (replacement, src) = (replacement.lossy(), src.lossy());

        let mut block = self.vector(&args[0], grid)?;
        let mut scratch = Scratch::default();
        let mut value = String::new();
        for meta in &mut block.series {
            let from = meta.labels.get(&src).unwrap_or_default();
            let Some(captures) = regex.captures(from) else {
                continue;
            };
            value.clear();
            captures.expand(&replacement, &mut value);
            meta.labels = scratch.with(&meta.labels, dst, &value);
            if dst == METRIC_NAME {
                meta.drop_name = false;
            }
        }
        block.merge_equal()?;
        Ok(block)
    }

    pub(super) fn label_join(&self, args: &[Expr], grid: Grid) -> Result<Block> {
        let (dst, separator) = (self.string(&args[1])?, self.string(&args[2])?);
        let mut sources = Vec::new();
        for arg in &args[3..] {
            let source = self.string(arg)?;
            let name = label_name(&source, "source label name in label_join()")?;
            sources.push(name.to_owned());
        }
        let dst = label_name(&dst, "destination label name in label_join()")?;
        let separator = separator.lossy();

        let mut block = self.vector(&args[0], grid)?;
        let mut scratch = Scratch::default();
        let mut value = String::new();
        for meta in &mut block.series {
            value.clear();
            for (index, source) in sources.iter().enumerate() {
                if index > 0 {
                    value.push_str(&separator);
                }
                value.push_str(meta.labels.get(source).unwrap_or_default());
            }
            meta.labels = scratch.with(&meta.labels, dst, &value);
            if dst == METRIC_NAME {
                meta.drop_name = false;
            }
        }
        block.merge_equal()?;
        Ok(block)
    }

    /// Sorts by value, NaN last. Only an instant query's result has an order.
    pub(super) fn sort(&self, arg: &Expr, grid: Grid, descending: bool) -> Result<Block> {
        let mut block = self.vector(arg, grid)?;
        if grid.steps != 1 {
            return Ok(block);
        }
        block.sort_by_labels();
        let mut order: Vec<usize> = (0..block.len())
            .filter(|i| !is_absent(block.row(*i)[0]))
            .collect();
        order.sort_by(|a, b| by_value(block.row(*a)[0], block.row(*b)[0], descending));
        block.permute(&order);
        Ok(block)
    }

    pub(super) fn sort_by_label(
        &self,
        args: &[Expr],
        grid: Grid,
        descending: bool,
    ) -> Result<Block> {
        let mut names = Vec::new();
        for arg in &args[1..] {
            names.push(self.string(arg)?.lossy());
        }
        let mut block = self.vector(&args[0], grid)?;
        let mut order: Vec<usize> = (0..block.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&block.series[*a].labels, &block.series[*b].labels);
            let by_names = names.iter().map(|name| {
                natural(
                    a.get(name).unwrap_or_default(),
                    b.get(name).unwrap_or_default(),
                )
            });
            let ordering = by_names
                .fold(Ordering::Equal, Ordering::then)
                .then_with(|| a.cmp(b));
            if descending {
                ordering.reverse()
            } else {
                ordering
            }
        });
        block.permute(&order);
        Ok(block)
    }
}

/// Values in order, NaN last in both directions.
pub(super) fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => nan_first(b, a),
        (false, false) => nan_first(a, b),
        _ => nan_first(b, a),
    }
}

/// Text in natural order: runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (a_chunk, b_chunk) = (chunk(&mut a_rest), chunk(&mut b_rest));
        let ordering = match (a_chunk, b_chunk) {
            ("", "") => return a.cmp(b),
            ("", _) => return Ordering::Less,
            (_, "") => return Ordering::Greater,
            (a, b) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => a.cmp(b),
            },
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

/// Takes a run of digits or of anything else off the front.
fn chunk<'t>(rest: &mut &'t str) -> &'t str {
    let Some(first) = rest.chars().next() else {
        return "";
    };
    let digits = first.is_ascii_digit();
    let end = rest
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order_compares_numbers() {
        for (a, b) in [
            ("2", "10"),
            ("a2b", "a10a"),
            ("4m5", "4m600"),
            ("", "a"),
            ("1.2.3", "1.11.3"),
            ("01", "1"),
        ] {
            assert_eq!(natural(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(natural(b, a), Ordering::Greater, "{b} {a}");
        }
        assert_eq!(natural("a1", "a1"), Ordering::Equal);
    }

    #[test]
    fn nan_sorts_last_both_ways() {
        let mut values = [f64::NAN, 2.0, 1.0];
        values.sort_by(|a, b| by_value(*a, *b, false));
        assert_eq!(values[..2], [1.0, 2.0]);
        values.sort_by(|a, b| by_value(*a, *b, true));
        assert_eq!(values[..2], [2.0, 1.0]);
    }
}
