//! Brokers that lose acknowledged records: two copies, and the one that was behind becomes the
//! leader.

use super::{Book, last_gap, resolve, told, wait_stopped};
use crate::kafka::{PATIENCE, wait_applied};
use crate::support::eventually;
use crate::support::kafka::Cluster;

const STORE: &[&str] = &["roles=store,query"];

#[test]
fn an_unclean_election_stops_stores_as_truncated_and_once_it_has_grown_as_diverged() {
    let cluster = Cluster::three();
    let topic = cluster.topic("unclean").create(1, 2);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(
        &dir.path().join("none"),
        &["roles=ingest", "queue.kafka.delivery_timeout=10s"],
    );
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let stores = [topic.start(&one, STORE), topic.start(&two, STORE)];
    let (mut kept, mut lost, mut later) = (Book::new(1), Book::new(2), Book::new(3));
    kept.push(&ingest.client(), 10);

    // One copy dies, and what is acknowledged without it dies with the other.
    let (leader, replicas, _) = topic.partition(&cluster);
    let follower = replicas.into_iter().find(|n| *n != leader).expect("two");
    cluster.kill(follower);
    eventually("the follower to be out of sync", PATIENCE, || {
        let found = topic.partition(&cluster);
        (found.2 == [leader])
            .then_some(())
            .ok_or(format!("{found:?}"))
    });
    lost.push(&ingest.client(), 10);
    for store in stores {
        wait_applied(&store.client());
        store.kill();
    }
    cluster.kill(leader);
    cluster.restart(follower);
    eventually("nobody to lead", PATIENCE, || {
        let found = topic.partition(&cluster);
        (found.0 == 0).then_some(()).ok_or(format!("{found:?}"))
    });
    // No replica that has everything is up: nothing is acknowledged, and who starts waits.
    let answer = lost.try_push(&ingest.client(), 10);
    assert_eq!(answer.status, 503, "{answer:?}");
    let store = topic.spawn(&one, STORE);
    eventually("the store to say what it waits for", PATIENCE, || {
        let answer = store.client().get("/-/ready");
        let says = answer.status == 503 && answer.text.contains("; asking again");
        says.then_some(()).ok_or(answer.text)
    });
    store.kill();
    // The operator prefers to go on without what is lost.
    let tool = "org.apache.kafka.tools.LeaderElectionCommand";
    let which = ["--topic", &topic.name, "--partition", "0"];
    let unclean = [&["--election-type", "UNCLEAN"][..], &which].concat();
    eventually("the other copy to lead", PATIENCE, || {
        // Refused as long as the controller does not know that the follower is back.
        let said = cluster.try_tool(tool, &unclean, "");
        let found = topic.partition(&cluster);
        (found.0 == follower)
            .then_some(())
            .ok_or(format!("{found:?}: {said:?}"))
    });
    cluster.restart(leader);

    // The queue ends before the position.
    let store = topic.spawn(&one, STORE);
    let status = wait_stopped(&store.client(), "truncated");
    let reason = status["reason"].as_str().unwrap();
    let says = "offset 20 was asked for, the queue ends at 10";
    assert!(reason.contains(says), "{reason}");
    let store = resolve(store, &topic, &one, told(&status, 0), STORE);
    assert_eq!(last_gap(&store.client()), (20, 10));
    // An ingest that was there all the time sees its offsets go back, asks, and goes on.
    for _ in 0..15 {
        later.push_until_taken(&ingest.client());
    }
    wait_applied(&store.client());
    for book in [&kept, &lost, &later] {
        book.ledger.check(&store.client());
    }

    // The queue has grown past the position, with other records.
    let store = topic.spawn(&two, STORE);
    let status = wait_stopped(&store.client(), "diverged");
    let store = resolve(store, &topic, &two, told(&status, 0), STORE);
    assert_eq!(last_gap(&store.client()), (20, 0));
    wait_applied(&store.client());
    for book in [&kept, &lost, &later] {
        book.ledger.check(&store.client());
    }
}
