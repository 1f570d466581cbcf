//! A broker that hangs: its connections stay open, and nothing comes.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Book, wait_ready};
use crate::kafka::wait_applied;
use crate::support::kafka::Cluster;

const DELIVERY: Duration = Duration::from_secs(15);

#[test]
fn a_leader_that_hangs_delays_for_a_bounded_time_and_loses_nothing() {
    let cluster = Cluster::three();
    let topic = cluster.topic("stalled").create(1, 3);
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "queue.kafka.minimum_durability=replicated",
        "queue.kafka.delivery_timeout=15s",
    ];
    let server = topic.start(dir.path(), &settings);
    let client = server.client();
    let mut book = Book::new(1);
    book.push(&client, 10);
    let (leader, _, _) = topic.partition(&cluster);
    assert!(leader > 0, "no leader");

    cluster.signal(leader, Signal::STOP);
    let begun = Instant::now();
    let (mut taken, mut refused, mut longest) = (0, 0, Duration::ZERO);
    // Another leader takes appends while this one still hangs.
    while taken < 10 {
        assert!(begun.elapsed() < 4 * DELIVERY, "{refused} refusals");
        let asked = Instant::now();
        let answer = book.try_push(&client, 10);
        longest = longest.max(asked.elapsed());
        match answer.status {
            200 => taken += 1,
            503 => refused += 1,
            _ => panic!("{answer:?}"),
        }
    }
    println!(
        "stalled leader: {refused} refusals, the longest answer after {longest:?}, ten \
         acknowledgements from another leader after {:?}",
        begun.elapsed()
    );
    assert!(longest < DELIVERY + Duration::from_secs(10), "{longest:?}");
    wait_applied(&client);
    // What the old leader still has in its buffers must not come a second time.
    cluster.signal(leader, Signal::CONT);
    book.push(&client, 10);
    wait_applied(&client);
    book.ledger.check(&client);
    wait_ready(&client);
}
