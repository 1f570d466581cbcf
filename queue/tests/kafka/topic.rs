//! What a topic is checked for before it is used.

use millrace_queue::Durability;
use millrace_queue::kafka::{ClientSettings, KafkaError, KafkaQueue};

use crate::cluster::{Cluster, open};

#[test]
fn a_created_topic_is_found_as_it_was_asked_for() {
    let cluster = Cluster::shared();
    let options = cluster.options("created");
    let queue = cluster.queue(&options, 3, 1);
    let report = queue.report();
    assert_eq!((report.partitions, report.replication), (3, 1));
    assert_eq!(report.cleanup_policy, "delete");
    // One copy, but each record flushed.
    assert_eq!(report.durability(), Durability::Disk);
    assert_ne!(queue.identity().id.0, 0);
    assert_eq!(open(&options).identity().id, queue.identity().id);
}

#[test]
fn a_topic_short_of_the_minimum_refuses_to_start_and_says_which_setting() {
    let cluster = Cluster::shared();
    let mut options = cluster.options("short");
    cluster.queue(&options, 1, 1);
    options.minimum_durability = Durability::Replicated;
    let error = KafkaQueue::open(options.clone()).unwrap_err().to_string();
    assert!(
        error.contains("replication is 1, must be at least 3"),
        "{error}"
    );
    options.minimum_durability = Durability::Process;
    options.partitions = Some(8);
    let error = KafkaQueue::open(options).unwrap_err().to_string();
    assert!(error.contains("partition count is 1, must be 8"), "{error}");
}

#[test]
fn a_missing_topic_is_never_created_on_the_way() {
    let cluster = Cluster::shared();
    let options = cluster.options("missing");
    for _ in 0..2 {
        let error = KafkaQueue::open(options.clone()).unwrap_err();
        assert!(matches!(error, KafkaError::NoTopic { .. }), "{error}");
    }
}

#[test]
fn a_refused_login_is_told_as_such_and_the_password_is_not() {
    const PASSWORD: &str = "canary-of-a-password";
    let cluster = Cluster::start_secure(PASSWORD);
    let mut options = cluster.options("login");
    let login = |password: &str| {
        let mut client = ClientSettings::new(&cluster.bootstrap);
        client.set("security.protocol", "sasl_plaintext").unwrap();
        client.set("sasl.mechanism", "PLAIN").unwrap();
        client.set("sasl.username", "millrace").unwrap();
        client.set("sasl.password", password).unwrap();
        client
    };
    options.client = login("another-canary");
    let error = KafkaQueue::open(options.clone()).unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_temporary() && text.contains("uthentication"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
    options.client = login(PASSWORD);
    let error = KafkaQueue::open(options).unwrap_err();
    assert!(matches!(error, KafkaError::NoTopic { .. }), "{error}");
}
