//! How a query process reads the series of store processes.
//!
//! ```text
//!  query process                                      store processes
//!  Engine ─ SeriesSource ─ FleetSource ── HTTP/1.1 ─→ router ─ LocalShards ─ the store
//!                              │   ↑ frames            (one per replica of some partitions)
//!               Directory ─ Fleet: polls, picks a replica per partition, fails over
//! ```
//!
//! Every partition of the queue is one shard. A store process has some of them; several stores may
//! have the same ones, each with its own progress. A read asks for each partition exactly one store:
//! the freshest that can be reached, and another one if that fails, also in the middle of its
//! answer. Series of different partitions are disjoint, so answers are put together without a
//! look at their samples.
//!
//! **Invariants**
//! - An answer is never silently shorter: a stream without its end frame is an error, and a partition
//!   that nobody answers for is one too, unless the request takes partial answers, which then say
//!   what is missing.
//! - A read that must include a position ([`ReadPoint`](millrace_query::ReadPoint)) is answered by
//!   stores that have applied it, or not at all.
//! - Stores of another queue are refused, by both sides.
//! - This crate knows no store: [`LocalShards`] is what one has to show.
//!
//! Format: `docs/formats/fleet.md`.

mod answer;
mod client;
mod directory;
mod fleet;
mod freshness;
mod gather;
mod local;
mod metrics;
mod options;
mod replicas;
mod serve;
mod source;
mod status;
pub mod wire;

pub use client::{SharedToken, StoreAccess};
pub use directory::{Directory, StaticDirectory};
pub use fleet::{Fleet, FleetError};
pub use freshness::FleetFreshness;
pub use local::LocalShards;
pub use metrics::{FleetMetrics, ServeMetrics};
pub use options::FleetOptions;
pub use serve::{CONTENT_TYPE, ServeOptions, router};
pub use source::FleetSource;
pub use status::{
    FLEET_STATUS_PATH, FleetStatus, FleetStore, ShardReplica, ShardStatus, status_router,
};
pub use wire::messages::{PartitionStatus, QueueInfo, StoreStatus};
