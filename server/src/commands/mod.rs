//! Commands beside the server itself, one file each.

pub mod queue;
