//! Every shape of an answer, to the byte.

use std::time::Duration;

use millrace_model::{Labels, TimestampMs, stale_nan};
use millrace_query::{
    MatrixSeries, QueryOutcome, QueryStats, QueryValue, SampleCounts, VectorSample,
};

use crate::client::{Fixture, NOW, outcome};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn pumps() -> Vec<VectorSample> {
    let sample = |device: &str, value| VectorSample {
        labels: labels(&[("__name__", "up"), ("device", device)]),
        timestamp: TimestampMs(NOW),
        value,
    };
    vec![sample("a", 1.0), sample("b\"\\\n", f64::NAN)]
}

fn lines() -> Vec<MatrixSeries> {
    let line = |device: &str, points: &[(i64, f64)]| MatrixSeries {
        labels: labels(&[("device", device)]),
        timestamps: points.iter().map(|p| p.0).collect(),
        values: points.iter().map(|p| p.1).collect(),
    };
    vec![
        line(
            "a",
            &[(0, 0.1 + 0.2), (1_500, -0.0), (3_001, f64::INFINITY)],
        ),
        line("b", &[(-1, f64::NEG_INFINITY), (3_000, 1e21)]),
    ]
}

#[tokio::test]
async fn a_scalar_is_a_pair_of_number_and_string() {
    let f = Fixture::new();
    let value = QueryValue::Scalar {
        timestamp: TimestampMs(NOW),
        value: 1.5,
    };
    f.engine.value("q", value);
    f.get("query?query=q")
        .await
        .is_data(r#"{"resultType":"scalar","result":[1435781451.781,"1.5"]}"#);
}

#[tokio::test]
async fn a_string_is_a_pair_too() {
    let f = Fixture::new();
    let value = QueryValue::String {
        timestamp: TimestampMs(4_000),
        value: "a \"b\"".to_owned(),
    };
    f.engine.value("q", value);
    f.get("query?query=q")
        .await
        .is_data(r#"{"resultType":"string","result":[4,"a \"b\""]}"#);
}

#[tokio::test]
async fn a_vector_lists_series_with_one_value_in_the_engines_order() {
    let f = Fixture::new();
    f.engine.value("q", QueryValue::Vector(pumps()));
    f.get("query?query=q").await.is_data(
        r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","device":"a"},"value":[1435781451.781,"1"]},{"metric":{"__name__":"up","device":"b\"\\\n"},"value":[1435781451.781,"NaN"]}]}"#,
    );
}

#[tokio::test]
async fn a_matrix_lists_series_with_their_values() {
    let f = Fixture::new();
    f.engine.value("q", QueryValue::Matrix(lines()));
    f.get("query_range?query=q&start=0&end=3&step=1").await.is_data(
        r#"{"resultType":"matrix","result":[{"metric":{"device":"a"},"values":[[0,"0.30000000000000004"],[1.5,"-0"],[3.001,"+Inf"]]},{"metric":{"device":"b"},"values":[[-0.001,"-Inf"],[3,"1e+21"]]}]}"#,
    );
}

#[tokio::test]
async fn every_nan_is_the_same_word() {
    let f = Fixture::new();
    for bits in [
        f64::NAN.to_bits(),
        0x7ff8_dead_beef_0001,
        stale_nan().to_bits(),
    ] {
        let value = QueryValue::Scalar {
            timestamp: TimestampMs(0),
            value: f64::from_bits(bits),
        };
        f.engine.value("q", value);
        f.get("query?query=q")
            .await
            .is_data(r#"{"resultType":"scalar","result":[0,"NaN"]}"#);
    }
}

#[tokio::test]
async fn nothing_found_is_an_empty_list_and_never_null() {
    let f = Fixture::new();
    f.engine.value("v", QueryValue::Vector(Vec::new()));
    f.engine.value("m", QueryValue::Matrix(Vec::new()));
    let vector = r#"{"resultType":"vector","result":[]}"#;
    let matrix = r#"{"resultType":"matrix","result":[]}"#;
    f.get("query?query=v").await.is_data(vector);
    f.get("query_range?query=m&start=0&end=1&step=1")
        .await
        .is_data(matrix);
    f.get("series?match[]=nothing").await.is_data("[]");
    f.get("labels?match[]=nothing").await.is_data("[]");
    f.get("labels?start=90&end=91").await.is_data("[]");
    f.get("label/nothing/values").await.is_data("[]");
    f.get("metadata?metric=nothing").await.is_data("{}");
    f.get("query_exemplars?query=up&start=0&end=1")
        .await
        .is_data("[]");
}

#[tokio::test]
async fn the_type_of_a_result_comes_before_the_result() {
    let f = Fixture::new();
    f.engine.value("q", QueryValue::Matrix(lines()));
    for target in ["query?query=1", "query?query=q", "query?query=q&stats=all"] {
        let text = f.get(target).await.text;
        let at = |key: &str| text.find(key).unwrap_or_else(|| panic!("{key}: {text}"));
        assert!(at("\"resultType\"") < at("\"result\""), "{text}");
    }
}

#[tokio::test]
async fn warnings_and_infos_stand_beside_the_data() {
    let f = Fixture::new();
    let told = QueryOutcome {
        warnings: vec!["bad bucket".to_owned()],
        infos: vec!["metric might not be a counter".to_owned(), "two".to_owned()],
        ..outcome(QueryValue::Vector(Vec::new()))
    };
    f.engine.answer("q", Ok(told));
    assert_eq!(
        f.get("query?query=q").await.text,
        r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["bad bucket"],"infos":["metric might not be a counter","two"]}"#
    );
}

