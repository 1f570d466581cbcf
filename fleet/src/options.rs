//! Bounds and times of the query's side.

use std::time::Duration;

/// See the fields.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions {
    /// Time between two looks at each store.
    pub poll_interval: Duration,
    /// How long a store may take to tell its status, or to take a connection.
    pub poll_timeout: Duration,
    /// How long a store may take to the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// How long a store may be silent within an answer.
    pub stall_timeout: Duration,
    /// How long a read may take that brings no deadline of its own.
    pub read_timeout: Duration,
    /// Records that another replica must be ahead before reads move to it.
    pub switch_records: u64,
    /// Memory that the answers of one read may take, as they come.
    pub max_read_bytes: u64,
    /// Memory that the answers of all reads may take.
    pub max_buffer_bytes: u64,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(500),
            poll_timeout: Duration::from_secs(1),
            first_byte_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(120),
            switch_records: 64,
            max_read_bytes: 512 << 20,
            max_buffer_bytes: 2 << 30,
        }
    }
}
