//! The bounds of a connection.

use std::time::Duration;

/// What one connection, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Open connections at most.
    pub connections: usize,
    /// Open connections at most from one address.
    pub connections_per_peer: usize,
    /// The head of a request must be complete after this time from its first byte; the first head
    /// of a connection, after this time from the connection's beginning.
    pub header_timeout: Duration,
    /// Length of the stretches in which a body must bring [`min_rate`](Self::min_rate).
    pub body_timeout: Duration,
    /// Length of the stretches in which a reader must take [`min_rate`](Self::min_rate).
    pub write_timeout: Duration,
    /// Bytes per second.
    pub min_rate: u64,
    /// A connection without a request is closed after this time.
    pub idle_timeout: Duration,
    /// Requests at once on one connection that speaks HTTP/2; with 0 none may.
    pub http2_streams: u32,
}

/// Headers of one request at most. Prometheus sends 8, a browser behind two proxies 30.
pub const MAX_HEADERS: usize = 64;

/// Longest head of a request: the longest expression that is taken, percent-encoded in a URL as far
/// as it usually needs it, and the other headers.
pub const MAX_HEAD_BYTES: usize = 32 << 10;

/// Read buffer of a connection at most. hyper's own bound is 408 KiB; with 4,096 connections that
/// would be 1.6 GiB.
pub const MAX_BUFFER_BYTES: usize = 64 << 10;
