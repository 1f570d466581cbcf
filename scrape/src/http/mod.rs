//! Asking targets over HTTP/1.1, each over a connection of its own that is kept between scrapes.
//!
//! Nothing here has a timeout: whoever asks drops the future when the time is over.

mod client;
mod request;
mod tls;

pub(crate) use client::{Client, Kept};
pub(crate) use request::{accept_header, format_of};
