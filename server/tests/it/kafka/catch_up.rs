//! A store that is away under load: it catches up, nothing is lost or twice, and ingest does not
//! notice.
//!
//! Once killed, once hanging. It is away for 4 s by default; `MILLRACE_STORE_AWAY_SECONDS=120` for
//! minutes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::partitions;
use crate::kill::client::{Clients, Protocol, Style, Target};
use crate::kill::ledger::Ledger;
use crate::support::kafka::Cluster;
use crate::support::{Client, Rng, eventually};

const CLIENTS: &[(Protocol, Style)] = &[
    (Protocol::RemoteWrite, Style::InOrder),
    (Protocol::RemoteWrite, Style::Disordered),
    (Protocol::Line, Style::InOrder),
];

/// A stretch of the run.
struct Phase {
    name: &'static str,
    from: Instant,
    to: Instant,
}

/// Lets the load go on for a while.
fn load(name: &'static str, lasts: Duration) -> Phase {
    let from = Instant::now();
    thread::sleep(lasts);
    let to = Instant::now();
    Phase { name, from, to }
}

/// The sum over all partitions of what the pipeline's status says.
fn sum(client: &Client, of: &str) -> u64 {
    let found = partitions(client);
    found.iter().filter_map(|p| p[of].as_u64()).sum()
}

/// How many records a store is behind that stands at `applied`, once there are enough of them.
fn left_behind(ingest: &Client, applied: u64) -> u64 {
    eventually("enough load", Duration::from_secs(60), || {
        let behind = sum(ingest, "end_offset").saturating_sub(applied);
        (behind > 50)
            .then_some(behind)
            .ok_or_else(|| format!("{behind} records behind"))
    })
}

/// Waits, under load, until the store is hardly behind; how long that took.
fn caught_up(client: &Client, away: Duration) -> Duration {
    let begun = Instant::now();
    let patience = away * 4 + Duration::from_secs(60);
    eventually("the store to catch up", patience, || {
        // One that has just started knows of no partition yet.
        let running = partitions(client).len() == 2;
        let behind = sum(client, "lag_records");
        (running && behind <= 50)
            .then_some(())
            .ok_or(format!("{behind} records behind"))
    });
    begun.elapsed()
}

fn p99(ledgers: &[Ledger], phase: &Phase) -> (usize, Duration) {
    let latencies = ledgers.iter().flat_map(|ledger| ledger.latencies.iter());
    let inside = latencies.filter(|(at, _)| (phase.from..phase.to).contains(at));
    let mut took: Vec<Duration> = inside.map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = (took.len().max(1) - 1) * 99 / 100;
    let p99 = took.get(at).copied();
    (
        took.len(),
        p99.unwrap_or_else(|| panic!("nothing acknowledged while {}", phase.name)),
    )
}

#[test]
fn a_store_that_was_away_catches_up_and_ingest_does_not_notice() {
    let away = std::env::var("MILLRACE_STORE_AWAY_SECONDS").map_or(4, |text| {
        text.parse()
            .expect("MILLRACE_STORE_AWAY_SECONDS is a number")
    });
    let away = Duration::from_secs(away);
    let (_, seed) = Rng::from_environment("catch-up");
    let topic = Cluster::shared().topic("catch-up").create(2, 1);
    let dir = tempfile::tempdir().unwrap();
    let ingest = topic.start(&dir.path().join("none"), &["roles=ingest"]);
    let data = dir.path().join("data");
    let settings = ["roles=store,query"];
    let store = topic.start(&data, &settings);
    let target = Arc::new(Target::default());
    target.serve(&ingest.url);
    let clients = Clients::start(CLIENTS, seed, &target);

    let mut phases = vec![load("the store is there", away)];
    let mut said = Vec::new();
    let applied = sum(&store.client(), "applied_offset");
    store.kill();
    phases.push(load("the store is dead", away));
    let behind = left_behind(&ingest.client(), applied);
    let store = topic.spawn(&data, &settings);
    said.push(("dead", behind, caught_up(&store.client(), away)));
    let applied = sum(&store.client(), "applied_offset");
    store.signal(Signal::STOP);
    phases.push(load("the store hangs", away));
    let behind = left_behind(&ingest.client(), applied);
    store.signal(Signal::CONT);
    said.push(("hanging", behind, caught_up(&store.client(), away)));
    let ledgers = clients.ledgers();
    super::wait_applied(&store.client());
    for ledger in &ledgers {
        ledger.check(&store.client());
    }

    let acked: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    let (_, with) = p99(&ledgers, &phases[0]);
    for phase in &phases {
        let (writes, p99) = p99(&ledgers, phase);
        println!(
            "catch-up: {}: {writes} writes acknowledged, p99 {p99:?}",
            phase.name
        );
        // Processors are shared with whatever else runs; a store in ingest's way would show as a
        // multiple: what really waits for it waits for as long as it is away.
        let most = with * 3 + away / 2;
        assert!(
            p99 < most,
            "{}: {p99:?} against {with:?} with it",
            phase.name
        );
    }
    for (how, behind, took) in said {
        println!(
            "catch-up: {how} for {away:?}: {behind} records behind, under load caught up after {took:?}"
        );
    }
    println!("catch-up: {acked} samples acknowledged, each there once");
}
