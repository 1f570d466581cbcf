//! What the processes around a topic tell one another beside it.

use std::time::{Duration, Instant};

use millrace_model::{QueueId, ShardKey, TimestampMs};
use millrace_queue::QueueIdentity;
use millrace_queue::kafka::{
    Announcement, Announcer, ControlFollower, ControlTopic, KafkaError, KafkaOptions, Mismatch,
    TopicSpec,
};

use crate::cluster::Cluster;

/// The control topic of a topic that nobody needs to have.
fn created(name: &str) -> KafkaOptions {
    let options = Cluster::shared().options(name);
    let spec = TopicSpec {
        partitions: 4,
        replication: 1,
        retention: Duration::from_secs(60),
    };
    ControlTopic::create(&options, &spec).unwrap();
    opened(&options);
    options
}

/// Opens it, trying again while the brokers still tell one another of it.
fn opened(options: &KafkaOptions) -> ControlTopic {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ControlTopic::open(options) {
            Ok(control) => return control,
            Err(KafkaError::NoTopic { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn identity(id: u128, key: &str) -> QueueIdentity {
    QueueIdentity {
        id: QueueId(id),
        partitions: 4,
        shard_key: ShardKey::new([key.to_owned()]),
    }
}

fn mismatch(result: Result<(), KafkaError>) -> Option<Mismatch> {
    match result {
        Ok(()) => None,
        Err(KafkaError::NotTheQueue { mismatch, .. }) => Some(mismatch),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn of_several_first_starts_at_once_one_wins_and_the_others_are_refused() {
    let options = created("claims");
    assert_eq!(opened(&options).identity(), None);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let start = |claimant: u128| {
            let options = &options;
            scope.spawn(move || {
                // Two of each kind: those of the winner's kind are all fine.
                let ours = identity(7, ["a", "b"][(claimant % 2) as usize]);
                let mut control = opened(options);
                (ours.clone(), mismatch(control.claim(&ours, claimant)))
            })
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    });
    let holds = opened(&options).identity().unwrap();
    for (ours, refused) in outcomes {
        assert_eq!(ours == holds, refused.is_none(), "{ours:?}: {refused:?}");
        assert!(matches!(refused, None | Some(Mismatch::ShardKey { .. })));
    }
    // Whoever comes later finds the same.
    let mut control = opened(&options);
    assert_eq!(mismatch(control.claim(&holds, 99)), None);
    let mut more = holds.clone();
    more.partitions = 8;
    assert_eq!(
        mismatch(control.claim(&more, 99)),
        Some(Mismatch::Partitions {
            claimed: 4,
            found: 8
        })
    );
}

#[test]
fn another_topic_is_the_queue_only_after_it_was_adopted() {
    let options = created("adopted");
    opened(&options).claim(&identity(1, "a"), 1).unwrap();
    let recreated = identity(2, "a");
    let refused = mismatch(opened(&options).claim(&recreated, 2));
    assert!(matches!(refused, Some(Mismatch::Recreated { .. })));
    let before = opened(&options).adopt(&recreated, false, 3).unwrap();
    assert_eq!(before, Some(QueueId(1).to_string()));
    assert_eq!(mismatch(opened(&options).claim(&recreated, 4)), None);
    assert_eq!(opened(&options).adopt(&recreated, false, 5).unwrap(), None);
    assert!(mismatch(opened(&options).claim(&identity(1, "a"), 6)).is_some());
    // The same topic is divided otherwise only as long as nothing is in it.
    let other = identity(2, "b");
    assert!(opened(&options).adopt(&other, false, 7).is_err());
    assert!(opened(&options).adopt(&other, true, 8).unwrap().is_some());
    assert_eq!(opened(&options).identity(), Some(other));
}

fn wait_for(follower: &ControlFollower, addresses: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let announced = follower.announced();
        let found: Vec<_> = announced
            .iter()
            .map(|store| store.address.as_str())
            .collect();
        if found == addresses {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}, not {addresses:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_store_is_found_until_it_leaves_or_falls_silent() {
    let options = created("announced");
    let announcer = Announcer::start(&options).unwrap();
    let announce = |address: &str, life: u64| {
        let announcement = Announcement {
            address: address.to_owned(),
            name: "s".to_owned(),
            ordinal: 0,
            nodes: 1,
            queue: QueueId(1),
            program: "0".to_owned(),
            started: TimestampMs(0),
            life: Duration::from_secs(life),
        };
        announcer.announce(&announcement).unwrap();
    };
    announce("a:1", 600);
    let follower = opened(&options).follow().unwrap();
    wait_for(&follower, &["a:1"]);
    announce("b:1", 600);
    wait_for(&follower, &["a:1", "b:1"]);
    announcer.withdraw("a:1").unwrap();
    wait_for(&follower, &["b:1"]);
    announce("c:1", 5);
    wait_for(&follower, &["b:1", "c:1"]);
    // Nobody says that c has gone.
    wait_for(&follower, &["b:1"]);
    drop(follower);
    // A reader that starts now knows how old that is.
    announce("b:1", 600);
    let follower = opened(&options).follow().unwrap();
    wait_for(&follower, &["b:1"]);
}

#[test]
fn a_control_topic_that_is_not_compacted_is_refused() {
    let cluster = Cluster::shared();
    let options = cluster.options("plain");
    let mut of_control = options.clone();
    of_control.topic = format!("{}.control", options.topic);
    cluster.queue(&of_control, 2, 1);
    let error = ControlTopic::open(&options).unwrap_err().to_string();
    assert!(
        error.contains("partition count is 2, must be 1")
            && error.contains("cleanup.policy is delete, must be compact"),
        "{error}"
    );
}
