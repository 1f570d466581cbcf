//! The Kafka backend against real brokers (`tests/kafka/kafka` starts them; Java 17 and Maven are
//! needed). One broker serves the ordinary cases, three the ones about losing one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod cluster;
mod control;
mod produce_and_consume;
mod topic;
