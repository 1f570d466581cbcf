//! What stands before every request: which route it is, whether its token may, whose data it sees.
//!
//! **Invariants:**
//! - the [`table`] is all there is: a path or method that is not in it reaches no handler, and a handler
//!   whose route is not the one that the table found is not run ([`same_route`]);
//! - whose data a request sees or writes is decided here and nowhere else, and travels as
//!   [`PushContext`](millrace_ingest::PushContext) and [`ReadScope`](millrace_query::ReadScope);
//! - a secret is looked at here and goes no further: no log line, error or metric has one.

mod gate;
mod metrics;
mod open;
mod refusal;
mod table;
mod watch;

#[cfg(test)]
pub use gate::AdminPlace;
pub use gate::{Gate, Known, in_front, same_route};
#[cfg(test)]
pub use metrics::EdgeMetrics;
pub use open::{StoreEdge, open, own_admin_address};
pub use refusal::prometheus;
pub use table::page as routes_page;
pub use watch::{Watched, watch};
