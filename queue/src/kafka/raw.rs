//! The two calls of librdkafka that the Rust wrapper lacks: a topic's id, and the end of a
//! partition as it was last seen by a fetch. This module is the crate's only `unsafe` code.
#![expect(
    unsafe_code,
    reason = "librdkafka has these two calls and rdkafka does not wrap them"
)]

use std::ffi::CString;
use std::time::Duration;

use millrace_model::{Offset, PartitionId, QueueId};
use rdkafka::ClientContext;
use rdkafka::bindings as c;
use rdkafka::client::Client;

/// Destroys what librdkafka handed out, on every way out of a function.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the constructor that belongs to this destructor, and
            // is owned by this guard alone.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// The id that the brokers gave the topic when it was created: a topic that was deleted and made
/// again under the same name has another one. `None` if the brokers do not tell.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Option<QueueId> {
    let name = CString::new(topic).ok()?;
    let timeout_ms = i32::try_from(timeout.as_millis()).ok()?;
    let rk = client.native_ptr();
    // SAFETY: `rk` lives as long as `client`; every object is destroyed by its guard, in the
    // reverse order of creation; results are only read while the event that owns them lives; null
    // is checked before each use.
    unsafe {
        let queue = Owned(c::rd_kafka_queue_new(rk), c::rd_kafka_queue_destroy);
        let mut names = [name.as_ptr()];
        let topics = Owned(
            c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            c::rd_kafka_TopicCollection_destroy,
        );
        let options = Owned(
            c::rd_kafka_AdminOptions_new(
                rk,
                c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            c::rd_kafka_AdminOptions_destroy,
        );
        if queue.0.is_null() || topics.0.is_null() {
            return None;
        }
        c::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = Owned(
            c::rd_kafka_queue_poll(queue.0, timeout_ms),
            c::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return None;
        }
        let result = c::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let list = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if list.is_null() || count != 1 {
            return None;
        }
        let uuid = c::rd_kafka_TopicDescription_topic_id(*list);
        if uuid.is_null() {
            return None;
        }
        let high = c::rd_kafka_Uuid_most_significant_bits(uuid).cast_unsigned();
        let low = c::rd_kafka_Uuid_least_significant_bits(uuid).cast_unsigned();
        let id = u128::from(high) << 64 | u128::from(low);
        (id != 0).then_some(QueueId(id))
    }
}

/// The partition's end as the last fetch answer told it; no call to a broker. `None` before the
/// first fetch.
pub(super) fn last_seen_end<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: PartitionId,
) -> Option<Offset> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the name and both integers outlive the call, which only reads the one and writes the
    // others; the client outlives it too.
    let error = unsafe {
        c::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            name.as_ptr(),
            i32::try_from(partition.0).ok()?,
            &raw mut low,
            &raw mut high,
        )
    };
    let ok = error == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    u64::try_from(high).ok().filter(|_| ok).map(Offset)
}
