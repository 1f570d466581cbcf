//! Start, restart, stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Millrace, eventually, matrix, now_ms, vector};

#[test]
fn a_start_says_where_everything_is_and_every_path_of_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    for expect in ["push     curl ", "query    curl ", "Grafana ", "data     "] {
        assert!(
            server.banner().contains(expect),
            "no {expect:?} in\n{}",
            server.banner()
        );
    }
    assert!(server.banner().contains(&*dir.path().to_string_lossy()));
    let client = server.client();
    assert!(client.get("/").text.contains("/api/v1/push"));
    assert_eq!(client.get("/-/healthy").status, 200);
    assert_eq!(client.get("/-/ready").text, "millrace is ready.\n");
    let metrics = client.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "millrace_http_connections",
        "millrace_ingest_",
        "millrace_queue_",
        "millrace_store_",
    ] {
        assert!(
            metrics.text.contains(name),
            "no {name} in\n{}",
            metrics.text
        );
    }
    assert_eq!(
        client.get("/api/v1/status/buildinfo").json()["status"],
        "success"
    );
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_second_process_on_the_directory_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Millrace::start(dir.path(), &[]);
    let second = Millrace::command()
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("is in use by another millrace"), "{stderr}");
    assert!(
        stderr.contains(&format!("(pid {}, started ", first.pid())),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(first.client().get("/-/ready").status, 200);
    first.kill();
    // A lock file that a dead process has left means nothing.
    Millrace::start(dir.path(), &[]);
}

#[test]
fn a_port_in_use_and_an_unusable_directory_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |args: &[&str]| {
        let output = Millrace::command().args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        (output.status.code(), stderr)
    };
    let data = dir.path().join("data");
    let (code, stderr) = run(&["--listen", &address, "--data-dir", &data.to_string_lossy()]);
    assert_eq!(code, Some(69), "{stderr}");
    assert!(stderr.contains(&address) && stderr.contains("another program has the port"));

    std::fs::write(dir.path().join("file"), "x").unwrap();
    let below = dir.path().join("file/data");
    let (code, stderr) = run(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &below.to_string_lossy(),
    ]);
    assert_eq!(code, Some(73), "{stderr}");
    assert!(
        stderr.contains("cannot be used") && stderr.contains("--data-dir"),
        "{stderr}"
    );
}

#[test]
fn what_fixes_the_queue_cannot_be_changed_later() {
    let dir = tempfile::tempdir().unwrap();
    let (status, _) = Millrace::start(dir.path(), &["queue.partitions=3"]).terminate();
    assert_eq!(status.code(), Some(0));
    let stderr = ended_by_itself(dir.path(), &["queue.partitions=5"]);
    assert!(
        stderr.contains('3') && stderr.contains('5') && stderr.contains("partitions"),
        "{stderr}"
    );
}

/// The server listens before it opens its data, so a refusal comes after the banner.
fn ended_by_itself(dir: &std::path::Path, set: &[&str]) -> String {
    let (status, stderr) = Millrace::spawn(dir, set).wait();
    assert_eq!(status.code(), Some(65), "{stderr}");
    stderr
}

#[test]
fn a_query_that_names_the_position_of_a_push_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let client = server.client();
    let now = now_ms();
    let time = format!("{:.3}", now as f64 / 1000.0);
    for round in 0..200 {
        let body = json!({"device": format!("d{}", round % 10), "timestamp": now, "fields": {"round": round}});
        let answer = client.post("/api/v1/push", &[], body.to_string());
        assert!(answer.status / 100 == 2, "{answer:?}");
        let position = answer.header("millrace-position").to_owned();
        let data = client.query_with(
            "max(round)",
            Some(&time),
            &[("millrace-read-after", &position)],
        );
        assert_eq!(vector(&data)["{}"], f64::from(round));
    }
    let answer = client
        .send(
            "GET",
            "/api/v1/query?query=1",
            &[("millrace-read-after", "nonsense")],
            Vec::new(),
        )
        .unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    let status = client.get("/api/v1/status/pipeline").json();
    let partitions = status["data"]["partitions"].as_array().expect("an array");
    let total = |field: &str| {
        partitions
            .iter()
            .map(|p| p[field].as_u64().unwrap())
            .sum::<u64>()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(partitions.len(), processors.clamp(1, 8));
    assert!(total("end_offset") > 0, "{status}");
    assert_eq!(total("end_offset"), total("applied_offset"), "{status}");
    assert_eq!(total("lag_records"), 0, "{status}");
}

