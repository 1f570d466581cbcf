//! Views of a real server: defined while it runs, read by queries, equal to the same aggregation of
//! samples, kept over restarts; and whom they show nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::access::{bearer, create};
use crate::support::{Client, Millrace, eventually, matrix, now_ms};

const PATIENCE: Duration = Duration::from_secs(60);

const SMALL: &[&str] = &[
    "queue.partitions=3",
    "store.memtable_max_age=300ms",
    "store.block_window=10m",
];

fn put(client: &Client, name: &str, view: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let path = format!("/api/v1/views/{name}");
    let body = view.to_string().into_bytes();
    let answer = client.send("PUT", &path, headers, body).unwrap();
    (answer.status, answer.json())
}

/// An hour of samples, ten seconds apart, of six hosts in two sites; up to a whole minute.
fn push_an_hour(client: &Client, headers: &[(&str, &str)]) -> i64 {
    let end = now_ms() / 3_600_000 * 3_600_000;
    let mut lines = String::new();
    for step in 0..360i64 {
        let at = end - step * 10_000;
        for host in 0..6i64 {
            let site = ["a", "b"][usize::from(host % 2 == 1)];
            let value = (host + 1) * (360 - step) % 977;
            lines.push_str(&format!("load,host=h{host},site={site} x={value} {at}\n"));
        }
    }
    let pushed = client.post("/write?precision=ms", headers, lines);
    assert_eq!(pushed.status, 204, "{pushed:?}");
    end
}

fn until_derived(client: &Client, name: &str) -> Value {
    eventually("the view is derived", PATIENCE, || {
        let status = client.get(&format!("/api/v1/views/{name}/status")).json()["data"].clone();
        let progress = &status["progress"];
        let ready = progress["done"] == true && progress["derived"].as_u64() >= Some(60);
        ready
            .then(|| status.clone())
            .ok_or_else(|| status.to_string())
    })
}

/// The samples of both expressions over the hour, which must be the same, whatever the names.
fn expect_equal(client: &Client, end: i64, view: &str, raw: &str) {
    let seconds = |ms: i64| (ms / 1000).to_string();
    let ask = |expression: &str| {
        let data = client.query_range(expression, &seconds(end - 3_540_000), &seconds(end), "60");
        let found = matrix(&data);
        let mut rows: Vec<_> = found.into_values().collect();
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows
    };
    let (got, expect) = (ask(view), ask(raw));
    assert!(
        !expect.is_empty() && expect.iter().all(|row| row.len() == 60),
        "{raw}: {expect:?}"
    );
    assert_eq!(got, expect, "{view} and {raw}");
}

fn expect_views(client: &Client, end: i64) {
    for (view, raw) in [
        ("view:load:sum", "sum by (site) (sum_over_time(load_x[1m]))"),
        (
            "view:load:count",
            "sum by (site) (count_over_time(load_x[1m]))",
        ),
        ("view:load:min", "min by (site) (min_over_time(load_x[1m]))"),
        ("view:load:max", "max by (site) (max_over_time(load_x[1m]))"),
        (
            "view:load:increase",
            "sum by (site) (increase(load_x[1m] anchored))",
        ),
        (
            "view:load:distinct{site=\"a\"}",
            "count(count by (host) (count_over_time(load_x{site=\"a\"}[1m])))",
        ),
        ("view:load:sum / view:load:count", "view:load:avg"),
    ] {
        expect_equal(client, end, view, raw);
    }
}

#[test]
fn a_view_equals_the_same_aggregation_of_samples_before_and_after_it_is_derived() {
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), SMALL);
    let client = server.client();
    let view = json!({
        "selector": "load_x", "by": ["site"], "width": "1m",
        "aggregates": ["count", "sum", "avg", "min", "max", "increase", "distinct", "quantile"],
        "distinct": "host", "quantiles": [0.5, 0.9],
    });
    let (status, shown) = put(&client, "load", &view, &[]);
    assert_eq!(
        (status, &shown["data"]["origin"]),
        (201, &json!("api")),
        "{shown}"
    );
    let end = push_an_hour(&client, &[]);
    eventually("the samples", PATIENCE, || {
        let time = (end / 1000).to_string();
        let seen = client.query("count(count_over_time(load_x[1h]))", Some(&time));
        let seen = seen["result"][0]["value"][1].clone();
        (seen == "6").then_some(()).ok_or_else(|| seen.to_string())
    });
    // From memory, and then from files.
    expect_views(&client, end);
    until_derived(&client, "load");
    expect_views(&client, end);
    // What the page of Grafana asks.
    let names = client.get("/api/v1/label/__name__/values").json();
    assert!(
        names["data"]
            .as_array()
            .unwrap()
            .contains(&json!("view:load:sum")),
        "{names}"
    );
    let sites = client
        .get("/api/v1/label/site/values?match[]=view:load:quantile")
        .json();
    assert_eq!(sites["data"], json!(["a", "b"]));
    let series = client
        .get("/api/v1/series?match[]=view:load:quantile{site=%22a%22}")
        .json();
    assert_eq!(series["data"].as_array().unwrap().len(), 2, "{series}");
    // A selection without the prefix counts nothing twice.
    let time = (end / 1000).to_string();
    let all = client.query("count({site=\"a\"})", Some(&time));
    assert_eq!(all["result"][0]["value"][1], "3");

    // Late samples are in it, also after a restart.
    let late = format!("load,host=h9,site=a x=5000 {}\n", end - 1_800_001);
    assert_eq!(client.post("/write?precision=ms", &[], late).status, 204);
    let max = |client: &Client| {
        let time = ((end - 1_800_000) / 1000).to_string();
        client.query("view:load:max{site=\"a\"}", Some(&time))["result"][0]["value"][1].clone()
    };
    eventually("the late sample", PATIENCE, || {
        let found = max(&client);
        (found == "5000")
            .then_some(())
            .ok_or_else(|| found.to_string())
    });
    let (code, stderr) = server.terminate();
    assert_eq!(code.code(), Some(0), "{stderr}");
    let server = Millrace::start(dir.path(), SMALL);
    let client = server.client();
    assert_eq!(max(&client), "5000");
    until_derived(&client, "load");
    let rebuilt = client.post("/api/v1/views/load/rebuild", &[], "");
    assert_eq!(rebuilt.status, 202, "{rebuilt:?}");
    assert_eq!(max(&client), "5000");
    until_derived(&client, "load");
    let dropped = client
        .send("DELETE", "/api/v1/views/load", &[], Vec::new())
        .unwrap();
    assert_eq!(dropped.status, 204, "{dropped:?}");
    assert_eq!(max(&client), Value::Null);
    assert_eq!(
        client.get("/api/v1/views").json()["data"]["views"],
        json!([])
    );
}

