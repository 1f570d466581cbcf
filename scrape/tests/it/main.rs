//! The scraper through its public surface: targets that answer on the loopback, and a queue in memory.

mod credentials;
mod lost;
mod reload;
mod rig;
