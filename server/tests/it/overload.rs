//! Overload: far more than the server takes, from many connections at once, with bombs, clients that drip and
//! connections that come and go. `MILLRACE_OVERLOAD_SECONDS=120` makes it long.
//!
//! What must hold: memory stays within a budget that follows from the settings, and flat; whatever is refused for
//! want of room is 503 or 429 with `Retry-After`; nothing acknowledged is lost; soon afterwards everything is as before.

mod client;
mod figures;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, Millrace, eventually, now_ms};
use client::{Answer, Raw, Slow};
use figures::Memory;

/// Small, so that it does not take much to go beyond them.
const SETTINGS: [&str; 12] = [
    "ingest.decode_threads=1",
    "ingest.decode_queue=8",
    "ingest.decode_memory_bytes=48MiB",
    "ingest.series_cache_bytes=16MiB",
    "queue.max_batch_bytes=1MiB",
    "queue.max_pending_bytes=4MiB",
    "queue.retention_bytes=256MiB",
    "store.memtable_bytes=64MiB",
    "store.index_cache_bytes=8MiB",
    "server.header_timeout=3s",
    "server.body_timeout=2s",
    "log.level=error",
];

/// What these settings come to: 48 MiB of bodies, 16 of known series, 4 of what is pending, 8 of indexes, 64 of the memtable and as
/// much again while it is sealed and written, and 256 for the process itself, its buffers and what its allocator holds back.
const BUDGET_MIB: u64 = 48 + 16 + 4 + 8 + 2 * 64 + 256;

/// Connections that push, several times more than may wait.
const PUSHERS: usize = 64;
/// Series of each of them, all in each request.
const SERIES: usize = 1000;
/// Connections that drip.
const DRIPPING: usize = 40;
/// It has to be as before after this time.
const AFTERWARDS: Duration = Duration::from_secs(30);

