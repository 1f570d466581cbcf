//! `millrace queue lag`: where each partition ends, and who is how far.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{LagArgs, table};
use crate::commands::client;
use crate::config::Config;
use crate::config::kind::QueueBackend;
use crate::failure::Failure;

/// One partition.
#[derive(Debug, Default, Serialize)]
struct Row {
    partition: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_offset: Option<u64>,
    end_offset: Option<u64>,
    /// What the consumer group has committed; Kafka alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_lag: Option<u64>,
    /// What each store that was asked has applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stores: Vec<StoreRow>,
}

/// How far one store is in a partition.
#[derive(Debug, Serialize)]
struct StoreRow {
    store: String,
    state: String,
    applied_offset: Option<u64>,
    lag_records: Option<u64>,
    lag_samples_estimate: Option<u64>,
    lag_seconds: Option<f64>,
}

/// Asks brokers and stores, and prints.
pub(super) fn run(args: &LagArgs, config: &Config) -> Result<(), Failure> {
    let mut rows: BTreeMap<u32, Row> = match config.queue.backend {
        #[cfg(feature = "kafka")]
        QueueBackend::Kafka => topic(config)?,
        #[cfg(not(feature = "kafka"))]
        QueueBackend::Kafka => BTreeMap::new(),
        QueueBackend::Embedded => BTreeMap::new(),
    };
    let mut stores = args.stores.clone();
    if stores.is_empty() && config.queue.backend == QueueBackend::Embedded {
        stores.push(format!("http://{}", config.top.listen));
    }
    for store in &stores {
        for (partition, end, row) in ask(store)? {
            let entry = rows.entry(partition).or_insert_with(|| Row {
                partition,
                ..Row::default()
            });
            entry.end_offset = entry.end_offset.or(end);
            entry.stores.push(row);
        }
    }
    let rows: Vec<Row> = rows.into_values().collect();
    if args.json {
        let json = serde_json::to_string_pretty(&rows)
            .map_err(|error| Failure::Client(format!("the answer cannot be written: {error}")))?;
        return crate::print(&format!("{json}\n"));
    }
    crate::print(&table::text(&cells(&rows)))
}

#[cfg(feature = "kafka")]
fn topic(config: &Config) -> Result<BTreeMap<u32, Row>, Failure> {
    use std::time::Duration;

    use millrace_log::fs::OsFs;
    use millrace_model::PartitionId;
    use millrace_queue::kafka::{KafkaBounds, KafkaError, KafkaQueue};

    const TIMEOUT: Duration = Duration::from_secs(10);
    let failed = |error: KafkaError| Failure::Client(error.to_string());
    let options = crate::queue::kafka::options(&OsFs, config)?;
    let report = KafkaQueue::inspect(&options).map_err(failed)?;
    let watcher = KafkaBounds::start(&options).map_err(failed)?;
    let committed = watcher
        .committed(report.partitions, TIMEOUT)
        .map_err(failed)?;
    let mut rows = BTreeMap::new();
    for partition in 0..report.partitions {
        let id = PartitionId(partition);
        let bounds = watcher.bounds(id, TIMEOUT).map_err(failed)?;
        let committed = committed.get(&id).map(|offset| offset.0);
        let row = Row {
            partition,
            first_offset: Some(bounds.first.0),
            end_offset: Some(bounds.end.0),
            committed_offset: committed,
            committed_lag: committed.map(|offset| bounds.end.0.saturating_sub(offset)),
            stores: Vec::new(),
        };
        rows.insert(partition, row);
    }
    Ok(rows)
}

/// What a store's status says of its partitions, each with where it ends.
fn ask(store: &str) -> Result<Vec<(u32, Option<u64>, StoreRow)>, Failure> {
    let url = format!("{}/api/v1/status/pipeline", store.trim_end_matches('/'));
    let answer = client::client()?
        .get(&url)
        .send()
        .and_then(reqwest::blocking::Response::error_for_status)
        .and_then(|answer| answer.json::<Value>())
        .map_err(|error| {
            Failure::Client(format!("{url} does not answer: {}", client::why(&error)))
        })?;
    read(store, &answer)
        .ok_or_else(|| Failure::Client(format!("{url} answers in a shape that is not millrace's")))
}

fn read(store: &str, answer: &Value) -> Option<Vec<(u32, Option<u64>, StoreRow)>> {
    let partitions = answer["data"]["partitions"].as_array()?;
    let row = |partition: &Value| {
        let row = StoreRow {
            store: store.to_owned(),
            state: partition["state"].as_str()?.to_owned(),
            applied_offset: partition["applied_offset"].as_u64(),
            lag_records: partition["lag_records"].as_u64(),
            lag_samples_estimate: partition["lag_samples_estimate"].as_u64(),
            lag_seconds: partition["lag_seconds"].as_f64(),
        };
        let number = u32::try_from(partition["partition"].as_u64()?).ok()?;
        Some((number, partition["end_offset"].as_u64(), row))
    };
    partitions.iter().map(row).collect()
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let head = [
        "PARTITION",
        "FIRST",
        "END",
        "COMMITTED",
        "LAG",
        "STORE",
        "STATE",
        "APPLIED",
        "LAG",
        "SAMPLES~",
        "SECONDS",
    ];
    let mut table = vec![
        head.iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>(),
    ];
    for row in rows {
        let own = vec![
            row.partition.to_string(),
            number(row.first_offset),
            number(row.end_offset),
            number(row.committed_offset),
            number(row.committed_lag),
        ];
        if row.stores.is_empty() {
            table.push(own.clone());
        }
        for store in &row.stores {
            let seconds = |value: f64| format!("{value:.1}");
            let mut line = own.clone();
            line.extend([
                store.store.clone(),
                store.state.clone(),
                number(store.applied_offset),
                number(store.lag_records),
                number(store.lag_samples_estimate),
                store.lag_seconds.map_or_else(|| "-".to_owned(), seconds),
            ]);
            table.push(line);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stores_status_becomes_rows() {
        let answer = json!({"data": {"partitions": [
            {"partition": 3, "state": "running", "end_offset": 9, "applied_offset": 7,
             "lag_records": 2, "lag_samples_estimate": null, "lag_seconds": 1.5},
        ]}});
        let mut found = read("http://s:1", &answer).unwrap();
        let (partition, end, store) = found.remove(0);
        assert_eq!((partition, end), (3, Some(9)));
        let row = Row {
            partition,
            end_offset: end,
            stores: vec![store],
            ..Row::default()
        };
        let text = table::text(&cells(&[row]));
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            [
                "3",
                "-",
                "9",
                "-",
                "-",
                "http://s:1",
                "running",
                "7",
                "2",
                "-",
                "1.5"
            ]
        );
        assert!(read("s", &json!({"data": 1})).is_none());
    }
}
