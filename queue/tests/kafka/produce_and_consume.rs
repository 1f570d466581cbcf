//! Records on their way through real brokers.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Offset, PartitionId};
use millrace_queue::{ConsumeError, Consumer, Producer, Record};

use crate::cluster::Cluster;

const P: PartitionId = PartitionId(0);

fn payload(n: u32) -> Bytes {
    let mut bytes = n.to_le_bytes().repeat(50);
    bytes.truncate(100 + n as usize % 100);
    Bytes::from(bytes)
}

fn append(producer: &dyn Producer, numbers: std::ops::Range<u32>) -> std::ops::Range<Offset> {
    let (done, outcome) = mpsc::channel();
    let batches = numbers.map(payload).collect();
    producer.append(
        P,
        batches,
        Box::new(move |result| done.send(result).unwrap()),
    );
    outcome
        .recv_timeout(Duration::from_secs(120))
        .expect("an append is always answered")
        .unwrap()
}

fn read(consumer: &mut dyn Consumer, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while records.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} records",
            records.len()
        );
        match consumer.poll(1 << 20, Duration::from_millis(500), &mut records) {
            Ok(()) | Err(ConsumeError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    records
}

#[test]
fn what_was_acknowledged_is_read_in_order_bit_for_bit() {
    let cluster = Cluster::shared();
    let queue = cluster.queue(&cluster.options("order"), 2, 1);
    let producer = queue.producer().unwrap();
    assert_eq!(append(&*producer, 0..500), Offset(0)..Offset(500));
    assert_eq!(append(&*producer, 500..900), Offset(500)..Offset(900));
    let mut consumer = queue.consumer(P, Offset(0)).unwrap();
    let records = read(&mut *consumer, 900);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.offset, Offset(n as u64));
        assert_eq!(record.payload, payload(n as u32));
    }
    assert_eq!(consumer.end().unwrap(), Offset(900));

    consumer.seek(Offset(450));
    let again = read(&mut *consumer, 450);
    assert_eq!((again[0].offset, again.len()), (Offset(450), 450));
    consumer.release(Offset(900)).unwrap();
}

#[test]
fn positions_outside_the_partition_are_errors_and_no_resets() {
    let cluster = Cluster::shared();
    let queue = cluster.queue(&cluster.options("range"), 1, 1);
    append(&*queue.producer().unwrap(), 0..10);
    let error = queue.consumer(P, Offset(11)).unwrap_err();
    assert!(
        matches!(
            error,
            ConsumeError::BeyondEnd {
                end: Offset(10),
                ..
            }
        ),
        "{error}"
    );
    let mut consumer = queue.consumer(P, Offset(10)).unwrap();
    consumer.seek(Offset(99));
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        assert!(
            Instant::now() < deadline,
            "the position beyond the end went unnoticed"
        );
        if let Err(error) = consumer.poll(1, Duration::from_millis(200), &mut Vec::new())
            && !matches!(error, ConsumeError::Unavailable { .. })
        {
            break error;
        }
    };
    assert!(
        matches!(
            error,
            ConsumeError::BeyondEnd {
                wanted: Offset(99),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_while_brokers_are_killed_in_turn() {
    let cluster = Cluster::start(3);
    let options = cluster.options("kills");
    let queue = cluster.queue(&options, 1, 3);
    let producer = queue.producer().unwrap();
    let mut expected = Vec::new();
    let mut sent = 0u32;
    for round in 0..3 {
        append(&*producer, sent..sent + 50);
        sent += 50;
        cluster.kill(round + 1);
        append(&*producer, sent..sent + 50);
        sent += 50;
        cluster.restart(round + 1);
        append(&*producer, sent..sent + 50);
        sent += 50;
    }
    expected.extend((0..sent).map(payload));
    let mut consumer = queue.consumer(P, Offset(0)).unwrap();
    let got: Vec<_> = read(&mut *consumer, expected.len())
        .into_iter()
        .map(|r| r.payload)
        .collect();
    assert_eq!(got, expected, "each record once, in order");
}
