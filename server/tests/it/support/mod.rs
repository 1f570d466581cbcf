//! What all tests need: the binary under test, a client, and the wire formats.

mod client;
#[cfg(feature = "kafka")]
pub mod kafka;
mod process;
pub mod records;
pub mod remote_write;
mod rng;
pub mod tls;

pub use client::{Answer, Client, escape, matrix, now_ms, vector};
pub use process::{Millrace, copy_dir, eventually, fail, succeed};
pub use rng::Rng;
