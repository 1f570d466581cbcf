//! `millrace queue create` and `millrace queue lag`, and Kafka's own tools beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{PATIENCE, metric, partitions};
use crate::support::eventually;
use crate::support::kafka::{Cluster, Topic};

fn lag(topic: &Topic, more: &[&str]) -> Vec<Value> {
    let mut args = vec!["lag", "--json"];
    args.extend(more);
    let output = topic.queue_command(&args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()
}

#[test]
fn creating_twice_is_once_and_differences_are_refused() {
    let topic = Cluster::shared().topic("twice").create(2, 1);
    let create = |args: &[&str]| {
        let output = topic.queue_command(&[&["create", "--replication", "1"], args].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, stdout, stderr) = create(&["--partitions", "2"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("there already, and as asked"), "{stdout}");
    assert!(stdout.contains("durability          disk"), "{stdout}");
    let (code, _, stderr) = create(&["--partitions", "3", "--retention", "1d"]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(
        stderr.contains(
            "partition count is 2, must be 3; retention.ms is 604800000, must be 86400000"
        ),
        "{stderr}"
    );
    // A topic that somebody else changed is not as asked any more.
    let cluster = Cluster::shared();
    topic.configure(cluster, "max.message.bytes=1000");
    let stderr = eventually("the change to arrive", PATIENCE, || {
        let (code, stdout, stderr) = create(&["--partitions", "2"]);
        if code == Some(78) {
            Ok(stderr)
        } else {
            Err(stdout)
        }
    });
    assert!(
        stderr.contains("max.message.bytes is 1000, must be at least 901024"),
        "{stderr}"
    );
}

/// What `kafka-consumer-groups --describe` says: partition → (current offset, end, lag).
pub(super) fn described(cluster: &Cluster, topic: &Topic) -> BTreeMap<u64, (u64, u64, u64)> {
    let text = cluster.tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--describe", "--group", &format!("{}-stores", topic.name)],
    );
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split_whitespace().collect();
        if cells.get(1) == Some(&topic.name.as_str()) {
            let number = |at: usize| cells[at].parse::<u64>().unwrap_or(u64::MAX);
            found.insert(number(2), (number(3), number(4), number(5)));
        }
    }
    found
}

#[test]
fn kafkas_own_tools_show_the_lag_that_the_metrics_show() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("lag").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(dir.path(), &["roles=ingest"]);
    let push = |n: u32| {
        let lines: Vec<String> = (0..20)
            .map(|d| format!(r#"{{"device":"d{d}","fields":{{"x":{n}}}}}"#))
            .collect();
        let answer = ingest.client().post("/api/v1/push", &[], lines.join("\n"));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let store = topic.start(dir.path(), &["roles=store"]);
    let client = store.client();
    (0..10).for_each(push);
    // The commit follows what is applied and synced.
    let caught_up = eventually("the group to be where the store is", PATIENCE, || {
        let found = described(cluster, &topic);
        let done = found.len() == 2 && found.values().all(|(_, end, lag)| *lag == 0 && *end > 0);
        if done {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    });
    eventually("the metrics to say the same", PATIENCE, || {
        let lags = [0, 1].map(|p| {
            metric(
                &client,
                &format!("millrace_pipeline_lag_records{{partition=\"{p}\"}}"),
            )
        });
        (lags == [Some(0.0), Some(0.0)])
            .then_some(())
            .ok_or(format!("{lags:?}"))
    });
    for partition in partitions(&client) {
        let (current, end, _) = caught_up[&partition["partition"].as_u64().unwrap()];
        assert_eq!(partition["applied_offset"], current);
        assert_eq!(partition["end_offset"], end);
    }

    // With the store away the lag grows, and the command shows what Kafka's tool shows.
    let (status, stderr) = store.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    (10..15).for_each(push);
    let found = described(cluster, &topic);
    let rows = lag(&topic, &[]);
    assert_eq!(rows.len(), 2);
    let mut total = 0;
    for row in &rows {
        let (current, end, lag) = found[&row["partition"].as_u64().unwrap()];
        assert_eq!(row["committed_offset"], current, "{rows:?}");
        assert_eq!(row["end_offset"], end, "{rows:?}");
        assert_eq!(row["committed_lag"], lag, "{rows:?}");
        total += lag;
    }
    assert!(total > 0, "{rows:?}");

    // With a store the command shows what it has applied, too.
    let store = topic.start(dir.path(), &["roles=store"]);
    let url = store.url.clone();
    let rows = eventually("the store to catch up", Duration::from_secs(60), || {
        let rows = lag(&topic, &["--store", &url]);
        let done = rows.iter().all(|row| row["stores"][0]["lag_records"] == 0);
        if done {
            Ok(rows)
        } else {
            Err(format!("{rows:?}"))
        }
    });
    for row in rows {
        assert_eq!(row["stores"][0]["applied_offset"], row["end_offset"]);
    }
}

#[test]
fn a_kafka_users_tools_see_sensible_topics_and_records() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("tools").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(dir.path(), &["roles=ingest"]);
    for n in 0..8 {
        super::roles::push(&ingest.client(), 10, f64::from(n));
    }
    let name = topic.name.as_str();
    let ends: Vec<u64> = partitions(&ingest.client())
        .iter()
        .map(|p| p["end_offset"].as_u64().unwrap())
        .collect();
    let total: u64 = ends.iter().sum();
    assert!(total >= 8, "{ends:?}");

    let tool = "org.apache.kafka.tools.TopicCommand";
    let text = cluster.tool(tool, &["--describe", "--topic", name]);
    for part in [
        "PartitionCount: 2",
        "flush.messages=1",
        "retention.ms=604800000",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = cluster.tool("org.apache.kafka.tools.GetOffsetShell", &["--topic", name]);
    for (partition, end) in ends.iter().enumerate() {
        assert!(
            text.contains(&format!("{name}:{partition}:{end}\n")),
            "{text}"
        );
    }
    let tool = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let many = total.to_string();
    let from = ["--topic", name, "--from-beginning", "--max-messages", &many];
    let show = [
        "print.timestamp=true",
        "print.key=true",
        "print.partition=true",
    ];
    let show = show.iter().flat_map(|property| ["--property", property]);
    let text = cluster.tool(tool, &from.into_iter().chain(show).collect::<Vec<_>>());
    let shown = text.matches("CreateTime:").count() as u64;
    assert_eq!(
        (shown, text.matches("\tnull\t").count() as u64),
        (total, total),
        "{text}"
    );

    // kcat is not everywhere; where it is, it sees the same.
    let kcat = |args: &[&str]| {
        let mut command = std::process::Command::new("kcat");
        let output = command.args(["-b", &cluster.bootstrap]).args(args).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(String::from_utf8(output.stdout).unwrap())
            }
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                println!("kcat is not installed: what it sees was not looked at");
                None
            }
        }
    };
    if let Some(text) = kcat(&["-L", "-t", name]) {
        assert!(
            text.contains(&format!("topic \"{name}\" with 2 partitions")),
            "{text}"
        );
    }
    if let Some(text) = kcat(&["-C", "-t", name, "-e", "-q", "-f", "%p %o %S %K %T\n"]) {
        let records: Vec<Vec<i64>> = text
            .lines()
            .map(|line| line.split(' ').map(|n| n.parse().unwrap()).collect())
            .collect();
        assert_eq!(records.len() as u64, total, "{text}");
        let now = crate::support::now_ms();
        for record in records {
            let [partition, offset, bytes, key, at] = record[..] else {
                panic!("{record:?}");
            };
            assert!(offset < ends[partition as usize] as i64, "{record:?}");
            assert!(bytes > 0 && key == -1, "{record:?}");
            assert!((now - 600_000..=now).contains(&at), "{record:?}");
        }
    }
}

#[test]
fn the_embedded_queues_lag_is_asked_from_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = crate::support::Millrace::start(dir.path(), &["queue.partitions=2"]);
    let mut command = crate::support::Millrace::command();
    let output = command
        .args(["queue", "lag", "--store", &server.url])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("PARTITION") && text.lines().count() == 3,
        "{text}"
    );
}
