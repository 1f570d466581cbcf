//! What the query API tells of a whole server: cardinality, configuration, explain, compression.

use crate::support::{Millrace, eventually};
use std::time::Duration;

#[test]
fn the_api_tells_of_series_configuration_and_what_an_answer_took() {
    let dir = tempfile::tempdir().unwrap();
    let millrace = Millrace::start(dir.path(), &["query.slow_log_threshold=0s"]);
    let client = millrace.client();
    let lines: String = (0..3)
        .map(|i| format!("pump,device=pump-{i},site=s flow=1.5,level=2\n"))
        .collect();
    let pushed = client.post("/write", &[], lines);
    assert_eq!(pushed.status, 204, "{pushed:?}");
    eventually("the pushed samples", Duration::from_secs(60), || {
        let seen = client.query("count({__name__=~\"pump_.*\"})", None);
        (seen["result"][0]["value"][1] == "6")
            .then_some(())
            .ok_or_else(|| seen.to_string())
    });

    let tsdb = client.get("/api/v1/status/tsdb?limit=2").json()["data"].clone();
    assert_eq!(tsdb["headStats"]["numSeries"], 6, "{tsdb}");
    // Two metrics, three devices, one site.
    assert_eq!(tsdb["headStats"]["numLabelPairs"], 6, "{tsdb}");
    let list = |key: &str| tsdb[key].as_array().unwrap().clone();
    assert_eq!(list("seriesCountByMetricName").len(), 2);
    assert_eq!(
        tsdb["seriesCountByMetricName"][0],
        serde_json::json!({"name": "pump_flow", "value": 3})
    );
    assert_eq!(
        tsdb["seriesCountByLabelValuePair"][0],
        serde_json::json!({"name": "site=s", "value": 6})
    );
    assert_eq!(
        tsdb["labelValueCountByLabelName"][0],
        serde_json::json!({"name": "device", "value": 3})
    );

    let explained = client
        .get("/api/v1/query?query=sum(pump_flow)&explain=1")
        .json();
    let explain = &explained["explain"];
    assert_eq!(explain["series"], 3, "{explained}");
    assert_eq!(explain["samplesRead"], 3, "{explained}");
    assert!(explain["memtables"].as_u64().unwrap() >= 1, "{explained}");
    assert!(!explain["freshness"].as_array().unwrap().is_empty());
    assert!(explain["seconds"]["select"].as_f64().unwrap() > 0.0);
    assert!(explain["seconds"]["read"].as_f64().unwrap() > 0.0);

    let slow = client.get("/api/v1/status/queries/slow").json();
    assert_eq!(
        slow["data"]["queries"][0]["query"], "sum(pump_flow)",
        "{slow}"
    );
    let yaml = client.get("/api/v1/status/config").json()["data"]["yaml"].clone();
    let yaml = yaml.as_str().unwrap();
    assert!(yaml.contains("query:\n  timeout: \"30s\"\n"), "{yaml}");
    assert!(yaml.contains("ingest:\n"), "{yaml}");
    let metrics =
        client.get("/api/v1/status/self_metrics?metric_name_pattern=millrace_query_slow_total");
    assert_eq!(metrics.json()["data"][0]["type"], "COUNTER", "{metrics:?}");
    let blocks = client.get("/api/v1/status/tsdb/blocks").json();
    assert!(blocks["data"]["blocks"].is_array(), "{blocks}");
    let version = client.get("/version").json();
    assert_eq!(version["application"], "millrace", "{version}");
    for path in ["/-/reload", "/-/quit"] {
        let refused = client.post(path, &[], "");
        assert_eq!(refused.status, 403, "{refused:?}");
        assert_eq!(refused.text, "Lifecycle API is not enabled.");
    }

    for (accept, encoding) in [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
    ] {
        let path = "/api/v1/label/__name__/values";
        let answer = client.send("GET", path, &[("accept-encoding", accept)], Vec::new());
        let answer = answer.unwrap();
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
    }
    let (_, log) = millrace.terminate();
    assert!(log.contains("slow query"), "{log}");
}