#[test]
fn a_restart_gives_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let small = ["store.memtable_max_age=200ms", "store.block_window=10m"];
    let server = Millrace::start(dir.path(), &small);
    let now = now_ms();
    let values = [1.5, -0.0, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2];
    let mut body = Vec::new();
    for minute in 0..60_i64 {
        for (i, value) in values.iter().enumerate() {
            let timestamp = now - minute * 60_000;
            body.push(json!({"device": format!("d{i}"), "timestamp": timestamp, "fields": {"v": value, "minute": minute}}));
        }
    }
    let answer = server
        .client()
        .post("/api/v1/push", &[], json!(body).to_string());
    assert!(answer.status / 100 == 2, "{answer:?}");
    let position = answer.header("millrace-position").to_owned();
    let (start, end) = (now / 1000 - 3600, now / 1000 + 1);
    let ask = |client: &Client| {
        let fresh = [("millrace-read-after", position.as_str())];
        (
            client.query_with("v[2h]", Some(&end.to_string()), &fresh),
            client.query_range(
                "sum by (device) (rate(minute[5m]))",
                &start.to_string(),
                &end.to_string(),
                "30",
            ),
            client.get("/api/v1/labels").text,
            client.get("/api/v1/label/device/values").text,
        )
    };
    let before = ask(&server.client());
    assert_eq!(matrix(&before.0).values().map(Vec::len).sum::<usize>(), 300);
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let server = Millrace::start(dir.path(), &small);
    assert_eq!(ask(&server.client()), before);
    server.kill();
    let server = Millrace::start(dir.path(), &small);
    assert_eq!(ask(&server.client()), before);
    // Above, all may have been sealed before the kill: once more with something that cannot be.
    assert_eq!(server.terminate().0.code(), Some(0));
    let unsealed = &small[1..];
    let server = Millrace::start(dir.path(), unsealed);
    let more = json!({"device": "d0", "timestamp": now, "fields": {"later": 1}}).to_string();
    let answer = server.client().post("/api/v1/push", &[], more);
    assert!(answer.status / 100 == 2, "{answer:?}");
    let position = answer.header("millrace-position").to_owned();
    let applied = [("millrace-read-after", position.as_str())];
    server.client().query_with("later", None, &applied);
    server.kill();
    let server = Millrace::start(dir.path(), unsealed);
    let metrics = server.client().get("/metrics").text;
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    };
    let read = sum("millrace_store_replay_records{");
    let replay = server.client().get("/api/v1/status/walreplay").json();
    assert!(read > 0.0, "{metrics}");
    assert_eq!(replay["data"]["max"].as_f64(), Some(read), "{replay}");
    assert_eq!(replay["data"]["current"], replay["data"]["max"]);
    assert_eq!(sum("millrace_store_replay_records_left{"), 0.0);
}

