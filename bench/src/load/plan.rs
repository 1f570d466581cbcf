//! All bodies, encoded.

use std::fmt;

use super::LoadSpec;
use crate::encode::{BodyWriter, PreparedGroup, Protocol};
use crate::fleet::{Field, Fleet, Group, Target};
use crate::values::Random;

/// One request.
#[derive(Debug)]
pub struct Body {
    /// As it goes over the wire.
    pub bytes: Vec<u8>,
    /// Samples in it.
    pub samples: u64,
}

/// By which the server's answers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A metric.
    pub metric: String,
    /// Its series.
    pub series: u64,
    /// Its samples, of all series.
    pub samples: u64,
    /// Whole seconds that hold them all, counted back from the end.
    pub window_seconds: i64,
}

/// What each connection sends, in order.
#[derive(Debug)]
pub struct Plan {
    /// How it is encoded.
    pub protocol: Protocol,
    /// By connection.
    pub bodies: Vec<Vec<Body>>,
    /// Number of series.
    pub series: usize,
    /// The newest timestamp.
    pub end_ms: i64,
    /// What must be found afterwards.
    pub check: Check,
}

impl Plan {
    /// Encodes everything. The newest measurement is from about `end_ms`, the others each an
    /// interval before.
    pub fn build(spec: &LoadSpec, end_ms: i64) -> Self {
        let mut random = Random::new(spec.seed);
        let fleet = Fleet::new(spec.profile, spec.hosts as usize, &mut random);
        let series = fleet.series();
        let steps = spec.samples.div_ceil(series as u64).max(1);
        let start_ms = end_ms - fleet.interval_ms * (steps as i64 - 1) - fleet.jitter_ms;
        // One timestamp grid for all, whatever the moment of the start.
        let start_ms = start_ms - start_ms.rem_euclid(fleet.interval_ms);
        let check = check(spec.protocol, &fleet, steps);
        let per_connection = fleet.targets.len().div_ceil(spec.connections as usize);
        let schedule = Schedule {
            start_ms,
            steps,
            interval_ms: fleet.interval_ms,
            jitter_ms: fleet.jitter_ms,
        };
        let bodies = std::thread::scope(|scope| {
            let shares = fleet.targets.chunks(per_connection).enumerate();
            let threads: Vec<_> = shares
                .map(|(i, targets)| {
                    let random = Random::new(spec.seed ^ ((i as u64 + 1) << 32));
                    scope.spawn(|| encode(spec, &schedule, targets.to_vec(), random))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("encoding does not panic"))
                .collect()
        });
        Self {
            protocol: spec.protocol,
            bodies,
            series,
            end_ms: start_ms + fleet.interval_ms * (steps as i64 - 1) + fleet.jitter_ms,
            check,
        }
    }

    /// Samples of all bodies.
    pub fn samples(&self) -> u64 {
        self.bodies.iter().flatten().map(|body| body.samples).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.bodies.iter().flatten().map(|b| b.bytes.len()).sum();
        write!(
            f,
            "{} samples of {} series in {} requests on {} connections, {:.1} MB",
            self.samples(),
            self.series,
            self.bodies.iter().map(Vec::len).sum::<usize>(),
            self.bodies.len(),
            bytes as f64 / 1e6
        )
    }
}

/// The first metric of the fleet.
fn check(protocol: Protocol, fleet: &Fleet, steps: u64) -> Check {
    let name = |group: &Group, field: &Field| protocol.series_name(group, &field.name);
    let groups = || fleet.targets.iter().flat_map(|target| &target.groups);
    let names = || groups().flat_map(|group| group.fields.iter().map(|field| name(group, field)));
    let metric = names().next().expect("a fleet has a series");
    let series = names().filter(|name| *name == metric).count() as u64;
    Check {
        metric,
        series,
        samples: series * steps,
        window_seconds: (fleet.interval_ms * (steps as i64 + 1) + 2 * fleet.jitter_ms) / 1000,
    }
}

struct Schedule {
    start_ms: i64,
    steps: u64,
    interval_ms: i64,
    jitter_ms: i64,
}

/// The bodies of one connection: all its targets at one step, then at the next.
fn encode(
    spec: &LoadSpec,
    schedule: &Schedule,
    mut targets: Vec<Target>,
    mut random: Random,
) -> Vec<Body> {
    let prepare = |target: &Target| -> Vec<PreparedGroup> {
        let groups = target.groups.iter();
        groups
            .map(|group| PreparedGroup::new(spec.protocol, group))
            .collect()
    };
    let prepared: Vec<_> = targets.iter().map(prepare).collect();
    let mut writer = BodyWriter::new(spec.protocol);
    let mut bodies = Vec::new();
    let mut values = Vec::new();
    for step in 0..schedule.steps {
        let at_ms = schedule.start_ms + step as i64 * schedule.interval_ms;
        for (target, prepared) in targets.iter_mut().zip(&prepared) {
            let jitter = (random.unit() * 2.0 - 1.0) * schedule.jitter_ms as f64;
            let at_ms = at_ms + jitter as i64;
            for (group, prepared) in target.groups.iter_mut().zip(prepared) {
                values.clear();
                let fields = group.fields.iter_mut();
                values.extend(fields.map(|field| field.source.next(&mut random)));
                writer.add(prepared, at_ms, &values);
                if writer.samples() >= spec.samples_per_request {
                    bodies.push(finish(&mut writer));
                }
            }
        }
    }
    if writer.samples() > 0 {
        bodies.push(finish(&mut writer));
    }
    bodies
}

fn finish(writer: &mut BodyWriter) -> Body {
    let samples = writer.samples() as u64;
    Body {
        bytes: writer.finish(),
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Profile;

    fn spec(protocol: Protocol) -> LoadSpec {
        LoadSpec {
            protocol,
            profile: Profile::TsbsCpu,
            hosts: 5,
            samples: 170,
            samples_per_request: 20,
            connections: 2,
            seed: 1,
            max_seconds: 1,
        }
    }

    #[test]
    fn every_sample_is_in_one_body() {
        let plan = Plan::build(&spec(Protocol::Line), 1_000_000);
        assert_eq!((plan.series, plan.samples()), (50, 200));
        let check = Check {
            metric: "cpu_usage_user".to_owned(),
            series: 5,
            samples: 20,
            window_seconds: 50,
        };
        assert_eq!(plan.check, check);
        assert_eq!(plan.bodies.len(), 2);
        let lines: Vec<String> = plan
            .bodies
            .iter()
            .flatten()
            .flat_map(|body| {
                let text = String::from_utf8(body.bytes.clone()).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(lines.len(), 20, "five hosts at four steps");
        let key = |line: &String| {
            let host = line.split(',').find(|tag| tag.starts_with("hostname="));
            let time = line.rsplit(' ').next();
            (host.unwrap().to_owned(), time.unwrap().to_owned())
        };
        let keys: std::collections::HashSet<_> = lines.iter().map(key).collect();
        assert_eq!(keys.len(), 20);
        assert!(
            keys.iter()
                .any(|(_, time)| *time == plan.end_ms.to_string())
        );
    }

    #[test]
    fn one_seed_gives_the_same_bytes() {
        let bytes = || {
            let plan = Plan::build(&spec(Protocol::RemoteWrite), 1_000_000);
            let bodies = plan.bodies.into_iter().flatten();
            bodies.map(|body| body.bytes).collect::<Vec<_>>()
        };
        assert_eq!(bytes(), bytes());
    }
}
