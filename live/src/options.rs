//! Bounds of the feed.

use std::time::Duration;

/// Bounds of the feed. `Default` gives what each field names as its default.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Subscribers at most; one more is refused with 503. Default 1,000.
    pub max_subscribers: usize,
    /// Bytes of the rings of all partitions together. Who falls further behind is dropped. Default 64 MiB.
    pub ring_bytes: usize,
    /// A subscriber to whom nothing is told is told its place after so long. Default 15 s.
    pub heartbeat: Duration,
    /// What is applied within so long is told together. Default 20 ms.
    pub linger: Duration,
    /// After a connection ends, a subscriber should wait at least so long, and at most twice as long: each is
    /// told another moment. Default 2 s.
    pub reconnect: Duration,
    /// Subscribers that read the queue themselves at once. Default 4.
    pub catch_up_readers: usize,
    /// Bytes of records that such a reader takes in one go, and the thread of a partition too. Default 64 KiB.
    pub chunk_bytes: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            max_subscribers: 1_000,
            ring_bytes: 64 << 20,
            heartbeat: Duration::from_secs(15),
            linger: Duration::from_millis(20),
            reconnect: Duration::from_secs(2),
            catch_up_readers: 4,
            chunk_bytes: 64 << 10,
        }
    }
}
