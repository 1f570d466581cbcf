//! The real binary, from outside: pushed to, asked, killed, compared with Prometheus.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read and write their own fixtures, and a random moment is what a kill waits for"
)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod access;
mod api;
mod backup;
mod bad_input;
mod configuration;
mod dead_letters;
mod dependencies;
mod export;
#[cfg(feature = "kafka")]
mod kafka;
mod kill;
mod lifecycle;
mod limits;
mod live;
mod overload;
mod planner;
mod prometheus;
mod readers;
mod readme;
mod replay;
mod repository;
mod resume;
mod rules;
mod scrape;
mod support;
mod verify;
mod views;
