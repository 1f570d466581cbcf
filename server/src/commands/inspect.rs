//! `millrace inspect`: what a block, a log, or a store's directory holds, and how many bytes each
//! part takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use millrace_log::examine as examine_log;
use millrace_log::fs::Fs;
use millrace_log::fs::OsFs;
use millrace_store::block::{BlockReader, BlockSummary, Section};
use millrace_store::examine::{Depth, ExaminedShard, examine};
use serde_json::{Value, json};

use super::offline::data;
use super::records::show;
use crate::failure::Failure;

/// What to look at.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A .block file, the directory of a log (of a queue's partition, a WAL), or a data directory
    pub path: PathBuf,
    /// Series with the most samples that are listed for a block
    #[arg(long, default_value_t = 10)]
    pub top: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints what is there. Nothing is changed, and a server may be running.
///
/// # Errors
///
/// A path that is none of these, or that is damaged.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let fs = OsFs;
    let path = &args.path;
    let failed = |error: std::io::Error| Failure::Data(format!("{}: {error}", path.display()));
    let shown = if path.extension().is_some_and(|e| e == "block") {
        block(&fs, path, args.top)?
    } else {
        let names = fs.list(path).map_err(failed)?;
        let has = |name: &str| names.iter().any(|entry| entry.name == name);
        if has("store") {
            store(&fs, &path.join("store"))?
        } else if names.iter().any(|entry| entry.name.ends_with(".log")) {
            log(&fs, path)?
        } else if names.iter().any(|entry| entry.name.parse::<u32>().is_ok()) {
            store(&fs, path)?
        } else {
            return Err(Failure::Data(format!(
                "{} is no block, no log and no data directory",
                path.display()
            )));
        }
    };
    if args.json {
        return crate::print(&format!("{shown:#}\n"));
    }
    let mut out = String::new();
    text(&shown, 0, &mut out);
    crate::print(&out)
}

fn block(fs: &dyn Fs, path: &Path, top: usize) -> Result<Value, Failure> {
    let reader = BlockReader::open(fs, path).map_err(data)?;
    let mut shown = summary(&reader.summary());
    let mut metrics: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut series = Vec::new();
    for found in reader.iter() {
        let (tenant, found) = found.map_err(data)?;
        let samples = found.place.samples();
        let name = found.labels.metric_name().unwrap_or_default().to_owned();
        let metric = metrics.entry(name).or_default();
        metric.0 += 1;
        metric.1 += samples;
        series.push((samples, tenant, found.labels));
    }
    series.sort_by(|a, b| (b.0, &a.1, &a.2).cmp(&(a.0, &b.1, &b.2)));
    let mut metrics: Vec<_> = metrics.into_iter().collect();
    metrics.sort_by(|a, b| (b.1.0, &a.0).cmp(&(a.1.0, &b.0)));
    shown["metrics_by_series"] = metrics
        .iter()
        .take(top)
        .map(|(name, (series, samples))| json!({"metric": name, "series": series, "samples": samples}))
        .collect();
    shown["series_by_samples"] = series
        .iter()
        .take(top)
        .map(|(samples, tenant, labels)| {
            json!({"tenant": tenant.as_str(), "series": labels.to_string(), "samples": samples})
        })
        .collect();
    Ok(shown)
}

fn summary(summary: &BlockSummary) -> Value {
    let sections: serde_json::Map<String, Value> = Section::ALL
        .iter()
        .zip(summary.section_bytes)
        .map(|(section, bytes)| (section.to_string(), bytes.into()))
        .collect();
    json!({
        "partition": summary.meta.partition.0,
        "offsets": [summary.meta.offsets.0.0, summary.meta.offsets.1.0],
        "window": [show::time(summary.meta.window.start.0), show::time(summary.meta.window.end.0)],
        "samples_from": show::time(summary.samples_range.start.0),
        "samples_to": show::time(summary.samples_range.end.0),
        "tenants": summary.tenants,
        "series": summary.series,
        "chunks": summary.chunks,
        "samples": summary.samples,
        "bytes": summary.bytes,
        "bytes_per_sample": ratio(summary.bytes, summary.samples),
        "bytes_by_section": sections,
    })
}

