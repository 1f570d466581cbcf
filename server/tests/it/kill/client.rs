//! A client that writes down what it does.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ledger::{Ledger, Numbered};
use crate::support::{Client, Rng, now_ms, remote_write};

/// How long ago the first sample of a client is, in ms. 17 million samples of one client fit in between; behind
/// them it would write into the future, which is refused.
const BEGIN_BEFORE_MS: i64 = 24 * 3_600_000;

/// How it speaks.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    RemoteWrite,
    Line,
    Json,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Sends in order, and again until it is acknowledged.
    InOrder,
    /// The same, but what it sends is shuffled over several requests.
    Disordered,
    /// Sends in order, and forgets about what was not acknowledged.
    GivesUp,
}

/// Where the server is, if there is one.
#[derive(Default)]
pub struct Target {
    url: Mutex<Option<String>>,
    changed: Condvar,
}

impl Target {
    pub fn serve(&self, url: &str) {
        *self.url.lock().unwrap() = Some(url.to_owned());
        self.changed.notify_all();
    }

    pub fn gone(&self) {
        *self.url.lock().unwrap() = None;
    }

    fn wait(&self) -> String {
        let url = self.url.lock().unwrap();
        let url = self.changed.wait_while(url, |url| url.is_none()).unwrap();
        url.clone().expect("waited for")
    }
}

/// Clients that push side by side.
pub struct Clients {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<Ledger>>,
}

impl Clients {
    /// Each of its kind, numbered in their order. Their samples begin a day ago.
    pub fn start(kinds: &[(Protocol, Style)], seed: u64, target: &Arc<Target>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let base_ms = now_ms() - BEGIN_BEFORE_MS;
        let one = |(number, &(protocol, style)): (usize, &(Protocol, Style))| {
            let (target, stop) = (target.clone(), stop.clone());
            let rng = Rng::new(seed.wrapping_add(number as u64));
            thread::spawn(move || run(number as u32, protocol, style, base_ms, &target, &stop, rng))
        };
        let running = kinds.iter().enumerate().map(one).collect();
        Self { stop, running }
    }

    /// Tells them to begin nothing more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Their ledgers, once each has ended what it had begun. They are told to stop.
    pub fn ledgers(self) -> Vec<Ledger> {
        self.stop();
        let ends = self.running.into_iter();
        ends.map(|client| client.join().expect("a client does not panic"))
            .collect()
    }
}

/// Pushes until `stop`, then ends what it has begun.
fn run(
    client: u32,
    protocol: Protocol,
    style: Style,
    base_ms: i64,
    target: &Target,
    stop: &AtomicBool,
    mut rng: Rng,
) -> Ledger {
    let mut ledger = Ledger::new(client, base_ms);
    let mut next = 0_u64;
    let mut connection = Connection::default();
    while !stop.load(Ordering::SeqCst) {
        let mut numbers: Vec<u64> = (next..next + rng.between(20, 400)).collect();
        next += numbers.len() as u64;
        if style == Style::Disordered {
            rng.shuffle(&mut numbers);
        }
        for numbers in numbers.chunks(rng.between(10, 100) as usize) {
            ledger.intend(numbers);
            let samples: Vec<Numbered> = numbers.iter().map(|n| ledger.sample(*n)).collect();
            let request = request(client, protocol, &samples);
            loop {
                let begun = Instant::now();
                if let Some(took) = connection.send(target, &request) {
                    ledger.acknowledge(numbers);
                    ledger.latencies.push((begun, took));
                    break;
                }
                if style == Style::GivesUp {
                    break;
                }
            }
        }
    }
    ledger
}

struct Request {
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
}

#[derive(Default)]
struct Connection(Option<(String, Client)>);

impl Connection {
    /// How long it took until it was acknowledged, if it was.
    fn send(&mut self, target: &Target, request: &Request) -> Option<Duration> {
        let url = target.wait();
        let client = match &self.0 {
            Some((known, client)) if *known == url => client.clone(),
            _ => {
                let client = Client::new(&url);
                self.0 = Some((url.clone(), client.clone()));
                client
            }
        };
        let begun = Instant::now();
        match client.try_post(request.path, request.headers, request.body.clone()) {
            Ok(answer) if answer.status / 100 == 2 => Some(begun.elapsed()),
            Ok(answer) if answer.status == 503 => {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                std::thread::sleep(Duration::from_millis(20));
                None
            }
            Ok(answer) => panic!("{}: {answer:?}", request.path),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(5));
                None
            }
        }
    }
}

fn request(client: u32, protocol: Protocol, samples: &[Numbered]) -> Request {
    match protocol {
        Protocol::RemoteWrite => Request {
            path: "/api/v1/write",
            headers: remote_write::HEADERS,
            body: as_remote_write(client, samples),
        },
        Protocol::Line => Request {
            path: "/write?precision=ms",
            headers: &[],
            body: as_lines(client, samples).into_bytes(),
        },
        Protocol::Json => Request {
            path: "/api/v1/push",
            headers: &[("content-type", "application/json")],
            body: as_json(client, samples).to_string().into_bytes(),
        },
    }
}

fn device(client: u32, sample: &Numbered) -> String {
    format!("c{client}-{}", sample.device)
}

fn as_remote_write(client: u32, samples: &[Numbered]) -> Vec<u8> {
    let of_client = client.to_string();
    let series = samples.iter().map(|sample| {
        remote_write::series(
            &[
                ("__name__", "ledger"),
                ("client", &of_client),
                ("device", &device(client, sample)),
            ],
            &[(sample.timestamp, sample.value)],
        )
    });
    remote_write::body(series.collect())
}

fn as_lines(client: u32, samples: &[Numbered]) -> String {
    let mut lines = String::new();
    for sample in samples {
        writeln!(
            lines,
            "ledger,client={client},device={} value={} {}",
            device(client, sample),
            sample.value,
            sample.timestamp
        )
        .expect("a string takes everything");
    }
    lines
}

pub fn as_json(client: u32, samples: &[Numbered]) -> Value {
    samples
        .iter()
        .map(|sample| {
            json!({
                "device": device(client, sample),
                "tags": {"client": client.to_string()},
                "timestamp": sample.timestamp,
                "fields": {"ledger": sample.value},
            })
        })
        .collect()
}
