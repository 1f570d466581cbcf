//! Records that cannot be applied, in the embedded queue: kept, shown, queued again, purged; and too many of
//! them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_log::fs::OsFs;
use millrace_log::{Log, LogOptions, Lsn, NewRecord, SystemClock};
use millrace_model::TimestampMs;
use millrace_queue::{EmbeddedOptions, EmbeddedQueue};
use prometheus::Registry;
use serde_json::Value;

use crate::support::records::{append, batch};
use crate::support::{Client, Millrace, eventually, fail, now_ms, succeed};

const PATIENCE: Duration = Duration::from_secs(60);
const SETTINGS: &[&str] = &[
    "queue.partitions=1",
    "server.admin_api=true",
    "log.level=warn",
];

/// Puts records into the queue of a stopped server, which only somebody else's program would.
fn poison(dir: &Path, records: Vec<Bytes>) -> String {
    let identity = EmbeddedQueue::stored_identity(&OsFs, &dir.join("queue"));
    let identity = identity.unwrap().unwrap();
    let options = EmbeddedOptions {
        partitions: identity.partitions,
        shard_key: identity.shard_key.clone(),
        ..EmbeddedOptions::default()
    };
    let (fs, clock) = (Arc::new(OsFs), Arc::new(SystemClock));
    let queue =
        EmbeddedQueue::open(fs, clock, &dir.join("queue"), options, &Registry::new()).unwrap();
    let first = append(&*queue.producer(), 0, records);
    format!("{}/0/{first}", identity.id)
}

fn stop(server: Millrace) {
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
}

fn push(client: &Client) {
    let answer = client.post("/api/v1/push", &[], r#"{"device":"a","fields":{"x":1}}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A server that has met `records` behind one ordinary record.
fn poisoned(dir: &Path, records: Vec<Bytes>) -> (Millrace, String) {
    let server = Millrace::start(dir, SETTINGS);
    push(&server.client());
    stop(server);
    let name = poison(dir, records);
    (Millrace::start(dir, SETTINGS), name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_poison_record_is_kept_shown_and_purged_while_the_server_runs_and_while_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let two = vec![Bytes::from_static(b"poison"), Bytes::from_static(b"\0more")];
    let (server, name) = poisoned(dir.path(), two);
    let client = server.client();
    // What stands behind it is applied.
    push(&client);
    let answer = client.get("/api/v1/status/pipeline").json();
    let partition = &answer["data"]["partitions"][0];
    assert_eq!(
        (&partition["state"], &partition["dead_letters"]),
        (&"running".into(), &2.into())
    );

    let url = server.url.clone();
    let listed = lines(&succeed(&["dlq", "list", "--url", &url, "--json"]));
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0]["name"], *name);
    assert_eq!(listed[0]["bytes"], 6);
    assert!(
        listed[0]["reason"].as_str().unwrap().contains("batch"),
        "{listed:?}"
    );
    let shown = succeed(&["dlq", "show", "--url", &url, &name]);
    assert!(shown.contains("70 6f 69 73 6f 6e"), "{shown}");
    assert!(
        shown.contains("poison\n") && shown.contains("\"error\""),
        "{shown}"
    );
    let refused = fail(&["dlq", "requeue", "--url", &url, &name, "--yes"]);
    assert!(
        refused.contains("1 of 1 letters were left as they are"),
        "{refused}"
    );
    let removed = succeed(&["dlq", "purge", "--url", &url, &name]);
    assert!(removed.contains("would be removed"), "{removed}");
    let removed = succeed(&["dlq", "purge", "--url", &url, &name, "--yes"]);
    assert!(removed.contains("removed"), "{removed}");
    assert_eq!(succeed(&["dlq", "list", "--url", &url]).lines().count(), 1);
    let none = fail(&["dlq", "show", "--url", &url, &name]);
    assert!(none.contains("no dead letter"), "{none}");
    // Nobody else may touch the directory meanwhile, and the text says what to do.
    let locked = fail(&["dlq", "list", "--data-dir", text(dir.path())]);
    assert!(locked.contains("in use by another millrace"), "{locked}");
    stop(server);

    let here = ["--data-dir", text(dir.path())];
    fn dlq<'a>(args: &[&'a str], here: &[&'a str]) -> Vec<&'a str> {
        [&["dlq"], args, here].concat()
    }
    let left = lines(&succeed(&dlq(
        &["list", "--json", "--reason", "batch"],
        &here,
    )));
    assert_eq!(left.len(), 1);
    let left = left[0]["name"].as_str().unwrap();
    let shown = succeed(&dlq(&["show", left], &here));
    assert!(
        shown.contains("00 6d 6f 72 65") && shown.contains(".more"),
        "{shown}"
    );
    let output = Millrace::command()
        .args(dlq(&["requeue", left, "--yes"], &here))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("left as it is: it is no batch"), "{said}");
    assert!(succeed(&dlq(&["list", "--partition", "7"], &here)).is_empty());
    succeed(&dlq(&["purge", left, "--yes"], &here));
    assert!(succeed(&dlq(&["list"], &here)).is_empty());
    let gone = fail(&dlq(&["purge", left, "--yes"], &here));
    assert!(gone.contains("no dead letters of these names"), "{gone}");
    // A restart does not bring them back.
    let server = Millrace::start(dir.path(), SETTINGS);
    assert!(succeed(&["dlq", "list", "--url", &server.url]).is_empty());
}