fn ratio(bytes: u64, samples: u64) -> f64 {
    // Three digits, since nobody reads more.
    (bytes as f64 / samples.max(1) as f64 * 1000.0).round() / 1000.0
}

fn log(fs: &dyn Fs, path: &Path) -> Result<Value, Failure> {
    let (mut records, mut bytes) = (0u64, 0u64);
    let examined = examine_log(fs, path, &mut |record| {
        records += 1;
        bytes += record.payload.len() as u64;
    })
    .map_err(data)?;
    let segments: Vec<Value> = examined
        .segments
        .iter()
        .map(|segment| {
            let name = segment.path.file_name().unwrap_or_default();
            json!({
                "file": name.to_string_lossy(),
                "bytes": segment.bytes,
                "first": segment.first.0,
                "next": segment.next.0,
                "from": segment.times.map(|(first, _)| show::time(first.0)),
                "to": segment.times.map(|(_, last)| show::time(last.0)),
            })
        })
        .collect();
    let damages: Vec<String> = examined.damages.iter().map(ToString::to_string).collect();
    Ok(json!({
        "records": records,
        "payload_bytes": bytes,
        "torn_bytes": examined.torn_bytes,
        "damages": damages,
        "segments": segments,
    }))
}

fn store(fs: &dyn Fs, path: &Path) -> Result<Value, Failure> {
    let shards = examine(fs, path, Depth::Outline, &mut |_| {}).map_err(data)?;
    Ok(json!({"shards": shards.iter().map(shard).collect::<Vec<_>>()}))
}

fn shard(shard: &ExaminedShard) -> Value {
    let (bytes, samples) = shard.blocks.iter().fold((0, 0), |(bytes, samples), block| {
        (bytes + block.summary.bytes, samples + block.summary.samples)
    });
    let blocks: Vec<Value> = shard
        .blocks
        .iter()
        .map(|block| {
            let summary = &block.summary;
            json!({
                "block": block.id.to_string(),
                "from": show::time(summary.samples_range.start.0),
                "to": show::time(summary.samples_range.end.0),
                "series": summary.series,
                "samples": summary.samples,
                "bytes": summary.bytes,
                "bytes_per_sample": ratio(summary.bytes, summary.samples),
            })
        })
        .collect();
    let found = |findings: &[millrace_store::examine::Finding]| -> Vec<String> {
        let all = findings.iter();
        all.map(|f| format!("{}: {}", f.path.display(), f.what))
            .collect()
    };
    json!({
        "partition": shard.partition.0,
        "queue": shard.manifest.as_ref().map(|m| m.queue.to_string()),
        "partitions": shard.manifest.as_ref().map(|m| m.partitions),
        "sealed_offset": shard.manifest.as_ref().map(|m| m.sealed.0),
        "block_bytes": bytes,
        "block_samples": samples,
        "bytes_per_sample": ratio(bytes, samples),
        "wal_bytes": shard.wal_bytes,
        "wal_records": shard.wal_records.0,
        "unsealed_records": shard.wal_records.1,
        "unsealed_samples": shard.wal_samples,
        "dead_letters": shard.dead_letters,
        "damages": found(&shard.damages),
        "leftovers": found(&shard.leftovers),
        "blocks": blocks,
    })
}

/// JSON as indented lines; lists of flat objects as a line for each.
fn text(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(fields) = value else {
        out.push_str(&format!("{:indent$}{}\n", "", flat(value)));
        return;
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in fields {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                out.push_str(&format!("{:indent$}{name}\n", ""));
                for item in items {
                    match item {
                        Value::Object(fields) if fields.values().any(Value::is_array) => {
                            text(item, indent + 2, out);
                            out.push('\n');
                        }
                        item => out.push_str(&format!("{:1$}{2}\n", "", indent + 2, flat(item))),
                    }
                }
            }
            Value::Object(_) => {
                out.push_str(&format!("{:indent$}{name}\n", ""));
                text(value, indent + 2, out);
            }
            value => out.push_str(&format!("{:indent$}{name:width$}  {}\n", "", flat(value))),
        }
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", flat(value)))
            .collect::<Vec<_>>()
            .join("  "),
        Value::Null => "-".to_owned(),
        value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
    }
}
