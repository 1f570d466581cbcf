//! HTTP from the socket to the router, with a bound on everything that a stranger can make large
//! or slow.
//!
//! **Invariants:**
//! - a connection is always under a timer: for the head of a request, for each stretch of its
//!   body, for each stretch of its answer, or for the time between two requests;
//! - a connection holds a permit before it is accepted, so that the process never runs out of
//!   files and the listen queue, not our memory, is where a crowd waits;
//! - a panic in a handler is an answer 500, not a lost connection.

mod accept;
mod body;
mod http2;
mod limits;
mod metrics;
mod origin;
mod pace;
mod stream;

pub use accept::{Drained, Serving, serve};
pub use limits::HttpLimits;
pub use metrics::HttpMetrics;
pub use origin::{Listener, Origin};
