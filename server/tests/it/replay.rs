//! Records of the queue, looked at and applied again.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Millrace, fail, now_ms, succeed};

const PARTITIONS: &str = "queue.partitions=2";

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// 20 requests with 10 devices and 2 fields each, one second apart, some of them twice.
fn push(client: &Client, start: i64) {
    for round in 0..20 {
        let readings: Vec<Value> = (0..10)
            .map(|device| {
                json!({
                    "device": format!("d{device}"),
                    "timestamp": start + 1000 * (round % 17),
                    "fields": {"temperature": 20.0 + round as f64 / 7.0, "humidity": device},
                })
            })
            .collect();
        let answer = client.post(
            "/api/v1/push",
            &[("content-type", "application/json")],
            Value::Array(readings).to_string(),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_replay_of_a_running_server_equals_its_store_and_repeats_without_effect() {
    let dir = TempDir::new().unwrap();
    let (live, copy) = (dir.path().join("live"), dir.path().join("copy"));
    let server = Millrace::start(&live, &["log.level=warn", PARTITIONS]);
    push(&server.client(), now_ms() - 600_000);

    let url = server.url.clone();
    let all = succeed(&["queue", "tail", "--url", &url, "-n", "100"]);
    let all = lines(&all);
    let samples: u64 = all.iter().map(|r| r["samples"].as_u64().unwrap()).sum();
    assert_eq!(samples, 400, "{all:?}");
    assert!(all.iter().all(|record| record.get("data").is_none()));
    let newest = succeed(&["queue", "tail", "--url", &url, "-n", "1", "--data"]);
    let newest = lines(&newest);
    assert_eq!(newest.len(), 2, "one of each partition");
    for record in &newest {
        let partition = record["partition"].to_string();
        let offset = record["offset"].to_string();
        let whole = succeed(&[
            "queue",
            "inspect",
            "--url",
            &url,
            "--partition",
            &partition,
            "--offset",
            &offset,
        ]);
        let whole: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(&whole, record);
        assert!(whole["data"][0]["metric"]["device"].is_string(), "{whole}");
    }
    let beyond = fail(&[
        "queue",
        "inspect",
        "--url",
        &url,
        "--partition",
        "0",
        "--offset",
        "99999",
    ]);
    assert!(beyond.contains("has the offsets 0 to"), "{beyond}");
    let missing = fail(&["queue", "tail", "--url", &url, "--partition", "7"]);
    assert!(missing.contains("the queue has 2"), "{missing}");

    // Half of it first, as if it had been interrupted.
    let half = ["replay", "--url", &url, "--into", text(&copy), "--to", "5"];
    succeed(&half);
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let different = fail(&["diff", text(&live), text(&copy)]);
    assert!(different.contains("the stores differ"), "{different}");

    for _ in 0..2 {
        succeed(&["replay", "--data-dir", text(&live), "--into", text(&copy)]);
        let same = succeed(&["diff", text(&live), text(&copy)]);
        assert_eq!(same, "no difference: 20 series, 340 samples\n");
    }
}

#[test]
fn a_replay_by_time_takes_what_was_queued_then() {
    let dir = TempDir::new().unwrap();
    let [live, copy, other] = ["live", "copy", "other"].map(|name| dir.path().join(name));
    let server = Millrace::start(&live, &["log.level=warn", "queue.partitions=1"]);
    let client = server.client();
    push(&client, now_ms() - 600_000);
    let all = lines(&succeed(&[
        "queue",
        "tail",
        "--url",
        &server.url,
        "-n",
        "9999",
    ]));
    // The first of those that were taken in the same millisecond as the one in the middle.
    let middle = &all[all.len() / 2]["appended_at"];
    let first = all.iter().find(|record| record["appended_at"] == *middle);
    let offset = first.unwrap()["offset"].to_string();
    let by_time = ["--until", middle.as_str().unwrap(), "--into", text(&copy)];
    let by_offset = ["--to", &offset, "--into", text(&other)];
    for which in [by_time, by_offset] {
        succeed(&[&["replay", "--url", &server.url], &which[..]].concat());
    }
    let same = succeed(&["diff", text(&copy), text(&other)]);
    assert!(same.starts_with("no difference: "), "{same}");
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    fail(&["diff", text(&copy), text(&live)]);
}