/// A letter as an older millrace left it: of a record that this one can decode (`docs/formats/wal.md`).
fn leave_letter(dir: &Path, name: &str, payload: &[u8]) {
    let parts: Vec<&str> = name.split('/').collect();
    let queue = u128::from_str_radix(parts[0], 16).unwrap();
    let (partition, offset): (u32, u64) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
    let mut frame = vec![1];
    frame.extend_from_slice(&queue.to_le_bytes());
    frame.extend_from_slice(&partition.to_le_bytes());
    frame.extend_from_slice(&offset.to_le_bytes());
    frame.extend_from_slice(&now_ms().to_le_bytes());
    frame.extend_from_slice(&now_ms().to_le_bytes());
    frame.push(3);
    frame.extend_from_slice(b"old");
    frame.extend_from_slice(payload);
    let dir = dir.join("store/0/dlq");
    let (mut log, _) = Log::open(Arc::new(OsFs), &dir, LogOptions::default(), Lsn(0)).unwrap();
    let record = NewRecord {
        time: TimestampMs(now_ms()),
        parts: &[&frame],
    };
    log.append(&[record]).unwrap();
    log.sync().unwrap();
}

#[test]
fn a_record_that_decodes_now_is_queued_again_and_fills_its_gap() {
    for while_it_runs in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let server = Millrace::start(dir.path(), SETTINGS);
        push(&server.client());
        stop(server);
        let at = now_ms() - 60_000;
        let name = poison(dir.path(), vec![Bytes::from_static(b"poison")]);
        leave_letter(
            dir.path(),
            &name,
            &batch("late", &["a".to_owned()], at, 7.5),
        );
        let mut server = None;
        let url = if while_it_runs {
            let server = server.insert(Millrace::start(dir.path(), SETTINGS));
            vec!["--url".to_owned(), server.url.clone()]
        } else {
            vec!["--data-dir".to_owned(), text(dir.path()).to_owned()]
        };
        let place: Vec<&str> = url.iter().map(String::as_str).collect();
        let dlq = |args: &[&str]| succeed(&[&["dlq"], args, &place].concat());
        let shown = dlq(&["show", &name]);
        assert!(
            shown.contains("\"late\"") && shown.contains("7.5"),
            "{shown}"
        );
        let would = dlq(&["requeue"]);
        assert!(would.contains("would be queued again"), "{would}");
        let did = dlq(&["requeue", "--yes"]);
        assert_eq!(did, format!("{name}: queued again\n"));
        assert!(dlq(&["list"]).is_empty());
        let server = server.unwrap_or_else(|| Millrace::start(dir.path(), SETTINGS));
        let client = server.client();
        eventually("the sample", PATIENCE, || {
            let found = client.query("late", Some(&format!("{}", (at + 1000) / 1000)));
            let value = &found["result"][0]["value"][1];
            (value == "7.5").then_some(()).ok_or(found.to_string())
        });
    }
}

