//! The classes of queries: TSBS's devops set in PromQL, and what dashboards ask.
//!
//! A class is a list of requests; where TSBS asks for several metrics at once, PromQL needs a query
//! for each of them, and the class is all of them, one after the other.

use crate::client::percent_encode;
use crate::fleet::Profile;
use crate::values::Random;

use super::feed::{Fed, PHASE_MS};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// A class.
#[derive(Clone, Debug)]
pub struct Class {
    /// In tables.
    pub name: &'static str,
    /// Whether VictoriaMetrics means the same by it: it extrapolates no rates and fills gaps.
    pub vm_agrees: bool,
    /// Whether which of several equal series is chosen is left open.
    pub tied: bool,
    kind: Kind,
}

/// What is asked.
#[derive(Clone, Debug)]
enum Kind {
    /// A query of each of so many of TSBS's metrics, over so many hours.
    Tsbs {
        query: &'static str,
        metrics: usize,
        hosts: usize,
        hours: i64,
        step: i64,
    },
    Range {
        query: &'static str,
        length: i64,
        step: i64,
    },
    Instant(&'static str),
    /// A path of the API without times.
    Path(&'static str),
}

/// TSBS's fields, in its order.
const FIELDS: [&str; 10] = [
    "cpu_usage_user",
    "cpu_usage_system",
    "cpu_usage_idle",
    "cpu_usage_nice",
    "cpu_usage_iowait",
    "cpu_usage_irq",
    "cpu_usage_softirq",
    "cpu_usage_steal",
    "cpu_usage_guest",
    "cpu_usage_guest_nice",
];

/// The classes for a fleet.
pub fn classes(profile: Profile) -> Vec<Class> {
    match profile {
        Profile::TsbsCpu => hosts(),
        Profile::Node => node(),
        Profile::Iot => iot(),
        Profile::Services => services(),
    }
}

fn tsbs(
    name: &'static str,
    query: &'static str,
    (metrics, hosts, hours): (usize, usize, i64),
    step: i64,
) -> Class {
    Class {
        name,
        vm_agrees: true,
        tied: false,
        kind: Kind::Tsbs {
            query,
            metrics,
            hosts,
            hours,
            step,
        },
    }
}

fn hosts() -> Vec<Class> {
    const GROUPBY: &str = "max(max_over_time($M{hostname=~\"$H\"}[1m])) by (__name__)";
    const MAX_ALL: &str = "max(max_over_time($M{hostname=~\"$H\"}[1h])) by (__name__)";
    const DOUBLE: &str = "avg(avg_over_time($M[1h])) by (hostname)";
    vec![
        tsbs("single-groupby-1-1-1", GROUPBY, (1, 1, 1), MINUTE),
        tsbs("single-groupby-1-1-12", GROUPBY, (1, 1, 12), MINUTE),
        tsbs("single-groupby-1-8-1", GROUPBY, (1, 8, 1), MINUTE),
        tsbs("single-groupby-5-1-1", GROUPBY, (5, 1, 1), MINUTE),
        tsbs("single-groupby-5-1-12", GROUPBY, (5, 1, 12), MINUTE),
        tsbs("single-groupby-5-8-1", GROUPBY, (5, 8, 1), MINUTE),
        tsbs("cpu-max-all-1", MAX_ALL, (10, 1, 8), HOUR),
        tsbs("cpu-max-all-8", MAX_ALL, (10, 8, 8), HOUR),
        tsbs("double-groupby-1", DOUBLE, (1, 0, 12), HOUR),
        tsbs("double-groupby-5", DOUBLE, (5, 0, 12), HOUR),
        tsbs("double-groupby-all", DOUBLE, (10, 0, 12), HOUR),
        tsbs(
            "high-cpu-1",
            "max_over_time($M{hostname=~\"$H\"}[1m]) > 90",
            (1, 1, 12),
            MINUTE,
        ),
        tsbs(
            "high-cpu-all",
            "max_over_time($M[1m]) > 90",
            (1, 0, 12),
            MINUTE,
        ),
        instant("lastpoint", "{__name__=~\"cpu_.*\"}", true),
        range(
            "topk of means",
            "topk(5, avg by (hostname) (cpu_usage_user))",
            (HOUR, MINUTE),
            false,
        ),
        range(
            "by region",
            "avg by (region) (cpu_usage_user)",
            (6 * HOUR, MINUTE),
            true,
        ),
        path("label values", "/api/v1/label/hostname/values?"),
    ]
}

fn node() -> Vec<Class> {
    let hour = (HOUR, 15_000);
    vec![
        range(
            "busy by instance",
            "1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m]))",
            hour,
            false,
        ),
        range(
            "cpu by mode, one instance",
            "sum by (mode) (rate(node_cpu_seconds_total{instance=\"$I\"}[5m]))",
            hour,
            false,
        ),
        range(
            "memory, one instance",
            "node_memory_item03{instance=\"$I\"}",
            hour,
            true,
        ),
        range(
            "disk share",
            "node_filesystem_avail_bytes / node_filesystem_size_bytes",
            hour,
            true,
        ),
        range(
            "network in by instance",
            "sum by (instance) (rate(node_network_receive_bytes_total{device!~\"lo|veth.*\"}[5m]))",
            hour,
            false,
        ),
        range(
            "topk disks",
            "topk(5, rate(node_disk_io_time_seconds_total[5m]))",
            hour,
            false,
        ),
        range(
            "irate, one cpu",
            "irate(node_cpu_seconds_total{instance=\"$I\",cpu=\"0\"}[1m])",
            hour,
            false,
        ),
        instant("all of one instance", "{instance=\"$I\"}", true),
        instant(
            "count by name",
            "count by (__name__) ({job=\"node\"})",
            true,
        ),
        range(
            "p90 over time",
            "quantile_over_time(0.9, node_memory_item07[10m])",
            hour,
            false,
        ),
        path("label values", "/api/v1/label/__name__/values?"),
        path(
            "series of one instance",
            "/api/v1/series?match[]=%7Binstance%3D%22$I%22%7D&",
        ),
    ]
}

fn iot() -> Vec<Class> {
    let half = (30 * MINUTE, 15_000);
    vec![
        range("mean by site", "avg by (site) (temperature)", half, true),
        range(
            "mean over time by site",
            "avg by (site) (avg_over_time(temperature[5m]))",
            half,
            true,
        ),
        range(
            "maximum by line",
            "max by (line) (max_over_time(pressure[5m]))",
            half,
            true,
        ),
        range("one device", "vibration{device=\"$D\"}", half, true),
        range(
            "deviation",
            "stddev_over_time(flow{site=\"site-7\"}[5m])",
            half,
            true,
        ),
        range("slope", "deriv(power{line=\"3\"}[5m])", half, false),
        range(
            "running share",
            "sum(running == 1) / count(running)",
            half,
            false,
        ),
        range("hot devices", "topk(10, temperature)", half, false),
        instant("count", "count(temperature)", true),
        instant("too hot", "temperature > 80", true),
        range("p95 over devices", "quantile(0.95, vibration)", half, false),
        path("label values", "/api/v1/label/device/values?"),
    ]
}

fn services() -> Vec<Class> {
    let five = (5 * MINUTE, 15_000);
    vec![
        range(
            "rate by region",
            "sum by (region) (rate(http_requests_total[2m]))",
            five,
            false,
        ),
        range(
            "p95 by service",
            "histogram_quantile(0.95, sum by (le, service) (rate(http_request_duration_seconds_bucket[2m])))",
            five,
            false,
        ),
        range(
            "error share",
            "sum by (service) (rate(http_requests_total{status=~\"5..\"}[2m])) \
             / sum by (service) (rate(http_requests_total[2m]))",
            five,
            false,
        ),
        range(
            "topk services",
            "topk(5, sum by (service) (rate(http_requests_total[2m])))",
            five,
            false,
        ),
        range(
            "one pod",
            "rate(http_requests_total{pod=\"$P\"}[2m])",
            five,
            false,
        ),
        range(
            "regex on path",
            "sum by (path) (rate(http_requests_total{path=~\".*/1[0-3]\",status=\"200\"}[2m]))",
            five,
            false,
        ),
        instant("count", "count(http_requests_total)", true),
        instant(
            "count by status",
            "count by (status) (http_requests_total)",
            true,
        ),
        instant(
            "sum without pod",
            "sum without (pod, instance) (http_requests_total)",
            true,
        ),
        instant(
            "10 of all",
            "http_requests_total{pod=\"$P\",path=\"/api/7\"}",
            true,
        ),
        path("label values", "/api/v1/label/pod/values?"),
        path(
            "label values, matched",
            "/api/v1/label/pod/values?match[]=http_requests_total%7Bregion%3D%22eu%22%7D&",
        ),
    ]
}

fn range(
    name: &'static str,
    query: &'static str,
    (length, step): (i64, i64),
    vm_agrees: bool,
) -> Class {
    Class {
        name,
        vm_agrees,
        tied: query.starts_with("topk"),
        kind: Kind::Range {
            query,
            length,
            step,
        },
    }
}

fn instant(name: &'static str, query: &'static str, vm_agrees: bool) -> Class {
    Class {
        name,
        vm_agrees,
        tied: query.starts_with("topk"),
        kind: Kind::Instant(query),
    }
}

fn path(name: &'static str, path: &'static str) -> Class {
    Class {
        name,
        vm_agrees: true,
        tied: false,
        kind: Kind::Path(path),
    }
}

impl Class {
    /// One asking of the class: paths to request one after the other, for random hosts and times.
    pub fn requests(&self, fed: &Fed, targets: usize, random: &mut Random) -> Vec<String> {
        let target = random.below(targets);
        let fill = |text: &str| {
            text.replace(
                "$I",
                &format!("10.0.{}.{}:9100", target / 250, target % 250),
            )
            .replace("$D", &format!("pump-{target}"))
            .replace("$P", &format!("pod-{target}"))
        };
        let mut window = |length: i64| {
            let length = length
                .min(fed.end_ms - fed.start_ms - 2 * MINUTE)
                .max(MINUTE);
            // Whole steps of the data from the end, so that all windows are full; also the first ones, since
            // Prometheus 2 extrapolates a counter that begins within a window otherwise than 3 does.
            let room = (fed.end_ms - fed.start_ms - length - 2 * MINUTE).max(0) as f64;
            let back = (random.unit() * room) as i64 / fed.interval_ms * fed.interval_ms;
            let end = fed.end_ms - back + PHASE_MS;
            (end - length, end)
        };
        match &self.kind {
            Kind::Tsbs {
                query,
                metrics,
                hosts,
                hours,
                step,
            } => {
                let (start, end) = window(hours * HOUR);
                let first = random.below(targets);
                let names: Vec<_> = (0..*hosts)
                    .map(|i| format!("host_{}", (first + i * 7) % targets))
                    .collect();
                let of = |metric: &&str| {
                    let query = query.replace("$M", metric).replace("$H", &names.join("|"));
                    range_path(&query, start, end, *step)
                };
                FIELDS.iter().take(*metrics).map(of).collect()
            }
            Kind::Range {
                query,
                length,
                step,
            } => {
                let (start, end) = window(*length);
                vec![range_path(&fill(query), start, end, *step)]
            }
            Kind::Instant(query) => {
                let (_, end) = window(MINUTE);
                let at = seconds(end);
                let query = percent_encode(&fill(query));
                vec![format!("/api/v1/query?query={query}&time={at}&nocache=1")]
            }
            Kind::Path(path) => {
                let (start, end) = (seconds(fed.start_ms), seconds(fed.end_ms));
                let path = path.replace("$I", &percent_encode(&fill("$I")));
                vec![format!("{path}start={start}&end={end}&nocache=1")]
            }
        }
    }
}

fn range_path(query: &str, start: i64, end: i64, step: i64) -> String {
    format!(
        "/api/v1/query_range?query={}&start={}&end={}&step={}&nocache=1",
        percent_encode(query),
        seconds(start),
        seconds(end),
        step / 1000
    )
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}