#[test]
fn sigterm_under_load_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let base = now_ms() - 60_000;
    let sent = Arc::new(AtomicU64::new(0));
    let pushers: Vec<_> = (0..4_i64)
        .map(|pusher| {
            let (client, stop, sent) = (server.client(), stop.clone(), sent.clone());
            thread::spawn(move || {
                let mut acked = Vec::new();
                for number in 0..i64::MAX {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let body = json!({"device": format!("p{pusher}"), "timestamp": base + number, "fields": {"n": number}});
                    match client.try_post("/api/v1/push", &[], body.to_string()) {
                        Ok(answer) if answer.status / 100 == 2 => acked.push(number),
                        Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                        // The listener is gone: the outcome of this one is unknown.
                        Err(_) => break,
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                }
                acked
            })
        })
        .collect();
    eventually("load", Duration::from_secs(30), || {
        let sent = sent.load(Ordering::SeqCst);
        (sent > 400).then_some(()).ok_or(format!("{sent} requests"))
    });
    let (status, stderr) = server.terminate();
    stop.store(true, Ordering::SeqCst);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("stopped"), "{stderr}");
    let server = Millrace::start(dir.path(), &[]);
    let end = format!("{:.3}", now_ms() as f64 / 1000.0);
    for (pusher, acked) in pushers.into_iter().enumerate() {
        let acked = acked.join().unwrap();
        let expression = format!("n{{device=\"p{pusher}\"}}[10m]");
        let stored = matrix(&server.client().query(&expression, Some(&end)));
        let stored: Vec<i64> = stored
            .into_values()
            .flatten()
            .map(|(_, v)| v as i64)
            .collect();
        let lost: Vec<_> = acked
            .iter()
            .filter(|n| stored.binary_search(n).is_err())
            .collect();
        assert!(
            lost.is_empty(),
            "pusher {pusher}: {} lost: {lost:?}",
            lost.len()
        );
        assert!(
            stored.len() <= acked.len() + 1,
            "pusher {pusher} stored more than it sent"
        );
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &["server.shutdown_timeout=1h"]);
    // A request whose body never comes holds the drain.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stuck = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(
        &mut stuck,
        b"POST /api/v1/push HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
    )
    .unwrap();
    // An answer to a later request proves that the head above was read.
    let client = server.client();
    assert_eq!(client.get("/-/ready").status, 200);
    server.signal(Signal::INT);
    eventually("the end of listening", Duration::from_secs(10), || {
        match std::net::TcpStream::connect(address) {
            Ok(_) => Err("it still listens".to_owned()),
            Err(_) => Ok(()),
        }
    });
    server.signal(Signal::INT);
    let (status, stderr) = server.wait();
    assert_eq!(status.code(), Some(130), "{stderr}");
}

#[test]
fn the_demo_gives_something_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let run = |args: &[&str]| {
        let mut command = Millrace::command();
        let output = command
            .args(args)
            .args(["--url", &server.url])
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stdout, stderr)
    };
    let (code, stdout, stderr) = run(&[
        "demo",
        "--devices",
        "5",
        "--interval",
        "100ms",
        "--for",
        "500ms",
        "--backfill",
        "10m",
    ]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.starts_with("backfilled 800 samples of 5 devices\n"),
        "{stdout}"
    );
    assert!(
        stdout.ends_with("\n100 samples of 5 devices pushed\n"),
        "{stdout}"
    );
    eventually(
        "the last push to be visible",
        Duration::from_secs(10),
        || {
            let (code, stdout, stderr) =
                run(&["query", "count(count_over_time(temperature[1h]) == 45)"]);
            assert_eq!(code, Some(0), "{stderr}");
            if stdout == "{}  5\n" {
                Ok(())
            } else {
                Err(stdout)
            }
        },
    );
    let (_, stdout, _) = run(&[
        "query",
        "count by (site) (rate(flow_liters_total[5m]) >= 0)",
    ]);
    assert_eq!(stdout.lines().count(), 4, "{stdout}");
    let (code, _, stderr) = run(&["query", "sum("]);
    assert_eq!(code, Some(69));
    assert!(stderr.starts_with("millrace: bad_data: "), "{stderr}");
    let url = server.url.clone();
    server.kill();
    let output = Millrace::command()
        .args(["demo", "--url", &url])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr.contains("start the server first"), "{stderr}");
}

