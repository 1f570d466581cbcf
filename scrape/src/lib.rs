//! The scraper: finds targets, asks each of them in its turn, and hands what they say to
//! [`millrace_ingest`].
//!
//! Configuration is Prometheus's own YAML (`config`); what is supported of it is in
//! `docs/scraping.md`. The way of a target: discovery finds labels (`discovery`), relabelling
//! makes a target of them (`target`), its pool keeps a loop for it (`pool`), which asks it at
//! its moments (`scrape_loop`) over a connection of its own (`http`).
//!
//! **Invariants:**
//! - A scrape is durable in the queue, or it is counted as lost and says so at its target.
//! - A configuration that has an error changes nothing: the one before it goes on.
//! - A target that a reload does not touch keeps its loop, its connection and its moments.

mod config;
mod discovery;
mod error;
pub mod files;
mod http;
mod metrics;
mod pool;
mod scrape_loop;
mod scraper;
mod status;
mod target;

pub use config::{Config, PushRelabel};
pub use error::ScrapeError;
pub use scraper::{Scraper, ScraperOptions};
pub use status::{DroppedTarget, Health, TargetStatus};
