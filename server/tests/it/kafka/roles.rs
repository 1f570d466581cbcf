//! Parts in one process and in several, with Kafka between them.

use std::collections::BTreeMap;

use serde_json::json;

use super::{PATIENCE, metric, partitions, wait_applied};
use crate::support::kafka::Cluster;
use crate::support::{Client, eventually, now_ms, vector};

/// Pushes one reading of each of so many devices; the answer's position.
fn push(client: &Client, devices: u32, value: f64) -> String {
    let at = now_ms();
    let lines: Vec<String> = (0..devices)
        .map(|n| {
            json!({"device": format!("d{n}"), "timestamp": at, "fields": {"heat": value}})
                .to_string()
        })
        .collect();
    let answer = client.post("/api/v1/push", &[], lines.join("\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("millrace-position").to_owned()
}

#[test]
fn all_roles_on_kafka_answer_what_was_pushed() {
    let topic = Cluster::shared().topic("all").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[]);
    let client = server.client();
    let position = push(&client, 20, 7.5);
    let after = [("millrace-read-after", position.as_str())];
    let sum = client.query_with("sum(heat)", None, &after);
    assert_eq!(vector(&sum), BTreeMap::from([("{}".to_owned(), 150.0)]));

    let status = client.get("/api/v1/status/durability").json()["data"].clone();
    assert_eq!(status["backend"], "kafka");
    assert_eq!(
        (&status["level"], &status["minimum"]),
        (&json!("disk"), &json!("process"))
    );
    assert_eq!(status["topic"]["name"], topic.name.as_str());
    assert_eq!(status["topic"]["replication"], 1);
    let short = status["short"].as_array().unwrap();
    assert!(
        short
            .iter()
            .any(|s| s["setting"] == "replication" && s["of"] == "replicated"),
        "{status}"
    );
    assert_eq!(
        metric(&client, "millrace_queue_durability_level"),
        Some(2.0)
    );
    assert_eq!(
        metric(&client, "millrace_queue_min_insync_replicas"),
        Some(1.0)
    );
    assert_eq!(
        metric(&client, "millrace_queue_retention_seconds"),
        Some(7.0 * 86_400.0)
    );
    wait_applied(&client);
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");

    // What was acknowledged is there after a restart.
    let server = topic.start(dir.path(), &[]);
    let sum = server.client().query("sum(heat)", None);
    assert_eq!(vector(&sum), BTreeMap::from([("{}".to_owned(), 150.0)]));
}

#[test]
fn ingest_and_two_stores_share_one_topic() {
    let topic = Cluster::shared().topic("split").create(4, 1);
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let ingest = topic.start(&none, &["roles=ingest"]);
    let stores: Vec<_> = (0..2)
        .map(|ordinal| {
            let ordinal = format!("cluster.ordinal={ordinal}");
            let settings = ["roles=store", "cluster.nodes=2", &ordinal];
            topic.start(&dir.path().join(&ordinal), &settings)
        })
        .collect();
    let client = ingest.client();
    for round in 0..10 {
        push(&client, 50, f64::from(round));
    }
    let mut samples = 0;
    for (ordinal, store) in stores.iter().enumerate() {
        let client = store.client();
        eventually("the store to apply its share", PATIENCE, || {
            let found = partitions(&client);
            let done = found
                .iter()
                .all(|p| p["lag_records"] == 0 && p["applied_offset"].as_u64() > Some(0));
            done.then_some(()).ok_or_else(|| format!("{found:?}"))
        });
        let found = partitions(&client);
        let numbers: Vec<_> = found
            .iter()
            .map(|p| p["partition"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [ordinal as u64, ordinal as u64 + 2]);
        samples += found
            .iter()
            .map(|p| p["memtable_samples"].as_u64().unwrap())
            .sum::<u64>();
        let refused = client.post("/api/v1/push", &[], "{}");
        assert_eq!(refused.status, 404);
        assert!(refused.text.contains("runs only store"), "{}", refused.text);
    }
    assert_eq!(samples, 500, "each sample in one store, once");
    assert!(!none.exists(), "ingest keeps nothing on its disk");
    let elsewhere = partitions(&client);
    assert_eq!(elsewhere.len(), 4);
    assert!(
        elsewhere
            .iter()
            .all(|p| p["state"] == "elsewhere" && p["end_offset"].as_u64() > Some(0))
    );
    for server in stores.into_iter().chain([ingest]) {
        let (status, stderr) = server.terminate();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}
