//! Records of a queue that no client would send, and batches as ingest would make them.

use std::sync::mpsc;

use bytes::Bytes;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{Labels, Offset, PartitionId, Sample, SeriesHasher, TenantId};
use millrace_queue::Producer;

/// Appends records and waits until they are durable; the first one's offset.
pub fn append(producer: &dyn Producer, partition: u32, records: Vec<Bytes>) -> Offset {
    let (told, outcome) = mpsc::channel();
    let done = Box::new(move |outcome| told.send(outcome).unwrap());
    producer.append(PartitionId(partition), records, done);
    outcome.recv().unwrap().unwrap().start
}

/// A batch of one sample of each series `metric{device="…"}`.
pub fn batch(metric: &str, devices: &[String], at_ms: i64, value: f64) -> Bytes {
    let tenant = TenantId::anonymous();
    let mut section = FloatSectionWriter::new();
    for device in devices {
        let labels = Labels::from_pairs([("__name__", metric), ("device", device)]).unwrap();
        let id = SeriesHasher::new(&tenant).id(&labels);
        section.push(id, labels.canonical(), &[Sample::new(at_ms, value)]);
    }
    let section = section.finish().unwrap();
    encode_batch(&tenant, None, [&section]).into()
}
