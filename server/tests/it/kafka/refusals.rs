//! What is refused at the start, what is waited for, and what is never shown.

use std::time::Duration;

use super::metric;
use crate::support::kafka::Cluster;
use crate::support::{Millrace, eventually};

#[test]
fn a_topic_short_of_the_minimum_is_refused_with_the_setting_that_is_short() {
    let topic = Cluster::shared().topic("short").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    for (setting, expect) in [
        (
            "queue.kafka.minimum_durability=replicated",
            "replication is 1, must be at least 3; min.insync.replicas is 1, must be at least 2",
        ),
        ("queue.partitions=8", "partition count is 1, must be 8"),
        (
            "cluster.ordinal=1",
            "node 1 of 2 owns none of the queue's 1 partitions",
        ),
    ] {
        let settings = topic.settings(&["roles=store", "cluster.nodes=2", setting]);
        let server = Millrace::spawn(dir.path(), &settings);
        let (status, stderr) = server.wait();
        assert_eq!(status.code(), Some(78), "{setting}: {stderr}");
        assert!(stderr.contains(expect), "{setting}: {stderr}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_refused_with_the_command_that_makes_it() {
    let topic = Cluster::shared().topic("absent");
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::spawn(dir.path(), &topic.settings(&[]));
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("`millrace queue create`"), "{stderr}");
}

#[test]
fn a_broker_that_is_away_is_waited_for_and_ready_says_so() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic("away").create(1, 1);
    cluster.kill(1);
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::spawn(dir.path(), &topic.settings(&[]));
    let client = server.client();
    eventually(
        "ready to say what it waits for",
        Duration::from_secs(60),
        || {
            let answer = client.get("/-/ready");
            assert_eq!(answer.status, 503);
            let says = answer.text.contains("opening the queue: kafka:");
            says.then_some(()).ok_or(answer.text)
        },
    );
    assert_eq!(client.get("/-/healthy").status, 200);
    assert_eq!(client.get("/api/v1/status/durability").status, 503);
    cluster.restart(1);
    eventually("ready", Duration::from_secs(120), || {
        let answer = client.get("/-/ready");
        (answer.status == 200).then_some(()).ok_or(answer.text)
    });
    let answer = client.post("/api/v1/push", &[], r#"{"device":"a","fields":{"x":1}}"#);
    assert_eq!(answer.status, 200, "{answer:?}");

    // Away again while it runs: not ready after a while, and ready once it is back.
    cluster.kill(1);
    eventually("not ready", Duration::from_secs(120), || {
        let answer = client.get("/-/ready");
        let says = answer.status == 503 && answer.text.contains("cut off from its queue");
        says.then_some(()).ok_or(answer.text)
    });
    assert!(
        client.get("/api/v1/query?query=x").status == 200,
        "what is there is still answered"
    );
    cluster.restart(1);
    eventually("ready again", Duration::from_secs(120), || {
        let answer = client.get("/-/ready");
        (answer.status == 200).then_some(()).ok_or(answer.text)
    });
    eventually("the broker's metrics", Duration::from_secs(60), || {
        let up = metric(&client, "millrace_kafka_broker_up{");
        (up == Some(1.0)).then_some(()).ok_or(format!("{up:?}"))
    });
}

#[test]
fn secrets_are_shown_nowhere() {
    const CANARY: &str = "canary-of-a-secret";
    let cluster = Cluster::shared();
    let topic = cluster.topic("secret").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let properties = dir.path().join("properties");
    std::fs::write(
        &properties,
        format!("# further ones\nsasl.password={CANARY}\nclient.rack=r1\n"),
    )
    .unwrap();
    let by_file = format!("queue.kafka.properties_file={}", properties.display());
    // A server that runs, with a secret that its broker does not ask for.
    let data = dir.path().join("data");
    let server = topic.start(&data, &[&by_file, "log.level=debug"]);
    let client = server.client();
    let mut seen = server.banner().to_owned();
    for path in [
        "/metrics",
        "/-/ready",
        "/api/v1/status/durability",
        "/api/v1/status/pipeline",
        "/api/v1/status/flags",
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        seen.push_str(&answer.text);
    }
    seen.push_str(&server.terminate().1);

    // One whose login the broker refuses, and what the other commands say.
    let sasl = [
        "queue.kafka.security_protocol=sasl_plaintext",
        "queue.kafka.sasl_username=millrace",
    ];
    let password = format!("queue.kafka.sasl_password_file={}", file.display());
    let mut command = Millrace::command();
    command
        .arg("config")
        .env("MILLRACE_QUEUE_KAFKA_SASL_PASSWORD", CANARY);
    for setting in topic.settings(&sasl) {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("sasl_password = \"***\""), "{stdout}");
    seen.push_str(&stdout);
    let waiting = Millrace::spawn(
        &dir.path().join("other"),
        &topic.settings(&[sasl[0], sasl[1], &password, "log.level=debug"]),
    );
    let text = eventually(
        "the refused login to be told",
        Duration::from_secs(60),
        || {
            let text = waiting.client().get("/-/ready").text;
            let told = text.contains("opening the queue: kafka");
            if told { Ok(text) } else { Err(text) }
        },
    );
    seen.push_str(&text);
    seen.push_str(&waiting.kill());
    // A setting that librdkafka does not take is told by its name.
    std::fs::write(&properties, format!("no.such.setting={CANARY}\n")).unwrap();
    let server = Millrace::spawn(&dir.path().join("third"), &topic.settings(&[&by_file]));
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("\"no.such.setting\""), "{stderr}");
    seen.push_str(&stderr);
    assert!(!seen.contains(CANARY), "{seen}");
}
