//! What a client sent, and what became of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{Client, matrix};

/// Series that a client spreads its samples over.
pub const SERIES: u64 = 7;

/// Distance of two samples of a client, in ms.
pub const STEP_MS: u64 = 5;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may or may not be there.
    Unknown,
    /// It must be there.
    Acknowledged,
}

/// One client's book.
pub struct Ledger {
    client: u32,
    base_ms: i64,
    outcomes: BTreeMap<u64, Outcome>,
    /// When each acknowledged request was sent, and how long it took.
    pub latencies: Vec<(Instant, Duration)>,
}

/// One sample: its series, its moment, its value.
#[derive(Clone, Copy, Debug)]
pub struct Numbered {
    pub device: u64,
    pub timestamp: i64,
    pub value: f64,
}

impl Ledger {
    pub fn new(client: u32, base_ms: i64) -> Self {
        Self {
            client,
            base_ms,
            outcomes: BTreeMap::new(),
            latencies: Vec::new(),
        }
    }

    /// The sample of that number. Exact in an f64, and none is like another.
    pub fn sample(&self, number: u64) -> Numbered {
        Numbered {
            device: number % SERIES,
            timestamp: self.base_ms + (number * STEP_MS) as i64,
            value: ((u64::from(self.client) << 40) + number) as f64 + 0.5,
        }
    }

    /// Notes the intent. IMPORTANT: before anything is sent.
    pub fn intend(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.outcomes.entry(*number).or_insert(Outcome::Unknown);
        }
    }

    /// Notes the acknowledgement.
    pub fn acknowledge(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.outcomes.insert(*number, Outcome::Acknowledged);
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.count(Outcome::Acknowledged)
    }

    pub fn unknown(&self) -> usize {
        self.count(Outcome::Unknown)
    }

    fn count(&self, wanted: Outcome) -> usize {
        self.outcomes
            .values()
            .filter(|outcome| **outcome == wanted)
            .count()
    }

    /// Reads everything back: acknowledged ⊆ stored ⊆ intended, each once, each bit for bit.
    pub fn check(&self, client: &Client) {
        let last = self.outcomes.keys().last().expect("something was sent");
        let end_ms = self.sample(*last).timestamp;
        let span_s = (end_ms - self.base_ms) / 1000 + 2;
        let expression = format!("ledger{{client=\"{}\"}}[{span_s}s]", self.client);
        let time = format!("{:.3}", end_ms as f64 / 1000.0);
        let found = matrix(&client.query(&expression, Some(&time)));
        if let Err(difference) = self.compare(found) {
            panic!("client {}: {difference}", self.client);
        }
    }

    /// Compares the views with what is stored, which `check` has compared with the book: each second's count
    /// and sum in closed form, and the whole count of the other view.
    pub fn check_views(&self, client: &Client) {
        let last = self.outcomes.keys().last().expect("something was sent");
        let end_ms = self.sample(*last).timestamp;
        let span_s = (end_ms - self.base_ms) / 1000 + 62;
        // A whole minute, so that all buckets have ended.
        let time = ((end_ms / 60_000 + 1) * 60).to_string();
        let ask = |expression: &str| {
            let of = format!("{expression}[{}s]", span_s + 60);
            let found = matrix(&client.query(&of, Some(&time)));
            found
                .into_values()
                .flatten()
                .collect::<BTreeMap<i64, f64>>()
        };
        let number = self.client;
        let raw = format!("ledger{{client=\"{number}\"}}[{}s]", span_s + 60);
        let raw = matrix(&client.query(&raw, Some(&time)));
        let mut expect: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
        for (timestamp, value) in raw.into_values().flatten() {
            let bucket = (timestamp + 999).div_euclid(1000) * 1000;
            let (count, sum) = expect.entry(bucket).or_default();
            // Exact: halves below 2^52.
            (*count, *sum) = (*count + 1.0, *sum + value);
        }
        assert!(!expect.is_empty(), "client {number}: nothing is stored");
        let counts: BTreeMap<_, _> = expect.iter().map(|(end, of)| (*end, of.0)).collect();
        let sums: BTreeMap<_, _> = expect.iter().map(|(end, of)| (*end, of.1)).collect();
        let of = |aggregate: &str| ask(&format!("view:ledger:{aggregate}{{client=\"{number}\"}}"));
        assert_eq!(of("count"), counts, "client {number}");
        assert_eq!(of("sum"), sums, "client {number}");
        let devices = format!("view:devices:count{{device=~\"c{number}-.*\"}}");
        let of = format!("{devices}[{}s]", span_s + 60);
        let found = matrix(&client.query(&of, Some(&time)));
        let all: f64 = found.into_values().flatten().map(|(_, value)| value).sum();
        assert_eq!(all, counts.values().sum::<f64>(), "client {number}");
    }

    fn compare(&self, found: BTreeMap<String, Vec<(i64, f64)>>) -> Result<(), String> {
        let mut stored: BTreeMap<i64, (String, f64)> = BTreeMap::new();
        for (labels, samples) in found {
            for (timestamp, value) in samples {
                if let Some(before) = stored.insert(timestamp, (labels.clone(), value)) {
                    return Err(format!("{timestamp} is in {labels} and in {before:?}"));
                }
            }
        }
        for (number, outcome) in &self.outcomes {
            let sample = self.sample(*number);
            let Some((labels, value)) = stored.remove(&sample.timestamp) else {
                if *outcome == Outcome::Acknowledged {
                    let at = sample.timestamp;
                    return Err(format!(
                        "number {number} at {at} was acknowledged and is lost"
                    ));
                }
                continue;
            };
            if value.to_bits() != sample.value.to_bits() {
                return Err(format!(
                    "number {number}: {value} in place of {}",
                    sample.value
                ));
            }
            let device = format!("\"device\":\"c{}-{}\"", self.client, sample.device);
            if !labels.contains(&device) {
                return Err(format!("number {number} is in {labels}"));
            }
        }
        if stored.is_empty() {
            Ok(())
        } else {
            Err(format!("never sent: {stored:?}"))
        }
    }
}

