//! The push endpoint through its router, on a real embedded queue.

mod bad_input;
mod bombs;
mod good_input;
mod overload;
mod rig;
