//! The push endpoint through its router, on a real embedded queue.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not what they share"
)]

mod bad_input;
mod bombs;
mod docs;
mod good_input;
mod limits;
mod overload;
mod protocols;
mod receipts;
mod rig;
mod total;
