//! The Prometheus HTTP API at the level of its router.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/table.rs"]
mod table;

mod client;
mod companions;
mod cors;
mod errors;
mod explain;
mod expressions;
mod federate;
mod forms;
mod freshness;
mod golden;
mod grafana;
mod latest;
mod load;
mod random;
mod read;
mod running;
mod scope;
mod shapes;
