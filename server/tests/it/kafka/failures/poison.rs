//! Somebody else's records in the topic.

use super::{Book, told, wait_running, wait_stopped};
use crate::kafka::queue_commands::described;
use crate::kafka::{PATIENCE, metric, wait_applied};
use crate::support::eventually;
use crate::support::kafka::Cluster;

#[test]
fn garbage_becomes_a_dead_letter_and_too_much_of_it_stops_the_partition() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("poison").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let few = ["store.dead_letters_max=5"];
    let server = topic.start(dir.path(), &few);
    let client = server.client();
    let mut book = Book::new(1);
    let letters = |client: &_| metric(client, "millrace_store_dead_letters_total");
    book.push(&client, 3);
    topic.produce(cluster, &["no batch"]);
    book.push(&client, 3);
    wait_applied(&client);
    assert_eq!(
        letters(&client),
        Some(1.0),
        "{}",
        client.get("/metrics").text
    );
    assert_eq!(client.get("/-/ready").status, 200);
    book.ledger.check(&client);
    assert_eq!(book.stored(&client), 60);

    // One, and four more, are borne; the next one stops the partition in front of itself.
    topic.produce(cluster, &["a", "b", "c", "d", "the sixth", "the seventh"]);
    let status = wait_stopped(&client, "dead_letters");
    assert_eq!(letters(&client), Some(5.0));
    assert_eq!(status["applied_offset"], 11, "{status}");
    // Ingest is not concerned: the queue takes what the store will read later.
    book.push(&client, 4);
    // What is left is told alike by the metrics and by Kafka's own tool.
    eventually("the lag", PATIENCE, || {
        let begin = "millrace_pipeline_lag_records{partition=\"0\"}";
        let lag = metric(&client, begin);
        (lag == Some(6.0)).then_some(()).ok_or(format!("{lag:?}"))
    });
    eventually("Kafka's tool to say the same", PATIENCE, || {
        let found = described(cluster, &topic);
        let same = found.get(&0) == Some(&(11, 17, 6));
        same.then_some(()).ok_or(format!("{found:?}"))
    });

    let listed = |letters: usize| {
        // They go to their own topic, a moment after they were kept.
        eventually("the letters to be listed", PATIENCE, || {
            let list = topic.obey(dir.path(), told(&status, 0));
            let all = list.matches("/0/").count() == letters;
            all.then_some(()).ok_or(list)
        });
    };
    listed(5);
    let (_status, stderr) = server.terminate();
    assert!(!stderr.contains("panicked"), "{stderr}");
    topic.obey(dir.path(), told(&status, 1));
    let server = topic.start(dir.path(), &few);
    let client = server.client();
    wait_applied(&client);
    wait_running(&client);
    book.ledger.check(&client);
    assert_eq!(book.stored(&client), 100);
    listed(7);
}
