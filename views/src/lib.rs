//! Materialized views: what one is, and what one is made of. Pure: no I/O, no threads, no clock.
//!
//! A view is a named aggregation over stored samples: which series, grouped by which labels, in buckets
//! of which width, and which aggregates. The store derives its buckets from samples and keeps them; this
//! crate knows how samples become a bucket, how the buckets of shards become one, and what their values
//! are. `docs/views.md` tells users the same.
//!
//! Invariants:
//! - A bucket is named by its end `e`, a multiple of the width `w`, and holds the samples of `(e - w, e]`:
//!   what a range selector `[w]` holds that is evaluated at `e`.
//! - What is derived depends on the samples alone, to the bit: series are folded in the order of their
//!   labels, samples in the order of time, shards in the order of their partitions.

mod aggregate;
mod catalog;
mod codec;
mod definition;
mod distinct;
mod partial;
mod runs;
mod sketch;
mod span;
mod spec;

pub use aggregate::Aggregate;
pub use catalog::{ViewCatalog, ViewCoverage};
pub use codec::{decode_definition, encode_definition};
pub use definition::{
    Comparison, DAY_MS, Grouping, INCREASE_LOOKBACK_MS, Origin, Parts, ValueFilter, ViewDefinition,
    ViewId, bucket_end, bucket_span,
};
pub use distinct::{DISTINCT_EXACT_MAX, Distinct};
pub use partial::{Partial, Sum};
pub use runs::{Run, runs};
pub use sketch::{SKETCH_ERROR, Sketch};
pub use span::{Span, Spans};
pub use spec::{SpecError, ViewSpec};
