//! What is measured: targets with groups of fields that share tags and time.
//!
//! A group is one line of line protocol, one JSON object, or, in remote write, one series for each
//! of its fields, named `<measurement>_<field>`.

use clap::ValueEnum;

use crate::values::{Random, Shape, Source};

/// Which fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Hosts as TSBS's cpu-only set has them: 10 integer CPU fields, 10 tags, every 10 s
    TsbsCpu,
    /// Targets like node_exporter's: about 500 series of counters, gauges and constants, every 15 s
    Node,
    /// Devices with a few decimal readings at irregular times, about every 5 s
    Iot,
    /// Pods of services: request counters by path and status and a histogram, 117 series each, every
    /// 15 s
    Services,
}

/// One field and how it moves.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its values.
    pub source: Source,
}

/// Fields that share tags and timestamp.
#[derive(Clone, Debug)]
pub struct Group {
    /// Before the fields' names.
    pub measurement: String,
    /// Sorted by name.
    pub tags: Vec<(String, String)>,
    /// At least one.
    pub fields: Vec<Field>,
}

/// What is measured at one moment: a host, a scrape target, a device.
#[derive(Clone, Debug)]
pub struct Target {
    /// At least one.
    pub groups: Vec<Group>,
}

/// All targets.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// At least one.
    pub targets: Vec<Target>,
    /// Time between two measurements of a target.
    pub interval_ms: i64,
    /// By how much a measurement may be earlier or later.
    pub jitter_ms: i64,
}

impl Fleet {
    /// A fleet of `hosts` targets.
    pub fn new(profile: Profile, hosts: usize, random: &mut Random) -> Self {
        let (interval_ms, jitter_ms) = match profile {
            Profile::TsbsCpu => (10_000, 0),
            Profile::Node | Profile::Services => (15_000, 0),
            Profile::Iot => (5_000, 2_000),
        };
        let targets = (0..hosts)
            .map(|host| match profile {
                Profile::TsbsCpu => tsbs_cpu(host, random),
                Profile::Node => node(host, random),
                Profile::Iot => iot(host, random),
                Profile::Services => pod(host, random),
            })
            .collect();
        Self {
            targets,
            interval_ms,
            jitter_ms,
        }
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        let groups = self.targets.iter().flat_map(|target| &target.groups);
        groups.map(|group| group.fields.len()).sum()
    }
}

fn group(
    measurement: &str,
    tags: &[(&str, String)],
    fields: &[(&str, Shape)],
    random: &mut Random,
) -> Group {
    let mut tags: Vec<_> = tags
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    tags.sort();
    let fields = fields.iter().map(|(name, shape)| Field {
        name: (*name).to_owned(),
        source: Source::new(*shape, random),
    });
    Group {
        measurement: measurement.to_owned(),
        tags,
        fields: fields.collect(),
    }
}

/// The tags and fields of TSBS's `cpu-only` (devops) use case, whose values are integer walks.
fn tsbs_cpu(host: usize, random: &mut Random) -> Target {
    const REGIONS: [(&str, usize); 9] = [
        ("us-east-1", 5),
        ("us-west-1", 2),
        ("us-west-2", 3),
        ("eu-west-1", 3),
        ("eu-central-1", 2),
        ("ap-southeast-1", 2),
        ("ap-southeast-2", 2),
        ("ap-northeast-1", 2),
        ("sa-east-1", 3),
    ];
    const FIELDS: [&str; 10] = [
        "usage_user",
        "usage_system",
        "usage_idle",
        "usage_nice",
        "usage_iowait",
        "usage_irq",
        "usage_softirq",
        "usage_steal",
        "usage_guest",
        "usage_guest_nice",
    ];
    let (region, zones) = REGIONS[random.below(REGIONS.len())];
    let zone = ["a", "b", "c", "d", "e"][random.below(zones)];
    let one_of =
        |random: &mut Random, values: &[&str]| values[random.below(values.len())].to_owned();
    let tags = [
        ("hostname", format!("host_{host}")),
        ("region", region.to_owned()),
        ("datacenter", format!("{region}{zone}")),
        ("rack", random.below(100).to_string()),
        (
            "os",
            one_of(random, &["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"]),
        ),
        ("arch", one_of(random, &["x64", "x86"])),
        ("team", one_of(random, &["SF", "NYC", "LON", "CHI"])),
        ("service", random.below(20).to_string()),
        ("service_version", random.below(2).to_string()),
        (
            "service_environment",
            one_of(random, &["production", "staging", "test"]),
        ),
    ];
    let shape = Shape::IntegerWalk {
        low: 0.0,
        high: 100.0,
    };
    let fields = FIELDS.map(|name| (name, shape));
    Target {
        groups: vec![group("cpu", &tags, &fields, random)],
    }
}

