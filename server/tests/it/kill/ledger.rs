//! What a client sent, and what became of it.

use std::collections::BTreeMap;

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
        assert!(found.len() <= SERIES as usize, "{:?}", found.keys());

        let mut stored: BTreeMap<i64, (String, f64)> = BTreeMap::new();
        for (labels, samples) in found {
            for (timestamp, value) in samples {
                let before = stored.insert(timestamp, (labels.clone(), value));
                assert!(
                    before.is_none(),
                    "{timestamp} is there twice: {before:?} and {labels}"
                );
            }
        }
        for (number, outcome) in &self.outcomes {
            let sample = self.sample(*number);
            match stored.remove(&sample.timestamp) {
                Some((labels, value)) => {
                    assert_eq!(
                        value.to_bits(),
                        sample.value.to_bits(),
                        "client {} number {number}: {value} in place of {}",
                        self.client,
                        sample.value
                    );
                    let device = format!("\"device\":\"c{}-{}\"", self.client, sample.device);
                    assert!(labels.contains(&device), "number {number} is in {labels}");
                }
                None => assert_eq!(
                    *outcome,
                    Outcome::Unknown,
                    "client {} number {number} at {} was acknowledged and is lost",
                    self.client,
                    sample.timestamp
                ),
            }
        }
        assert!(
            stored.is_empty(),
            "client {}: never sent: {stored:?}",
            self.client
        );
    }
}
