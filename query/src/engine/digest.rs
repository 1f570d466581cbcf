//! Windows answered from what stands for their samples.
//!
//! Where each window of a function begins and ends at a multiple of the width of buckets that the source has,
//! it may answer from them ([`StoredSeries::read_digest`](crate::StoredSeries::read_digest)). Only functions are asked
//! so whose answer is then the same, bit for bit: the last value, whether there is one, the lowest, the highest,
//! and how many. A sum depends on the order in which floats are added, an average and a rate on sums.

use crate::Digest;

use super::ast::Edges;
use super::leaf::View;
use super::rangefn::{Op, RangeFn};

/// A source's buckets are never narrower; so a finer grain is not asked for.
const GRAIN_MIN_MS: i64 = 60_000;

/// What of a series' buckets a function wants.
#[derive(Debug)]
pub(super) struct Digested {
    pub(super) grain_ms: i64,
    pub(super) digest: Digest,
    /// What is computed of the values that stand for others, if that is another function.
    pub(super) function: Option<RangeFn>,
}

impl Digested {
    /// How to ask for `op` in the windows of `view`; `None` if only the samples will do.
    pub(super) fn of(op: Op, view: &View) -> Option<Self> {
        let digest = match op {
            Op::Count => Digest::Count,
            Op::Last | Op::Present => Digest::Last,
            Op::Min => Digest::Min,
            Op::Max => Digest::Max,
            _ => return None,
        };
        if view.edges != Edges::Plain || view.grid.steps == 0 {
            return None;
        }
        let mut grain_ms = gcd(view.range, view.moment(0));
        if view.grid.steps > 1 && view.at.is_none() {
            grain_ms = gcd(grain_ms, view.grid.step);
        }
        let function = (op == Op::Count).then(|| RangeFn::new(Op::Sum, Vec::new(), 0));
        (grain_ms >= GRAIN_MIN_MS).then_some(Self {
            grain_ms,
            digest,
            function,
        })
    }
}

/// The greatest common divisor; with 0 the other one.
fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b > 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::block::Grid;

    fn grain(op: Op, start: i64, step: i64, range: i64) -> Option<i64> {
        let view = View {
            grid: Grid {
                start,
                step,
                steps: 3,
            },
            at: None,
            offset: 0,
            lookback: 300_000,
            range,
            edges: Edges::Plain,
        };
        Digested::of(op, &view).map(|digested| digested.grain_ms)
    }

    #[test]
    fn the_grain_divides_all_that_windows_begin_and_end_at() {
        let hour = 3_600_000;
        assert_eq!(grain(Op::Max, 10 * hour, hour, 2 * hour), Some(hour));
        assert_eq!(grain(Op::Max, 10 * hour, hour, hour / 4), Some(hour / 4));
        assert_eq!(grain(Op::Max, -hour, hour, hour), Some(hour));
        assert_eq!(grain(Op::Max, 0, hour, hour), Some(hour));
        assert_eq!(grain(Op::Count, 10 * hour + 1, hour, hour), None);
        assert_eq!(grain(Op::Sum, 10 * hour, hour, hour), None);
        assert_eq!(grain(Op::Rate, 10 * hour, hour, hour), None);
    }
}
