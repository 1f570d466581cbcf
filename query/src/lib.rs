//! PromQL and the Prometheus HTTP API over any [`SeriesSource`].
//!
//! **Invariant:** [`SeriesSource`] is the only door to storage; this crate knows neither store nor
//! queue. Clients expect the shapes and words of Prometheus; where a doubt is, Prometheus's own
//! behaviour is the specification (<https://prometheus.io/docs/prometheus/latest/querying/api/>).

pub mod api;
mod engine;
mod nice;
mod result;
mod scope;
mod source;

pub use engine::{Engine, EngineOptions, Outline, QueryWatch, Selection, StatsLevel};
pub use result::{
    CancelFlag, MatrixSeries, QueryError, QueryOutcome, QueryRequest, QueryStats, QueryTime,
    QueryValue, SampleCounts, VectorSample,
};
pub use scope::{ReadScope, ScopedSource};
pub use source::{
    Digest, LabelRequest, ReadContext, ReadPoint, ReadStats, SampleColumns, Select, SeriesSource,
    SourceError, StoredSeries,
};