/// A check that cannot fail proves nothing.
#[test]
fn the_ledger_notices_what_is_wrong() {
    let mut ledger = Ledger::new(3, 1_000_000);
    ledger.intend(&[0, 1, 2, 3]);
    ledger.acknowledge(&[0, 1, 2]);
    type Found = BTreeMap<String, Vec<(i64, f64)>>;
    let found = |numbers: &[u64]| -> Found {
        let mut found = Found::new();
        for number in numbers {
            let sample = ledger.sample(*number);
            let labels = format!("{{\"device\":\"c3-{}\"}}", sample.device);
            let samples = found.entry(labels).or_default();
            samples.push((sample.timestamp, sample.value));
        }
        found
    };
    let check = |change: &dyn Fn(&mut Found), expect: &str| {
        let mut found = found(&[0, 1, 2]);
        change(&mut found);
        match ledger.compare(found) {
            Ok(()) => assert_eq!(expect, "", "nothing was noticed"),
            Err(difference) => assert!(difference.contains(expect), "{difference}"),
        }
    };
    let first = || "{\"device\":\"c3-0\"}".to_owned();
    check(&|_| {}, "");
    assert_eq!(
        ledger.compare(found(&[0, 1, 2, 3])),
        Ok(()),
        "an unknown outcome may be there"
    );
    check(
        &|found| drop(found.remove(&first())),
        "acknowledged and is lost",
    );
    check(
        &|found| found.get_mut(&first()).unwrap()[0].1 += 1.0,
        "in place of",
    );
    check(
        &|found| found.get_mut(&first()).unwrap().push((7, 7.0)),
        "never sent",
    );
    let moved = |found: &mut Found| {
        let samples = found.remove(&first()).unwrap();
        found.insert("{\"device\":\"c3-9\"}".to_owned(), samples);
    };
    check(&moved, "is in");
    let doubled = |found: &mut Found| {
        let samples = found[&first()].clone();
        found.insert("{\"device\":\"c3-9\"}".to_owned(), samples);
    };
    check(&doubled, "and in");
}
