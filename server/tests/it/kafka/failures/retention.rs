//! Records that a store had not read are gone from the topic.

use rustix::process::Signal;
use serde_json::json;

use super::{Book, last_gap, resolve, told, wait_stopped};
use crate::kafka::{PATIENCE, metric, wait_applied};
use crate::support::eventually;
use crate::support::kafka::Cluster;

const STORE: &[&str] = &["roles=store,query"];

#[test]
fn records_deleted_before_a_stopped_store_read_them_stop_it_at_its_start() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("overtaken").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(&dir.path().join("none"), &["roles=ingest"]);
    let data = dir.path().join("data");
    let store = topic.start(&data, STORE);
    let (mut read, mut lost, mut left) = (Book::new(1), Book::new(2), Book::new(3));
    read.push(&ingest.client(), 5);
    wait_applied(&store.client());
    store.kill();
    lost.push(&ingest.client(), 4);
    left.push(&ingest.client(), 3);
    let partition = json!({"topic": topic.name, "partition": 0, "offset": 9});
    let file = dir.path().join("offsets.json");
    let what = json!({"version": 1, "partitions": [partition]}).to_string();
    std::fs::write(&file, what).unwrap();
    let tool = "org.apache.kafka.tools.DeleteRecordsCommand";
    cluster.tool(tool, &["--offset-json-file", file.to_str().unwrap()]);

    let store = topic.spawn(&data, STORE);
    let status = wait_stopped(&store.client(), "retention_overtook");
    let reason = status["reason"].as_str().unwrap();
    let says = "offset 5 was asked for, the queue begins at 9";
    assert!(reason.contains(says), "{reason}");
    let store = resolve(store, &topic, &data, told(&status, 0), STORE);
    wait_applied(&store.client());
    assert_eq!(last_gap(&store.client()), (5, 9));
    read.ledger.check(&store.client());
    left.ledger.check(&store.client());
    assert_eq!(lost.stored(&store.client()), 0);
}

/// Kafka's own retention, which overtakes a process that hangs.
#[test]
fn retention_that_overtakes_a_hanging_store_stops_it_when_it_goes_on() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("overtaken-hanging").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(&dir.path().join("none"), &["roles=ingest"]);
    let data = dir.path().join("data");
    let store = topic.start(&data, STORE);
    let (mut read, mut lost) = (Book::new(1), Book::new(2));
    read.push(&ingest.client(), 5);
    wait_applied(&store.client());
    store.signal(Signal::STOP);
    // More than the one answer that may be on its way to it.
    lost.push(&ingest.client(), 40);
    topic.configure(cluster, "retention.ms=1000");
    eventually("the records to go", PATIENCE, || {
        let first = metric(&ingest.client(), "millrace_queue_first_offset{");
        (first == Some(45.0))
            .then_some(())
            .ok_or(format!("{first:?}"))
    });
    store.signal(Signal::CONT);
    let status = wait_stopped(&store.client(), "retention_overtook");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("the queue begins at 45"), "{reason}");
    topic.configure(cluster, "retention.ms=604800000");
    let store = resolve(store, &topic, &data, told(&status, 1), STORE);
    let (from, to) = last_gap(&store.client());
    assert!((5..45).contains(&from) && to == 45, "{from} {to}");
    let mut after = Book::new(3);
    after.push(&ingest.client(), 5);
    wait_applied(&store.client());
    read.ledger.check(&store.client());
    after.ledger.check(&store.client());
    assert_eq!(lost.stored(&store.client()), (from - 5) * 10);
}
