//! What the operating system knows about this process: figures for `/metrics`, and the limit on
//! open files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_log::fs::Fs;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files that are not connections: segments, blocks, the manifest of each shard.
const FILES_FOR_DATA: u64 = 512;

/// Raises the soft limit on open files to the hard one and says how many connections fit, at most
/// `wanted`.
#[must_use]
pub fn connections_that_fit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "the limit on open files cannot be raised");
            limit.current
        }
    };
    // `None` is no limit.
    let Some(files) = files else { return wanted };
    let room = usize::try_from(files.saturating_sub(FILES_FOR_DATA)).unwrap_or(usize::MAX);
    let fit = wanted.min(room.max(16));
    if fit < wanted {
        warn!(
            files,
            connections = fit,
            wanted,
            "the limit on open files allows fewer connections than server.max_connections"
        );
    }
    fit
}

/// The `process_*` metrics that every Prometheus client library has, read from `/proc` when asked.
#[derive(Debug)]
pub struct ProcessCollector {
    fs: Arc<dyn Fs>,
    cpu_seconds: Gauge,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_seconds: Gauge,
}

impl ProcessCollector {
    /// A collector of this process.
    ///
    /// # Errors
    ///
    /// Never in practice: the names are constants.
    pub fn new(fs: Arc<dyn Fs>, started_at_ms: i64) -> Result<Self, prometheus::Error> {
        let collector = Self {
            fs,
            cpu_seconds: Gauge::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            resident_bytes: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            virtual_bytes: IntGauge::new(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            )?,
            open_fds: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_fds: IntGauge::new(
                "process_max_fds",
                "Maximum number of open file descriptors.",
            )?,
            threads: IntGauge::new("process_threads", "Number of OS threads in the process.")?,
            start_seconds: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        };
        collector.start_seconds.set(started_at_ms as f64 / 1000.0);
        Ok(collector)
    }

    fn read(&self) -> io::Result<()> {
        let stat = proc_text(&*self.fs, "/proc/self/stat")?;
        let figures = Stat::parse(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        self.cpu_seconds.set(figures.cpu_ticks as f64 / ticks);
        let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
        self.resident_bytes.set(figures.resident_pages * page);
        self.virtual_bytes.set(figures.virtual_bytes);
        self.threads.set(figures.threads);
        let fds = self.fs.list(Path::new("/proc/self/fd"))?.len();
        self.open_fds.set(i64::try_from(fds).unwrap_or(i64::MAX));
        let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.max_fds.set(i64::try_from(max).unwrap_or(i64::MAX));
        Ok(())
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_fds,
            &self.max_fds,
            &self.threads,
            &self.start_seconds,
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Err(error) = self.read() {
            warn!(%error, "the figures of this process cannot be read");
            return Vec::new();
        }
        let mut families: Vec<_> = self
            .all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect();
        // A gauge inside, since it is set and not counted up; a counter to the outside.
        for family in &mut families {
            if family.name() == "process_cpu_seconds_total" {
                family.set_field_type(prometheus::proto::MetricType::COUNTER);
                for metric in family.mut_metric() {
                    let mut counter = prometheus::proto::Counter::default();
                    counter.set_value(self.cpu_seconds.get());
                    metric.set_counter(counter);
                }
            }
        }
        families
    }
}

/// Files in `/proc` say that they are empty, so they are read to their end instead.
fn proc_text(fs: &dyn Fs, path: &str) -> io::Result<String> {
    let file = fs.open(Path::new(path))?;
    let mut bytes = vec![0; 4096];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What is wanted of `/proc/self/stat` (`man 5 proc_pid_stat`).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: i64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let field: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with the third field of the manual page.
        let at = |number: usize| field.get(number - 3).copied();
        Some(Self {
            cpu_ticks: at(14)?.parse::<u64>().ok()? + at(15)?.parse::<u64>().ok()?,
            threads: at(20)?.parse().ok()?,
            virtual_bytes: at(23)?.parse().ok()?,
            resident_pages: at(24)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::fs::OsFs;
    use prometheus::{Encoder as _, Registry, TextEncoder};

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20 0 7 0 99 4096000 321 0";
        let expect = Stat {
            cpu_ticks: 123,
            threads: 7,
            virtual_bytes: 4_096_000,
            resident_pages: 321,
        };
        assert_eq!(Stat::parse(text), Some(expect));
        assert_eq!(Stat::parse("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let registry = Registry::new();
        let collector = ProcessCollector::new(Arc::new(OsFs), 1_500).unwrap();
        registry.register(Box::new(collector)).unwrap();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("# TYPE process_cpu_seconds_total counter"),
            "{text}"
        );
        assert!(text.contains("process_start_time_seconds 1.5"), "{text}");
        let rss = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .unwrap();
        assert!(rss.parse::<u64>().unwrap() > 1 << 20, "{rss}");
    }
}
