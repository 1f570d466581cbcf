//! The Kafka backend against real brokers (`tests/kafka/kafka` starts them; Java 17 and Maven are
//! needed). One broker serves the ordinary cases, three the ones about losing one.

mod cluster;
mod produce_and_consume;
mod topic;