fn length() -> Duration {
    let seconds = std::env::var("MILLRACE_OVERLOAD_SECONDS");
    let seconds = seconds.map_or(6, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// What all threads count.
#[derive(Debug, Default)]
struct Counts {
    over: AtomicBool,
    taken: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    bombs: AtomicU64,
    cut: AtomicU64,
    connected: AtomicU64,
    /// The first thing that must not be.
    wrong: Mutex<Option<String>>,
}

impl Counts {
    fn going(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().get_or_insert(what);
    }

    /// A refusal for want of room says when to come again.
    fn refusal(&self, answer: &Answer, allowed: &[u16]) {
        let busy = matches!(answer.status, 429 | 503);
        if busy && answer.retry_after.is_none_or(|seconds| seconds == 0) {
            self.wrong(format!("{} without Retry-After", answer.status));
        }
        if !busy && !allowed.contains(&answer.status) {
            self.wrong(format!("{}: {}", answer.status, answer.body));
        }
    }
}

/// A request of one pusher: all its series at one moment, which is its number.
fn body(pusher: usize, number: i64, start: i64) -> Vec<u8> {
    let mut lines = Vec::with_capacity(SERIES * 48);
    let at = start + number;
    for series in 0..SERIES {
        writeln!(lines, "load,host=p{pusher},n={series} value={number} {at}").unwrap();
    }
    lines
}

/// Pushes until it is over; the numbers that were acknowledged.
fn push(address: &str, pusher: usize, start: i64, counts: &Counts) -> Vec<i64> {
    let mut raw = Raw::new(address);
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while counts.going() {
        number += 1;
        match raw.post("/write?precision=ms", &[], &body(pusher, number, start)) {
            Ok(answer) if answer.status == 204 => {
                counts.taken.fetch_add(1, Ordering::Relaxed);
                acknowledged.push(number);
            }
            Ok(answer) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                counts.refusal(&answer, &[]);
            }
            Err(_) => {
                counts.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    acknowledged
}

/// Bodies that are small until somebody decodes them.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let zeros = vec![b'#'; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).unwrap();
    let zstd = zstd::stream::encode_all(zeros.as_slice(), 1).unwrap();
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd),
        (
            "snappy",
            snap::raw::Encoder::new().compress_vec(&zeros).unwrap(),
        ),
        ("snappy", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
    ]
}

fn bomb(address: &str, counts: &Counts) {
    let bombs = bombs();
    let mut raw = Raw::new(address);
    for (encoding, body) in bombs.iter().cycle() {
        if !counts.going() {
            return;
        }
        if let Ok(answer) = raw.post("/write", &[("content-encoding", encoding)], body) {
            counts.bombs.fetch_add(1, Ordering::Relaxed);
            counts.refusal(&answer, &[413]);
        }
    }
}

/// Heads and bodies of which a byte comes now and then.
fn drip(address: &str, counts: &Counts) {
    let mut slow: Vec<Slow> = (0..DRIPPING)
        .map(|i| Slow::new(address, i % 2 == 0))
        .collect();
    while counts.going() {
        for one in &mut slow {
            if one.drip() {
                counts.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Connections that are closed as soon as they are open.
fn connect(address: &str, counts: &Counts) {
    while counts.going() {
        if std::net::TcpStream::connect(address).is_ok() {
            counts.connected.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn under_overload_memory_is_bounded_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &SETTINGS);
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let start = now_ms() - 3_600_000;
    let capacity = capacity(&address, start);
    let (counts, memory) = (Arc::new(Counts::default()), Memory::of(server.pid()));

    let begun = Instant::now();
    let others: Vec<fn(&str, &Counts)> = vec![bomb, drip, connect];
    let (acknowledged, seconds) = std::thread::scope(|scope| {
        for other in others {
            let (address, counts) = (&address, &counts);
            scope.spawn(move || other(address, counts));
        }
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let (address, counts) = (&address, &counts);
                scope.spawn(move || push(address, pusher, start, counts))
            })
            .collect();
        memory.watch_for(length());
        counts.over.store(true, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let acknowledged: Vec<Vec<i64>> = pushers.into_iter().map(|p| p.join().unwrap()).collect();
        (acknowledged, seconds)
    });
    let stopped = Instant::now();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (taken, refused) = (count(&counts.taken), count(&counts.refused));
    let offered = (taken + refused) as f64 / seconds;
    println!(
        "{seconds:.0} s: {:.0} requests/s alone; {offered:.0} offered ({:.1} times), {:.0} taken; {refused} refused, {} unknown, \
         {} bombs, {} slow ones cut, {} connections that came and went; memory {memory}",
        capacity,
        offered / capacity,
        taken as f64 / seconds,
        count(&counts.unknown),
        count(&counts.bombs),
        count(&counts.cut),
        count(&counts.connected),
    );
    assert_eq!(*counts.wrong.lock().unwrap(), None);
    assert!(taken > 0, "nothing was taken");
    assert!(refused > 0, "nothing was refused: no overload");
    assert!(count(&counts.bombs) > 0, "no bomb was answered");
    assert!(count(&counts.cut) > 0, "no slow client was cut");
    memory.check(BUDGET_MIB, length());

    as_before(&address, stopped, start);
    let client = server.client();
    for (pusher, numbers) in acknowledged.iter().enumerate() {
        nothing_is_lost(&client, pusher, numbers);
    }
    let (status, stderr) = server.terminate();
    assert!(status.success(), "{stderr}");
}

/// Requests a second that a few connections alone get through.
fn capacity(address: &str, start: i64) -> f64 {
    let counts = Counts::default();
    let time = Duration::from_secs(2);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for pusher in 0..3 {
            let counts = &counts;
            scope.spawn(move || push(address, PUSHERS + 1 + pusher, start, counts));
        }
        std::thread::sleep(time);
        counts.over.store(true, Ordering::Relaxed);
    });
    assert_eq!(*counts.wrong.lock().unwrap(), None);
    counts.taken.into_inner() as f64 / begun.elapsed().as_secs_f64()
}

/// Before long, requests are taken one after another, each soon.
fn as_before(address: &str, stopped: Instant, start: i64) {
    const IN_A_ROW: i64 = 20;
    let mut raw = Raw::new(address);
    let mut number = 0;
    while stopped.elapsed() < AFTERWARDS {
        let row = number..number + IN_A_ROW;
        number = row.end;
        let good = row.into_iter().all(|number| {
            let sent = Instant::now();
            let answer = raw.post("/write?precision=ms", &[], &body(PUSHERS, number, start));
            answer.is_ok_and(|answer| answer.status == 204) && sent.elapsed().as_secs() < 1
        });
        if good {
            println!("as before after {:.1} s", stopped.elapsed().as_secs_f64());
            return;
        }
    }
    panic!("{AFTERWARDS:?} after the load had ended, requests are still refused or slow");
}

/// Every series of a pusher has every number that was acknowledged.
fn nothing_is_lost(client: &Client, pusher: usize, acknowledged: &[i64]) {
    let Some(last) = acknowledged.last() else {
        return;
    };
    // What was acknowledged is durable at once, and visible soon.
    let one = format!("load{{host=\"p{pusher}\",n=\"{}\"}}[2h]", SERIES - 1);
    let numbers = |data: &Value| -> BTreeSet<i64> {
        let values = data["result"][0]["values"].as_array();
        let number = |pair: &Value| pair[1].as_str().unwrap().parse().unwrap();
        values.into_iter().flatten().map(number).collect()
    };
    let stored = eventually(
        "the last acknowledged request",
        Duration::from_secs(60),
        || {
            let stored = numbers(&client.query(&one, None));
            if stored.contains(last) {
                Ok(stored)
            } else {
                Err(format!("{} numbers, not {last}", stored.len()))
            }
        },
    );
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|n| !stored.contains(n))
        .collect();
    assert!(
        lost.is_empty(),
        "pusher {pusher}: {lost:?} were acknowledged and are not there"
    );
    // And every other series has as many.
    let fewest = format!("min(count_over_time(load{{host=\"p{pusher}\"}}[2h]))");
    let fewest = client.query(&fewest, None);
    let fewest: f64 = fewest["result"][0]["value"][1]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        fewest >= acknowledged.len() as f64,
        "pusher {pusher}: {fewest}"
    );
}
