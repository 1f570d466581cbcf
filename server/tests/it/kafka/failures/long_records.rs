//! Requests and series around the longest record that the topic takes.

use super::{Book, wait_ready};
use crate::kafka::{PATIENCE, partitions, wait_applied};
use crate::support::kafka::Cluster;
use crate::support::{Client, Rng, eventually, now_ms, remote_write, vector};

/// Samples of one series that no encoding makes short.
fn noise(seed: u64, count: usize) -> Vec<(i64, f64)> {
    let mut rng = Rng::new(seed);
    let base = now_ms() - count as i64 * 1000;
    let mut sample = |n: usize| {
        let at = base + n as i64 * 1000 + rng.between(0, 900) as i64;
        (at, f64::from_bits(rng.next() >> 2))
    };
    (0..count).map(&mut sample).collect()
}

fn count(client: &Client, metric: &str) -> f64 {
    let found = client.query(&format!("sum(count_over_time({metric}[7d]))"), None);
    vector(&found).get("{}").copied().unwrap_or(0.0)
}

#[test]
fn a_request_longer_than_a_record_is_spread_over_several() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("long").create(1, 1);
    // The least that the start accepts.
    topic.configure(cluster, "max.message.bytes=901024");
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[]);
    let client = server.client();
    // One series, 1.6 MB at least; and several such requests at a time, so that batches fill up.
    std::thread::scope(|scope| {
        for n in 0..4 {
            let client = &client;
            scope.spawn(move || {
                let name = n.to_string();
                let labels = [("__name__", "noise"), ("n", name.as_str())];
                let series = remote_write::series(&labels, &noise(n, 100_000));
                let body = remote_write::body(vec![series]);
                let answer = client.post("/api/v1/write", remote_write::HEADERS, body);
                assert_eq!(answer.status / 100, 2, "{answer:?}");
            });
        }
    });
    wait_applied(&client);
    assert_eq!(count(&client, "noise"), 400_000.0);
    let records = partitions(&client)[0]["end_offset"].as_u64().unwrap();
    assert!(records > 4, "{records} records of four requests");
}

#[test]
fn what_fits_in_no_record_is_refused_by_name_and_the_rest_is_taken() {
    let topic = Cluster::shared().topic("unsplittable").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(
        dir.path(),
        &[
            "queue.kafka.max_batch_bytes=64KiB",
            "ingest.limits.label_value_bytes=200KiB",
            "ingest.limits.labels_bytes=250KiB",
        ],
    );
    let client = server.client();
    // A series with a label that is longer than any record.
    let mut rng = Rng::new(5);
    let letters = (0..100_000).map(|_| char::from(b'a' + rng.between(0, 25) as u8));
    let label: String = letters.collect();
    let at = now_ms();
    let labels = [("__name__", "noise"), ("long", label.as_str())];
    let body = remote_write::body(vec![remote_write::series(&labels, &[(at, 1.0)])]);
    let answer = client.post("/api/v1/write", remote_write::HEADERS, body);
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(
        answer.text.contains("queue.kafka.max_batch_bytes"),
        "{answer:?}"
    );
    // Many samples of one series are cut, however short the records are.
    let series = remote_write::series(&[("__name__", "noise")], &noise(7, 20_000));
    let body = remote_write::body(vec![series]);
    let answer = client.post("/api/v1/write", remote_write::HEADERS, body);
    assert_eq!(answer.status / 100, 2, "{answer:?}");
    wait_applied(&client);
    assert_eq!(count(&client, "noise"), 20_000.0);
}

#[test]
fn a_topic_that_takes_less_than_it_did_is_told_and_loses_nothing() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("shorter").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[]);
    let client = server.client();
    let mut book = Book::new(1);
    book.push(&client, 3);
    topic.configure(cluster, "max.message.bytes=2000");
    let text = eventually("a refusal", PATIENCE, || {
        let answer = book.try_push(&client, 2_000);
        if answer.status == 200 {
            // The change takes a moment to arrive at the broker.
            return Err(answer.text);
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        Ok(answer.text)
    });
    let says = "the topic's max.message.bytes must be at least 901024";
    assert!(text.contains(says), "{text}");
    // What is short enough is taken all the same.
    book.push(&client, 3);
    topic.configure(cluster, "max.message.bytes=1000000");
    eventually("long records to be taken again", PATIENCE, || {
        let answer = book.try_push(&client, 2_000);
        (answer.status == 200).then_some(()).ok_or(answer.text)
    });
    wait_applied(&client);
    book.ledger.check(&client);
    wait_ready(&client);
}
