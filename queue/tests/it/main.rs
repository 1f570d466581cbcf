//! The queue through its public surface: crashes, failing disks, and many threads at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod stress;
mod world;