#[test]
fn a_view_that_makes_no_sense_is_refused_and_one_of_a_file_is_changed_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("views.yml");
    let view = |width: &str| {
        format!("view:\n- name: f\n  selector: up\n  width: {width}\n  aggregates: [sum]\n")
    };
    std::fs::write(&file, view("1m")).unwrap();
    let setting = format!("views.file={}", file.display());
    let data = dir.path().join("data");
    let server = Millrace::start(&data, &[&setting, "server.admin_api=true"]);
    let client = server.client();
    let width =
        || client.get("/api/v1/views/f/status").json()["data"]["definition"]["width"].clone();
    assert_eq!(width(), "1m");
    std::fs::write(&file, view("5m")).unwrap();
    assert_eq!(client.post("/-/reload", &[], "").status, 200);
    assert_eq!(width(), "5m");
    std::fs::write(&file, view("7m")).unwrap();
    let refused = client.post("/-/reload", &[], "");
    assert!(
        refused.text.contains("view 1: width: \"7m\""),
        "{refused:?}"
    );
    assert_eq!(width(), "5m");
    let good = json!({"selector": "up", "width": "1m", "aggregates": ["sum"]});
    let (status, answer) = put(&client, "f", &good, &[]);
    assert!(
        status == 400 && answer["error"].as_str().unwrap().contains("views.file"),
        "{answer}"
    );
    for (field, value) in [
        ("selector", json!("up{")),
        ("width", json!("7m")),
        ("aggregates", json!(["median"])),
        ("quantiles", json!([0.5])),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let (status, answer) = put(&client, "v", &bad, &[]);
        let error = answer["error"].as_str().unwrap();
        assert!(
            status == 400 && error.starts_with(field),
            "{field}: {answer}"
        );
    }
    let unknown = client.get("/api/v1/views/nobody/status");
    assert_eq!(unknown.status, 404, "{unknown:?}");
}

#[test]
fn a_view_shows_nothing_to_another_tenant_nor_what_a_bound_token_may_not_see() {
    let dir = tempfile::tempdir().unwrap();
    let all = ["read", "write", "admin"];
    let admin = bearer(&create(dir.path(), "a", &all, &[]));
    let bound = bearer(&create(dir.path(), "a", &["read"], &["--label", "site=a"]));
    let other = bearer(&create(dir.path(), "b", &["read"], &[]));
    let server = Millrace::start(dir.path(), &["auth.enabled=true", "server.admin_api=true"]);
    let client = server.client();
    let as_admin = [("authorization", admin.as_str())];
    let by_site =
        json!({"selector": "load_x", "by": ["site"], "width": "1m", "aggregates": ["count"]});
    let of_all = json!({"selector": "load_x", "width": "1m", "aggregates": ["count"]});
    assert_eq!(put(&client, "by_site", &by_site, &as_admin).0, 201);
    assert_eq!(put(&client, "of_all", &of_all, &as_admin).0, 201);
    let end = push_an_hour(&client, &as_admin);
    let time = (end / 1000).to_string();
    let ask = |token: &str, expression: &str| {
        let headers = [("authorization", token)];
        client.query_with(expression, Some(&time), &headers)["result"].clone()
    };
    eventually("the samples", PATIENCE, || {
        let seen = ask(&admin, "view:of_all:count");
        (seen[0]["value"][1] == "36")
            .then_some(())
            .ok_or_else(|| seen.to_string())
    });
    let sites = |token: &str| ask(token, "view:by_site:count").as_array().unwrap().len();
    assert_eq!((sites(&admin), sites(&bound), sites(&other)), (2, 1, 0));
    assert_eq!(ask(&bound, "view:by_site:count")[0]["value"][1], "18");
    assert_eq!(ask(&bound, "view:of_all:count"), json!([]));
    for (token, status) in [(&bound, 403), (&other, 200)] {
        let headers = [("authorization", token.as_str())];
        let answer = client
            .send("GET", "/api/v1/views", &headers, Vec::new())
            .unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.text.contains("by_site"), "{answer:?}");
        let names = client.send("GET", "/api/v1/label/__name__/values", &headers, Vec::new());
        assert!(!names.unwrap().text.contains("view:"), "{status}");
    }
}
