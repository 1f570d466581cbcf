//! Samples as they are applied, for whoever listens: `docs/live.md` is its page.
//!
//! ```text
//!  queue ── one thread per partition reads what its shard has applied ── frames ── ring of the partition
//!                                                                                     │
//!  subscriber, who began before the ring does: reads the queue itself, up to the ring ┤
//!                                                                                     └─ SSE, WebSocket
//! ```
//!
//! **Invariants**
//! - What is told was applied: a query that begins when it is told sees it.
//! - A place in the feed is an offset of the queue in each partition. What is told behind a place is the
//!   same whoever asks and however often, before and after a restart: it is read from the queue. So who goes
//!   on where the last event that it has seen says, misses nothing and sees nothing twice.
//! - What cannot be told is told: places that the queue has no more by a `gap`, the end of the feed for who
//!   reads too slowly by `dropped`.
//! - Nothing is kept by subscriber but its place, its selection, and one event. The rings are bounded and
//!   everybody's.
//! - The ingest path does not know of it. While nobody listens, no thread of it wakes.

mod applied;
mod catch_up;
mod event;
mod filter;
mod frame;
mod http;
mod hub;
mod metrics;
mod options;
mod ring;
mod sieve;
mod subscriber;
mod tail;
#[cfg(test)]
mod tests;

pub use applied::Applied;
pub use filter::Filter;
pub use http::{Held, StillAllowed, router};
pub use hub::Live;
pub use metrics::LiveMetrics;
pub use options::LiveOptions;
