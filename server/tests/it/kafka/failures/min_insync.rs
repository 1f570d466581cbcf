//! Fewer replicas are up than an acknowledgement takes.

use std::time::{Duration, Instant};

use super::{Book, wait_ready};
use crate::kafka::{PATIENCE, wait_applied};
use crate::support::eventually;
use crate::support::kafka::Cluster;

#[test]
fn without_enough_replicas_nothing_is_acknowledged_and_nothing_lost() {
    let cluster = Cluster::three();
    let topic = cluster.topic("insync").create(1, 3);
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "queue.kafka.minimum_durability=replicated",
        "queue.kafka.delivery_timeout=4s",
    ];
    let server = topic.start(dir.path(), &settings);
    let client = server.client();
    let mut book = Book::new(1);
    book.push_until_taken(&client);
    book.push(&client, 10);
    wait_applied(&client);

    cluster.kill(2);
    cluster.kill(3);
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = book.try_push(&client, 10);
        let took = begun.elapsed();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        let says = ["sending again is safe", "min.insync.replicas"];
        assert!(says.iter().all(|s| answer.text.contains(s)), "{answer:?}");
        assert!(took < Duration::from_secs(20), "answered after {took:?}");
    }
    // Whoever watches it is told, and what is there is answered.
    eventually("not ready", PATIENCE, || {
        let _kept_trying = book.try_push(&client, 1);
        let answer = client.get("/-/ready");
        let told = answer.status == 503 && answer.text.contains("cut off from its queue");
        told.then_some(()).ok_or(answer.text)
    });
    assert_eq!(client.get("/api/v1/query?query=ledger").status, 200);

    // Two of three are enough.
    cluster.restart(2);
    book.push_until_taken(&client);
    wait_ready(&client);
    cluster.restart(3);
    for _ in 0..10 {
        book.push_until_taken(&client);
    }
    wait_applied(&client);
    book.ledger.check(&client);
}