#[tokio::test]
async fn limit_cuts_series_and_says_so() {
    const CUT: &str = r#""warnings":["results truncated due to limit"]}"#;
    let f = Fixture::new();
    f.engine.value("v", QueryValue::Vector(pumps()));
    f.engine.value("m", QueryValue::Matrix(lines()));
    for target in [
        "query?query=v",
        "query_range?query=m&start=0&end=1&step=1",
        "series?match[]=temperature",
        "labels?",
        "label/device/values?",
    ] {
        let cut = f.get(&format!("{target}&limit=1")).await;
        assert!(cut.text.ends_with(CUT), "{target}: {}", cut.text);
        let data = cut.json()["data"].clone();
        let list = data
            .get("result")
            .unwrap_or(&data)
            .as_array()
            .unwrap()
            .len();
        assert_eq!(list, 1, "{target}");
        for whole in ["&limit=0", "&limit=", "&limit=40000", ""] {
            let whole = f.get(&format!("{target}{whole}")).await;
            assert_eq!(whole.json().get("warnings"), None, "{}", whole.text);
        }
    }
    // Exactly as many as there are cut nothing off.
    let exact = f.get("query?query=v&limit=2").await;
    assert_eq!(exact.json().get("warnings"), None);
    f.get("query?query=1&limit=1&time=4")
        .await
        .is_data(r#"{"resultType":"scalar","result":[4,"2"]}"#);
}

#[tokio::test]
async fn stats_come_when_asked_for_in_prometheus_layout() {
    let f = Fixture::new();
    let stats = QueryStats {
        series: 3,
        samples_read: 40,
        elapsed: Duration::from_millis(250),
        prepared: Duration::from_millis(50),
        sorted: Duration::from_millis(25),
        peak_samples: 30,
        counts: Some(SampleCounts {
            seen: 20,
            read: 12,
            seen_per_step: vec![(1_500, 20)],
            read_per_step: vec![(1_500, 12)],
        }),
    };
    let told = QueryOutcome {
        stats,
        ..outcome(QueryValue::Vector(Vec::new()))
    };
    f.engine.answer("q", Ok(told));
    assert_eq!(
        f.get("query?query=q").await.json()["data"].get("stats"),
        None
    );
    for asked in ["all", "true"] {
        f.get(&format!("query?query=q&stats={asked}")).await.is_data(
            r#"{"resultType":"vector","result":[],"stats":{"timings":{"evalTotalTime":0.25,"resultSortTime":0.025,"queryPreparationTime":0.05,"innerEvalTime":0.175,"execQueueTime":0,"execTotalTime":0.25},"samples":{"totalQueryableSamplesPerStep":[[1.5,20]],"totalQueryableSamples":20,"samplesReadPerStep":[[1.5,12]],"samplesRead":12,"peakSamples":30},"millrace":{"series":3,"samplesRead":40}}}"#,
        );
    }
}

#[tokio::test]
async fn series_are_label_sets_each_once_and_sorted() {
    let f = Fixture::new();
    f.get("series?match[]={device=\"pump-1\"}&match[]=temperature"
        .replace('"', "%22")
        .replace('{', "%7B")
        .replace('}', "%7D")
        .as_str())
        .await
        .is_data(
            r#"[{"__name__":"flow_total","device":"pump-1","http.code":"200"},{"__name__":"temperature","device":"pump-1","site":"north"},{"__name__":"temperature","device":"pump-2","site":"south"}]"#,
        );
    // Both ends of the time range count.
    f.get("series?match[]=temperature&start=2&end=4.999")
        .await
        .is_data(r#"[{"__name__":"temperature","device":"pump-1","site":"north"}]"#);
    f.get("series?match[]=temperature&start=1970-01-01T00:00:05Z")
        .await
        .is_data(r#"[{"__name__":"temperature","device":"pump-2","site":"south"}]"#);
}

#[tokio::test]
async fn label_names_and_values_are_sorted_lists() {
    let f = Fixture::new();
    f.get("labels")
        .await
        .is_data(r#"["__name__","device","http.code","site"]"#);
    f.get("labels?match[]=temperature&match[]=nothing")
        .await
        .is_data(r#"["__name__","device","site"]"#);
    f.get("label/__name__/values")
        .await
        .is_data(r#"["flow_total","temperature"]"#);
    f.get("label/device/values?match[]=flow_total")
        .await
        .is_data(r#"["pump-1"]"#);
}

#[tokio::test]
async fn metadata_maps_metrics_to_lists() {
    let f = Fixture::new();
    let flow = r#""flow_total":[{"type":"counter","help":"Litres.","unit":""},{"type":"unknown","help":"Litres, said another.","unit":""}]"#;
    let temperature = r#""temperature":[{"type":"gauge","help":"Of the \"bearing\".","unit":""}]"#;
    f.get("metadata")
        .await
        .is_data(&format!("{{{flow},{temperature}}}"));
    f.get("metadata?limit=-1")
        .await
        .is_data(&format!("{{{flow},{temperature}}}"));
    f.get("metadata?limit=1")
        .await
        .is_data(&format!("{{{flow}}}"));
    f.get("metadata?limit=0").await.is_data("{}");
    f.get("metadata?metric=temperature")
        .await
        .is_data(&format!("{{{temperature}}}"));
    f.get("metadata?metric=flow_total&limit_per_metric=1")
        .await
        .is_data(r#"{"flow_total":[{"type":"counter","help":"Litres.","unit":""}]}"#);
}

#[tokio::test]
async fn expressions_are_laid_out_and_taken_apart() {
    let f = Fixture::new();
    f.get("format_query?query=sum(foo)by(a)/bar")
        .await
        .is_data(r#""sum by (a) (foo) / bar""#);
    let tree = f
        .get("parse_query?query=sum(rate(foo[5m]offset%201m))by(a)/2")
        .await;
    let expect = serde_json::json!({
        "type": "binaryExpr", "op": "/", "bool": false, "matching": null,
        "lhs": {
            "type": "aggregation", "op": "sum", "grouping": ["a"], "without": false, "param": null,
            "expr": {
                "type": "call",
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                "args": [{
                    "type": "matrixSelector", "name": "foo", "range": 300_000, "rangeExpr": null,
                    "offset": 60_000, "offsetExpr": null, "anchored": false, "smoothed": false,
                    "timestamp": null, "startOrEnd": null,
                    "matchers": [{"name": "__name__", "type": "=", "value": "foo"}],
                }],
            },
        },
        "rhs": {"type": "numberLiteral", "val": "2"},
    });
    assert_eq!(tree.json()["data"], expect);
    let tree = f
        .get("parse_query?query=a%20*on(x)group_left(y)b%20or%20c[1h:5m]@end()")
        .await;
    assert_eq!(tree.status, 400, "{}", tree.text);
    let tree = f
        .get("parse_query?query=-(a%20*on(x)group_left(y)b)%20or%20vector(1)%20@%20start()")
        .await;
    assert_eq!(tree.status, 400, "{}", tree.text);
    let tree = f
        .get("parse_query?query=a%20*on(x)group_left(y)b%20@%201.5")
        .await;
    let data = &tree.json()["data"];
    assert_eq!(
        data["matching"],
        serde_json::json!({
            "card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"],
            "fillValues": {"lhs": null, "rhs": null},
        })
    );
    assert_eq!(data["rhs"]["timestamp"], 1_500);
    let tree = f.get("parse_query?query=a%20or%20b").await;
    assert_eq!(tree.json()["data"]["matching"]["card"], "many-to-many");
}

#[tokio::test]
async fn status_says_only_what_is_true() {
    let f = Fixture::new();
    f.get("rules").await.is_data(r#"{"groups":[]}"#);
    f.get("rules?type=alert").await.is_data(r#"{"groups":[]}"#);
    f.get("alerts").await.is_data(r#"{"alerts":[]}"#);
    f.get("status/flags").await.is_data("{}");
    let text = f.get("targets?state=active").await;
    let targets = serde_json::json!({
        "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {},
    });
    assert_eq!(text.json()["data"], targets);
    let started = "2015-07-01T20:10:51.781Z";
    assert_eq!(
        f.get("status/runtimeinfo").await.json()["data"],
        serde_json::json!({"startTime": started, "serverTime": started})
    );
}
