use serde_json::{Value as Json, json};

use super::*;
use crate::IngestOptions;
use crate::options::TranslationStrategy;
use crate::probe::{Probe, ProbeFormat};
use crate::report::Report;
use crate::testing::{NOW, decode as run, probe, refused, shown};

/// Everything in one metric of one resource.
fn request(resource: Json, metrics: Json) -> Json {
    json!({ "resourceMetrics": [{
        "resource": { "attributes": resource },
        "scopeMetrics": [{ "scope": { "name": "lib", "version": "1" }, "metrics": metrics }],
    }] })
}

fn attribute(key: &str, value: &str) -> Json {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn nanos(offset_ms: i64) -> String {
    format!("{}000000", NOW + offset_ms)
}

fn gauge(name: &str, value: Json) -> Json {
    json!({ "name": name, "gauge": { "dataPoints": [{ "timeUnixNano": nanos(0), "asDouble": value }] } })
}

/// Decodes it as JSON, and as the protobuf that it is transcoded to: both must come to the same.
fn check_with(options: &IngestOptions, request: &Json) -> (Vec<String>, Report) {
    let text = request.to_string();
    let mut probe: Probe = probe(options.clone());
    let (stored, report) = run(&mut probe, ProbeFormat::OtlpJson, text.as_bytes()).unwrap();
    // Once more with everything known.
    let (again, _) = run(&mut probe, ProbeFormat::OtlpJson, text.as_bytes()).unwrap();
    assert_eq!(stored, again);
    (shown(&stored), report)
}

fn check(request: &Json) -> (Vec<String>, Report) {
    check_with(&IngestOptions::default(), request)
}

#[test]
fn gauges_and_sums_become_series_with_job_and_instance() {
    let resource = json!([
        attribute("service.name", "shop"),
        attribute("service.namespace", "eu"),
        attribute("service.instance.id", "i-1"),
    ]);
    let point = |value: Json| {
        json!({ "timeUnixNano": nanos(0), "asInt": value,
        "attributes": [attribute("http.method", "GET"), attribute("a.b", "1"), attribute("a_b", "2")] })
    };
    let metrics = json!([
        gauge("room.temperature", json!(21.5)),
        { "name": "http.requests", "unit": "{request}", "sum": {
            "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point(json!("7"))] } },
        { "name": "queue.size", "unit": "By", "sum": {
            "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE", "dataPoints": [point(json!(-3))] } },
    ]);
    let (stored, report) = check(&request(resource, metrics));
    assert!(report.is_empty(), "{report:?}");
    let own = "http_method=\"GET\", instance=\"i-1\", job=\"eu/shop\"";
    assert_eq!(
        stored,
        [
            format!("http_requests_total{{a_b=\"1;2\", {own}}} 7"),
            format!("queue_size_bytes{{a_b=\"1;2\", {own}}} -3"),
            "room_temperature{instance=\"i-1\", job=\"eu/shop\"} 21.5".to_owned(),
        ]
    );
}

#[test]
fn histograms_become_cumulative_buckets() {
    let metrics = json!([{ "name": "latency", "unit": "s", "histogram": {
        "aggregationTemporality": 2, "dataPoints": [{
            "timeUnixNano": nanos(0), "count": "6", "sum": 12.5,
            "bucketCounts": ["1", "2", 3], "explicitBounds": [0.5, 10.0] }] } }]);
    let (stored, report) = check(&request(json!([]), metrics));
    assert!(report.is_empty(), "{report:?}");
    assert_eq!(
        stored,
        [
            "latency_seconds_bucket{le=\"+Inf\"} 6",
            "latency_seconds_bucket{le=\"0.5\"} 1",
            "latency_seconds_bucket{le=\"10\"} 3",
            "latency_seconds_count 6",
            "latency_seconds_sum 12.5",
        ]
    );
}

#[test]
fn a_histogram_without_sum_has_none_and_one_without_buckets_still_counts() {
    let metrics = json!([{ "name": "h", "histogram": { "aggregationTemporality": 2,
        "dataPoints": [{ "timeUnixNano": nanos(0), "count": "4" }] } }]);
    let (stored, _) = check(&request(json!([]), metrics));
    assert_eq!(stored, ["h_bucket{le=\"+Inf\"} 4", "h_count 4"]);
}

#[test]
fn summaries_become_quantiles() {
    let metrics = json!([{ "name": "s", "summary": { "dataPoints": [{
        "timeUnixNano": nanos(0), "count": "2", "sum": 3.0,
        "quantileValues": [{ "quantile": 0.5, "value": 1.0 }, { "quantile": 0.99, "value": 2.0 }] }] } }]);
    let (stored, _) = check(&request(json!([]), metrics));
    assert_eq!(
        stored,
        [
            "s_count 2",
            "s_sum 3",
            "s{quantile=\"0.5\"} 1",
            "s{quantile=\"0.99\"} 2"
        ]
    );
}

#[test]
fn a_point_without_recorded_value_is_the_staleness_marker() {
    let metrics = json!([{ "name": "g", "gauge": { "dataPoints": [
        { "timeUnixNano": nanos(0), "flags": 1 }] } }]);
    let text = request(json!([]), metrics).to_string();
    let mut probe = probe(IngestOptions::default());
    let (stored, _) = run(&mut probe, ProbeFormat::OtlpJson, text.as_bytes()).unwrap();
    assert_eq!(stored["g"], [(NOW, 0x7ff0_0000_0000_0002)]);
}

#[test]
fn target_info_says_the_rest_of_the_resource() {
    let resource = json!([
        attribute("service.name", "shop"),
        attribute("host.name", "h")
    ]);
    let metrics = json!([{ "name": "g", "gauge": { "dataPoints": [
        { "timeUnixNano": nanos(-400_000), "asDouble": 1.0 },
        { "timeUnixNano": nanos(0), "asDouble": 2.0 }] } }]);
    let (stored, _) = check(&request(resource, metrics));
    assert_eq!(
        stored,
        [
            "g{job=\"shop\"} 1@-400000 2",
            "target_info{host_name=\"h\", job=\"shop\"} 1@-400000 1@-250000 1@-100000 1",
        ]
    );
    // Nothing beside the identity, or no identity: no target_info.
    for resource in [
        json!([attribute("service.name", "shop")]),
        json!([attribute("host.name", "h")]),
    ] {
        let (stored, _) = check(&request(resource, json!([gauge("g", json!(1))])));
        assert_eq!(stored.len(), 1);
    }
}

#[test]
fn attributes_over_a_limit_are_left_out_of_target_info() {
    let resource = json!([
        attribute("service.name", "shop"),
        attribute("process.command_args", &"x".repeat(5000)),
        attribute("os", "linux"),
    ]);
    let (stored, report) = check(&request(resource, json!([gauge("g", json!(1))])));
    assert!(report.is_empty());
    assert_eq!(stored[1], "target_info{job=\"shop\", os=\"linux\"} 1");
}

#[test]
fn resource_attributes_and_scopes_are_promoted_as_told() {
    let resource = json!([
        attribute("service.name", "shop"),
        attribute("host.name", "h"),
        attribute("os", "linux")
    ]);
    let body = request(resource, json!([gauge("g", json!(1))]));
    let mut options = IngestOptions::default();
    options.otlp.promote_resource_attributes = vec!["host.name".to_owned()];
    let (stored, _) = check_with(&options, &body);
    assert_eq!(stored[0], "g{host_name=\"h\", job=\"shop\"} 1");
    options.otlp.promote_all_resource_attributes = true;
    options.otlp.ignore_resource_attributes = vec!["host.name".to_owned()];
    options.otlp.promote_scope_metadata = true;
    let (stored, _) = check_with(&options, &body);
    assert_eq!(
        stored[0],
        "g{job=\"shop\", os=\"linux\", otel_scope_name=\"lib\", otel_scope_version=\"1\", \
         service_name=\"shop\"} 1"
    );
}

#[test]
fn names_follow_the_strategy() {
    let metrics = json!([{ "name": "my.metric", "unit": "s", "gauge": { "dataPoints": [
        { "timeUnixNano": nanos(0), "asDouble": 1.0, "attributes": [attribute("a.b", "x")] }] } }]);
    let body = request(json!([]), metrics);
    for (strategy, expect) in [
        (
            TranslationStrategy::UnderscoreEscapingWithSuffixes,
            "my_metric_seconds{a_b=\"x\"} 1",
        ),
        (
            TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
            "my_metric{a_b=\"x\"} 1",
        ),
        (
            TranslationStrategy::NoUtf8EscapingWithSuffixes,
            "my.metric_seconds{a.b=\"x\"} 1",
        ),
        (TranslationStrategy::NoTranslation, "my.metric{a.b=\"x\"} 1"),
    ] {
        let mut options = IngestOptions::default();
        options.otlp.translation = strategy;
        assert_eq!(check_with(&options, &body).0, [expect]);
    }
}

#[test]
fn bad_points_are_counted_once_each_and_the_others_stored() {
    let point = |extra: Json| {
        let mut point = json!({ "timeUnixNano": nanos(0), "asDouble": 1.0 });
        point
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        point
    };
    let long = attribute("a", &"x".repeat(5000));
    let metrics = json!([
        { "name": "g", "gauge": { "dataPoints": [
            point(json!({})),
            point(json!({ "timeUnixNano": "1" })),
            { "timeUnixNano": nanos(0) },
            point(json!({ "timeUnixNano": 0 })),
            point(json!({ "attributes": [long] })),
            point(json!({ "attributes": [attribute("__", "x")] })),
        ] } },
        { "name": "", "gauge": { "dataPoints": [point(json!({}))] } },
        { "name": "...", "gauge": { "dataPoints": [point(json!({}))] } },
        { "name": "e", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [{}, {}] } },
        { "name": "d", "sum": { "aggregationTemporality": 1, "dataPoints": [point(json!({}))] } },
        { "name": "u", "sum": { "dataPoints": [point(json!({}))] } },
        { "name": "h", "histogram": { "aggregationTemporality": 2, "dataPoints": [
            { "timeUnixNano": nanos(0), "bucketCounts": [1], "explicitBounds": [1.0] },
            { "timeUnixNano": nanos(0), "bucketCounts": [1, 1, 1], "explicitBounds": [2.0, 1.0] },
            { "timeUnixNano": nanos(0), "count": 1, "sum": 1, "bucketCounts": [1, 0], "explicitBounds": [2.0],
              "attributes": [long] },
        ] } },
    ]);
    let mut options = IngestOptions::default();
    options.otlp.delta = DeltaTemporality::Refuse;
    let (stored, report) = check_with(&options, &request(json!([]), metrics));
    assert_eq!(stored, ["g 1"]);
    assert_eq!(report.items(), 14);
    let places: Vec<_> = refused(&report).into_iter().collect();
    let expect = [
        (1, Reason::TooOld),
        (2, Reason::MissingValue),
        (3, Reason::BadTimestamp),
        (4, Reason::LabelValueTooLong),
        (5, Reason::BadName),
        (6, Reason::MissingMetricName),
        (7, Reason::BadName),
        (8, Reason::ExponentialHistogram),
        (9, Reason::ExponentialHistogram),
        (10, Reason::DeltaTemporality),
        (11, Reason::DeltaTemporality),
        (12, Reason::BadHistogram),
        (13, Reason::BadHistogram),
        (14, Reason::LabelValueTooLong),
    ];
    assert_eq!(
        places,
        expect.map(|(n, reason)| (format!("data point {n}"), reason))
    );
}

fn deltas() -> Json {
    json!([{ "name": "d", "sum": { "aggregationTemporality": 1, "isMonotonic": true,
        "dataPoints": [{ "timeUnixNano": nanos(0), "asInt": 3 }, { "timeUnixNano": nanos(10), "asInt": 4 }] } }])
}

#[test]
fn deltas_are_stored_as_they_are_in_series_that_say_so() {
    let (stored, report) = check(&request(json!([]), deltas()));
    assert!(report.is_empty());
    assert_eq!(stored, ["d_total{__temporality__=\"delta\"} 3 4@10"]);
    // A cumulative sum of that name is another series, known or not.
    let mut metrics = deltas();
    let mut cumulative = metrics[0].clone();
    cumulative["sum"]["aggregationTemporality"] = json!(2);
    metrics.as_array_mut().unwrap().push(cumulative);
    let (stored, _) = check(&request(json!([]), metrics));
    let expect = [
        "d_total 3 4@10",
        "d_total{__temporality__=\"delta\"} 3 4@10",
    ];
    assert_eq!(stored, expect);
}

#[test]
fn histograms_of_deltas_say_so_in_every_series() {
    let metrics = json!([{ "name": "h", "histogram": { "aggregationTemporality": 1, "dataPoints": [{
        "timeUnixNano": nanos(0), "count": 3, "sum": 4.5, "bucketCounts": [1, 2], "explicitBounds": [2.0] }] } }]);
    let (stored, report) = check(&request(json!([]), metrics));
    assert!(report.is_empty());
    let delta = "__temporality__=\"delta\"";
    let expect = [
        format!("h_bucket{{{delta}, le=\"+Inf\"}} 3"),
        format!("h_bucket{{{delta}, le=\"2\"}} 1"),
        format!("h_count{{{delta}}} 3"),
        format!("h_sum{{{delta}}} 4.5"),
    ];
    assert_eq!(stored, expect);
}

#[test]
fn deltas_are_stored_without_a_mark_where_that_is_wanted() {
    let mut options = IngestOptions::default();
    options.otlp.delta = DeltaTemporality::Store;
    let (stored, report) = check_with(&options, &request(json!([]), deltas()));
    assert!(report.is_empty());
    assert_eq!(stored, ["d_total 3 4@10"]);
}

#[test]
fn attribute_values_of_every_type_are_text() {
    let any = |value: Json| json!({ "key": "k", "value": value });
    for (value, expect) in [
        (json!({ "boolValue": true }), "true"),
        (json!({ "boolValue": false }), "false"),
        (json!({ "intValue": "-5" }), "-5"),
        (json!({ "doubleValue": 1.5 }), "1.5"),
        (json!({ "doubleValue": "Infinity" }), "+Inf"),
        (json!({ "bytesValue": "Zm9v" }), "Zm9v"),
        (
            json!({ "arrayValue": { "values": [{ "intValue": 1 }, { "stringValue": "a\"b" }, {}] } }),
            "[1,\\\"a\\\\\\\"b\\\",null]",
        ),
        (
            json!({ "kvlistValue": { "values": [any(json!({ "intValue": 1 }))] } }),
            "{\\\"k\\\":1}",
        ),
    ] {
        let metrics = json!([{ "name": "g", "gauge": { "dataPoints": [
            { "timeUnixNano": nanos(0), "asDouble": 1, "attributes": [any(value)] }] } }]);
        let (stored, report) = check(&request(json!([]), metrics));
        assert!(report.is_empty(), "{report:?}");
        assert_eq!(stored, [format!("g{{k=\"{expect}\"}} 1")]);
    }
}

#[test]
fn deep_values_are_refused_and_do_not_exhaust_the_stack() {
    let mut value = json!({ "intValue": 1 });
    for _ in 0..30 {
        value = json!({ "arrayValue": { "values": [value] } });
    }
    let metrics = json!([{ "name": "g", "gauge": { "dataPoints": [
        { "timeUnixNano": nanos(0), "asDouble": 1, "attributes": [{ "key": "k", "value": value }] }] } }]);
    let (stored, report) = check(&request(json!([]), metrics));
    assert!(stored.is_empty());
    assert_eq!(report.details()[0].reason, Reason::UnsupportedType);
}

#[test]
fn json_that_is_no_request_is_refused_with_its_place() {
    for text in [
        "",
        "[]",
        "{\"resourceMetrics\":1}",
        "{\"resourceMetrics\":[{]}",
        "{} {}",
        "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":1}]}]}]}",
        "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"gauge\":{\"dataPoints\":[{\"asInt\":\"x\"}]}}]}]}]}",
    ] {
        let error = run(
            &mut probe(IngestOptions::default()),
            ProbeFormat::OtlpJson,
            text.as_bytes(),
        );
        assert_eq!(error.unwrap_err().reason(), "malformed_json", "{text}");
    }
    for text in [
        "{}",
        "{\"resourceMetrics\":null}",
        "{\"unknown\":{\"a\":[1]}}",
    ] {
        let (stored, report) = run(
            &mut probe(IngestOptions::default()),
            ProbeFormat::OtlpJson,
            text.as_bytes(),
        )
        .unwrap();
        assert!(stored.is_empty() && report.is_empty());
    }
}

#[test]
fn protobuf_that_is_none_is_refused_with_its_place() {
    for body in [&b"\x0a"[..], b"\x08\x01\x0a\xff", b"hello, this is text"] {
        let error = run(
            &mut probe(IngestOptions::default()),
            ProbeFormat::Otlp,
            body,
        );
        assert_eq!(
            error.unwrap_err().reason(),
            "malformed_protobuf",
            "{body:?}"
        );
    }
    let (stored, _) = run(&mut probe(IngestOptions::default()), ProbeFormat::Otlp, b"").unwrap();
    assert!(stored.is_empty());
}