#[test]
fn too_many_in_a_short_time_stop_the_partition_until_somebody_accepts_them() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [SETTINGS, &["store.dead_letters_max=2"]].concat();
    let server = Millrace::start(dir.path(), &settings);
    push(&server.client());
    stop(server);
    poison(dir.path(), vec![Bytes::from_static(b"poison"); 4]);
    let server = Millrace::spawn(dir.path(), &settings);
    let client = server.client();
    let status = eventually("the partition to stop", PATIENCE, || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partition = status["data"]["partitions"][0].clone();
        let stopped = partition["code"] == "dead_letters";
        if stopped {
            Ok(partition)
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(status["dead_letters"], 2);
    let resolve: Vec<&str> = status["resolve"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(
        resolve,
        [
            "millrace dlq list --partition 0",
            "millrace queue resume --partition 0 --accept-dead-letters"
        ]
    );
    eventually("not to be ready", PATIENCE, || {
        let ready = client.get("/-/ready");
        let says = ready.status == 503 && ready.text.contains("dead_letters");
        says.then_some(()).ok_or(ready.text)
    });
    // What was applied is answered, and the letters are listed by the stopped partition, too.
    assert_eq!(
        client.query("x", None)["result"].as_array().unwrap().len(),
        1
    );
    assert_eq!(
        succeed(&["dlq", "list", "--url", &server.url])
            .lines()
            .count(),
        2
    );
    let (_, stderr) = server.terminate();
    assert!(
        stderr.contains("millrace queue resume --partition 0 --accept-dead-letters"),
        "{stderr}"
    );
    // A restart alone is no answer.
    let server = Millrace::spawn(dir.path(), &settings);
    let client = server.client();
    eventually("the partition to stay stopped", PATIENCE, || {
        let status = client.get("/api/v1/status/pipeline").json();
        let stopped = status["data"]["partitions"][0]["code"] == "dead_letters";
        stopped.then_some(()).ok_or(status.to_string())
    });
    server.terminate();

    let here = ["--data-dir", text(dir.path())];
    let resume = [
        "queue",
        "resume",
        "--partition",
        "0",
        "--accept-dead-letters",
    ];
    let said = succeed(&[&resume[..], &here].concat());
    assert!(
        said.contains("partition 0: its dead letters so far are accepted"),
        "{said}"
    );
    let server = Millrace::start(dir.path(), &settings);
    push(&server.client());
    let listed = succeed(&["dlq", "list", "--url", &server.url]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
}

#[test]
fn the_endpoints_are_closed_unless_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &["queue.partitions=1"]);
    let client = server.client();
    for path in ["/api/v1/dlq", "/api/v1/dlq/letter?name=1/0/0"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(
            answer.text.contains("server.admin_api=true"),
            "{path}: {answer:?}"
        );
    }
    for path in [
        "/api/v1/dlq/requeue",
        "/api/v1/dlq/purge",
        "/api/v1/queue/replay",
    ] {
        let answer = client.post(path, &[], "");
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
    }
    let refused = fail(&["dlq", "list", "--url", &server.url]);
    assert!(refused.contains("server.admin_api=true"), "{refused}");
    stop(server);
    let server = Millrace::start(dir.path(), SETTINGS);
    let client = server.client();
    for (path, expect) in [
        ("/api/v1/dlq/purge", "say which letters"),
        ("/api/v1/dlq/purge?name=x", "not the name of a dead letter"),
        ("/api/v1/dlq/purge?partition=x", "invalid parameter"),
        (
            "/api/v1/queue/replay?partition=0&from=0&to=9",
            "is no stretch",
        ),
        (
            "/api/v1/queue/replay?partition=7&from=0&to=1",
            "is not in this store",
        ),
        (
            "/api/v1/queue/replay?from=0&to=1",
            "partition must be a number",
        ),
    ] {
        let answer = client.post(path, &[], "");
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.text.contains(expect), "{path}: {answer:?}");
    }
    for path in ["/api/v1/dlq/purge?all=true", "/api/v1/queue/replay"] {
        assert_eq!(client.get(path).status, 405, "{path}");
    }
}
