//! Random series: what devices and exporters really send, and what they had better not.

use millrace_model::stale_nan;

use crate::eval::{Data, Labels};
use crate::random::Random;
use crate::table::Table;

/// Distance of samples, in ms.
pub const INTERVAL_MS: i64 = 15_000;
/// Samples of a series that has all.
pub const SAMPLES: i64 = 80;

/// Series and the time that they cover.
#[derive(Clone, Debug)]
pub struct DataSet {
    pub data: Data,
    /// The first moment.
    pub base: i64,
}

impl DataSet {
    pub fn table(&self) -> Table {
        let mut table = Table::default();
        for (labels, samples) in &self.data {
            let pairs: Vec<_> = labels
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            table = table.with(&pairs, samples);
        }
        table
    }
}

/// How the values of a metric go.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Grows, and starts again from near zero.
    Counter,
    /// Wanders.
    Gauge,
    /// Small whole numbers, so that values meet.
    Steps,
    /// Every bit pattern that hurts.
    Odd,
}

/// A set of series. The same label values appear on several metrics, so that operators match.
pub fn generate(random: &mut Random) -> DataSet {
    // Around the epoch windows reach into negative time.
    let base = *random.pick(&[0, 1_700_000_000_000, -600_000, 1_700_000_007_123]);
    let mut data = Data::new();
    let mut add = |random: &mut Random, kind, pairs: &[(&str, &str)]| {
        if random.one_in(8) {
            return;
        }
        let labels: Labels = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let samples = samples(random, base, kind);
        if !samples.is_empty() {
            data.insert(labels, samples);
        }
    };
    for a in ["1", "2", "3"] {
        for b in ["x", "y"] {
            for (name, kind) in [
                ("c_total", Kind::Counter),
                ("g", Kind::Gauge),
                ("s", Kind::Steps),
                ("w", Kind::Odd),
            ] {
                add(random, kind, &[("__name__", name), ("a", a), ("b", b)]);
            }
        }
        add(random, Kind::Counter, &[("__name__", "d_total"), ("a", a)]);
        let zone = *random.pick(&["n", "m"]);
        add(
            random,
            Kind::Steps,
            &[("__name__", "o"), ("a", a), ("zone", zone)],
        );
    }
    add(random, Kind::Gauge, &[("__name__", "g"), ("a", "4")]);
    DataSet { data, base }
}

fn samples(random: &mut Random, base: i64, kind: Kind) -> Vec<(i64, f64)> {
    let jitter = *random.pick(&[0, 0, 0, 1, 700]);
    let phase = random.between(0, INTERVAL_MS - 1);
    let from = if random.one_in(4) {
        random.between(1, SAMPLES / 2)
    } else {
        0
    };
    let to = if random.one_in(4) {
        random.between(SAMPLES / 2, SAMPLES)
    } else {
        SAMPLES
    };
    let gaps = *random.pick(&[0, 0, 5, 12]);
    let marks = random.one_in(2);
    let mut samples = Vec::new();
    let mut value = first_value(random, kind);
    let mut gap = 0;
    for i in from..to {
        let t = base + phase + i * INTERVAL_MS + random.between(-jitter, jitter);
        value = next_value(random, kind, value);
        if gap > 0 {
            gap -= 1;
            continue;
        }
        if gaps > 0 && random.one_in(100 / gaps) {
            gap = random.between(1, 30);
            if marks {
                samples.push((t, stale_nan()));
                continue;
            }
        }
        samples.push((t, value));
    }
    samples
}

fn first_value(random: &mut Random, kind: Kind) -> f64 {
    match kind {
        Kind::Counter => *random.pick(&[0.0, 1.0, 1e6, 0.125]),
        Kind::Gauge => random.unit() * 200.0 - 100.0,
        Kind::Steps | Kind::Odd => 0.0,
    }
}

fn next_value(random: &mut Random, kind: Kind, value: f64) -> f64 {
    match kind {
        Kind::Counter if random.one_in(15) => random.unit() * 3.0,
        Kind::Counter if random.one_in(4) => value,
        Kind::Counter => value + (random.unit() * 64.0).floor() / 8.0,
        Kind::Gauge => value + random.unit() * 10.0 - 5.0,
        Kind::Steps => random.between(-3, 3) as f64,
        Kind::Odd => *random.pick(&[
            0.0,
            -0.0,
            1.0,
            -1.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            f64::from_bits(0x7ff8_dead_beef_0001),
            f64::from_bits(0xfff0_0000_0000_0001),
            f64::MIN_POSITIVE,
            5e-324,
            1e300,
            -1e300,
            9_007_199_254_740_993.0,
        ]),
    }
}
