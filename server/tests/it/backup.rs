//! Backups of a running server under load, and of a stopped one; restored, asked, damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Millrace, eventually, now_ms};

const SET: &[&str] = &[
    "log.level=error",
    "queue.partitions=2",
    "queue.segment_bytes=64KiB",
    "store.wal_segment_bytes=64KiB",
    "store.block_window=10m",
    "store.memtable_max_age=1s",
    "server.admin_api=true",
];
const DEVICES: i64 = 12;
const STEP_MS: i64 = 10_000;

/// Exit code, and what it printed.
fn command(args: &[&str]) -> (i32, String) {
    let output = Millrace::command().args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), said)
}

fn succeed(args: &[&str]) -> String {
    let (code, said) = command(args);
    assert_eq!(code, 0, "{args:?}: {said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One moment of all devices.
fn push(client: &Client, at: i64, round: i64) {
    let readings: Vec<Value> = (0..DEVICES)
        .map(|device| {
            json!({
                "device": format!("d{device}"),
                "timestamp": at,
                "fields": {
                    "temperature": 20.0 + (round * device) as f64 / 7.0,
                    "requests_total": round * (device + 1),
                },
            })
        })
        .collect();
    let body = Value::Array(readings).to_string();
    let answer = client.post(
        "/api/v1/push",
        &[("content-type", "application/json")],
        body,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// 200 different questions about the time up to `end`.
fn questions(start: i64, end: i64) -> Vec<(String, String)> {
    let shapes = [
        "temperature",
        "sum by (device) (requests_total)",
        "rate(requests_total[5m])",
        "avg_over_time(temperature[10m])",
        "count(temperature)",
        "max(temperature) by (device) - min(temperature) by (device)",
        "quantile(0.9, temperature)",
        "increase(requests_total[20m])",
    ];
    let moment = |i: i64| start + (end - start) * i / 25;
    (0..25)
        .flat_map(|i| shapes.map(|shape| (shape.to_owned(), format!("{}", moment(i) as f64 / 1e3))))
        .collect()
}

fn ask(client: &Client, asked: &[(String, String)]) -> Vec<String> {
    let answers = asked.iter().map(|(expression, time)| {
        let data = client.query(expression, Some(time));
        let mut result = data["result"].as_array().unwrap().clone();
        result.sort_by_key(Value::to_string);
        Value::Array(result).to_string()
    });
    answers.collect()
}

/// Waits until everything is applied and as many blocks are there.
fn wait_for_blocks(client: &Client, least: u64) {
    eventually("blocks", Duration::from_secs(120), || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partitions = status["data"]["partitions"].as_array().unwrap();
        let done = partitions
            .iter()
            .all(|p| p["blocks"].as_u64() >= Some(least) && p["applied_offset"] == p["end_offset"]);
        done.then_some(()).ok_or_else(|| status.to_string())
    });
}

/// Must-show 5 of the store: what was acknowledged before the backup is in it, and 200 queries are
/// answered bit for bit as by the server that it was taken of.
#[test]
fn a_backup_under_load_restores_to_a_store_that_answers_200_queries_bit_for_bit() {
    let dir = TempDir::new().unwrap();
    let [live, backup, restored] = ["live", "backup", "restored"].map(|name| dir.path().join(name));
    let server = Millrace::start(&live, SET);
    let client = server.client();
    let start = now_ms() - 7_200_000;
    for round in 0..300 {
        push(&client, start + round * STEP_MS, round);
    }
    wait_for_blocks(&client, 2);
    for round in 300..360 {
        push(&client, start + round * STEP_MS, round);
    }
    let end = start + 359 * STEP_MS;
    let asked = questions(start, end);
    assert_eq!(asked.len(), 200);

    let (stop, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, after) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Later than all that is asked for.
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                push(&client, end + 3_600_000 + round, round);
                round += 1;
                pushed.store(round as u64, Ordering::SeqCst);
            }
        });
        let load = |least: u64| {
            eventually("load", Duration::from_secs(60), || {
                let now = pushed.load(Ordering::SeqCst);
                (now >= least).then_some(now).ok_or_else(|| now.to_string())
            })
        };
        let before = load(10);
        let said = succeed(&["backup", text(&backup), "--url", &server.url]);
        assert!(said.contains("queue partition 1: records"), "{said}");
        let after = load(before + 10);
        stop.store(true, Ordering::SeqCst);
        (before, after)
    });
    let expected = ask(&client, &asked);
    assert!(
        expected.iter().any(|answer| answer.len() > 500),
        "answers with something in them"
    );
    assert!(
        !live.join("snapshots").read_dir().unwrap().any(|_| true),
        "moved away"
    );
    let said = succeed(&["backup", "verify", text(&backup)]);
    assert!(said.contains("all is well"), "{said}");

    let said = succeed(&["restore", text(&backup), text(&restored)]);
    assert!(said.contains("applied below"), "{said}");
    let (code, said) = command(&["restore", text(&backup), text(&restored)]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("not empty"), "{said}");
    let copy = Millrace::start(&restored, SET);
    let client = copy.client();
    assert_eq!(ask(&client, &asked), expected);
    // It has all that was acknowledged when it was asked for, and nothing from behind the end.
    let late = format!("{}", (end + 5_400_000) as f64 / 1e3);
    let count = client.query(
        "count_over_time(temperature{device=\"d1\"}[1h])",
        Some(&late),
    );
    let count: u64 = count["result"][0]["value"][1]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (before..=after).contains(&count),
        "{before} {count} {after}"
    );
    // It goes on.
    push(&client, now_ms(), 1);
    let (status, stderr) = copy.terminate();
    assert!(status.success(), "{stderr}");
    let said = succeed(&["verify", text(&restored)]);
    assert!(said.contains("all is well"), "{said}");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    // Another file: blocks are links to those of the store.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn first(dir: &Path, part: &str) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(part))
        .collect();
    found.sort();
    found.remove(0)
}

