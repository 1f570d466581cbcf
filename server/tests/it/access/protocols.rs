//! The last columns of the second table of `docs/protocols.md`: what each protocol's clients are told
//! without a good token, and that nothing is stored of what they send.

use super::{bearer, create, until};
use crate::support::{Answer, Millrace};

const PAGE: &str = include_str!("../../../../docs/protocols.md");

/// Name on the page, path, content type, and a body that would be stored.
const PROTOCOLS: [(&str, &str, &str, &str); 13] = [
    (
        "JSON of devices",
        "/api/v1/push",
        "application/json",
        r#"{"device":"d","fields":{"v":1}}"#,
    ),
    ("line protocol v1", "/write", "text/plain", "m v=1\n"),
    (
        "line protocol v2",
        "/api/v2/write?bucket=b",
        "text/plain",
        "m v=1\n",
    ),
    (
        "line protocol v3",
        "/api/v3/write_lp?db=d",
        "text/plain",
        "m v=1\n",
    ),
    (
        "remote write 1.0",
        "/api/v1/write",
        "application/x-protobuf",
        "",
    ),
    (
        "remote write 2.0",
        "/api/v1/write",
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "",
    ),
    (
        "OTLP, protobuf",
        "/v1/metrics",
        "application/x-protobuf",
        "",
    ),
    ("OTLP, JSON", "/v1/metrics", "application/json", "{}"),
    (
        "text format",
        "/api/v1/import/prometheus",
        "text/plain",
        "m 1\n",
    ),
    (
        "OpenMetrics",
        "/api/v1/import/prometheus",
        "application/openmetrics-text",
        "m 1\n# EOF\n",
    ),
    ("Pushgateway", "/metrics/job/j", "text/plain", "m 1\n"),
    (
        "CSV",
        "/api/v1/import/csv?format=1:metric:m",
        "text/csv",
        "1\n",
    ),
    (
        "JSON lines",
        "/api/v1/import",
        "application/json",
        "{\"metric\":{\"__name__\":\"m\"},\"values\":[1],\"timestamps\":[1795219200000]}\n",
    ),
];

/// How a body looks to who reads it by its type.
fn form(answer: &Answer) -> String {
    let kind = answer.header("content-type").split(';').next().unwrap();
    match kind {
        "application/json" => {
            let json = answer.json();
            let keys = json.as_object().expect("an object").keys();
            let keys: Vec<_> = keys.map(|key| format!("`{key}`")).collect();
            format!("JSON: {}", keys.join(", "))
        }
        // Field 1 of a status is its code.
        "application/x-protobuf" if answer.text.starts_with('\u{8}') => {
            "protobuf: `google.rpc.Status`".to_owned()
        }
        "text/plain" => "text".to_owned(),
        other => panic!("a body of no known form: {other}: {answer:?}"),
    }
}

#[test]
fn every_protocol_refuses_strangers_in_its_own_shape_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let reads = create(dir, "a", &["read", "monitor", "admin", "fleet"], &[]);
    let other = create(dir, "b", &["write"], &[]);
    let revoked = create(dir, "a", &["write"], &[]);
    super::token(dir, &["revoke", revoked.split('_').nth(1).unwrap()]);
    let server = Millrace::start(dir, &["auth.enabled=true"]);
    let client = server.client();
    until(&client, "/api/v1/labels", &reads, 200);
    for (name, path, content_type, body) in PROTOCOLS {
        let post = |token: Option<&str>| {
            let bearer = token.map(bearer);
            let mut headers = vec![("content-type", content_type)];
            headers.extend(bearer.as_deref().map(|text| ("authorization", text)));
            client.post(path, &headers, body)
        };
        let answers = [None, Some(revoked.as_str()), Some("nonsense"), Some(&reads)].map(post);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [401, 401, 401, 403], "{name}");
        let mut forms: Vec<String> = answers.iter().map(form).collect();
        forms.dedup();
        assert_eq!(forms.len(), 1, "{name}: {forms:?}");
        // Name, refused items, refused requests, and the statuses of what is refused here.
        let row = PAGE.lines().find_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [row, _, request, stranger, lacking] = cells.as_slice() else {
                return None;
            };
            (*row == name).then(|| {
                (
                    request.to_string(),
                    [stranger.to_string(), lacking.to_string()],
                )
            })
        });
        let (request, told) = row.unwrap_or_else(|| panic!("docs/protocols.md has no {name}"));
        assert_eq!(told, ["401 (0)", "403 (0)"], "{name}");
        let right = request.split(" or ").any(|told| told == forms[0]);
        assert!(
            right,
            "docs/protocols.md: {name}: {request}, and not {}",
            forms[0]
        );
    }
    // A token of another tenant may push there, so that it is seen that nothing came before.
    let mine = bearer(&other);
    let taken = client.post("/write", &[("authorization", &mine)], "seen v=1\n");
    assert_eq!(taken.status, 204, "{taken:?}");
    let header = bearer(&reads);
    let metrics = client.send("GET", "/metrics", &[("authorization", &header)], Vec::new());
    let metrics = metrics.unwrap().text;
    let accepted: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("millrace_ingest_samples_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(accepted, 1.0, "{metrics}");
}
