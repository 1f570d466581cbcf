//! The formats: each turns a decoded body into calls of the
//! [`Collector`](crate::series::Collector).
//!
//! A decoder is a total function of foreign bytes: it refuses items by name and goes on, or refuses
//! the whole body where items cannot be told apart, and never panics.

pub(crate) mod computed;
pub(crate) mod csv;
pub(crate) mod family;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod otlp;
mod protobuf;
pub(crate) mod remote_write;
pub(crate) mod remote_write2;
pub(crate) mod text;
pub(crate) mod vm_json;

/// The buffers of the decoders.
#[derive(Debug, Default)]
pub(crate) struct DecodeScratch {
    pub(crate) remote_write: remote_write::RemoteWriteScratch,
    pub(crate) line: line::LineScratch,
    pub(crate) json: json::JsonScratch,
    pub(crate) remote_write2: remote_write2::RemoteWrite2Scratch,
    pub(crate) text: text::TextScratch,
    pub(crate) otlp: otlp::OtlpScratch,
}
