//! The scraper through its public surface: targets that answer on the loopback, and a queue in memory.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not what they share"
)]

mod credentials;
mod lost;
mod reload;
mod rig;
