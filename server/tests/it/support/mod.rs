//! What all tests need: the binary under test, a client, and the wire formats.

mod client;
mod process;
pub mod remote_write;
mod rng;

pub use client::{Answer, Client, matrix, now_ms, vector};
pub use process::{Millrace, eventually, wait_exit};
pub use rng::Rng;
