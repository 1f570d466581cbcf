//! `millrace queue resume` on the embedded queue.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, Millrace, copy_dir, eventually, fail, succeed};

const PATIENCE: Duration = Duration::from_secs(60);
const SETTINGS: &[&str] = &["queue.partitions=2", "log.level=warn"];

fn push(client: &Client, round: u32) {
    let lines: Vec<String> = (0..20)
        .map(|d| format!(r#"{{"device":"d{d}","fields":{{"x{round}":{round}}}}}"#))
        .collect();
    let answer = client.post("/api/v1/push", &[], lines.join("\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
    // A server that ends does not wait for its store.
    let position = answer.header("millrace-position").to_owned();
    let applied = [("millrace-read-after", position.as_str())];
    client.query_with("1", None, &applied);
}

fn series(client: &Client, metric: &str) -> usize {
    let found = client.query(metric, None);
    found["result"].as_array().unwrap().len()
}

fn stop(server: Millrace) {
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
}

/// Waits until both partitions have stopped; they.
fn stopped(client: &Client, code: &str) -> Vec<Value> {
    eventually("both partitions to stop", PATIENCE, || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partitions = status["data"]["partitions"].as_array().unwrap().clone();
        let all = partitions.len() == 2 && partitions.iter().all(|p| p["code"] == code);
        if all {
            Ok(partitions)
        } else {
            Err(status.to_string())
        }
    })
}

fn resume(dir: &Path, partition: &str, more: &[&str]) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let args = [
        "queue",
        "resume",
        "--data-dir",
        dir,
        "--partition",
        partition,
    ];
    let args = args.iter().chain(more);
    args.map(|arg| (*arg).to_owned()).collect()
}

fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), SETTINGS);
    push(&server.client(), 1);
    let refused = |partition: &str, more: &[&str], expect: &str| {
        let said = fail(&texts(&resume(dir.path(), partition, more)));
        assert!(said.contains(expect), "{more:?}: {said}");
    };
    refused(
        "0",
        &["--accept-dead-letters"],
        "in use by another millrace",
    );
    stop(server);
    refused(
        "0",
        &[],
        "say --from with --accept-loss, or --accept-dead-letters",
    );
    refused("0", &["--from", "end"], "--accept-loss");
    refused("0", &["--accept-loss"], "--from");
    refused(
        "0",
        &["--from", "later", "--accept-loss"],
        "an offset, `oldest` or `end`",
    );
    refused(
        "0",
        &["--from", "99", "--accept-loss"],
        "the queue has the offsets 0 to 1 of partition 0, not 99",
    );
    refused(
        "7",
        &["--from", "end", "--accept-loss"],
        "has no partition 7",
    );
}

#[test]
fn a_queue_that_was_made_again_is_read_where_somebody_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), SETTINGS);
    push(&server.client(), 1);
    stop(server);
    // Another queue with a record of its own in each partition takes the old one's place.
    let other = tempfile::tempdir().unwrap();
    let server = Millrace::start(other.path(), SETTINGS);
    push(&server.client(), 2);
    stop(server);
    std::fs::remove_dir_all(dir.path().join("queue")).unwrap();
    copy_dir(&other.path().join("queue"), &dir.path().join("queue"));

    let server = Millrace::spawn(dir.path(), SETTINGS);
    let client = server.client();
    for partition in stopped(&client, "recreated") {
        let p = &partition["partition"];
        let expect = [
            format!("millrace queue resume --partition {p} --from oldest --accept-loss"),
            format!("millrace queue resume --partition {p} --from end --accept-loss"),
        ];
        let resolve = partition["resolve"].as_array().unwrap();
        assert_eq!(resolve, &expect.map(Value::from));
    }
    server.terminate();
    let said = succeed(&texts(&resume(
        dir.path(),
        "0",
        &["--from", "oldest", "--accept-loss"],
    )));
    assert!(
        said.contains("partition 0: was at offset 1 of queue"),
        "{said}"
    );
    assert!(said.contains("goes on at offset 0 of queue"), "{said}");
    assert!(said.contains("written into the manifest"), "{said}");
    succeed(&texts(&resume(
        dir.path(),
        "1",
        &["--from", "end", "--accept-loss"],
    )));

    let server = Millrace::start(dir.path(), SETTINGS);
    let client = server.client();
    let both = series(&client, "x1");
    assert_eq!(both, 20, "what the store had it still has");
    let half = series(&client, "x2");
    assert!(half > 0 && half < 20, "one partition's: {half}");
    push(&client, 3);
    eventually("what comes next", PATIENCE, || {
        let found = series(&client, "x3");
        (found == 20).then_some(()).ok_or(found.to_string())
    });
    let status = client.get("/api/v1/status/pipeline").json();
    for partition in status["data"]["partitions"].as_array().unwrap() {
        assert_eq!(partition["gaps"][0]["cause"], "operator", "{partition}");
    }
}
