//! The simulated devices: pumps at a few sites, each with a temperature, a pressure, a running flag
//! and a flow counter.

use std::time::Duration;

use serde_json::{Value, json};

const SITES: [&str; 4] = ["north", "south", "east", "west"];

/// Ambient temperature that a resting pump cools down to, and what a running one warms up to.
const RESTING_CELSIUS: f64 = 18.0;
const RUNNING_CELSIUS: f64 = 64.0;

/// All devices.
#[derive(Debug)]
pub struct Fleet {
    pumps: Vec<Pump>,
}

impl Fleet {
    /// `devices` pumps; the same number gives the same fleet.
    #[must_use]
    pub fn new(devices: u32) -> Self {
        Self {
            pumps: (0..devices).map(Pump::new).collect(),
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        for pump in &mut self.pumps {
            pump.advance(by.as_secs_f64());
        }
    }

    /// One reading of each device, as the push endpoint takes it.
    pub fn read(&self, at_ms: i64, readings: &mut Vec<Value>) {
        readings.extend(self.pumps.iter().map(|pump| pump.read(at_ms)));
    }
}

#[derive(Debug)]
struct Pump {
    name: String,
    site: &'static str,
    random: Random,
    running: bool,
    celsius: f64,
    bar: f64,
    liters: f64,
}

impl Pump {
    fn new(number: u32) -> Self {
        let mut random = Random::new(u64::from(number));
        let running = random.unit() < 0.8;
        Self {
            name: format!("pump-{number}"),
            site: SITES[number as usize % SITES.len()],
            celsius: RESTING_CELSIUS + random.unit() * 30.0,
            bar: if running { 5.0 } else { 1.0 },
            liters: (random.unit() * 1e6).round(),
            running,
            random,
        }
    }

    fn advance(&mut self, seconds: f64) {
        // About one switch in ten minutes.
        if self.random.unit() < 1.0 - (-seconds / 600.0).exp() {
            self.running = !self.running;
        }
        let (celsius, bar) = if self.running {
            (RUNNING_CELSIUS, 5.0)
        } else {
            (RESTING_CELSIUS, 1.0)
        };
        // Warms and cools within minutes, builds pressure within seconds; both with some noise.
        self.celsius += (celsius - self.celsius) * (1.0 - (-seconds / 240.0).exp());
        self.celsius += self.random.signed() * 0.2;
        self.bar += (bar - self.bar) * (1.0 - (-seconds / 5.0).exp());
        self.bar = (self.bar + self.random.signed() * 0.05).max(0.0);
        if self.running {
            self.liters += (self.bar * 2.5 * seconds).max(0.0);
        }
    }

    fn read(&self, at_ms: i64) -> Value {
        let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
        json!({
            "device": self.name,
            "tags": {"site": self.site},
            "timestamp": at_ms,
            "fields": {
                "temperature": rounded(self.celsius, 10.0),
                "pressure_bar": rounded(self.bar, 100.0),
                "running": self.running,
                "flow_liters_total": rounded(self.liters, 10.0),
            },
        })
    }
}

/// SplitMix64: small, and good enough for scenery.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d69_6c6c_7261_6365)
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From -1 to 1.
    fn signed(&mut self) -> f64 {
        self.unit() * 2.0 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_plausible_and_counters_only_grow() {
        let mut fleet = Fleet::new(40);
        let mut last = vec![0.0; 40];
        let mut running = 0;
        for round in 0..1000 {
            fleet.advance(Duration::from_secs(15));
            let mut readings = Vec::new();
            fleet.read(round, &mut readings);
            for (reading, last) in readings.iter().zip(&mut last) {
                let field = |name: &str| reading["fields"][name].as_f64().unwrap();
                assert!((10.0..80.0).contains(&field("temperature")), "{reading}");
                assert!((0.0..7.0).contains(&field("pressure_bar")), "{reading}");
                assert!(field("flow_liters_total") >= *last, "{reading}");
                *last = field("flow_liters_total");
                running += usize::from(reading["fields"]["running"] == true);
            }
        }
        assert!((10_000..30_000).contains(&running), "{running}");
    }
}
