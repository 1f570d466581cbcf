//! A fleet of stores in one process: real sockets, and every fault that a store may have.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../query/tests/common/table.rs"]
mod table;

mod answers;
mod api;
mod bounds;
mod faults;
mod fresh;
mod golden;
mod support;