/// About the mix that node_exporter gives on a host with 8 CPUs, 4 disks and 6 interfaces.
fn node(host: usize, random: &mut Random) -> Target {
    let base = [
        (
            "instance",
            format!("10.0.{}.{}:9100", host / 250, host % 250),
        ),
        ("job", "node".to_owned()),
    ];
    let with = |more: &[(&'static str, String)]| [base.as_slice(), more].concat();
    let counter = Shape::Counter { per_step: 900.0 };
    let slow = Shape::Counter { per_step: 0.3 };
    let gauge = Shape::IntegerWalk {
        low: 0.0,
        high: 4e9,
    };
    let mut groups = Vec::new();
    for cpu in 0..8 {
        for (mode, per_step) in [
            ("idle", 13.0),
            ("user", 1.2),
            ("system", 0.5),
            ("iowait", 0.05),
            ("irq", 0.0),
            ("nice", 0.01),
            ("softirq", 0.02),
            ("steal", 0.0),
        ] {
            let tags = with(&[("cpu", cpu.to_string()), ("mode", mode.to_owned())]);
            let fields = [("seconds_total", Shape::Seconds { per_step })];
            groups.push(group("node_cpu", &tags, &fields, random));
        }
        let tags = with(&[("cpu", cpu.to_string())]);
        let fields = [
            ("frequency_max_hertz", Shape::Constant),
            ("frequency_min_hertz", Shape::Constant),
            ("scaling_frequency_hertz", gauge),
            ("core_throttles_total", Shape::Constant),
        ];
        groups.push(group("node_cpu", &tags, &fields, random));
    }
    let disk_fields = [
        ("reads_completed_total", counter),
        ("reads_merged_total", slow),
        ("read_bytes_total", Shape::Counter { per_step: 4e5 }),
        ("read_time_seconds_total", Shape::Seconds { per_step: 0.2 }),
        ("writes_completed_total", counter),
        ("writes_merged_total", slow),
        ("written_bytes_total", Shape::Counter { per_step: 9e5 }),
        ("write_time_seconds_total", Shape::Seconds { per_step: 0.4 }),
        (
            "io_now",
            Shape::IntegerWalk {
                low: 0.0,
                high: 4.0,
            },
        ),
        ("io_time_seconds_total", Shape::Seconds { per_step: 0.3 }),
    ];
    for disk in ["sda", "sdb", "nvme0n1", "nvme1n1"] {
        let tags = with(&[("device", disk.to_owned())]);
        groups.push(group("node_disk", &tags, &disk_fields, random));
        let fields = [
            ("size_bytes", Shape::Constant),
            ("free_bytes", gauge),
            ("avail_bytes", gauge),
            ("files", Shape::Constant),
            ("files_free", gauge),
            ("readonly", Shape::Constant),
        ];
        groups.push(group("node_filesystem", &tags, &fields, random));
    }
    for device in ["lo", "eth0", "eth1", "docker0", "veth0a1b", "veth2c3d"] {
        let tags = with(&[("device", device.to_owned())]);
        let names = [
            "receive_bytes_total",
            "receive_packets_total",
            "transmit_bytes_total",
            "transmit_packets_total",
        ];
        let moving = names.map(|name| (name, counter));
        let still = [
            "receive_errs_total",
            "receive_drop_total",
            "receive_fifo_total",
            "transmit_errs_total",
            "transmit_drop_total",
            "transmit_colls_total",
            "mtu_bytes",
            "up",
            "carrier",
            "speed_bytes",
        ]
        .map(|name| (name, Shape::Constant));
        let fields = [moving.as_slice(), still.as_slice()].concat();
        groups.push(group("node_network", &tags, &fields, random));
    }
    for (prefix, count, shape) in [
        ("memory", 48, gauge),
        ("netstat", 40, counter),
        ("vmstat", 12, slow),
        (
            "sockstat",
            16,
            Shape::IntegerWalk {
                low: 0.0,
                high: 900.0,
            },
        ),
        ("config", 60, Shape::Constant),
    ] {
        let names: Vec<_> = (0..count).map(|i| format!("{prefix}_item{i:02}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), shape)).collect();
        groups.push(group("node", &with(&[]), &fields, random));
    }
    Target { groups }
}

fn iot(device: usize, random: &mut Random) -> Target {
    let walk = |low, high, step, decimals| Shape::DecimalWalk {
        low,
        high,
        step,
        decimals,
    };
    let tags = [
        ("device", format!("pump-{device}")),
        ("site", format!("site-{}", device % 40)),
        ("line", format!("{}", device % 7)),
    ];
    let fields = [
        ("temperature", walk(-20.0, 90.0, 0.2, 2)),
        ("pressure", walk(0.5, 12.0, 0.05, 3)),
        ("vibration", walk(0.0, 4.0, 0.2, 4)),
        ("flow", walk(0.0, 400.0, 2.0, 1)),
        ("power", walk(0.0, 7500.0, 40.0, 0)),
        (
            "running",
            Shape::IntegerWalk {
                low: 0.0,
                high: 1.0,
            },
        ),
    ];
    Target {
        groups: vec![group("", &tags, &fields, random)],
    }
}

/// A pod with 25 paths, 4 statuses and a histogram of its request times.
fn pod(number: usize, random: &mut Random) -> Target {
    /// Upper bounds in seconds, and requests up to there in a step.
    const BUCKETS: [(&str, f64); 15] = [
        ("0.001", 40.0),
        ("0.002", 90.0),
        ("0.005", 200.0),
        ("0.01", 420.0),
        ("0.02", 700.0),
        ("0.05", 1100.0),
        ("0.1", 1500.0),
        ("0.2", 1900.0),
        ("0.5", 2300.0),
        ("1", 2700.0),
        ("2", 3100.0),
        ("5", 3500.0),
        ("10", 3900.0),
        ("30", 4300.0),
        ("+Inf", 4800.0),
    ];
    let base = [
        (
            "instance",
            format!(
                "10.{}.{}.{}:8080",
                number / 62_500,
                number / 250 % 250,
                number % 250
            ),
        ),
        ("pod", format!("pod-{number}")),
        ("region", ["eu", "us", "ap", "sa"][number % 4].to_owned()),
        ("service", format!("service-{}", number / 4 % 30)),
    ];
    let with = |more: &[(&'static str, String)]| [base.as_slice(), more].concat();
    let mut groups = Vec::new();
    for path in 0..25 {
        for (status, per_step) in [("200", 90.0), ("204", 20.0), ("404", 4.0), ("503", 1.2)] {
            let tags = with(&[
                ("path", format!("/api/{path}")),
                ("status", status.to_owned()),
            ]);
            let fields = [("requests_total", Shape::Counter { per_step })];
            groups.push(group("http", &tags, &fields, random));
        }
    }
    for (bound, per_step) in BUCKETS {
        let tags = with(&[("le", bound.to_owned())]);
        let fields = [("duration_seconds_bucket", Shape::Steady { per_step })];
        groups.push(group("http_request", &tags, &fields, random));
    }
    let fields = [
        ("duration_seconds_sum", Shape::Seconds { per_step: 300.0 }),
        ("duration_seconds_count", Shape::Steady { per_step: 4800.0 }),
    ];
    groups.push(group("http_request", &with(&[]), &fields, random));
    Target { groups }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(profile: Profile) -> Fleet {
        Fleet::new(profile, 1, &mut Random::new(1))
    }

    #[test]
    fn profiles_have_the_promised_size() {
        assert_eq!(one(Profile::TsbsCpu).series(), 10);
        assert_eq!(one(Profile::TsbsCpu).targets[0].groups[0].tags.len(), 10);
        let node = one(Profile::Node).series();
        assert!((400..600).contains(&node), "{node}");
        assert_eq!(one(Profile::Iot).series(), 6);
        assert_eq!(one(Profile::Services).series(), 117);
    }

    #[test]
    fn no_two_series_are_the_same() {
        for profile in [
            Profile::TsbsCpu,
            Profile::Node,
            Profile::Iot,
            Profile::Services,
        ] {
            let fleet = Fleet::new(profile, 3, &mut Random::new(1));
            let mut seen = std::collections::HashSet::new();
            for group in fleet.targets.iter().flat_map(|target| &target.groups) {
                assert!(group.tags.is_sorted());
                for field in &group.fields {
                    let name = (&group.measurement, &field.name, &group.tags);
                    assert!(seen.insert(name), "{name:?}");
                }
            }
        }
    }
}
