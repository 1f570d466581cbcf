//! Targets, rules and statistics of a server that has some, in Prometheus's shapes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Labels, MetricMetadata, MetricType, TimestampMs};
use millrace_query::api::{
    ActiveTarget, Alert, Alerting, Cardinality, Companions, DroppedTarget, Health, Rule, RuleGroup,
    Rules, Statistics, Targets,
};
use millrace_query::{ReadScope, SourceError};
use serde_json::json;

use crate::client::{Fixture, NOW};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[derive(Debug)]
struct Plant;

impl Targets for Plant {
    fn pools(&self) -> Vec<String> {
        vec!["node".to_owned(), "pump".to_owned()]
    }

    fn active(&self) -> Vec<ActiveTarget> {
        ["node", "pump"]
            .map(|pool| ActiveTarget {
                pool: pool.to_owned(),
                discovered: map(&[("__address__", "a:9100")]),
                labels: Labels::from_pairs([("instance", "a:9100"), ("job", pool)]).unwrap(),
                url: "http://a:9100/metrics".to_owned(),
                global_url: "http://a:9100/metrics".to_owned(),
                last_error: String::new(),
                last_scrape: (pool == "node").then_some(TimestampMs(NOW)),
                last_scrape_duration: Duration::from_millis(250),
                health: if pool == "node" {
                    Health::Good
                } else {
                    Health::Unknown
                },
                interval: "15s".to_owned(),
                timeout: "10s".to_owned(),
                metadata: vec![MetricMetadata {
                    metric: format!("{pool}_up"),
                    metric_type: MetricType::Gauge,
                    help: "Up.".to_owned(),
                    unit: String::new(),
                }],
            })
            .into()
    }

    fn dropped(&self) -> Vec<DroppedTarget> {
        vec![DroppedTarget {
            pool: "node".to_owned(),
            discovered: map(&[("__address__", "b:9100")]),
        }]
    }

    fn dropped_counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("node".to_owned(), 1), ("pump".to_owned(), 0)])
    }
}

impl Rules for Plant {
    fn groups(&self, _: &ReadScope) -> Vec<RuleGroup> {
        let rule = |name: &str, alerting| Rule {
            name: name.to_owned(),
            query: "up == 0".to_owned(),
            labels: map(&[("team", name)]),
            health: Health::Good,
            last_error: String::new(),
            evaluation_time: Duration::from_millis(1),
            last_evaluation: Some(TimestampMs(NOW)),
            alerting,
        };
        let alerting = Alerting {
            hold: Duration::from_secs(60),
            keep_firing: Duration::ZERO,
            annotations: map(&[("summary", "down")]),
            alerts: vec![Alert {
                labels: map(&[("alertname", "Down")]),
                annotations: map(&[("summary", "down")]),
                firing: true,
                active_at: TimestampMs(NOW),
                keep_firing_since: None,
                value: 0.5,
            }],
        };
        ["one", "two", "three"]
            .map(|name| RuleGroup {
                name: name.to_owned(),
                file: "rules.yml".to_owned(),
                rules: vec![
                    rule(&format!("{name}:rate"), None),
                    rule(&format!("{name}Down"), Some(alerting.clone())),
                ],
                interval: Duration::from_secs(30),
                limit: 0,
                evaluation_time: Duration::from_millis(2),
                last_evaluation: None,
            })
            .into()
    }
}

impl Statistics for Plant {
    fn cardinality(&self, _: &ReadScope, limit: usize) -> Result<Cardinality, SourceError> {
        let mut series_by_metric = vec![("up".to_owned(), 2), ("flow".to_owned(), 1)];
        series_by_metric.truncate(limit);
        Ok(Cardinality {
            series: 3,
            label_pairs: 5,
            chunks: 7,
            time: Some((TimestampMs(1), TimestampMs(2))),
            series_by_metric,
            ..Cardinality::default()
        })
    }
}

fn fixture() -> Fixture {
    Fixture::beside(Companions {
        targets: Arc::new(Plant),
        rules: Arc::new(Plant),
        statistics: Arc::new(Plant),
        ..Companions::default()
    })
}

