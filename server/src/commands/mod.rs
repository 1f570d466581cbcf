//! What the program does beside serving.

pub mod diff;
mod progress;
pub mod queue;
pub mod records;
pub mod replay;
pub mod tail;
