//! The same samples for all servers, made while they are sent: a fleet over hours is more than
//! should be held at once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::client::{Client, percent_encode};
use crate::encode::Protocol;
use crate::fleet::{Fleet, Profile};
use crate::values::Random;
use crate::wire;

/// The millisecond of a second at which queries are asked and nothing is measured, so that no sample
/// lies exactly on the edge of a window: there Prometheus 2 and 3 differ.
pub const PHASE_MS: i64 = 137;
/// Steps of a series in one request: ten minutes of a fleet that is measured every ten seconds.
/// Prometheus refuses what is an hour behind its newest sample, so series cannot come one by one.
const STEPS_AT_ONCE: u64 = 60;
/// Samples in one request, about.
const SAMPLES_PER_REQUEST: usize = 20_000;
/// Longest wait until all samples can be queried.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Which fleet.
    pub profile: Profile,
    /// Hosts, targets, devices or pods.
    pub targets: usize,
    /// Measurements of each.
    pub steps: u64,
    /// Seed of all values.
    pub seed: u64,
    /// Between two samples of a series, if not as the fleet has it.
    pub interval_ms: Option<i64>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Fed {
    /// Number of series.
    pub series: usize,
    /// Number of samples.
    pub samples: u64,
    /// The first moment of a measurement, in ms.
    pub start_ms: i64,
    /// The last one.
    pub end_ms: i64,
    /// Between two.
    pub interval_ms: i64,
    /// A metric with samples of all targets, and how many.
    check: (String, u64),
}

/// Sends everything to all of `urls`. The last measurement is before `end_ms`.
pub fn feed(load: &Load, end_ms: i64, urls: &[String]) -> Result<Fed> {
    let mut random = Random::new(load.seed);
    let mut fleet = Fleet::new(load.profile, load.targets, &mut random);
    let interval_ms = load.interval_ms.unwrap_or(fleet.interval_ms);
    let last_ms = end_ms - fleet.jitter_ms - (end_ms - fleet.jitter_ms).rem_euclid(interval_ms);
    let start_ms = last_ms - interval_ms * (load.steps as i64 - 1);
    let series = fleet.series();
    let labels: Vec<Vec<u8>> = labels(&fleet);
    let first = &fleet.targets[0].groups[0];
    let metric = Protocol::RemoteWrite.series_name(first, &first.fields[0].name);
    let of_metric = names(&fleet).filter(|name| *name == metric).count() as u64;
    let mut clients = urls
        .iter()
        .map(|url| Client::new(url))
        .collect::<Result<Vec<_>>>()?;
    let (mut body, mut held) = (Vec::new(), 0);
    let mut samples = Vec::new();
    for from in (0..load.steps).step_by(STEPS_AT_ONCE as usize) {
        let steps = from..(from + STEPS_AT_ONCE).min(load.steps);
        let fields = fleet.targets.iter_mut().flat_map(|t| &mut t.groups);
        let fields = fields.flat_map(|group| &mut group.fields);
        for (field, labels) in fields.zip(&labels) {
            samples.clear();
            for step in steps.clone() {
                let jitter = (random.unit() * 2.0 - 1.0) * fleet.jitter_ms as f64;
                let at_ms = start_ms + step as i64 * interval_ms + jitter as i64;
                let at_ms = at_ms + i64::from(at_ms.rem_euclid(1000) == PHASE_MS);
                samples.push((at_ms, field.source.next(&mut random)));
            }
            wire::time_series_of(&mut body, labels, &samples);
            held += samples.len();
            if held >= SAMPLES_PER_REQUEST {
                push(&mut clients, &wire::snappy(&body))?;
                body.clear();
                held = 0;
            }
        }
    }
    if held > 0 {
        push(&mut clients, &wire::snappy(&body))?;
    }
    Ok(Fed {
        series,
        samples: series as u64 * load.steps,
        start_ms,
        end_ms: last_ms,
        interval_ms,
        check: (metric, of_metric * load.steps),
    })
}

fn names(fleet: &Fleet) -> impl Iterator<Item = String> {
    let groups = fleet.targets.iter().flat_map(|target| &target.groups);
    groups.flat_map(|group| {
        let fields = group.fields.iter();
        fields.map(|field| Protocol::RemoteWrite.series_name(group, &field.name))
    })
}

/// The label part of every series, in the order in which they are measured.
fn labels(fleet: &Fleet) -> Vec<Vec<u8>> {
    let groups = fleet.targets.iter().flat_map(|target| &target.groups);
    groups
        .flat_map(|group| {
            let fields = group.fields.iter();
            fields.map(|field| crate::encode::series_labels(group, &field.name))
        })
        .collect()
}

/// To all servers at the same time.
fn push(clients: &mut [Client], body: &[u8]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| push_one(client, body)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("sending does not panic"))
    })
}

fn push_one(client: &mut Client, body: &[u8]) -> Result<()> {
    let protocol = Protocol::RemoteWrite;
    let deadline = Instant::now() + VISIBLE_TIMEOUT;
    loop {
        let answer = client.post(protocol.path(), protocol.headers(), body)?;
        match answer.status {
            200..300 => return Ok(()),
            429 | 503 if Instant::now() < deadline => {
                let asked = answer.retry_after.map(Duration::from_secs);
                std::thread::sleep(asked.unwrap_or(POLL));
            }
            status => bail!("a request was refused: {status} {}", answer.excerpt()),
        }
    }
}

impl Fed {
    /// Waits until every sample can be queried.
    pub fn wait_until_visible(&self, url: &str) -> Result<()> {
        let (metric, expected) = &self.check;
        let seconds = (self.end_ms - self.start_ms) / 1000 + 60;
        let query = format!("sum(count_over_time({metric}[{seconds}s]))");
        let at = (self.end_ms + 30_000) / 1000;
        let path = format!(
            "/api/v1/query?query={}&time={at}&nocache=1",
            percent_encode(&query)
        );
        let mut client = Client::new(url)?;
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        loop {
            let answer = client.get(&path)?;
            ensure!(answer.status == 200, "{query}: {}", answer.excerpt());
            let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
            let found = json["data"]["result"][0]["value"][1].as_str();
            if found.and_then(|text| text.parse().ok()) == Some(*expected as f64) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{query} is {found:?}, not {expected}"
            );
            std::thread::sleep(POLL);
        }
    }
}