#[test]
fn answers_are_compressed_for_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let lines: String = (0..500).map(|i| format!("m,device=d{i} v={i}\n")).collect();
    let answer = server.client().post("/write", &[], lines);
    let position = answer.header("millrace-position").to_owned();
    let ask = |encoding: &'static str| {
        let client = server.client();
        let request = client.request(reqwest::Method::GET, "/api/v1/query?query=m_v");
        let request = request.header("millrace-read-after", &position);
        request.header("accept-encoding", encoding).send().unwrap()
    };
    let plain = ask("identity").bytes().unwrap();
    let compressed = ask("gzip");
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    let compressed = compressed.bytes().unwrap();
    assert!(
        compressed.len() * 4 < plain.len(),
        "{} of {}",
        compressed.len(),
        plain.len()
    );
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&compressed[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    // The two were asked at two moments.
    let result = |text: &[u8]| {
        let answer: serde_json::Value = serde_json::from_slice(text).unwrap();
        let items = answer["data"]["result"].as_array().unwrap().clone();
        let value =
            |item: &serde_json::Value| (item["metric"].to_string(), item["value"][1].clone());
        items.iter().map(value).collect::<Vec<_>>()
    };
    assert_eq!(result(text.as_bytes()).len(), 500);
    assert_eq!(result(text.as_bytes()), result(&plain));
}

#[test]
fn damage_is_named_and_nothing_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &["queue.partitions=1"]);
    let answer = server.client().post("/write", &[], "m,device=d v=1");
    assert_eq!(answer.status, 204);
    assert_eq!(server.terminate().0.code(), Some(0));
    let identity = dir.path().join("queue/identity");
    let mut bytes = std::fs::read(&identity).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&identity, bytes).unwrap();
    let stderr = ended_by_itself(dir.path(), &["queue.partitions=1"]);
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with("millrace: ") && last.contains("identity"),
        "{stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A limit on the size of files is a disk that refuses to take more.
#[test]
fn a_disk_that_refuses_is_answered_503_and_costs_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start_with_file_limit(dir.path(), 256, &["queue.partitions=1"]);
    let client = server.client();
    let base = now_ms() - 600_000;
    let mut acked = Vec::new();
    let refusal = eventually("the first refusal", Duration::from_secs(60), || {
        let number = acked.len() as i64;
        let body = json!({"device": "d", "timestamp": base + number, "fields": {"n": number}, "tags": {"pad": "x".repeat(2000)}});
        let answer = client.post("/api/v1/push", &[], body.to_string());
        if answer.status == 200 {
            acked.push(number);
            return Err(format!("{number} were taken"));
        }
        Ok(answer)
    });
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert!(refusal.headers.contains_key("retry-after"), "{refusal:?}");
    assert!(acked.len() > 50, "{} were taken", acked.len());
    eventually("the end of readiness", Duration::from_secs(10), || {
        let answer = client.get("/-/ready");
        if answer.status == 503 && answer.text.starts_with("millrace is out of order: ") {
            Ok(())
        } else {
            Err(answer.text)
        }
    });
    assert_eq!(client.get("/-/healthy").status, 200);
    assert_eq!(client.get("/api/v1/query?query=n").status, 200);
    let stderr = server.kill();
    assert!(
        stderr.contains("File too large"),
        "the log names the cause: {stderr}"
    );
    let server = Millrace::start(dir.path(), &["queue.partitions=1"]);
    let end = format!("{:.3}", now_ms() as f64 / 1000.0);
    let stored = matrix(&server.client().query("n[20m]", Some(&end)));
    let stored: Vec<i64> = stored
        .into_values()
        .flatten()
        .map(|(_, v)| v as i64)
        .collect();
    assert_eq!(stored[..acked.len()], acked[..]);
    assert!(
        stored.len() <= acked.len() + 1,
        "{} of {}",
        stored.len(),
        acked.len()
    );
}
