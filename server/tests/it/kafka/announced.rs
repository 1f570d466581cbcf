//! Stores that query processes find by themselves, and a query process that needs no Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::roles::push;
use crate::support::kafka::Cluster;
use crate::support::{Client, Millrace, eventually, vector};

const DEVICES: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(90);

fn sum(value: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("{}".to_owned(), value * f64::from(DEVICES))])
}

fn address(server: &Millrace) -> String {
    server.url.trim_start_matches("http://").to_owned()
}

fn fleet(client: &Client) -> Value {
    client.get("/api/v1/status/fleet").json()["data"].clone()
}

/// Waits until these stores are known and can be reached, and no others are known.
fn wait_stores(client: &Client, expect: &[&Millrace]) {
    let mut expect: Vec<_> = expect.iter().map(|server| address(server)).collect();
    expect.sort();
    eventually("the stores that there are", PATIENCE, || {
        let status = fleet(client);
        let stores = status["stores"].as_array().unwrap();
        let reachable = stores.iter().all(|store| store["state"] == "reachable");
        let addresses = stores
            .iter()
            .map(|store| store["address"].as_str().unwrap());
        let same = addresses.eq(expect.iter().map(String::as_str));
        if same && reachable {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
}

#[test]
fn query_processes_find_stores_that_join_leave_and_die() {
    let topic = Cluster::shared().topic("announced").create(4, 1);
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, settings: &[&str]| topic.start(&dir.path().join(name), settings);
    let store = |name: &str, ordinal: &str, more: &[&str]| {
        let replica = format!("cluster.replica={name}");
        let of = ["roles=store", "cluster.nodes=2", ordinal, &replica];
        start(name, &[&of, more].concat())
    };
    let ingest = start("ingest", &["roles=ingest"]);
    // The query process is there first, and knows what the queue is, and nobody who has it.
    let query = start("query", &["roles=query", "fleet.poll_interval=100ms"]);
    let (pushes, reads) = (ingest.client(), query.client());
    assert_eq!(fleet(&reads)["shards"].as_array().unwrap().len(), 4);
    let none = reads.get("/api/v1/query?query=heat");
    assert_eq!(none.status, 503, "{none:?}");

    let even = store("even", "cluster.ordinal=0", &[]);
    // It says often that it is there, and so is forgotten soon once it is not.
    let often = ["cluster.announce_interval=3s"];
    let odd_a = store("odd-a", "cluster.ordinal=1", &often);
    wait_stores(&reads, &[&even, &odd_a]);
    let position = push(&pushes, DEVICES, 7.5);
    let after = [("millrace-read-after", position.as_str())];
    let found = reads.query_with("sum(heat)", None, &after);
    assert_eq!(vector(&found), sum(7.5));
    let status = fleet(&reads).to_string();
    assert!(status.contains("odd-a"), "{status}");

    // A replica joins, and the first one dies: no query notices, and it is forgotten.
    let odd_b = store("odd-b", "cluster.ordinal=1", &[]);
    wait_stores(&reads, &[&even, &odd_a, &odd_b]);
    odd_a.kill();
    for _ in 0..10 {
        assert_eq!(vector(&reads.query("sum(heat)", None)), sum(7.5));
    }
    wait_stores(&reads, &[&even, &odd_b]);

    // One that ends in order says so itself: an announcement every 150 s lives for minutes.
    let seldom = "cluster.announce_interval=150s";
    let settings = [
        "roles=store",
        "cluster.nodes=2",
        "cluster.ordinal=0",
        seldom,
    ];
    let even_b = topic.start(&dir.path().join("even-b"), &settings);
    wait_stores(&reads, &[&even, &even_b, &odd_b]);
    let (status, stderr) = even_b.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    wait_stores(&reads, &[&even, &odd_b]);
    assert_eq!(vector(&reads.query("sum(heat)", None)), sum(7.5));

    // It has no queue of its own, and says so.
    let pipeline = reads.get("/api/v1/status/pipeline").json()["data"].clone();
    assert_eq!(pipeline["queue"], Value::Null);
    let durability = reads.get("/api/v1/status/durability");
    assert_eq!(durability.status, 404, "{durability:?}");
    for server in [query, even, odd_b, ingest] {
        let (status, stderr) = server.terminate();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}

#[test]
fn a_query_process_with_a_list_of_stores_needs_no_kafka() {
    let topic = Cluster::shared().topic("listed").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(&dir.path().join("all"), &["roles=ingest,store"]);
    let position = push(&server.client(), DEVICES, 2.0);
    let stores = format!("fleet.stores={}", address(&server));
    let nowhere = dir.path().join("query");
    let query = Millrace::start(&nowhere, &["roles=query", &stores]);
    let after = [("millrace-read-after", position.as_str())];
    let found = query.client().query_with("sum(heat)", None, &after);
    assert_eq!(vector(&found), sum(2.0));
    assert!(
        !nowhere.exists(),
        "a query process keeps nothing on its disk"
    );
    let (status, stderr) = query.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
}
