//! What the program does beside serving.

mod api;
pub mod diff;
pub mod dlq;
pub mod inspect;
pub mod offline;
mod progress;
pub mod queue;
pub mod records;
pub mod replay;
pub mod retention;
pub mod tail;
pub mod verify;
