//! Bytes per sample of blocks, section by section, and how fast they are written and read, on data
//! like that of a fleet.
//!
//! `cargo run --release -p millrace-store --example block_sizes -- 24`

use std::error::Error;
use std::sync::OnceLock;
use std::time::Instant;

use millrace_log::fs::OsFs;
use millrace_model::{Labels, Offset, PartitionId, TenantId, TimeRange, TimestampMs};
use millrace_store::block::{BlockMeta, BlockReader, BlockWriter, Section};

const START_MS: i64 = 1_795_233_600_000;
/// Two hours, as the memtable is sealed; or what the first argument says, in hours: a day is what
/// compaction makes of it.
static WINDOW: OnceLock<i64> = OnceLock::new();

fn window_ms() -> i64 {
    *WINDOW.get_or_init(|| {
        let hours = std::env::args().nth(1).and_then(|a| a.parse().ok());
        hours.unwrap_or(2) * 3_600_000
    })
}

/// A small generator with a fixed seed (xorshift64*): the figures are to be repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About N(0, 1).
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

struct Series {
    labels: Labels,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

/// Makes the series of a data set.
type Make = fn(&mut Random) -> Result<Vec<Series>>;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Host metrics as the Time Series Benchmark Suite makes them: 10 integers that walk in 0 to 100,
/// every 10 s.
fn tsbs(random: &mut Random) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for host in 0..400 {
        for field in [
            "guest",
            "guest_nice",
            "idle",
            "iowait",
            "irq",
            "nice",
            "softirq",
            "steal",
            "system",
            "user",
        ] {
            let name = format!("cpu_usage_{field}");
            let (host_name, rack) = (format!("host_{host}"), format!("{}", host % 97));
            let labels = Labels::from_pairs([
                ("__name__", name.as_str()),
                ("hostname", &host_name),
                ("region", ["eu-west-1", "us-east-1", "ap-south-1"][host % 3]),
                (
                    "datacenter",
                    ["eu-west-1a", "us-east-1b", "ap-south-1a"][host % 3],
                ),
                ("rack", &rack),
                ("os", "Ubuntu16.04LTS"),
                ("arch", "x64"),
                ("team", ["SF", "NYC", "LON", "CHI"][host % 4]),
                ("service", "11"),
                ("service_version", "0"),
                ("service_environment", "production"),
            ])?;
            let mut state = 100.0 * random.unit();
            let timestamps: Vec<i64> = (0..window_ms() / 10_000)
                .map(|i| START_MS + i * 10_000)
                .collect();
            let values = timestamps.iter().map(|_| {
                state = (state + random.normal()).clamp(0.0, 100.0);
                state.trunc()
            });
            let values = values.collect();
            all.push(Series {
                labels,
                timestamps,
                values,
            });
        }
    }
    Ok(all)
}

/// What a node_exporter shows: two series of three stand still, the others count or are measured;
/// every 15 s, three scrapes of four on the millisecond.
fn node(random: &mut Random) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for instance in 0..20 {
        let jitter: Vec<i64> = (0..window_ms() / 15_000)
            .map(|i| {
                let off = random.next().is_multiple_of(4);
                let jitter = if off {
                    (1.5 * random.normal()) as i64
                } else {
                    0
                };
                START_MS + 1_000 + i * 15_000 + jitter
            })
            .collect();
        for metric in 0..500 {
            let name = format!(
                "node_metric_{:03}_{}",
                metric / 5,
                ["bytes", "total", "seconds", "info", "ratio"][metric / 5 % 5]
            );
            let (target, part) = (
                format!("10.0.3.{instance}:9100"),
                format!("part{}", metric % 5),
            );
            let labels = Labels::from_pairs([
                ("__name__", name.as_str()),
                ("instance", &target),
                ("job", "node"),
                ("device", &part),
            ])?;
            let mut state = (random.unit() * 1e6).trunc();
            let rate = 300.0 * random.unit();
            let kind = metric % 9;
            let values = jitter.iter().map(|_| {
                match kind {
                    0 => state += (rate + rate.sqrt() * random.normal()).max(0.0).trunc(),
                    1 => state = ((state * 100.0 + 20.0 * random.normal()).trunc()) / 100.0,
                    2 if random.next().is_multiple_of(10) => {
                        state += (4_096.0 * random.normal()).trunc()
                    }
                    _ => {}
                }
                state
            });
            let values = values.collect();
            all.push(Series {
                labels,
                timestamps: jitter.clone(),
                values,
            });
        }
    }
    Ok(all)
}

