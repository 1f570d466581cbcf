//! The calls that Grafana makes, each with the answer that it needs. The names say the trap.

use crate::client::{Fixture, NOW};

#[tokio::test]
async fn save_and_test_asks_one_plus_one_at_second_four() {
    let f = Fixture::new();
    f.post("query", "query=1%2B1&time=4")
        .await
        .is_data(r#"{"resultType":"scalar","result":[4,"2"]}"#);
}

#[tokio::test]
async fn buildinfo_has_no_features_or_grafana_takes_us_for_mimir() {
    let f = Fixture::new();
    let reply = f.get("status/buildinfo").await;
    let data = &reply.json()["data"];
    assert_eq!(data.get("features"), None, "{data}");
    for key in [
        "version",
        "revision",
        "branch",
        "buildUser",
        "buildDate",
        "goVersion",
    ] {
        assert!(data[key].is_string(), "{key}: {data}");
    }
    // Below 2.24 Grafana does without match[] on labels.
    let version = data["version"].as_str().unwrap();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    assert!(major >= 3, "{version}");
}

#[tokio::test]
async fn exemplars_are_probed_with_milliseconds_where_seconds_belong() {
    let f = Fixture::new();
    for target in [
        format!("query_exemplars?query=test&start={NOW}&end={}", NOW + 1_000),
        "query_exemplars?query=test&start=1790000000000.5&end=1.8e12".to_owned(),
        "query_exemplars?query=test".to_owned(),
    ] {
        f.get(&target).await.is_data("[]");
        let (path, form) = target.split_once('?').unwrap();
        f.post(path, form).await.is_data("[]");
    }
}

#[tokio::test]
async fn everything_is_asked_for_as_a_name_that_is_not_empty() {
    let f = Fixture::new();
    for selector in ["%7B__name__!=%22%22%7D", "%7B__name__=~%22..*%22%7D"] {
        let reply = f.get(&format!("series?match[]={selector}")).await;
        assert_eq!(
            reply.json()["data"].as_array().unwrap().len(),
            3,
            "{}",
            reply.text
        );
        let reply = f.post("labels", &format!("match[]={selector}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
}

#[tokio::test]
async fn label_names_come_escaped_in_the_path() {
    let f = Fixture::new();
    for name in ["U__http_2e_code", "http.code", "http%2Ecode"] {
        f.get(&format!("label/{name}/values"))
            .await
            .is_data(r#"["200"]"#);
    }
    f.get("label/U____name__/values?match[]=flow_total")
        .await
        .is_data("[]");
    f.get("label/U______name____/values?match[]=flow_total")
        .await
        .is_data(r#"["flow_total"]"#);
}

#[tokio::test]
async fn the_labels_of_a_metric_are_asked_with_post_and_limit() {
    let f = Fixture::new();
    f.post("labels", "match[]=temperature&start=0&end=10&limit=40000")
        .await
        .is_data(r#"["__name__","device","site"]"#);
    f.post(
        "series",
        "match%5B%5D=flow_total&start=0.5&end=1.001&limit=40000",
    )
    .await
    .is_data(r#"[{"__name__":"flow_total","device":"pump-1","http.code":"200"}]"#);
    f.get("label/__name__/values?start=0&end=10&limit=1000")
        .await
        .is_data(r#"["flow_total","temperature"]"#);
}

#[tokio::test]
async fn legal_forms_are_never_400_or_grafana_repeats_them() {
    let f = Fixture::new();
    for (path, form) in [
        (
            "query",
            "query=up&time=1435781451.781&timeout=60s&limit=40000",
        ),
        (
            "query_range",
            "query=up&start=1435781400&end=1435781460.5&step=15",
        ),
        (
            "query_range",
            "query=up&start=1435781400&end=1435781460.5&step=0.5&timeout=60s",
        ),
        (
            "query_exemplars",
            "query=up&start=1435781400&end=1435781460",
        ),
        (
            "series",
            "match[]=up&start=1435781400&end=1435781460&limit=40000",
        ),
        ("labels", "start=1435781400&end=1435781460&limit=1000"),
    ] {
        let reply = f.post(path, form).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn rules_and_alerts_are_lists_even_when_there_are_none() {
    let f = Fixture::new();
    assert!(f.get("rules").await.json()["data"]["groups"].is_array());
    assert!(f.get("alerts").await.json()["data"]["alerts"].is_array());
    assert!(f.get("metadata").await.json()["data"].is_object());
}

#[tokio::test]
async fn series_carry_no_keys_that_grafana_does_not_know() {
    let f = Fixture::new();
    let reply = f.get("query?query=1&stats=all").await;
    let json = reply.json();
    let mut keys: Vec<_> = json["data"].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["result", "resultType", "stats"]);
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
}