#[tokio::test]
async fn targets_are_told_with_their_health() {
    let f = fixture();
    let data = f.get("targets").await.json()["data"].clone();
    assert_eq!(
        data["activeTargets"][0],
        json!({
            "discoveredLabels": {"__address__": "a:9100"},
            "labels": {"instance": "a:9100", "job": "node"},
            "scrapePool": "node",
            "scrapeUrl": "http://a:9100/metrics",
            "globalUrl": "http://a:9100/metrics",
            "lastError": "",
            "lastScrape": "2015-07-01T20:10:51.781Z",
            "lastScrapeDuration": 0.25,
            "health": "up",
            "scrapeInterval": "15s",
            "scrapeTimeout": "10s",
        })
    );
    assert_eq!(data["activeTargets"][1]["health"], "unknown");
    assert_eq!(
        data["activeTargets"][1]["lastScrape"],
        "0001-01-01T00:00:00Z"
    );
    assert_eq!(data["droppedTargets"][0]["scrapePool"], "node");
    assert_eq!(data["droppedTargetCounts"], json!({"node": 1, "pump": 0}));
    let count = |data: &serde_json::Value, key: &str| data[key].as_array().unwrap().len();
    for (query, active, dropped) in [
        ("state=active", 2, 0),
        ("state=Dropped", 0, 1),
        ("state=any", 2, 1),
        ("scrapePool=pump", 1, 0),
    ] {
        let data = f.get(&format!("targets?{query}")).await.json()["data"].clone();
        let found = (
            count(&data, "activeTargets"),
            count(&data, "droppedTargets"),
        );
        assert_eq!(found, (active, dropped), "{query}");
    }
    f.get("scrape_pools")
        .await
        .is_data(r#"{"scrapePools":["node","pump"]}"#);
}

#[tokio::test]
async fn targets_tell_their_metadata() {
    let f = fixture();
    let line =
        r#"{"help":"Up.","target":{"instance":"a:9100","job":"node"},"type":"gauge","unit":""}"#;
    f.get("targets/metadata?metric=node_up")
        .await
        .is_data(&format!("[{line}]"));
    let all = f.get("targets/metadata").await.json();
    assert_eq!(all["data"][1]["metric"], "pump_up", "{all}");
    let some = f
        .get("targets/metadata?match_target=%7Bjob=%22pump%22%7D")
        .await;
    assert_eq!(some.json()["data"].as_array().unwrap().len(), 1);
    let one = f.get("targets/metadata?limit=1").await;
    assert_eq!(one.json()["data"].as_array().unwrap().len(), 1);
    f.get("targets/metadata?limit=x")
        .await
        .is_error(400, "bad_data", "limit must be a number");
    assert_eq!(f.get("targets/metadata?match_target=(").await.status, 400);
    f.get("targets/relabel_steps").await.is_error(
        400,
        "bad_data",
        "no scrapePool parameter provided",
    );
    let unknown = f
        .get("targets/relabel_steps?scrapePool=x&labels=%7B%7D")
        .await;
    assert_eq!(unknown.status, 400, "{}", unknown.text);
    assert_eq!(f.get("scrape_pools/config?scrapePool=x").await.status, 400);
}

#[tokio::test]
async fn rules_are_told_by_group_and_can_be_picked() {
    let f = fixture();
    let data = f.get("rules").await.json()["data"].clone();
    let group = &data["groups"][0];
    assert_eq!(group["name"], "one");
    assert_eq!(group["interval"], 30.0);
    assert_eq!(group["lastEvaluation"], "0001-01-01T00:00:00Z");
    assert_eq!(
        group["rules"][0],
        json!({
            "name": "one:rate", "query": "up == 0", "labels": {"team": "one:rate"},
            "health": "ok", "evaluationTime": 0.001,
            "lastEvaluation": "2015-07-01T20:10:51.781Z", "type": "recording",
        })
    );
    let alerting = &group["rules"][1];
    assert_eq!(alerting["type"], "alerting");
    assert_eq!(alerting["state"], "firing");
    assert_eq!(alerting["duration"], 60.0);
    assert_eq!(alerting["alerts"][0]["value"], "5e-01");
    assert_eq!(alerting["alerts"][0]["state"], "firing");
    for (query, groups, rules) in [
        ("type=alert", 3, 1),
        ("type=record", 3, 1),
        ("rule_name[]=oneDown", 1, 1),
        ("rule_group[]=one&rule_group[]=two", 2, 2),
        ("file[]=other.yml", 0, 0),
        ("match[]=%7Bteam=%22twoDown%22%7D", 1, 1),
    ] {
        let data = f.get(&format!("rules?{query}")).await.json()["data"].clone();
        let found = data["groups"].as_array().unwrap();
        assert_eq!(found.len(), groups, "{query}");
        if groups > 0 {
            assert_eq!(
                found[0]["rules"].as_array().unwrap().len(),
                rules,
                "{query}"
            );
        }
    }
    let plain = f.get("rules?exclude_alerts=true").await.json();
    assert!(plain["data"]["groups"][0]["rules"][1]["alerts"].is_null());
    let alerts = f.get("alerts").await.json();
    assert_eq!(alerts["data"]["alerts"].as_array().unwrap().len(), 3);
    assert_eq!(f.get("rules?type=x").await.status, 400);
}

#[tokio::test]
async fn rules_come_in_pages() {
    let f = fixture();
    let mut token = String::new();
    let mut names = Vec::new();
    loop {
        let next = match token.as_str() {
            "" => String::new(),
            token => format!("&group_next_token={token}"),
        };
        let data = f.get(&format!("rules?group_limit=2{next}")).await.json()["data"].clone();
        let groups = data["groups"].as_array().unwrap();
        assert!(groups.len() <= 2);
        names.extend(
            groups
                .iter()
                .map(|g| g["name"].as_str().unwrap().to_owned()),
        );
        match data["groupNextToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["one", "two", "three"]);
    for query in [
        "group_limit=0",
        "group_limit=x",
        "group_next_token=y",
        "group_limit=1&group_next_token=y",
    ] {
        assert_eq!(
            f.get(&format!("rules?{query}")).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn cardinality_is_told_in_the_shape_of_a_prometheus_head() {
    let f = fixture();
    let data = f.get("status/tsdb?limit=1").await.json()["data"].clone();
    assert_eq!(
        data,
        json!({
            "headStats": {
                "numSeries": 3, "numLabelPairs": 5, "chunkCount": 7, "minTime": 1, "maxTime": 2,
            },
            "seriesCountByMetricName": [{"name": "up", "value": 2}],
            "labelValueCountByLabelName": [],
            "memoryInBytesByLabelName": [],
            "seriesCountByLabelValuePair": [],
        })
    );
    f.get("status/tsdb?limit=0")
        .await
        .is_error(400, "bad_data", "limit must be a positive number");
    f.get("status/tsdb?limit=10001")
        .await
        .is_error(400, "bad_data", "limit must not exceed 10000");
    f.get("status/tsdb/blocks")
        .await
        .is_data(r#"{"blocks":[]}"#);
}