/// Devices with a few decimal readings, every 5 s give or take 2 s, all of a device at one moment.
fn iot(random: &mut Random) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    for device in 0..500 {
        let mut timestamps: Vec<i64> = Vec::new();
        let mut moment = START_MS as f64;
        while moment < (START_MS + window_ms()) as f64 {
            timestamps.push(moment as i64);
            moment += (5_000.0 + 2_000.0 * random.normal()).max(1.0);
        }
        timestamps.dedup();
        // Name, range, step, decimals.
        for (field, low, high, step, decimals) in [
            ("temperature", -20.0, 90.0, 0.2, 2),
            ("pressure", 0.5, 12.0, 0.05, 3),
            ("vibration", 0.0, 4.0, 0.2, 4),
            ("flow", 0.0, 400.0, 2.0, 1),
            ("power", 0.0, 7_500.0, 40.0, 0),
            ("running", 0.0, 1.0, 0.05, 0),
        ] {
            let (name, site) = (format!("pump-{device}"), format!("site-{}", device % 40));
            let line = format!("{}", device % 7);
            let labels = Labels::from_pairs([
                ("__name__", format!("readings_{field}").as_str()),
                ("device", &name),
                ("site", &site),
                ("line", &line),
            ])?;
            let power = 10f64.powi(decimals);
            let mut state: f64 = low + (high - low) * random.unit();
            let values = timestamps.iter().map(|_| {
                state = (state + step * random.normal()).clamp(low, high);
                (state * power).round() / power
            });
            let values = values.collect();
            all.push(Series {
                labels,
                timestamps: timestamps.clone(),
                values,
            });
        }
    }
    Ok(all)
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sets: [(&str, Make); 3] = [("tsbs", tsbs), ("node", node), ("iot", iot)];
    println!(
        "| set | series | samples | chunks | rollups | series pages | labels | postings | directory | total | write ns | read ns | verify ns |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (name, make) in sets {
        let mut series = make(&mut Random(0x9e37_79b9_7f4a_7c15))?;
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let fs = OsFs;
        let path = dir.path().join(name);
        let tenant = TenantId::anonymous();
        let start = Instant::now();
        let mut writer = BlockWriter::new(&fs, &path);
        for Series {
            labels,
            timestamps,
            values,
        } in &series
        {
            writer.push(&tenant, labels, timestamps, values)?;
        }
        let summary = writer.finish(BlockMeta {
            partition: PartitionId(0),
            window: TimeRange::new(START_MS, START_MS + window_ms() - 1),
            offsets: (Offset(0), Offset(1)),
            created_at: TimestampMs(START_MS),
        })?;
        let per_sample = |ns: u128| ns as f64 / summary.samples as f64;
        let written = per_sample(start.elapsed().as_nanos());
        let block = BlockReader::open(&fs, &path)?;
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let mut samples = 0;
        for found in block.select(&tenant, &[], TimeRange::ALL)? {
            timestamps.clear();
            values.clear();
            block.read(&found.place, TimeRange::ALL, &mut timestamps, &mut values)?;
            samples += timestamps.len() as u64;
        }
        assert_eq!(samples, summary.samples);
        let read = per_sample(start.elapsed().as_nanos());
        let start = Instant::now();
        block.verify()?;
        let verified = per_sample(start.elapsed().as_nanos());
        let bytes = |section: Section| {
            summary.section_bytes[section as usize] as f64 / summary.samples as f64
        };
        println!(
            "| {name} | {} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | **{:.3}** | {written:.1} | {read:.1} | {verified:.1} |",
            summary.series,
            summary.samples,
            bytes(Section::Chunks),
            bytes(Section::Rollups),
            bytes(Section::Series),
            bytes(Section::Labels),
            bytes(Section::Postings),
            bytes(Section::Directory),
            summary.bytes as f64 / summary.samples as f64,
        );
    }
    Ok(())
}
