//! Answers in which rollups stand for samples are those of the samples: random queries to the real binary, each
//! with and without, compared as text.

use crate::support::{Client, Millrace, Rng, escape, eventually, now_ms};
use serde_json::Value;
use std::time::Duration;

const HOUR: i64 = 3_600_000;
const DAYS: i64 = 3;
const SERIES: usize = 12;

/// Everything is sealed at once, and so into blocks that lie one behind the other.
const SETTINGS: &[&str] = &["queue.partitions=2", "store.memtable_max_age=1s"];

#[test]
fn answers_with_rollups_allowed_equal_answers_from_samples() {
    let (mut rng, _seed) = Rng::from_environment("planner");
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), SETTINGS);
    let client = server.client();
    let end = now_ms().div_euclid(HOUR) * HOUR;
    let begin = end - DAYS * 24 * HOUR;
    push(&client, &mut rng, begin, end);
    eventually("blocks", Duration::from_secs(60), || {
        let status = client.get("/api/v1/status/tsdb/blocks");
        let blocks = status.json()["data"]["blocks"]
            .as_array()
            .map_or(0, Vec::len);
        (blocks >= DAYS as usize)
            .then_some(())
            .ok_or(format!("{blocks} blocks: {}", status.text))
    });
    // Late data lie over some of the blocks, and in the memtable: there rollups do not say all.
    let late: String = (0..40)
        .map(|i| {
            format!(
                "g{{series=\"{}\"}} {i} {}\n",
                i % 3,
                begin + i * HOUR + 60_000
            )
        })
        .collect();
    pushed(&client, late);

    let mut from_rollups = 0;
    for _ in 0..200 {
        let query = random_query(&mut rng, begin, end);
        let samples = ask(&client, &query, "raw");
        let any = ask(&client, &query, "any");
        assert_eq!(any["data"], samples["data"], "{query}");
        assert_eq!(
            samples["explain"]["rollups"],
            Value::Array(Vec::new()),
            "{query}"
        );
        from_rollups += usize::from(any["explain"]["rollups"][0]["series"].as_u64() > Some(0));
    }
    println!("planner: {from_rollups} of 200 answers had rollups in them, all are equal");
    assert!(
        from_rollups > 30,
        "{from_rollups} of 200 were answered from rollups"
    );
    let wrong = client
        .send(
            "GET",
            "/api/v1/query?query=up",
            &[("x-millrace-source", "best")],
            Vec::new(),
        )
        .unwrap();
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert!(wrong.text.contains("neither"), "{wrong:?}");
}

/// Gauges and counters, some scraped on the second and some not, with gaps, NaN, zeros of both signs and markers.
fn push(client: &Client, rng: &mut Rng, begin: i64, end: i64) {
    for series in 0..SERIES {
        let phase = [0, 0, 1_234][series % 3];
        let mut text = String::new();
        let (mut at, mut value) = (begin + phase, 0i64);
        while at < end {
            value = match series % 4 {
                0 => value + rng.between(0, 5) as i64,
                1 => rng.between(0, 100) as i64 - 50,
                2 => 0,
                _ => 7,
            };
            let written = match rng.between(0, 60) {
                0 => "NaN".to_owned(),
                1 => "-0".to_owned(),
                2 if series % 4 == 0 => {
                    value = 0;
                    "0".to_owned()
                }
                _ => format!("{value}.5").replace("0.5", "0"),
            };
            text.push_str(&format!("g{{series=\"{series}\"}} {written} {at}\n"));
            at += 15_000;
            if rng.between(0, 400) == 0 {
                at += 15_000 * rng.between(1, 500) as i64;
            }
        }
        pushed(client, text);
    }
}

fn pushed(client: &Client, text: String) {
    let answer = client.post("/api/v1/import/prometheus", &[], text);
    assert!(answer.status < 300, "{answer:?}");
}

fn random_query(rng: &mut Rng, begin: i64, end: i64) -> String {
    const FUNCTIONS: &[&str] = &[
        "count", "min", "max", "last", "present", "count", "min", "max", "last", "sum", "avg",
        "stddev",
    ];
    let pick = |rng: &mut Rng, of: &[i64]| of[rng.between(0, of.len() as u64 - 1) as usize];
    let function = FUNCTIONS[rng.between(0, FUNCTIONS.len() as u64 - 1) as usize];
    let minute = 60_000;
    let range = pick(
        rng,
        &[5 * minute, HOUR, HOUR, 3 * HOUR, 24 * HOUR, 7 * minute],
    );
    let step = pick(rng, &[5 * minute, HOUR, HOUR, 6 * HOUR, 11 * minute]);
    let off = pick(rng, &[0, 0, 0, 1, minute, 5 * minute]);
    let offset = match rng.between(0, 4) {
        0 => " offset 1h",
        1 => " offset 90s",
        _ => "",
    };
    let around = match rng.between(0, 4) {
        0 => ("max by (x) (", ")"),
        1 => ("sum(", ")"),
        2 => ("-", " + 1"),
        _ => ("", ""),
    };
    let start = begin + rng.between(0, 40) as i64 * HOUR + off;
    let until = (start + step * rng.between(0, 60) as i64).min(end);
    let expression = format!(
        "{}{function}_over_time(g{{series=~\"{}|1.\"}}[{range}ms]{offset}){}",
        around.0,
        rng.between(0, SERIES as u64 - 1),
        around.1
    );
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    format!(
        "query={}&start={}&end={}&step={}&explain=true",
        escape(&expression),
        seconds(start),
        seconds(until),
        seconds(step)
    )
}

fn ask(client: &Client, form: &str, source: &str) -> Value {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-millrace-source", source),
    ];
    let answer = client.post("/api/v1/query_range", &headers, form);
    assert_eq!(answer.status, 200, "{form}: {answer:?}");
    answer.json()
}
