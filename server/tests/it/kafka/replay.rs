//! Records of a topic, read once more: into a fresh store, and into the live one.

use std::path::Path;

use millrace_model::{PartitionId, QueueId, TimestampMs};
use millrace_queue::kafka::{Copier, CopyOrigin, KafkaQueue};

use super::{partitions, wait_applied};
use crate::support::kafka::{Cluster, Topic};
use crate::support::records::batch;
use crate::support::{copy_dir, fail, now_ms, succeed};

const ADMIN: &str = "server.admin_api=true";
const STEP_MS: i64 = 20_000;
const PARTITIONS: u32 = 2;

/// Puts three hours of samples into the topic as if they had come then, one record of 50 series for each
/// partition every 20 s. Each hour has some late samples, and some that are written twice.
fn three_hours(cluster: &Cluster, topic: &Topic, begin: i64) {
    let queue = KafkaQueue::open(topic.options(&cluster.bootstrap)).unwrap();
    let copier = Copier::start(&queue).unwrap();
    for round in 0..540i64 {
        let taken_at = begin + round * STEP_MS;
        for partition in 0..PARTITIONS {
            let devices: Vec<_> = (0..50).map(|d| format!("d{partition}-{d}")).collect();
            let at = match round % 60 {
                // Twice, of which the later one is right.
                7 => taken_at - STEP_MS,
                9 => taken_at - 3 * STEP_MS,
                _ => taken_at,
            };
            let origin = CopyOrigin {
                queue: QueueId(1),
                partition: PartitionId(partition),
                offset: millrace_model::Offset(round as u64),
                part: 0,
                parts: 1,
            };
            let value = round as f64 + f64::from(partition) / 4.0;
            let payload = batch("replayed", &devices, at, value);
            copier
                .send(&payload, TimestampMs(taken_at), origin)
                .unwrap();
        }
    }
    copier.flush().unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ends(client: &crate::support::Client) -> Vec<u64> {
    let partitions = partitions(client);
    partitions
        .iter()
        .map(|p| p["end_offset"].as_u64().unwrap())
        .collect()
}

#[test]
fn an_hour_replayed_equals_the_live_store_and_changes_nothing_in_it() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("hour").create(PARTITIONS, 1);
    let dir = tempfile::tempdir().unwrap();
    let [live, before, copy] = ["live", "before", "copy"].map(|name| dir.path().join(name));
    let begin = now_ms() / 1000 * 1000 - 4 * 3_600_000;
    three_hours(cluster, &topic, begin);
    // The second of the three hours. A sample in it may come from a record that was late by up to a minute.
    let (since, until) = (begin + 3_600_000, begin + 7_200_000);
    let (since_s, until_s) = ((since / 1000).to_string(), (until / 1000).to_string());
    let of_hour = ["--since", &since_s, "--until", &until_s];

    // Blocks and memtables both have some of it.
    let settings = [ADMIN, "store.memtable_bytes=1MiB", "store.block_window=1h"];
    let server = topic.start(&live, &settings);
    wait_applied(&server.client());
    server.terminate();
    copy_dir(&live, &before);
    topic.succeed(&[&["replay", "--into", text(&copy)], &of_hour[..]].concat());
    let late_ms = 3 * STEP_MS;
    let (start, end) = (
        (since as f64) / 1000.0,
        (until - late_ms - 1) as f64 / 1000.0,
    );
    let (start, end) = (start.to_string(), end.to_string());
    let same = succeed(&[
        "diff",
        text(&live),
        text(&copy),
        "--start",
        &start,
        "--end",
        &end,
    ]);
    println!("replay of an hour into a fresh directory: {}", same.trim());
    assert!(same.starts_with("no difference: 100 series, "), "{same}");
    // All of the live store is more than the hour.
    fail(&["diff", text(&live), text(&copy)]);

    let server = topic.start(&live, &settings);
    let client = server.client();
    let ends_before = ends(&client);
    let args = [&["replay", "--live", "--url", &server.url], &of_hour[..]].concat();
    let said = topic.succeed(&args);
    println!("replay of an hour into the live store: {}", said.trim());
    assert!(
        said.contains("in 360 records looked up: nothing was missing"),
        "{said}"
    );
    // All of it, too.
    let said = topic.succeed(&["replay", "--live", "--url", &server.url]);
    assert!(
        said.contains("54000 samples in 1080 records looked up: nothing was missing"),
        "{said}"
    );
    assert_eq!(ends(&client), ends_before, "nothing was queued");
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let same = succeed(&["diff", text(&before), text(&live)]);
    assert!(same.starts_with("no difference: 100 series, "), "{same}");
}

#[test]
fn a_live_replay_restores_what_a_store_has_passed_over() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("hole").create(PARTITIONS, 1);
    let dir = tempfile::tempdir().unwrap();
    let [live, whole] = ["live", "whole"].map(|name| dir.path().join(name));
    let begin = now_ms() / 1000 * 1000 - 4 * 3_600_000;
    three_hours(cluster, &topic, begin);
    topic.succeed(&["replay", "--into", text(&whole)]);

    // A store that has read the beginning, and is told to go on far behind it.
    topic.succeed(&["replay", "--into", text(&live), "--to", "100"]);
    for partition in ["0", "1"] {
        let resume = [
            "queue",
            "resume",
            "--data-dir",
            text(&live),
            "--partition",
            partition,
        ];
        topic.succeed(&[&resume[..], &["--from", "300", "--accept-loss"]].concat());
    }
    let server = topic.start(&live, &[ADMIN]);
    wait_applied(&server.client());
    let ends_before = ends(&server.client());
    // Of one partition, a part of the hole; then the rest of it all, as after an interruption.
    let url = &server.url;
    // Of the moments in it, two are written twice.
    let part = ["--partition", "1", "--from", "200", "--to", "250"];
    let said = topic.succeed(&[&["replay", "--live", "--url", url], &part[..]].concat());
    assert!(
        said.contains("2500 samples in 50 records looked up: 2400 were missing"),
        "{said}"
    );
    assert_eq!(
        ends(&server.client())[0],
        ends_before[0],
        "only that partition"
    );
    let said = topic.succeed(&["replay", "--live", "--url", url]);
    assert!(said.contains("were missing and are restored"), "{said}");
    let after = ends(&server.client());
    let said = topic.succeed(&["replay", "--live", "--url", url]);
    assert!(said.contains("nothing was missing"), "{said}");
    assert_eq!(
        ends(&server.client()),
        after,
        "the second time nothing is queued"
    );
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let same = succeed(&["diff", text(&whole), text(&live)]);
    assert!(same.starts_with("no difference: 100 series, "), "{same}");
}
