//! Records that cannot be applied, in `<topic>.dlq`: one letter each, whoever meets them how often; listed,
//! shown, queued again and purged by command and over HTTP.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_model::TimestampMs;
use millrace_queue::kafka::{KafkaLetters, KafkaQueue};
use millrace_queue::{DeadLetter, Origin};
use serde_json::Value;

use super::{PATIENCE, metric, partitions, wait_applied};
use crate::support::kafka::{Cluster, Topic};
use crate::support::records::{append, batch};
use crate::support::{Client, Millrace, eventually, now_ms, succeed, vector};

const ADMIN: &str = "server.admin_api=true";

fn push(server: &Millrace, n: u32) {
    let body = format!(r#"{{"device":"a","fields":{{"x{n}":{n}}}}}"#);
    let answer = server.client().post("/api/v1/push", &[], body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Puts records into the topic as somebody else's program would; their names.
fn poison(cluster: &Cluster, topic: &Topic, records: &[&'static [u8]]) -> Vec<Origin> {
    let queue = KafkaQueue::open(topic.options(&cluster.bootstrap)).unwrap();
    let records: Vec<_> = records.iter().map(|r| Bytes::from_static(r)).collect();
    let count = records.len() as u64;
    let first = append(&*queue.producer().unwrap(), 0, records);
    let origin = |n| Origin {
        queue: queue.identity().id,
        partition: millrace_model::PartitionId(0),
        offset: first.advanced(n),
    };
    (0..count).map(origin).collect()
}

fn listed(topic: &Topic) -> Vec<Value> {
    let text = topic.succeed(&["dlq", "list", "--json"]);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn names(topic: &Topic) -> BTreeSet<String> {
    let all = listed(topic);
    let names: BTreeSet<_> = all
        .iter()
        .map(|l| l["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), all.len(), "one letter each: {all:?}");
    names
}

/// Waits until no letter is left to be sent.
fn wait_sent(client: &Client, letters: u64) {
    eventually("the letters to be in their topic", PATIENCE, || {
        let sent = metric(client, "millrace_dead_letters_sent_total");
        let unsent = metric(client, "millrace_dead_letters_unsent");
        let done = sent >= Some(letters as f64) && unsent == Some(0.0);
        done.then_some(()).ok_or(format!("{sent:?} {unsent:?}"))
    });
}

/// How many records `<topic>.dlq` has, purged ones and repetitions among them.
fn records(cluster: &Cluster, topic: &Topic) -> u64 {
    let name = KafkaLetters::topic_of(&topic.name);
    let tool = "org.apache.kafka.tools.GetOffsetShell";
    let text = cluster.tool(tool, &["--topic", &name]);
    let end = text.trim().rsplit(':').next().unwrap();
    end.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn a_poison_record_is_one_letter_of_all_replicas_and_of_every_redelivery() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("letters").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let replica = |n: u32| dir.path().join(format!("s{n}"));
    let first = topic.start(&replica(0), &[ADMIN]);
    push(&first, 1);
    let origins = poison(cluster, &topic, &[b"poison", b"\0more"]);
    let wanted: BTreeSet<_> = origins.iter().map(ToString::to_string).collect();
    push(&first, 2);
    wait_applied(&first.client());
    wait_sent(&first.client(), 2);
    assert_eq!(names(&topic), wanted);

    // A replica meets the same records, and so does the first one after it was killed: its letters count
    // towards the limit for ten minutes more, and are sent again after each start.
    let second = topic.start(&replica(1), &["roles=store"]);
    wait_applied(&second.client());
    wait_sent(&second.client(), 2);
    first.kill();
    let first = topic.start(&replica(0), &[ADMIN]);
    wait_sent(&first.client(), 2);
    assert!(records(cluster, &topic) >= 6, "each was sent three times");
    assert_eq!(names(&topic), wanted);
    let status = partitions(&first.client());
    assert_eq!(
        (
            &status[0]["dead_letters"],
            &status[0]["dead_letters_unsent"]
        ),
        (&2.into(), &0.into())
    );

    let name = origins[0].to_string();
    let shown = topic.succeed(&["dlq", "show", &name]);
    assert!(
        shown.contains("70 6f 69 73 6f 6e") && shown.contains("\"error\""),
        "{shown}"
    );
    let refused = topic.fail(&["dlq", "requeue", &name, "--yes"]);
    assert!(
        refused.contains("1 of 1 letters were left as they are"),
        "{refused}"
    );
    let said = topic.succeed(&["dlq", "purge", &name, "--yes"]);
    assert_eq!(said, format!("{name}: removed\n"));
    let left = BTreeSet::from([origins[1].to_string()]);
    assert_eq!(names(&topic), left);

    // A third replica comes late and meets it for the first time: it stays purged.
    let third = topic.start(&replica(2), &["roles=store"]);
    wait_applied(&third.client());
    wait_sent(&third.client(), 2);
    assert_eq!(names(&topic), left);

    // The same over HTTP, from a process without a store among others.
    let ingest = topic.start(&dir.path().join("i"), &["roles=ingest", ADMIN]);
    for server in [&first, &ingest] {
        let text = succeed(&["dlq", "list", "--url", &server.url]);
        assert!(
            text.starts_with(&origins[1].to_string()) && text.lines().count() == 1,
            "{text}"
        );
    }
    let other = origins[1].to_string();
    let shown = succeed(&["dlq", "show", "--url", &ingest.url, &other]);
    assert!(shown.contains("00 6d 6f 72 65"), "{shown}");
    succeed(&["dlq", "purge", "--url", &ingest.url, &other, "--yes"]);
    assert!(names(&topic).is_empty());
    let found = |n: u32| {
        first.client().query(&format!("x{n}"), None)["result"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(
        [found(1), found(2)],
        [1, 1],
        "the records around it are applied"
    );

    // Kafka's own tools see letters by name, with their reasons.
    let dump = cluster.tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--topic",
            &KafkaLetters::topic_of(&topic.name),
            "--from-beginning",
            "--max-messages",
            "1",
            "--timeout-ms",
            "30000",
            "--property",
            "print.key=true",
            "--property",
            "print.headers=true",
        ],
    );
    assert!(dump.contains(&name) && dump.contains("reason:"), "{dump}");
}

#[test]
fn a_letter_that_decodes_now_is_queued_again_and_fills_its_gap() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("requeue").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[ADMIN]);
    push(&server, 1);
    let at = now_ms() - 60_000;
    let letters = KafkaLetters::open(&topic.options(&cluster.bootstrap)).unwrap();
    // As an older millrace left them, which could not decode what this one can.
    let queue = KafkaQueue::open(topic.options(&cluster.bootstrap)).unwrap();
    let origin = |offset| Origin {
        queue: queue.identity().id,
        partition: millrace_model::PartitionId(0),
        offset: millrace_model::Offset(offset),
    };
    let leave = |offset: u64, metric: &str| {
        let letter = DeadLetter {
            origin: origin(offset),
            appended_at: TimestampMs(at),
            kept_at: TimestampMs(at),
            reason: "too new".to_owned(),
            payload: batch(metric, &["a".to_owned()], at, 7.5),
        };
        letters.enter(&[letter]).unwrap();
        origin(offset).to_string()
    };
    let (by_command, by_server) = (leave(100, "late_a"), leave(101, "late_b"));
    assert_eq!(
        topic
            .succeed(&["dlq", "requeue", "--reason", "too new"])
            .lines()
            .count(),
        2
    );
    let did = topic.succeed(&["dlq", "requeue", &by_command, "--yes"]);
    assert_eq!(did, format!("{by_command}: queued again\n"));
    let did = succeed(&["dlq", "requeue", "--url", &server.url, &by_server, "--yes"]);
    assert_eq!(did, format!("{by_server}: queued again\n"));
    assert!(names(&topic).is_empty());
    wait_applied(&server.client());
    for name in ["late_a", "late_b"] {
        eventually("the sample", PATIENCE, || {
            let found = server
                .client()
                .query(name, Some(&format!("{}", at / 1000 + 1)));
            let value = &found["result"][0]["value"][1];
            (value == "7.5").then_some(()).ok_or(found.to_string())
        });
    }
}

#[test]
fn letters_wait_in_the_store_until_their_topic_is_there() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("waiting").create(1, 1);
    let name = KafkaLetters::topic_of(&topic.name);
    cluster.tool(
        "org.apache.kafka.tools.TopicCommand",
        &["--delete", "--topic", &name],
    );
    eventually("the topic to be gone", PATIENCE, || {
        let opened = KafkaLetters::open(&topic.options(&cluster.bootstrap));
        opened.err().map(|_| ()).ok_or("it is there".to_owned())
    });
    let dir = tempfile::tempdir().unwrap();
    let server = topic.start(dir.path(), &[]);
    let client = server.client();
    let durability = client.get("/api/v1/status/durability").json();
    let told = &durability["data"]["dead_letters"];
    assert_eq!(told["topic"], *name);
    assert!(
        told["problem"]
            .as_str()
            .unwrap()
            .contains("`millrace queue create`"),
        "{told}"
    );
    let origins = poison(cluster, &topic, &[b"poison"]);
    push(&server, 1);
    eventually("the letter to wait", PATIENCE, || {
        let status = client.get("/api/v1/status/pipeline").json();
        let waits = status["data"]["partitions"][0]["dead_letters_unsent"] == 1
            && status["data"]["dead_letters_problem"].is_string();
        waits.then_some(()).ok_or(status.to_string())
    });
    // The partition goes on meanwhile, and a kill loses nothing.
    wait_applied(&client);
    let stderr = server.kill();
    assert!(stderr.contains("dead letters will stay"), "{stderr}");
    let listing = topic.fail(&["dlq", "list"]);
    assert!(listing.contains("`millrace queue create`"), "{listing}");
    let said = topic.succeed(&["queue", "create", "--partitions", "1", "--replication", "1"]);
    assert!(
        said.contains(&format!("topic {name}, for dead letters, is created")),
        "{said}"
    );
    let server = topic.start(dir.path(), &[]);
    wait_sent(&server.client(), 1);
    assert_eq!(names(&topic), BTreeSet::from([origins[0].to_string()]));
}

#[test]
fn what_was_refused_for_a_limit_is_kept_beside_the_topics_letters_and_queued_again() {
    let cluster = Cluster::shared();
    let topic = cluster.topic("rejected").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let limit = "ingest.tenants.active_series=2";
    let server = topic.start(dir.path(), &[ADMIN, limit, "ingest.keep_rejected=1MiB"]);
    let client = server.client();
    let origin = poison(cluster, &topic, &[b"poison"])[0].to_string();
    wait_sent(&client, 1);
    let now = now_ms();
    let lines: String = (0..5)
        .map(|n| format!("a,n={n} value={n} {now}\n"))
        .collect();
    let answer = client.post("/write?precision=ms&receipt=full", &[], lines);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json()["kept_samples"], 3);

    let list = || client.get("/api/v1/dlq").json()["data"]["letters"].clone();
    eventually("both letters", PATIENCE, || {
        let letters = list();
        let both = letters.as_array().is_some_and(|letters| letters.len() == 2);
        both.then_some(()).ok_or_else(|| letters.to_string())
    });
    let done = client.post("/api/v1/dlq/requeue?reason=too_many_active_series", &[], "");
    assert_eq!(done.status, 200, "{done:?}");
    eventually("all five series", PATIENCE, || {
        let count = vector(&client.query("count(a)", None));
        let count = count.values().next().copied().unwrap_or(0.0);
        (count == 5.0)
            .then_some(())
            .ok_or_else(|| count.to_string())
    });
    let left = list();
    let left: Vec<_> = left
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["name"])
        .collect();
    assert_eq!(left, [origin.as_str()], "the topic's own");
}
