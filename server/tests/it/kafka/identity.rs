//! A process that would scatter series, or write to a topic that took another's place, does not start.

use std::path::Path;
use std::time::Duration;

use super::roles::push;
use crate::support::kafka::{Cluster, Topic};
use crate::support::{Millrace, eventually};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn topic_tool(topic: &Topic, args: &[&str]) {
    let cluster = Cluster::shared();
    let all = ["--topic", &topic.name];
    cluster.tool(TOPICS, &[&all, args].concat());
}

/// Starts an ingest that must not come up; what it says.
fn refused(topic: &Topic, dir: &Path, more: &[&str]) -> String {
    let settings = [&["roles=ingest"], more].concat();
    let server = Millrace::spawn(dir, &topic.settings(&settings));
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(78), "{stderr}");
    stderr
}

fn start_and_push(topic: &Topic, dir: &Path) {
    let server = topic.start(dir, &["roles=ingest"]);
    push(&server.client(), 5, 1.0);
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_recreated_topic_is_refused_by_a_restarted_ingest_until_it_is_adopted() {
    let topic = Cluster::shared().topic("replaced").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    start_and_push(&topic, dir.path());
    start_and_push(&topic, dir.path());

    topic_tool(&topic, &["--delete"]);
    // The brokers take a moment to forget it.
    let create = ["create", "--partitions", "2", "--replication", "1"];
    let told = eventually("the new topic", Duration::from_secs(60), || {
        let output = topic.queue_command(&create);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let new = output.status.success() && told.contains("is created");
        if new {
            Ok(told)
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert!(told.contains("still says that the queue is"), "{told}");
    let again = topic.queue_command(&create);
    assert_eq!(again.status.code(), Some(78), "{again:?}");

    let stderr = refused(&topic, dir.path(), &[]);
    assert!(
        stderr.contains("deleted and made again") && stderr.contains("`millrace queue adopt`"),
        "{stderr}"
    );
    let adopted = topic.queue_command(&["adopt"]);
    let told = String::from_utf8_lossy(&adopted.stdout).into_owned();
    assert!(adopted.status.success(), "{adopted:?}");
    assert!(told.contains("is the queue from now on"), "{told}");
    start_and_push(&topic, dir.path());
    assert!(topic.queue_command(&create).status.success());
}

#[test]
fn an_ingest_that_divides_series_otherwise_is_refused() {
    let topic = Cluster::shared().topic("divided").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    start_and_push(&topic, dir.path());
    let stderr = refused(&topic, dir.path(), &["queue.shard_key=device"]);
    assert!(
        stderr.contains("queue.shard_key is [\"device\"] here") && stderr.contains("\"instance\""),
        "{stderr}"
    );
    topic_tool(&topic, &["--alter", "--partitions", "4"]);
    let as_altered = ["create", "--partitions", "4", "--replication", "1"];
    let news = "it has 4 partitions and had 2";
    eventually(
        "the news of more partitions",
        Duration::from_secs(60),
        || {
            let output = topic.queue_command(&as_altered);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            if told.contains(news) {
                Ok(())
            } else {
                Err(told)
            }
        },
    );
    let stderr = refused(&topic, dir.path(), &[]);
    assert!(stderr.contains(news), "{stderr}");
    // What was written wrongly is not taken by force either: there are records.
    let adopted = topic.queue_command(&["adopt"]);
    assert_eq!(adopted.status.code(), Some(78), "{adopted:?}");
}

#[test]
fn without_its_control_topic_nothing_starts() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("uncontrolled");
    topic_tool(&topic, &["--create", "--partitions", "1"]);
    let dir = tempfile::tempdir().unwrap();
    let stderr = refused(&topic, dir.path(), &[]);
    assert!(
        stderr.contains(&format!("\"{}.control\" does not exist", topic.name))
            && stderr.contains("`millrace queue create`"),
        "{stderr}"
    );
}
