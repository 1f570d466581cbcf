//! The queue through its public surface: crashes, failing disks, and many threads at once.

mod crash;
mod stress;
mod world;
