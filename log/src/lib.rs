//! A segmented append-only log with checksums. It serves the embedded queue and the store's WAL.
//!
//! **Invariants:** this crate is synchronous and knows no series, no tenant and no runtime. All
//! file access goes through [`fs::Fs`].

pub mod fs;
