//! What the program does beside serving.

mod api;
pub mod backup;
pub mod check;
pub mod client;
pub mod diff;
pub mod dlq;
pub mod export;
pub mod import;
pub mod inspect;
pub mod offline;
mod progress;
pub mod queue;
pub mod records;
pub mod replay;
pub mod restore;
pub mod retention;
pub mod tail;
pub mod token;
pub mod verify;
