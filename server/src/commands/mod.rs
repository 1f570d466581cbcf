//! What the program does beside serving.

pub mod diff;
mod progress;
pub mod records;
pub mod replay;
pub mod tail;
