//! The engine against a naive evaluator of PromQL, over random expressions and random series.
//!
//! The evaluator ([`eval`]) is written from the language's definition, one moment at a time, with
//! sorted maps and no thought for speed, and shares nothing with the engine. What it answers must
//! be what the engine answers, bit for bit; where sums are involved, whose last bits depend on the
//! order of addition, to 1e-12.
//!
//! `MILLRACE_SEED` replays a run, `MILLRACE_QUERIES` sets how many queries it has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/table.rs"]
mod table;

mod aggregate;
mod binary;
mod compare;
mod data;
mod eval;
mod expr;
mod functions;
mod generate;
mod random;
mod run;
mod self_check;
