//! A data directory is read whole, and each of many damages is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Millrace, eventually, now_ms};

const SET: &[&str] = &[
    "log.level=error",
    "queue.partitions=1",
    "queue.segment_bytes=64KiB",
    "store.wal_segment_bytes=64KiB",
    "store.block_window=10m",
    "store.memtable_max_age=1s",
];

/// Pushes ten devices with eight fields each, at 100 moments from `start` on.
fn push(server: &Millrace, start: i64) {
    for round in 0..10 {
        let readings: Vec<Value> = (0..100)
            .map(|i| {
                let fields: serde_json::Map<_, _> = (0..8)
                    .map(|f| {
                        (
                            format!("f{f}"),
                            json!(round as f64 / 7.0 + f64::from(f * i)),
                        )
                    })
                    .collect();
                json!({
                    "device": format!("d{}", i % 10),
                    "timestamp": start + i64::from(round * 10 + i / 10) * 10_000,
                    "fields": fields,
                })
            })
            .collect();
        let answer = server.client().post(
            "/api/v1/push",
            &[("content-type", "application/json")],
            Value::Array(readings).to_string(),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A directory with several segments, blocks, and samples that only queue and WAL have.
fn data(dir: &Path) {
    let server = Millrace::start(dir, SET);
    push(&server, now_ms() - 7_200_000);
    let client = server.client();
    eventually("blocks", Duration::from_secs(60), || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partition = &status["data"]["partitions"][0];
        let done = partition["blocks"].as_u64() >= Some(2)
            && partition["memtable_samples"] == 0
            && partition["applied_offset"] == partition["end_offset"];
        done.then_some(()).ok_or_else(|| status.to_string())
    });
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
    let later: Vec<&str> = SET
        .iter()
        .copied()
        .filter(|s| !s.contains("max_age"))
        .collect();
    let server = Millrace::start(dir, &later);
    push(&server, now_ms() - 3_600_000);
    let client = server.client();
    eventually("all of it applied", Duration::from_secs(60), || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partition = &status["data"]["partitions"][0];
        let done = partition["applied_offset"] == partition["end_offset"];
        done.then_some(()).ok_or_else(|| status.to_string())
    });
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
}

/// Exit code, and what it printed.
fn verify(dir: &Path) -> (i32, String) {
    let output = Millrace::command().arg("verify").arg(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), said)
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

/// The files of a directory with an ending, sorted.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {dir:?}");
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, to: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(to).unwrap();
}

fn newest_manifest(shard: &Path) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(shard)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("manifest-"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

/// A damage: its name, how it is done, and the path that must be named.
type Damage = (&'static str, fn(&Path) -> PathBuf);

const DAMAGES: &[Damage] = &[
    ("the queue's identity", |dir| {
        let path = dir.join("queue/identity");
        flip(&path, 30);
        path
    }),
    ("a record of the queue", |dir| {
        let path = files(&dir.join("queue/0"), ".log").remove(0);
        flip(&path, 3000);
        path
    }),
    ("the header of a segment of the queue", |dir| {
        let path = files(&dir.join("queue/0"), ".log").remove(1);
        flip(&path, 9);
        path
    }),
    ("a segment of the queue that is gone", |dir| {
        let mut segments = files(&dir.join("queue/0"), ".log");
        fs::remove_file(segments.remove(1)).unwrap();
        segments.remove(1)
    }),
    ("a segment of the queue that is cut short", |dir| {
        let path = files(&dir.join("queue/0"), ".log").remove(0);
        cut(&path, 2000);
        path
    }),
    ("a record of the WAL", |dir| {
        let path = files(&dir.join("store/0/wal"), ".log").remove(0);
        flip(&path, 500);
        path
    }),
    ("the manifest's state", |dir| {
        let path = newest_manifest(&dir.join("store/0"));
        flip(&path, 70);
        path
    }),
    ("the manifest's header", |dir| {
        let path = newest_manifest(&dir.join("store/0"));
        flip(&path, 8);
        path
    }),
    ("samples of a block", |dir| {
        let path = files(&dir.join("store/0/blocks"), ".block").remove(0);
        flip(&path, 100);
        path
    }),
    ("a block that is cut short", |dir| {
        let path = files(&dir.join("store/0/blocks"), ".block").remove(0);
        cut(&path, 200);
        path
    }),
    ("a block that is gone", |dir| {
        let path = files(&dir.join("store/0/blocks"), ".block").remove(1);
        fs::remove_file(&path).unwrap();
        path
    }),
    ("a block under another one's name", |dir| {
        let blocks = files(&dir.join("store/0/blocks"), ".block");
        fs::copy(&blocks[0], &blocks[1]).unwrap();
        blocks[1].clone()
    }),
];

#[test]
fn verify_names_each_of_twelve_damages_and_finds_none_where_there_is_none() {
    let dir = TempDir::new().unwrap();
    let sound = dir.path().join("sound");
    data(&sound);
    let (code, said) = verify(&sound);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("all is well"), "{said}");
    assert!(said.contains("16000 samples\n"), "the queue's: {said}");
    assert!(
        said.contains("with 8000 samples in the WAL alone"),
        "{said}"
    );

    for (i, (name, damage)) in DAMAGES.iter().enumerate() {
        let damaged = dir.path().join(format!("damaged-{i}"));
        copy(&sound, &damaged);
        let path = damage(&damaged);
        let (code, said) = verify(&damaged);
        assert_eq!(code, 65, "{name}: {said}");
        let named = said
            .lines()
            .any(|line| line.starts_with("DAMAGED: ") && line.contains(path.to_str().unwrap()));
        assert!(named, "{name}: {path:?} is not named:\n{said}");
    }

    // A file that was not finished is no damage.
    fs::write(
        sound.join("store/0/blocks/0000000000000099-0000.block.tmp"),
        b"x",
    )
    .unwrap();
    let (code, said) = verify(&sound);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("left over: "), "{said}");
}

#[test]
fn inspect_shows_blocks_logs_and_directories_and_adds_up() {
    let dir = TempDir::new().unwrap();
    data(dir.path());
    let inspect = |path: &Path| -> Value {
        let mut command = Millrace::command();
        command.args(["inspect", "--json"]).arg(path);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{path:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let whole = inspect(dir.path());
    let shard = &whole["shards"][0];
    assert_eq!(shard["block_samples"], 8000, "{whole}");
    assert_eq!(shard["unsealed_samples"], 8000, "{whole}");
    assert_eq!(whole, inspect(&dir.path().join("store")));

    let mut samples = 0;
    for path in files(&dir.path().join("store/0/blocks"), ".block") {
        let block = inspect(&path);
        samples += block["samples"].as_u64().unwrap();
        let by_metric: u64 = block["metrics_by_series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["samples"].as_u64().unwrap())
            .sum();
        assert_eq!(by_metric, block["samples"].as_u64().unwrap(), "{block}");
        let sections = block["bytes_by_section"].as_object().unwrap();
        let sections: u64 = sections.values().map(|bytes| bytes.as_u64().unwrap()).sum();
        assert!(sections <= block["bytes"].as_u64().unwrap(), "{block}");
    }
    assert_eq!(samples, 8000);
    let log = inspect(&dir.path().join("queue/0"));
    assert!(log["segments"].as_array().unwrap().len() > 2, "{log}");
    let output = Millrace::command().args(["inspect", "/"]).output().unwrap();
    assert!(!output.status.success());
    let text = Millrace::command()
        .arg("inspect")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("block_samples"));
}
