//! Queries over stores in other processes: replicas that die, shards that are gone, reading after
//! what was pushed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::roles::push;
use crate::support::kafka::Cluster;
use crate::support::{Client, Millrace, escape, vector};

const DEVICES: u32 = 60;

fn sum(value: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("{}".to_owned(), value * f64::from(DEVICES))])
}

fn address(server: &Millrace) -> String {
    server.url.trim_start_matches("http://").to_owned()
}

fn ask(client: &Client, query: &str, more: &str) -> (u16, Value) {
    let answer = client.get(&format!("/api/v1/query?query={}{more}", escape(query)));
    (answer.status, answer.json())
}

#[test]
fn a_query_process_reads_stores_in_other_processes_and_outlives_a_replica() {
    let topic = Cluster::shared().topic("fleet").create(4, 1);
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, settings: &[&str]| topic.start(&dir.path().join(name), settings);
    let ingest = start("ingest", &["roles=ingest"]);
    let store = |name: &str, ordinal: &str| {
        let settings = [
            "roles=store",
            "cluster.nodes=2",
            ordinal,
            &format!("cluster.replica={name}"),
        ];
        start(name, &settings)
    };
    let even = store("even", "cluster.ordinal=0");
    let odd = [
        store("odd-a", "cluster.ordinal=1"),
        store("odd-b", "cluster.ordinal=1"),
    ];
    let addresses = [address(&even), address(&odd[0]), address(&odd[1])];
    let stores = format!("fleet.stores={}", addresses.join(","));
    let query = start(
        "query",
        &["roles=query", &stores, "fleet.poll_interval=100ms"],
    );
    let (pushes, reads) = (ingest.client(), query.client());

    for round in 1..=5 {
        let value = f64::from(round);
        let position = push(&pushes, DEVICES, value);
        let after = [("millrace-read-after", position.as_str())];
        let found = reads.query_with("sum(heat)", None, &after);
        assert_eq!(vector(&found), sum(value), "round {round}");
    }
    let position = push(&pushes, DEVICES, 7.5);
    let after = [("millrace-read-after", position.as_str())];
    let form = format!("query={}", escape("count(heat)"));
    let headers = [
        after[0],
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let answer = reads.post("/api/v1/query", &headers, form);
    assert_eq!(answer.status, 200, "{answer:?}");
    // How fresh it is: all partitions of the queue that was pushed to.
    let (queue, _) = position.split_once('/').unwrap();
    let as_of = answer.header("millrace-as-of");
    assert!(as_of.starts_with(queue), "{as_of} {position}");
    assert_eq!(as_of.matches(':').count(), 4, "{as_of}");
    let names = reads.get("/api/v1/label/device/values").json();
    assert_eq!(names["data"].as_array().unwrap().len(), DEVICES as usize);

    let status = reads.get("/api/v1/status/fleet").json()["data"].clone();
    let shards = status["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 4, "{status}");
    for (number, shard) in shards.iter().enumerate() {
        assert_eq!(shard["available"], true, "{status}");
        let replicas = shard["replicas"].as_array().unwrap().len();
        assert_eq!(replicas, 1 + number % 2, "{status}");
    }
    assert!(status.to_string().contains("odd-b"), "{status}");
    let metrics = reads.get("/metrics").text;
    assert!(
        metrics.contains("millrace_fleet_call_seconds_count"),
        "{metrics}"
    );

    // One of two replicas dies: no query notices.
    let [a, b] = odd;
    a.kill();
    for _ in 0..10 {
        let found = reads.query_with("sum(heat)", None, &after);
        assert_eq!(vector(&found), sum(7.5));
    }
    // Both: an error that says which shards and whom it has asked, or a part with a warning.
    let gone = address(&b);
    b.kill();
    let (status, body) = ask(&reads, "sum(heat)", "");
    assert_eq!(
        (status, &body["errorType"]),
        (503, &"unavailable".into()),
        "{body}"
    );
    let text = body["error"].as_str().unwrap();
    assert!(
        text.contains("no store answers for partitions 1, 3") && text.contains(&gone),
        "{text}"
    );
    let (status, body) = ask(&reads, "count(heat)", "&partial_response=true");
    assert_eq!(status, 200, "{body}");
    let warning = body["warnings"][0].as_str().unwrap();
    assert!(warning.contains("partitions 1, 3"), "{warning}");
    let count = vector(&body["data"])["{}"];
    assert!(0.0 < count && count < f64::from(DEVICES), "{body}");

    // It comes back, at another address, with what was pushed meanwhile.
    let position = push(&pushes, DEVICES, 9.0);
    let settings = ["roles=store", "cluster.nodes=2", "cluster.ordinal=1"];
    let b = start("odd-b", &settings);
    let (status, stderr) = query.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let stores = format!("fleet.stores={},{}", addresses[0], address(&b));
    let query = start("query", &["roles=query", &stores]);
    let after = [("millrace-read-after", position.as_str())];
    let found = query.client().query_with("sum(heat)", None, &after);
    assert_eq!(vector(&found), sum(9.0));

    for server in [query, even, b, ingest] {
        let (status, stderr) = server.terminate();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}
