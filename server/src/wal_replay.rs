//! How far a start has come with the write-ahead log, while nobody but this can tell.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use prometheus::Registry;
use serde_json::json;

/// Records of all shards' logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// That a start has to read.
    pub all: u64,
    /// That it has read.
    pub done: u64,
}

impl Progress {
    /// By the gauges of the shards that are being opened. A shard counts from when it begins.
    #[must_use]
    pub fn of(registry: &Registry) -> Self {
        let families = registry.gather();
        let sum = |name: &str| -> u64 {
            let family = families.iter().find(|family| family.name() == name);
            let metrics = family.map_or(&[][..], |family| family.get_metric());
            // Counts of records, far below where floats have holes.
            metrics
                .iter()
                .map(|m| m.get_gauge().get_value() as u64)
                .sum()
        };
        let all = sum("millrace_store_replay_records");
        let left = sum("millrace_store_replay_records_left");
        Self {
            all,
            done: all.saturating_sub(left),
        }
    }

    /// In Prometheus's form, which counts segments.
    pub fn answer(self) -> Response {
        let data = json!({"min": 0, "max": self.all, "current": self.done});
        Json(json!({"status": "success", "data": data})).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{IntGaugeVec, Opts};

    #[test]
    fn what_is_read_is_all_but_what_is_left_of_all_shards() {
        let registry = Registry::new();
        assert_eq!(Progress::of(&registry), Progress { all: 0, done: 0 });
        let gauge = |name: &str, values: [i64; 2]| {
            let vec = IntGaugeVec::new(Opts::new(name, "x"), &["partition"]).unwrap();
            for (partition, value) in values.into_iter().enumerate() {
                vec.with_label_values(&[&partition.to_string()]).set(value);
            }
            registry.register(Box::new(vec)).unwrap();
        };
        gauge("millrace_store_replay_records", [10, 7]);
        gauge("millrace_store_replay_records_left", [4, 0]);
        assert_eq!(Progress::of(&registry), Progress { all: 17, done: 13 });
    }
}
