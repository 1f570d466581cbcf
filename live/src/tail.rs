//! The thread of a partition: makes frames of what its shard has applied, while anybody listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_model::Offset;
use millrace_queue::ConsumeError;

use crate::frame::FrameWriter;
use crate::hub::{Hub, Lane};
use crate::sieve::Sieve;

/// How long it is waited for the shard before it is looked whether anybody still listens.
const WAIT: Duration = Duration::from_millis(250);

/// After the queue could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// How long a queue may take to bring what was applied from it already.
const READ_WAIT: Duration = Duration::from_millis(500);

/// Starts the thread of a lane.
pub(crate) fn spawn(hub: &Arc<Hub>, lane: usize) {
    let partition = hub.lanes[lane].partition;
    let hub = Arc::clone(hub);
    let thread = std::thread::Builder::new().name(format!("live-{partition}"));
    let spawned = thread.spawn(move || {
        let lane = &hub.lanes[lane];
        while hub.wait_for_subscribers() {
            if let Err(error) = follow(&hub, lane) {
                tracing::warn!(%error, "the live feed of a partition begins again");
                hub.pause(RETRY);
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, %partition, "the live feed of a partition has no thread");
    }
}

/// Follows the partition from where it stands now, until nobody listens.
fn follow(hub: &Hub, lane: &Lane) -> Result<(), ConsumeError> {
    let partition = lane.partition;
    let Some(mut next) = hub.applied.wait(partition, Offset::ZERO, Duration::ZERO) else {
        hub.pause(RETRY);
        return Ok(());
    };
    lane.ring.restart(next);
    // Those who wait are told where the ring begins.
    hub.published.send_modify(|grown| *grown += 1);
    let mut reader = hub.records.read_from(partition, next)?;
    let (mut sieve, mut writer) = (Sieve::default(), FrameWriter::default());
    let (mut read, mut left) = (Vec::new(), VecDeque::new());
    while hub.has_subscribers() && !hub.is_closed() {
        let asked = Instant::now();
        let applied = hub.applied.wait(partition, next.advanced(1), WAIT);
        let applied = applied.unwrap_or(next);
        if applied <= next {
            // A shard that has stopped does not let anybody wait.
            hub.pause(WAIT.saturating_sub(asked.elapsed()));
            continue;
        }
        while next < applied && !hub.is_closed() {
            if left.is_empty() {
                reader.poll(hub.options.chunk_bytes, READ_WAIT, &mut read)?;
                left.extend(read.drain(..));
            }
            let filters = hub.filters.now();
            let start = next;
            while let Some(record) =
                left.pop_front_if(|record: &mut millrace_queue::Record| record.offset < applied)
            {
                sieve.record(&record.payload, &filters, &mut writer);
                next = record.offset.advanced(1);
            }
            if next == start {
                // The queue is slow to bring them, or has others instead: Kafka's own.
                break;
            }
            let before = lane.ring.bytes();
            lane.ring
                .push(writer.finish(partition, (start, next), filters.newest));
            let grown = lane.ring.bytes() as i64 - before as i64;
            hub.metrics.ring_bytes.add(grown);
            hub.published.send_modify(|grown| *grown += 1);
        }
        // What comes meanwhile is told together: a wake-up of all subscribers costs more than a sample.
        hub.pause(hub.options.linger);
    }
    let kept = lane.ring.bytes();
    hub.metrics.ring_bytes.sub(kept as i64);
    lane.ring.restart(next);
    Ok(())
}
