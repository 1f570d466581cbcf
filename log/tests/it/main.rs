//! The log through its public surface: every damage, every crash, every failing call.
//!
//! Checks return a `Result`, so that `planted` can show that each would notice a bug.

#![expect(clippy::unwrap_used, reason = "tests and what only they call")]

mod crash;
mod faults;
mod flips;
mod golden;
mod model;
mod planted_bugs;
mod reader;
mod rows;
mod support;