/// A damage: its name, how it is done, and the path that must be named.
type Damage = (&'static str, fn(&Path) -> PathBuf);

const DAMAGES: &[Damage] = &[
    ("the list", |backup| {
        let path = backup.join("backup");
        flip(&path, 90);
        path
    }),
    ("samples of a block", |backup| {
        let path = first(&backup.join("saved/store/0/blocks"), ".block");
        flip(&path, 100);
        path
    }),
    ("a block that is gone", |backup| {
        let path = first(&backup.join("saved/store/1/blocks"), ".block");
        fs::remove_file(&path).unwrap();
        path
    }),
    ("a manifest", |backup| {
        let path = first(&backup.join("saved/store/0"), "manifest-");
        flip(&path, 70);
        path
    }),
    ("the queue's identity", |backup| {
        let path = backup.join("saved/queue/identity");
        flip(&path, 40);
        path
    }),
    ("a record of the queue", |backup| {
        let path = first(&backup.join("saved/queue/0"), ".log");
        flip(&path, 3_000);
        path
    }),
    ("a segment of the WAL that is cut short", |backup| {
        let path = first(&backup.join("saved/store/0/wal"), ".log");
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        path
    }),
];

#[test]
fn a_stopped_directory_is_backed_up_and_every_damage_of_the_backup_is_named() {
    let dir = TempDir::new().unwrap();
    let [live, backup, restored] = ["live", "backup", "restored"].map(|name| dir.path().join(name));
    let server = Millrace::start(&live, SET);
    let client = server.client();
    let start = now_ms() - 7_200_000;
    for round in 0..300 {
        push(&client, start + round * STEP_MS, round);
    }
    wait_for_blocks(&client, 1);
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    succeed(&["backup", text(&backup), "--data-dir", text(&live)]);
    let said = succeed(&["verify", text(&backup)]);
    assert!(said.contains("all is well"), "{said}");
    succeed(&["restore", text(&backup), text(&restored)]);
    let same = succeed(&["diff", text(&live), text(&restored)]);
    assert!(
        same.starts_with("no difference: 24 series, 7200 samples\n"),
        "{same}"
    );

    for (i, (name, damage)) in DAMAGES.iter().enumerate() {
        let damaged = dir.path().join(format!("damaged-{i}"));
        copy(&backup, &damaged);
        let path = damage(&damaged);
        let (code, said) = command(&["verify", text(&damaged)]);
        assert_eq!(code, 65, "{name}: {said}");
        let named = |line: &str| line.starts_with("DAMAGED: ") && line.contains(text(&path));
        assert!(
            said.lines().any(named),
            "{name}: {path:?} is not named:\n{said}"
        );
        let target = dir.path().join(format!("restored-{i}"));
        let (code, said) = command(&["restore", text(&damaged), text(&target)]);
        assert_eq!(code, 65, "{name}: {said}");
        assert!(said.contains(text(&path)), "{name}: {said}");
        assert!(
            !target.join("store").exists(),
            "{name}: something was restored"
        );
    }

    // One that was interrupted.
    fs::remove_file(backup.join("backup")).unwrap();
    for args in [
        ["verify", text(&backup)].as_slice(),
        &["restore", text(&backup), text(&dir.path().join("never"))],
        &["backup", "verify", text(&backup)],
    ] {
        let (code, said) = command(args);
        assert_eq!(code, 65, "{said}");
        assert!(said.contains("not finished"), "{said}");
    }
}

#[test]
fn without_the_admin_api_there_is_no_snapshot() {
    let dir = TempDir::new().unwrap();
    let live = dir.path().join("live");
    let server = Millrace::start(&live, &["log.level=error", "queue.partitions=1"]);
    let answer = server.client().post("/api/v1/admin/tsdb/snapshot", &[], "");
    assert_eq!(answer.status, 503, "{answer:?}");
    let to = dir.path().join("backup");
    let (code, said) = command(&["backup", text(&to), "--url", &server.url]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("server.admin_api"), "{said}");
    assert!(!to.exists());
}
