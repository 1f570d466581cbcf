//! Prints what encoding a batch costs per sample, over host metrics of 10 fields and 10 tags.
//!
//! `cargo run --release -p millrace-model --example encode_speed`

use std::hint::black_box;
use std::time::Instant;

use millrace_model::batch::FloatSectionWriter;
use millrace_model::{Labels, Sample, SeriesHasher, TenantId};

fn main() {
    let tenant = TenantId::anonymous();
    let hasher = SeriesHasher::new(&tenant);
    let fields = [
        "user",
        "system",
        "idle",
        "nice",
        "iowait",
        "irq",
        "softirq",
        "steal",
        "guest",
        "guest_nice",
    ];
    let mut series = Vec::new();
    for host in 0..1000 {
        for field in fields {
            let name = format!("cpu_usage_{field}");
            let (host, rack) = (format!("host_{host}"), (host % 100).to_string());
            let labels = Labels::from_pairs([
                ("__name__", name.as_str()),
                ("arch", "x64"),
                ("datacenter", "eu-central-1a"),
                ("hostname", &host),
                ("os", "Ubuntu16.04LTS"),
                ("rack", &rack),
                ("region", "eu-central-1"),
                ("service", "9"),
                ("service_environment", "production"),
                ("service_version", "1"),
                ("team", "LON"),
            ])
            .expect("distinct names");
            series.push((hasher.id(&labels), labels));
        }
    }
    let mut best = f64::INFINITY;
    let mut bytes = 0;
    for round in 0..200i64 {
        let started = Instant::now();
        let mut writer = FloatSectionWriter::new();
        for (i, (id, labels)) in series.iter().enumerate() {
            let sample = Sample::new(1_700_000_000_000 + round * 10_000, (i % 100) as f64);
            writer.push(*id, labels.canonical(), &[sample]);
        }
        bytes = black_box(writer.finish()).map_or(0, |s| s.bytes_len());
        best = best.min(started.elapsed().as_nanos() as f64 / series.len() as f64);
    }
    println!(
        "{best:.1} ns and {:.1} bytes per sample",
        bytes as f64 / series.len() as f64
    );
}
