//! kill -9 under load, with a ledger.
//!
//! Clients number their samples and put (client, number) into the value. Whatever was acknowledged
//! must be there at the end, once and bit for bit; whatever is there must have been sent. The
//! process dies at random moments, during its start too; memtables, WAL and queue are set so small
//! that sealing, WAL removal and queue retention happen all the time.
//!
//! 25 kills by default; `MILLRACE_KILLS=120` for the full run. kill -9 keeps the page cache: power
//! loss is what the crash enumeration of `log` and `store` is for.

pub mod client;
pub mod ledger;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Millrace, Rng, eventually};
use client::{Clients, Protocol, Style, Target};
use ledger::Ledger;

/// Small enough that everything that a long life does happens between two kills.
const SMALL: &[&str] = &[
    "queue.partitions=2",
    "queue.segment_bytes=64KiB",
    "queue.retention_age=1s",
    "queue.retention_bytes=128KiB",
    "store.memtable_bytes=1MiB",
    "store.memtable_max_age=300ms",
    "store.wal_segment_bytes=64KiB",
    "store.block_window=1m",
    "log.level=info",
];

/// Views over all that the clients send.
const VIEWS: &str = "\
    [[view]]\nname = 'ledger'\nselector = 'ledger'\nby = ['client']\nwidth = '1s'\n\
    aggregates = ['count', 'sum', 'max']\n\
    [[view]]\nname = 'devices'\nselector = 'ledger'\nwithout = ['client']\nwidth = '1m'\n\
    aggregates = ['count', 'last', 'quantile', 'increase']\nquantiles = [0.5]\n";

const CLIENTS: &[(Protocol, Style)] = &[
    (Protocol::RemoteWrite, Style::InOrder),
    (Protocol::RemoteWrite, Style::Disordered),
    (Protocol::Line, Style::InOrder),
    (Protocol::Json, Style::Disordered),
    (Protocol::Json, Style::GivesUp),
    (Protocol::Line, Style::GivesUp),
];

#[test]
fn killed_at_random_moments_nothing_acknowledged_is_lost() {
    let kills: u32 = std::env::var("MILLRACE_KILLS")
        .map_or(25, |text| text.parse().expect("MILLRACE_KILLS is a number"));
    let (mut rng, seed) = Rng::from_environment("kill");
    let dir = tempfile::tempdir().unwrap();
    let views = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(views.path(), VIEWS).unwrap();
    let views = format!("views.file={}", views.path().display());
    let small: Vec<&str> = SMALL.iter().copied().chain([views.as_str()]).collect();
    // Old enough that no client ever reaches the present, and with it the bound on the future.
    let target = Arc::new(Target::default());

    let clients = Clients::start(CLIENTS, seed, &target);

    let started = Instant::now();
    let during_start = kill_again_and_again(dir.path(), &small, kills, &target, &mut rng);
    clients.stop();
    let server = Millrace::start(dir.path(), &small);
    target.serve(&server.url);
    let ledgers = clients.ledgers();
    let took = started.elapsed();

    let acked: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    let unknown: usize = ledgers.iter().map(Ledger::unknown).sum();
    for ledger in &ledgers {
        ledger.check(&server.client());
    }
    traces_of_a_long_life(dir.path());
    until_derived(&server);
    for ledger in &ledgers {
        ledger.check_views(&server.client());
    }
    println!(
        "kill: {kills} kills ({during_start} of them during a start) in {took:?}; {acked} samples \
         acknowledged, {unknown} of unknown outcome; every acknowledged one is there once"
    );
    assert!(
        acked > 100 * kills as usize,
        "too little load to prove anything: {acked}"
    );

    // Once more from the disk alone, after an orderly end.
    let (status, stderr) = server.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let server = Millrace::start(dir.path(), &small);
    for ledger in &ledgers {
        ledger.check(&server.client());
        ledger.check_views(&server.client());
    }
}

/// Waits until all that is in blocks is derived.
fn until_derived(server: &Millrace) {
    let client = server.client();
    eventually("the views are derived", Duration::from_secs(120), || {
        let views = client.get("/api/v1/views").json()["data"]["views"].clone();
        let mut all = views.as_array().expect("a list").iter();
        let ready = all.all(|view| {
            let progress = &view["progress"];
            progress["done"] == true && progress["derived"].as_u64() > Some(0)
        });
        ready.then_some(()).ok_or_else(|| views.to_string())
    });
}

/// Returns how many of the kills hit a process that was not ready yet.
fn kill_again_and_again(
    dir: &Path,
    small: &[&str],
    kills: u32,
    target: &Target,
    rng: &mut Rng,
) -> u32 {
    let mut during_start = 0;
    for kill in 0..kills {
        let server = Millrace::spawn(dir, small);
        if rng.one_in(4) {
            thread::sleep(Duration::from_millis(rng.between(0, 40)));
            if server.client().get("/-/ready").status != 200 {
                during_start += 1;
            }
        } else {
            server.wait_ready();
            target.serve(&server.url);
            thread::sleep(Duration::from_millis(rng.between(50, 900)));
        }
        target.gone();
        if rng.one_in(8) {
            // In the middle of an orderly end.
            server.signal(rustix::process::Signal::TERM);
            thread::sleep(Duration::from_millis(rng.between(0, 30)));
        }
        let stderr = server.kill();
        for bad in [" ERROR ", "panicked"] {
            assert!(!stderr.contains(bad), "before kill {kill}:\n{stderr}");
        }
    }
    during_start
}

/// The run proves something about seals and retention only if there were some.
fn traces_of_a_long_life(dir: &Path) {
    let mut blocks = 0;
    for partition in ["0", "1"] {
        let names = |path: &str| -> Vec<String> {
            let path = dir.join(path);
            let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        blocks += names(&format!("store/{partition}/blocks")).len();
        let segments = names(&format!("queue/{partition}"));
        let first = segments.first().expect("a log has a segment");
        let digits: String = first.chars().take_while(char::is_ascii_hexdigit).collect();
        assert!(
            digits.chars().any(|digit| digit != '0'),
            "the queue still has its first segment: {segments:?}"
        );
    }
    assert!(blocks > 0, "nothing was ever sealed");
}
