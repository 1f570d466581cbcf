//! The topic was deleted and made again under its name.

use super::{Book, last_gap, resolve, told, wait_stopped};
use crate::kafka::{PATIENCE, wait_applied};
use crate::support::eventually;
use crate::support::kafka::Cluster;

#[test]
fn a_topic_made_again_under_a_running_process_stops_ingest_and_store() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("made-again").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[]);
    let client = server.client();
    let mut book = Book::new(1);
    book.push(&client, 20);
    wait_applied(&client);

    topic.make_again(cluster);
    // Nothing is acknowledged any more: who was told "stored" could not find it.
    eventually("appends to be refused", PATIENCE, || {
        let answer = book.try_push(&client, 5);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        let says = answer.text.contains("the topic was deleted and made again");
        says.then_some(()).ok_or(answer.text)
    });
    let status = wait_stopped(&client, "recreated");
    topic.adopt();
    let server = resolve(server, &topic, dir.path(), told(&status, 0), &[]);
    let client = server.client();
    assert_eq!(last_gap(&client), (20, 0));
    book.push_until_taken(&client);
    wait_applied(&client);
    book.ledger.check(&client);
}

#[test]
fn a_topic_made_again_while_the_store_was_away_stops_it_at_its_start() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("made-again-away").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(&dir.path().join("none"), &["roles=ingest"]);
    let data = dir.path().join("data");
    let store = topic.start(&data, &["roles=store"]);
    let mut before = Book::new(1);
    before.push(&ingest.client(), 5);
    wait_applied(&store.client());
    store.kill();
    ingest.kill();

    topic.make_again(cluster);
    topic.adopt();
    // The new topic grows past the old position, so that no offset looks odd.
    let ingest = topic.start(&dir.path().join("none"), &["roles=ingest"]);
    let mut between = Book::new(2);
    between.push(&ingest.client(), 9);
    let all = ["roles=store,query"];
    let store = topic.spawn(&data, &all);
    let status = wait_stopped(&store.client(), "recreated");
    // The second command: only what comes next.
    let store = resolve(store, &topic, &data, told(&status, 1), &all);
    assert_eq!(last_gap(&store.client()), (5, 9));
    let mut after = Book::new(3);
    after.push(&ingest.client(), 5);
    wait_applied(&store.client());
    before.ledger.check(&store.client());
    after.ledger.check(&store.client());
    assert_eq!(
        between.stored(&store.client()),
        0,
        "--from end leaves them out"
    );
}
