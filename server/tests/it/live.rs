//! The live feed of the real binary: many subscribers, one of which stalls, while the server is killed, stopped
//! and started again under load. Whoever goes on from its last event has seen each change exactly once.
//!
//! 1,000 subscribers and two restarts by default; `MILLRACE_SUBSCRIBERS` and `MILLRACE_LIVE_RESTARTS` for more.

mod push;
mod subscriber;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Millrace, eventually};
use push::{DEVICES, Pushing};
use subscriber::{Kind, Seen, Target};

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

const SETTINGS: &[&str] = &[
    "queue.partitions=2",
    "live.ring_bytes=16MiB",
    "live.reconnect=100ms",
    "live.max_subscribers=100000",
    "server.max_connections=10000",
    "server.max_connections_per_peer=10000",
    "ingest.limits.samples=1000000",
    // A slow machine takes long to fill the ring; the one that stalls is to be dropped for that, not cut off.
    "server.write_timeout=1h",
];

fn from_environment(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_subscriber_that_goes_on_has_seen_each_change_once() {
    let subscribers = from_environment("MILLRACE_SUBSCRIBERS", 1_000);
    let restarts = from_environment("MILLRACE_LIVE_RESTARTS", 2);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Millrace::start(dir.path(), SETTINGS);
    let target = Arc::new(Target::new(&server.url));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();

    let mut all = Vec::new();
    for i in 0..subscribers {
        let kind = if i % 50 == 0 {
            Kind::WebSocket
        } else {
            Kind::ServerSent
        };
        let device = i % DEVICES;
        let selector = format!("m{{device=\"d{device}\"}}");
        let seen = Arc::new(Seen::new(device));
        runtime.spawn(subscriber::listen(
            target.clone(),
            kind,
            selector,
            seen.clone(),
        ));
        all.push(seen);
    }
    let stalled = Arc::new(Seen::new(0));
    stalled.stall(true);
    let bulk = "bulk{device=\"d0\"}".to_owned();
    runtime.spawn(subscriber::listen(
        target.clone(),
        Kind::ServerSent,
        bulk,
        stalled.clone(),
    ));
    let listening = || {
        all.iter()
            .chain([&stalled])
            .filter(|seen| seen.hellos() > 0)
            .count()
    };
    eventually("all subscribers", PATIENCE, || {
        let there = listening();
        (there == subscribers + 1)
            .then_some(())
            .ok_or(format!("{there} are there"))
    });

    let pushing = Pushing::start(&target);
    // The ring has long gone on when the one that stalled reads again, and it is told so.
    eventually("a long stall", PATIENCE, || {
        let bulk = pushing.bulk_bytes();
        (bulk > 24 << 20)
            .then_some(())
            .ok_or(format!("{bulk} bytes were pushed"))
    });
    stalled.stall(false);
    eventually("the marker", PATIENCE, || {
        (stalled.dropped() > 0)
            .then_some(())
            .ok_or(format!("{stalled:?}"))
    });
    pushing.no_more_bulk();

    for restart in 0..restarts {
        pushing.wait_for(30);
        eventually("all subscribers again", PATIENCE, || {
            let back = all.iter().filter(|seen| seen.hellos() > restart as u64);
            let there = back.count();
            (there == subscribers)
                .then_some(())
                .ok_or(format!("{there} are there"))
        });
        target.gone();
        if restart % 2 == 0 {
            let stderr = server.kill();
            assert!(!stderr.contains(" ERROR "), "{stderr}");
        } else {
            let (status, stderr) = server.terminate();
            assert_eq!(status.code(), Some(0), "{stderr}");
            // One that was just coming back is told nothing.
            eventually("goodbyes", PATIENCE, || {
                let told = all.iter().filter(|seen| seen.goodbyes() > 0).count();
                (told * 10 > subscribers * 9)
                    .then_some(())
                    .ok_or(format!("{told} were told goodbye"))
            });
        }
        server = Millrace::start(dir.path(), SETTINGS);
        target.serve(&server.url);
    }
    pushing.wait_for(30);
    let acknowledged = pushing.stop();

    // What is in the store is what everybody must have seen, and holds all that was acknowledged.
    let stored = values(&server, "m[1h]");
    for (device, number) in &acknowledged {
        assert!(
            stored[device].contains_key(number),
            "{number} of {device} is not stored"
        );
    }
    let bulk = values(&server, "bulk[1h]");
    for (seen, expect) in all
        .iter()
        .map(|seen| (seen, &stored))
        .chain([(&stalled, &bulk)])
    {
        let expect = &expect[&seen.device];
        eventually("the last change", PATIENCE, || {
            let counts = seen.counts();
            (counts.len() >= expect.len())
                .then_some(())
                .ok_or(format!("{seen:?}"))
        });
        assert!(seen.counts() == *expect, "not each change once: {seen:?}");
    }
    let metrics = server.client().get("/metrics").text;
    let gaps = metrics
        .lines()
        .find(|line| line.starts_with("millrace_live_gaps_total"));
    assert_eq!(gaps, Some("millrace_live_gaps_total 0"));
    let came_back = all
        .iter()
        .filter(|seen| seen.hellos() > restarts as u64)
        .count();
    println!(
        "live: {subscribers} subscribers, {restarts} restarts, {} changes each about, {came_back} came back \
         after each; the one that stalled was dropped {} times; each change seen once",
        stored[&0].len(),
        stalled.dropped(),
    );
    assert_eq!(came_back, subscribers);
    runtime.shutdown_background();
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// The numbers that are stored of each device, each once.
fn values(server: &Millrace, expression: &str) -> BTreeMap<usize, BTreeMap<u64, u32>> {
    let data = server.client().query(expression, None);
    let mut found: BTreeMap<usize, BTreeMap<u64, u32>> = BTreeMap::new();
    for series in data["result"].as_array().unwrap() {
        let device = series["metric"]["device"].as_str().unwrap();
        let device = device[1..].parse().unwrap();
        let numbers = found.entry(device).or_default();
        for pair in series["values"].as_array().unwrap() {
            numbers.insert(pair[1].as_str().unwrap().parse().unwrap(), 1);
        }
    }
    found
}
